"""Arrays in shards: read as they were written, by others meanwhile, and never damaged."""

import hashlib
import json
import logging
import os
import pickle
import resource
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from korser.data.store import ArrayStore
from korser.utils.errors import UserError

DTYPES = (torch.int16, torch.float16, torch.bfloat16, torch.float32)


def arrays(prefix, n=3):
    generator = torch.Generator().manual_seed(0)
    return {f"{prefix}{i}": torch.randn(i + 2, 5, generator=generator) for i in range(n)}


@pytest.fixture
def store(tmp_path):
    """A store with two shards, of a and of b."""
    store = ArrayStore(tmp_path / "store")
    for prefix in "ab":
        store.write(arrays(prefix).items())
    return store


def shard_of(store, key):
    """The ``.bin`` and the ``.json`` that hold a key."""
    index = next(file for file in store.folder.glob("*.json") if f'"{key}"' in file.read_text())
    return index.with_suffix(".bin"), index


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (7, 3), (1,), (0,), (0, 3)])
def test_what_is_read_is_what_was_written(tmp_path, dtype, shape):
    written = {str(i): (torch.randn(shape) * 100).to(dtype) for i in range(3)}
    ArrayStore(tmp_path).write(written.items())
    store = ArrayStore(tmp_path)
    for key, x in written.items():
        read = store.read(key)
        assert read.dtype == dtype and read.shape == x.shape and read.equal(x)
        out = torch.empty_like(x)
        assert store.read(key, out=out) is out and out.equal(x)


def test_arrays_that_are_not_contiguous(tmp_path):
    x = torch.arange(12.0).reshape(3, 4)
    store = ArrayStore(tmp_path)
    views = {"transposed": x.T, "part": x[:, 1], "with gradient": x.clone().requires_grad_()}
    store.write(views.items())
    assert all(store.read(key).equal(view) for key, view in views.items())


def test_the_layout_is_the_documented_one(store):
    assert len(list(store.folder.iterdir())) == 4
    for index in store.folder.glob("*.json"):
        assert index.stem == hashlib.sha256(index.read_bytes()).hexdigest()[:32]
        described = json.loads(index.read_text())
        values = index.with_suffix(".bin").read_bytes()
        assert described["bytes"] == len(values)
        for key, dtype, shape, offset, checksum in described["arrays"]:
            assert offset % 64 == 0
            x = np.frombuffer(values, f"<{np.dtype(dtype).str[1:]}", count=np.prod(shape), offset=offset)
            np.testing.assert_array_equal(x.reshape(shape), arrays(key[0])[key])
            assert checksum == zlib.crc32(x.tobytes())


def test_missing_keeps_the_order(store):
    assert store.missing(["z", "a1", "y", "b0", "x"]) == ["z", "y", "x"]
    assert store.has("b2") and not store.has("z")
    with pytest.raises(KeyError):
        store.read("z")


def test_a_reader_notices_what_was_added_and_removed(store):
    reader = ArrayStore(store.folder)
    assert reader.missing(["a0", "c0"]) == ["c0"]
    store.write(arrays("c").items())
    assert reader.read("c0").equal(arrays("c")["c0"])
    for file in shard_of(store, "c0"):
        file.unlink()
    assert reader.missing(["z", "a0", "c0"]) == ["z", "c0"]


def test_nothing_to_write_makes_no_shard(tmp_path):
    ArrayStore(tmp_path / "store").write([])
    assert not list((tmp_path / "store").iterdir())


def test_only_known_dtypes(tmp_path):
    with pytest.raises(TypeError, match="float64"):
        ArrayStore(tmp_path).write([("a", torch.zeros(3)), ("b", torch.zeros(3, dtype=torch.float64))])
    assert not list(tmp_path.iterdir())


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a bit of the values": lambda values, index: flip(values, 70),
    "values cut off": lambda values, index: os.truncate(values, 100),
    "values empty": lambda values, index: os.truncate(values, 0),
    "values gone": lambda values, index: values.unlink(),
    "values a FIFO": lambda values, index: (values.unlink(), os.mkfifo(values)),
    "a bit of the index": lambda values, index: flip(index, 30),
    "index cut off": lambda values, index: os.truncate(index, 50),
    "index empty": lambda values, index: os.truncate(index, 0),
    "index no text": lambda values, index: index.write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_dropped_and_can_be_made_again(store, damage, caplog):
    files = shard_of(store, "a1")
    content = [file.read_bytes() for file in files]
    DAMAGES[damage](*files)
    reader = ArrayStore(store.folder)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyError):
        reader.read("a1")  # of which the second 64 bytes are
    assert len(caplog.messages) == 1 and str(files[0]) in caplog.text and "\n" not in caplog.messages[0]
    assert not any(file.exists() for file in files)
    assert reader.missing([*arrays("a"), *arrays("b")]) == list(arrays("a"))
    assert ArrayStore(store.folder).missing(arrays("a")) == list(arrays("a"))
    assert reader.read("b1").equal(arrays("b")["b1"])
    reader.write(arrays("a").items())
    assert [file.read_bytes() for file in files] == content
    assert reader.read("a1").equal(arrays("a")["a1"])


