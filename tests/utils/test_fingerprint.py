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


TWO = """import logging
import torch
from torch import nn
from mine.helper import scale

logger = logging.getLogger(__name__)
RATE = 100
WIDTH = 2 * RATE
OTHER = 3


def gain(x):
    return x * WIDTH


class Base(nn.Module):
    RATE = RATE


class A(Base):
    @torch.no_grad()
    def forward(self, x):
        return gain(x)


class B(Base):
    def forward(self, x):
        return x * OTHER * scale
"""
PATHS = ("mine.two.A", "mine.two.B")


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("x * OTHER", "x + OTHER", "B"),
        ("OTHER = 3", "OTHER = 4", "B"),
        ("RATE = 100", "RATE = 50", "AB"),
        ("x * WIDTH", "x + WIDTH", "A"),
        ("return gain(x)", "return gain(x + 1)", "A"),
        ("class Base(nn.Module)", "class Base(nn.Identity)", "AB"),
        ("@torch.no_grad()", "@torch.inference_mode()", "A"),
        ("from torch import nn", "from torch.ao import nn", "AB"),
        ("from mine.helper import scale", "from mine.late import offset as scale", "B"),
        ("import logging\n", "import logging\nimport math\n", ""),
        ("OTHER = 3", "OTHER = 3\n\n\nclass C(Base):\n    pass", ""),
        ("OTHER = 3", "OTHER = 3\nif __name__ == '__main__':\n    print(A())", ""),
    ],
)
def test_a_class_counts_with_what_it_uses(package, old, new, changes):
    package("two.py", TWO)
    before = [code_digest(path) for path in PATHS]
    assert old in TWO
    package("two.py", TWO.replace(old, new))
    after = [code_digest(path) for path in PATHS]
    assert "".join(path[-1] for path, a, b in zip(PATHS, before, after) if a != b) == changes


@pytest.mark.parametrize(
    "statement",
    [
        "from mine.helper import *",
        "torch.manual_seed(0)",
        "OTHER = torch.nn.Linear(3, 4)",
        "Base.RATE = 7",
        "RATES = {}\nRATES['a'] = 1",
        "OTHER = gain(1)",
        "import sys",
        "def late(): return globals()['gain']",
        "def late():\n    global RATE\n    RATE = 5",
        "@torch.library.custom_op('a::b', mutates_args=())\ndef late(x: torch.Tensor) -> None: ...",
        "@gain\ndef late(x): pass",
        "class C(Base):\n    print('imported')",
        "class C(Base):\n    x = gain(3)",
        "def late(x=gain(1)): pass",
        "def __getattr__(name): return 1",
        "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None",
        "class C:\n    def __init_subclass__(cls): gain.all = [cls]",
        "class C(metaclass=torch.nn.Module): pass",
    ],
)
def test_a_module_counts_as_a_whole_where_its_syntax_does_not_tell(package, statement):
    package("two.py", TWO + "\n" + statement + "\n")
    before = [code_digest(path) for path in PATHS]
    package("two.py", TWO.replace("OTHER = 3", "UNUSED = 3\nOTHER = 3") + "\n" + statement + "\n")
    assert all(code_digest(path) != old for path, old in zip(PATHS, before))


def test_libraries_count_where_they_are_used(package):
    package("__init__.py", "")
    package("two.py", "import scipy.signal\nimport pandas\n" + TWO.replace("x * OTHER", "scipy.signal.hilbert(x)"))
    libraries = [imported_code(path).libraries for path in PATHS]
    assert libraries == [{"torch", "pandas"}, {"torch", "pandas", "scipy"}]  # pandas: by what its import executes


def test_what_an_import_executes_counts(package):
    package("two.py", "import mine.late\n" + TWO)
    before = code_digest("mine.two.A")
    package("late.py", "offset = 1\n")
    assert code_digest("mine.two.A") == before
    package("late.py", "import torch\ntorch.set_default_dtype(torch.float64)\n")
    assert code_digest("mine.two.A") != before


def test_classes_that_a_base_registers_count(package):
    package("helper.py", "class Base:\n    all = []\n    def __init_subclass__(cls): Base.all.append(cls)\n")
    two = "from mine.helper import Base\nclass A(Base):\n    def f(self): return Base.all\nclass B(Base):\n    x = 1\n"
    package("two.py", two)
    before = code_digest("mine.two.A")
    package("two.py", two.replace("x = 1", "x = 2"))
    assert code_digest("mine.two.A") != before


def test_a_module_that_is_used_by_name_counts_as_a_whole(package):
    package("two.py", "from . import late\nclass A:\n    def f(self): return getattr(late, 'offset')\n")
    before = code_digest("mine.two.A")
    package("late.py", "offset = 0\nmore = 1\n")
    assert code_digest("mine.two.A") != before


def test_a_named_file_without_an_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.truncate((tmp_path / "sparse").open("w").name, 2**41)
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path / "sparse"):
        assert named_path_digest(path) is None
    if Path("/proc/kmsg").exists():
        assert named_path_digest("/proc/kmsg") == digest(b"")  # a read would wait for a message of the kernel
