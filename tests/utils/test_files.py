"""Files of a run directory: exact after a round trip, harmless in a spreadsheet, refused in one line if harmful."""

import io
import os
import stat

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from korser.utils.errors import UserError
from korser.utils.files import atomic, read_csv, read_json, read_npy, read_text, walk_files, write_csv, write_text


class Payload:
    def __reduce__(self):
        return os.system, ("touch made_by_pickle",)


# -- readers ---------------------------------------------------------------------------------------------------------
def pickled(path):
    np.save(path, np.array([Payload()], dtype=object), allow_pickle=True)


def huge(path):
    np.lib.format.write_array_header_1_0(
        file := io.BytesIO(), {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    path.write_bytes(file.getvalue() + b"few")


HARMFUL = {
    "nested JSON": (read_json, lambda path: path.write_text("[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "a number of 10,000 digits": (read_json, lambda path: path.write_text("1" * 10_000), "digits"),
    "not UTF-8": (read_json, lambda path: path.write_bytes(b'"\xff"'), "utf-8"),
    "pickles": (read_npy, pickled, "Python objects"),
    "more than the file has": (read_npy, huge, "greater than file size"),
    "a zip": (read_npy, lambda path: np.savez(open(path, "wb"), a=1), "magic string"),
    "no array": (read_npy, lambda path: path.write_bytes(b"garbage"), "magic string"),
    "an empty array file": (read_npy, lambda path: path.write_bytes(b""), "EOF"),
    "sparse": (read_json, lambda path: os.truncate(path.open("w").name, 2**40), "expected at most"),
    "sparse settings": (read_text, lambda path: os.truncate(path.open("w").name, 2**40), "expected at most"),
    "FIFO": (read_json, os.mkfifo, "a FIFO"),
    "FIFO as settings": (read_text, os.mkfifo, "a FIFO"),
    "FIFO as an array": (read_npy, os.mkfifo, "a FIFO"),
    "FIFO as a table": (read_csv, os.mkfifo, "a FIFO"),
    "device": (read_json, lambda path: path.symlink_to("/dev/full"), "a device"),
    "device as a table": (read_csv, lambda path: path.symlink_to("/dev/zero"), "a device"),
    "folder": (read_json, lambda path: path.mkdir(), "directory"),
}


@pytest.mark.parametrize("read, make, expected", HARMFUL.values(), ids=HARMFUL)
def test_harmful_files_are_one_line(tmp_path, monkeypatch, read, make, expected):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.npy"
    make(path)
    with pytest.raises(UserError, match=expected) as error:
        read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "made_by_pickle").exists()


@pytest.mark.parametrize(
    "name, command",
    [
        ("run.json", "train"),
        ("robustness/noise_0dB.csv", "compare"),
        ("search.json", "search"),
        ("trials.csv", "search"),
        ("comparison.json", "compare"),
        ("probe.csv", "probe"),
        ("figures.json", "plot"),
    ],
)
def test_a_damaged_file_is_told_with_the_command_that_makes_it_again(tmp_path, name, command):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff")
    read = read_csv if path.suffix == ".csv" else read_json
    with pytest.raises(UserError, match=f"{name} is damaged .*: delete it and {command} again$"):
        read(path)
    path.unlink()
    if read is read_csv:
        with pytest.raises(UserError, match=f"has no {path.name}: {command} again$"):
            read(path)


def test_arrays_are_read_as_written(tmp_path):
    for array in (np.arange(6, dtype=np.float16).reshape(2, 3), np.zeros((0, 4), np.float16)):
        np.save(tmp_path / "a.npy", array)
        read = read_npy(tmp_path / "a.npy")
        np.testing.assert_array_equal(read, array)
        assert type(read) is np.ndarray and read.dtype == array.dtype and read.flags.writeable


# -- spreadsheets ----------------------------------------------------------------------------------------------------
FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "'=1",
    "''@x",
    "-x",
    "=",
    "+1 ",
]
HARMLESS = ["-1", "+1.5", "-2e-3", ".5", "'", "'a", "a=1", "감정", " =1"]


def test_formulas_are_text_in_spreadsheets_and_exact_when_read(tmp_path):
    table = pd.DataFrame({"speaker": FORMULAS + HARMLESS, "=title": 1.5, "note": None, "lr": -0.5})
    write_csv(tmp_path / "a.csv", table)
    raw = pd.read_csv(tmp_path / "a.csv", dtype=str, encoding="utf-8-sig", keep_default_na=False)
    assert raw["speaker"].tolist() == [f"'{cell}" for cell in FORMULAS] + HARMLESS
    assert list(raw) == ["speaker", "'=title", "note", "lr"] and set(raw["lr"]) == {"-0.5"}
    read = read_csv(tmp_path / "a.csv")
    assert read["speaker"].tolist() == table["speaker"].tolist()
    assert list(read) == list(table) and set(read["lr"]) == {-0.5} and read["note"].isna().all()


def test_what_is_no_text_is_written_as_it_is(tmp_path):
    table = pd.DataFrame({"a": pd.Series([1, None, True, "-x"], dtype=object), "b": ["=1", None, "1", "x"]})
    write_csv(tmp_path / "a.csv", table)
    assert (tmp_path / "a.csv").read_text(encoding="utf-8-sig") == "a,b\n1,'=1\n,\nTrue,1\n'-x,x\n"


# -- temporary files -------------------------------------------------------------------------------------------------
def test_a_planted_temporary_file_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "private").write_text("private")
    monkeypatch.setattr("secrets.token_hex", lambda n: "guessed")
    (tmp_path / ".run.json.guessed.tmp").symlink_to(tmp_path / "private")
    with pytest.raises(UserError, match="cannot write .*run.json: File exists"):
        write_text(tmp_path / "run.json", "{}")
    assert (tmp_path / "private").read_text() == "private" and not (tmp_path / "run.json").exists()


def test_names_of_temporary_files_are_random_and_their_mode_is_the_usual(tmp_path):
    names = []
    for _ in range(2):
        with atomic(tmp_path / "a") as temporary:
            names.append(temporary.name)
            temporary.write_text("a")
    assert names[0] != names[1] and str(os.getpid()) not in names[0].split(".")
    with atomic(tmp_path / "b") as temporary:
        safetensors.numpy.save_file({"a": np.zeros(1)}, temporary)  # readable by the owner only
    (tmp_path / "usual").write_text("a")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("a", "b", "usual"), modes["usual"])


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path):
    for name in "a", "b":
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "1.wav").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.wav").touch()
    for link, target in {"a/up": "..", "a/b": "../b", "b/a": "../a", "c": "../elsewhere"}.items():
        (tmp_path / "top" / link).symlink_to(target)
    found = [os.path.join(root, name) for root, names in walk_files(tmp_path / "top") for name in names]
    found = [os.path.relpath(file, tmp_path / "top") for file in found]
    assert found == ["a/1.wav", "a/b/1.wav", "b/1.wav", "b/a/1.wav", "c/2.wav"]