def test_an_index_that_is_a_fifo_is_refused(store):
    _, index = shard_of(store, "a1")
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(UserError, match=f"cannot read {index}: a FIFO"):
        ArrayStore(store.folder).has("a1")


def test_threads_that_meet_damage_together(store, caplog):
    for prefix in "cdef":
        store.write(arrays(prefix, 50).items())
    for prefix in "ace":
        flip(shard_of(store, f"{prefix}0")[0], 70)
    reader, keys = ArrayStore(store.folder), [f"{prefix}{i}" for prefix in "abcdef" for i in range(3)] * 20

    def read(key):
        try:
            return reader.read(key) is not None
        except KeyError:
            return False

    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, keys))
    assert all(found[i] for i, key in enumerate(keys) if key[0] in "bdf")
    assert not any(found[-18 + i] for i, key in enumerate(keys[-18:]) if key[0] in "ace")
    assert len(caplog.messages) == 3, "a line for each shard"


@pytest.mark.parametrize("damage", ["a bit of the values", "values cut off", "values empty"])
def test_damage_of_a_file_in_use_is_noticed(store, damage):
    """A memory map would give other values, or kill the process."""
    files = shard_of(store, "a1")
    assert store.read("a1").equal(arrays("a")["a1"])
    before = os.stat(files[0])
    DAMAGES[damage](*files)
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(KeyError):
        store.read("a1")
    store.write(arrays("a").items())
    assert store.read("a1").equal(arrays("a")["a1"])


def test_what_another_process_has_made_again_is_kept(store):
    """Two see the same damage; the second must not remove what the first has written."""
    second = ArrayStore(store.folder)
    for each in (store, second):
        each.read("a1")
    flip(shard_of(store, "a1")[0], 70)
    with pytest.raises(KeyError):
        store.read("a1")
    store.write(arrays("a").items())
    with pytest.raises(KeyError):
        second.read("a1")
    assert not second.missing(["a1"]) and second.read("a1").equal(arrays("a")["a1"])


def test_what_is_open_can_be_read_after_its_folder_is_gone(store):
    store.read("a0")
    for file in store.folder.iterdir():
        file.unlink()
    assert store.read("a1").equal(arrays("a")["a1"])


def test_few_files_are_open(store, monkeypatch):
    monkeypatch.setattr("korser.data.store.MAX_OPEN", 1)
    before = len(os.listdir("/dev/fd"))
    for key in ("a0", "b0", "a1", "b1"):
        assert store.read(key).equal(arrays(key[0])[key])
    assert len(os.listdir("/dev/fd")) == before + 1


def test_the_layout_is_known_without_reading(store):
    assert store.layout("b2") == (torch.float32, (4, 5))
    with pytest.raises(KeyError):
        store.layout("z")


def test_a_key_that_another_shard_holds_too_survives(store):
    store.write({**arrays("a"), "more": torch.zeros(2)}.items())
    values = shard_of(store, "more")[0]
    flip(values, values.stat().st_size - 64)  # the last array
    reader = ArrayStore(store.folder)
    with pytest.raises(KeyError):
        reader.read("more")
    assert not reader.missing(arrays("a"))
    assert reader.read("a0").equal(arrays("a")["a0"])


def test_a_change_to_what_was_read_does_not_reach_the_file(store):
    store.read("a0").zero_()
    assert store.read("a0").equal(arrays("a")["a0"])


@pytest.mark.parametrize("failing", ["os.open", "os.preadv", "pathlib.Path.read_bytes"])
def test_what_cannot_be_read_just_now_is_no_damage(store, monkeypatch, failing):
    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"cannot read {store.folder}"):
        patch.setattr(failing, fail)
        ArrayStore(store.folder).read("a0")
    assert ArrayStore(store.folder).read("a0").equal(arrays("a")["a0"])


