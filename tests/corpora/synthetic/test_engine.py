"""The engine of the synthetic corpora: files made once and atomically, and the program that speaks."""

import ast
import errno
import functools
import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from korser.corpora.synthetic import _engine, mini
from korser.utils.errors import UserError

SMALL = {"n_speakers": 2, "n_utterances": 16}
LARGER = {"n_speakers": 4, "n_utterances": 200}  # takes long enough to be killed
VOICE = {"voice": "ko+f2", "rate": 175, "pitch": 50, "range": 50, "volume": 40, "seed": 1}
REQUEST = {**VOICE, "text": "책상 위에 연필이 있어요."}


def digests(folder):
    """The hash of every file under a folder, by its relative path."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def spy(monkeypatch):
    """The list of the audio files written from now on."""
    written, write = [], _engine._write

    def spying(path, data):
        if path.suffix == ".flac":
            written.append(path)
        write(path, data)

    monkeypatch.setattr(_engine, "_write", spying)
    return written


prepare = functools.partial(mini.prepare, **SMALL)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder and table of a small corpus, made by one worker; read-only."""
    folder = tmp_path_factory.mktemp("small")
    return folder, prepare(folder, n_workers=1)


# Files made once and whole


def test_the_folder_contains_audio_checksums_and_lock(small):
    made, table = small
    names = {str(Path(path).relative_to(made)) for path in table.path}
    assert {path.partition("/")[2] for path in set(digests(made)) - names} == {"checksums.txt", ".lock"}


def test_three_workers_give_the_same_files(small, tmp_path):
    made, _ = small
    prepare(tmp_path, n_workers=3)
    assert digests(tmp_path) == digests(made)


def test_a_complete_corpus_is_only_read(small, monkeypatch):
    made, table = small
    monkeypatch.setattr(_engine, "Worker", None)
    monkeypatch.setattr(_engine, "_write", None)
    assert prepare(made).equals(table)


def test_only_damaged_files_are_made_again(small, tmp_path, monkeypatch):
    made, _ = small
    cut, flipped, gone = (Path(path) for path in prepare(tmp_path).path[:3])
    cut.write_bytes(cut.read_bytes()[:1000])
    data = bytearray(flipped.read_bytes())
    data[-100] ^= 1
    flipped.write_bytes(data)
    gone.unlink()
    gone.with_suffix(".part").write_bytes(b"half")
    with open(gone.parents[1] / "checksums.txt", "a") as log:
        log.write(gone.stem[:-2])  # a line that a kill cut short
    written = spy(monkeypatch)
    prepare(tmp_path)
    assert sorted(written) == [cut, flipped, gone]
    assert digests(tmp_path) == digests(made)


def test_a_killed_process_is_finished_by_two_others(tmp_path, monkeypatch):
    larger = functools.partial(mini.prepare, n_workers=2, **LARGER)
    total = LARGER["n_utterances"]
    code = f"from {mini.__name__} import prepare; prepare({str(tmp_path / 'a')!r}, n_workers=2, **{LARGER})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("*.flac"))) < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = len(list(tmp_path.rglob("*.flac")))
    assert 5 <= made < total
    written = spy(monkeypatch)
    with ThreadPoolExecutor() as pool:
        tables = list(pool.map(lambda _: larger(tmp_path / "a"), range(2)))
    assert tables[0].equals(tables[1])
    assert len(written) == len(set(written)) <= total - made + 6  # those whose line in checksums.txt was not yet there
    larger(tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_after_a_full_disk_the_same_call_continues(small, tmp_path, monkeypatch):
    made, _ = small
    calls, write = [], _engine._write

    def full(path, data):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if len(calls) > 4:
            time.sleep(0.2)  # on a busy machine others would finish before the error arrives
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(_engine, "_write", full)
        with pytest.raises(UserError, match=f"{tmp_path}.*No space left.*data_folder"):
            prepare(tmp_path, n_workers=1)
    assert len(calls) < 10
    prepare(tmp_path)
    assert digests(tmp_path) == digests(made)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file.*Not a directory.*data_folder"):
        prepare(tmp_path / "file")


@pytest.mark.parametrize("folder", [None, ""])
def test_no_folder(folder):
    with pytest.raises(UserError, match="data_folder=.*: expected the folder"):
        prepare(folder)


def test_a_folder_in_the_home_directory(small, monkeypatch):
    made, table = small
    monkeypatch.setenv("HOME", str(made.parent))
    assert prepare(f"~/{made.name}").equals(table)


# The program that speaks


def test_no_espeak(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="pip install espeakng-loader"):
        prepare(tmp_path)


def test_espeak_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr("espeakng_loader.get_library_path", lambda: str(tmp_path / "gone.so"))
    with pytest.raises(UserError, match="gone.so.*reinstall espeakng-loader"):
        prepare(tmp_path)


def test_espeak_stays_outside_this_process(small):
    tree = ast.parse(Path(_engine.__file__).with_name("_espeak_program.py").read_text())
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imports <= set(sys.stdlib_module_names)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "libespeak" not in maps.read_text()


def test_equal_requests_give_equal_bytes():
    other = {**REQUEST, "voice": "ko+m3", "text": "기차는 두 시에 와요."}
    with _engine.Worker() as worker:
        answers = [worker.speak(request) for request in (REQUEST, other, REQUEST, {**REQUEST, "seed": 2})]
    assert answers[0] == answers[2] != answers[1]
    assert answers[3] != answers[0]  # so the seed is what decides the noise


def test_a_refused_request_is_reported():
    with _engine.Worker() as worker:
        with pytest.raises(RuntimeError, match="no voice nobody"):
            worker.speak({**REQUEST, "voice": "nobody"})
        assert len(worker.speak(REQUEST)) > 10000  # the program continues


def test_a_killed_program_is_reported():
    with _engine.Worker() as worker:
        worker.process.kill()
        worker.process.wait()
        with pytest.raises(RuntimeError, match="ended unexpectedly"):
            worker.speak(REQUEST)
