"""Digests of code and files: what counts, and what does not."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from korser.utils.fingerprint import code_digest, digest, imported_code, named_path_digest, path_digest

CONV = '''"""A frontend."""

import scipy.signal
from korser.frontend.base import Frontend
from mine.helper import scale


class Conv(Frontend):
    """One convolution."""

    def forward(self, x, lengths):
        from .late import offset

        return x * scale + offset, lengths
'''
FORMATTED = """import scipy.signal
from korser.frontend.base import Frontend
from mine.helper import (
    scale,
)


# a comment
class Conv(Frontend):
    def forward(
        self,
        x,
        lengths,
    ):
        '''Another docstring.'''
        from .late import offset
        return (x * scale) + offset, lengths
"""
FILES = {
    "__init__.py": "from mine.conv import Conv\nfrom mine.other import Other\n",
    "conv.py": CONV,
    "helper.py": "scale = 1.0\n",
    "late.py": "offset = 0\n",
    "other.py": "class Other:\n    pass\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A user's package; ``package(name, text)`` changes a file of it."""
    folder = tmp_path / "mine"
    folder.mkdir()

    def write(name, text):
        (folder / name).write_text(text, encoding="utf-8")
        for module in [m for m in sys.modules if m.partition(".")[0] == "mine"]:
            del sys.modules[module]
        importlib.invalidate_caches()

    for name, text in FILES.items():
        write(name, text)
    monkeypatch.syspath_prepend(tmp_path)
    yield write
    write("helper.py", "")


def test_comments_docstrings_and_format_do_not_count(package):
    before = code_digest("mine.Conv")
    package("conv.py", FORMATTED)
    assert code_digest("mine.Conv") == before is not None


@pytest.mark.parametrize(
    "name, text",
    [
        ("conv.py", CONV.replace("x * scale", "x * scale * 1")),
        ("helper.py", "scale = 2.0\n"),
        ("late.py", "offset = 1\n"),
        ("conv.py", CONV.replace("x * scale", '"x" * scale')),
    ],
)
def test_a_change_of_the_class_or_of_what_it_imports_counts(package, name, text):
    before = code_digest("mine.Conv")
    package(name, text)
    assert code_digest("mine.Conv") != before


def test_only_what_is_imported_counts_and_nothing_is_executed(package):
    code = imported_code("mine.Conv")
    assert sorted(code.modules) == ["mine.conv", "mine.helper", "mine.late"]
    assert {"scipy", "korser"} <= code.libraries
    assert not [name for name in sys.modules if name.partition(".")[0] == "mine"]
    before = code_digest("mine.Conv")
    package("other.py", "class Other:\n    new = 1\n")
    assert code_digest("mine.Conv") == before == code_digest("mine.conv.Conv")


def test_a_loaded_module_counts_as_it_was_when_it_was_loaded(package, tmp_path):
    importlib.import_module("mine.conv")
    before = code_digest("mine.Conv")
    (tmp_path / "mine" / "helper.py").write_text("scale = 22.0\n")
    assert code_digest("mine.Conv") == before
    importlib.reload(sys.modules["mine.helper"])
    assert code_digest("mine.Conv") != before


def test_libraries_and_korser_are_not_plugins(package):
    for path in ("torch.nn.Linear", "korser.Chain", "korser.data.splits.assign_splits", "nowhere.Class"):
        assert code_digest(path) is None
    assert list(imported_code("korser.plugins.frontends.mel.Mel").modules) == ["korser.plugins.frontends.mel"]


def test_a_file_that_is_not_valid_python_counts_by_its_bytes(package):
    package("helper.py", "scale = (\n")
    before = code_digest("mine.Conv")
    package("helper.py", "scale = ((\n")
    assert code_digest("mine.Conv") != before


def test_a_path_counts_by_its_content(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = path_digest(folder)
    (folder / "README.md").write_text("a note")
    os.utime(folder / "config.json", (1, 1))
    assert path_digest(folder) == before == named_path_digest(str(folder))
    (folder / "config.json").write_text("[]")
    assert path_digest(folder) != before
    for text in ("", ".", "..", "/", "no such file", "a\0b", "x" * 5000):
        assert named_path_digest(text) is None


def test_values():
    assert digest({"b": 1, "a": [2]}) == digest({"a": [2], "b": 1}) != digest({"a": [2], "b": 2})
    assert digest("가") == digest("가".encode()) and len(digest("", length=8)) == 8


def test_a_named_file_without_an_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.truncate((tmp_path / "sparse").open("w").name, 2**41)
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path / "sparse"):
        assert named_path_digest(path) is None
    if Path("/proc/kmsg").exists():
        assert named_path_digest("/proc/kmsg") == digest(b"")  # a read would wait for a message of the kernel