def test_a_writer_that_fails_leaves_nothing(store):
    before = sorted(store.folder.iterdir())

    def items():
        yield "c0", torch.zeros(1000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(items())
    assert sorted(store.folder.iterdir()) == before
    assert store.missing(["c0"])


def test_a_full_disk_is_one_line_that_names_the_folder(store):
    before = sorted(store.folder.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match=f"cannot write in {store.folder}: .*cache_folder"):
            store.write([("c0", torch.zeros(100_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(store.folder.iterdir()) == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    store = ArrayStore(tmp_path / "file" / "store")
    with pytest.raises(UserError, match="cannot write in"):
        store.write([("a", torch.zeros(3))])
    with pytest.raises(UserError, match="cannot write in"), store.lock():
        pass


def test_reading_needs_no_right_to_write(store):
    before = {file: file.stat().st_mtime_ns for file in (store.folder, *store.folder.iterdir())}
    reader = ArrayStore(store.folder)
    assert reader.read("a0").equal(arrays("a")["a0"]) and not reader.has("z")
    assert {file: file.stat().st_mtime_ns for file in (store.folder, *store.folder.iterdir())} == before


def test_what_a_killed_writer_left_is_swept(store):
    orphan, temporary, fresh = (store.folder / f"{name[0] * 32}{name[1:]}" for name in ("0.bin", "1.tmp", "2.tmp"))
    temporary, fresh = (file.with_name(f".{file.name}") for file in (temporary, fresh))
    for file in (orphan, temporary, fresh):
        file.write_bytes(b"something")
    for file in (orphan, temporary, *store.folder.glob("*.json")):
        os.utime(file, (0, 0))
    with store.lock():
        pass
    assert not orphan.exists() and not temporary.exists() and fresh.exists()
    assert not store.missing([*arrays("a"), *arrays("b")])


def test_files_of_others_are_left_alone(store):
    """Settings may name any folder as the cache, by mistake or in somebody else's run."""
    names = ["annotation.json", "model.bin", ".draft.tmp", "0123.json"]
    for name in names:
        (store.folder / name).write_text("mine")
        os.utime(store.folder / name, (0, 0))
    reader = ArrayStore(store.folder)
    assert reader.missing(["a1", "c"]) == ["c"]
    with reader.lock():
        pass
    assert [(store.folder / name).read_text() for name in names] == ["mine"] * 4


def test_one_holds_the_lock_and_may_nest_it(store):
    other, entered = ArrayStore(store.folder), threading.Event()

    def enter():
        with other.lock():
            entered.set()

    with store.lock(), store.lock():
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.2)
    thread.join(5)
    assert entered.is_set()


def test_who_holds_the_lock_may_write_in_a_thread_though_a_shard_is_damaged(store):
    """As an extraction does it; what the thread finds damaged it could not remove, waiting for the lock for ever."""
    with store.lock():
        flip(shard_of(store, "a0")[1], 30)
        thread = threading.Thread(target=store.write, args=[arrays("c").items()], daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
    assert store.missing(["a0", "b0", "c0"]) == ["a0"]


def test_waiting_is_logged(store, caplog):
    other = ArrayStore(store.folder)

    def hold():
        with other.lock():
            held.set()
            released.wait(10)

    held, released = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    threading.Timer(0.2, released.set).start()
    with caplog.at_level(logging.INFO), store.lock():
        assert released.is_set()
    thread.join(10)
    assert caplog.messages == [f"waiting for another process that is filling {store.folder}"]


def test_many_read_while_one_writes(tmp_path):
    n, failures = 40, []

    def read():
        store, done = ArrayStore(tmp_path), set()
        while len(done) < n:
            for i in set(range(n)) - done:
                try:
                    x = store.read(str(i))
                except KeyError:
                    break
                if not x.equal(torch.full((50, 3), float(i))):
                    failures.append(i)
                done.add(i)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for reader in readers:
        reader.start()
    store = ArrayStore(tmp_path)
    for i in range(n):
        store.write([(str(i), torch.full((50, 3), float(i)))])
    for reader in readers:
        reader.join(20)
    assert not any(reader.is_alive() for reader in readers) and not failures


def test_it_goes_to_another_process(store):
    assert pickle.loads(pickle.dumps(store)).read("b1").equal(arrays("b")["b1"])
