"""A lack of memory or of open files is one line that says what to do."""

import errno
import os

import numpy as np
import pytest
import torch

from korser import UserError
from korser.utils.memory import memory_advice, shortage


def raised(call):
    with pytest.raises((RuntimeError, MemoryError, OSError)) as caught:
        call()
    return caught.value


def bad_alloc(kind):
    raise kind("std::bad_alloc")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: torch.empty(2**52), "out of memory (16777216.00 GiB wanted): "),
        (lambda: np.empty(2**46), "out of memory (524288.00 GiB wanted): "),
        (lambda: bad_alloc(MemoryError), "out of memory: "),
        (lambda: bad_alloc(RuntimeError), "out of memory: "),
    ],
)
def test_a_lack_of_memory_says_how_much_and_what_to_do(call, line):
    with pytest.raises(UserError) as caught, memory_advice("lower x"):
        call()
    assert str(caught.value) == f"{line}lower x"
    assert shortage(caught.value) is None, "it says what to do"
    assert shortage(raised(call)).startswith(line)


def test_of_a_gpu():
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has")
    assert shortage(error).startswith("out of GPU memory (0.02 GiB wanted): ")


def test_other_errors_are_passed_on():
    with pytest.raises(RuntimeError, match="shapes"), memory_advice("lower x"):
        raise RuntimeError("shapes do not fit")
    assert shortage(RuntimeError("shapes do not fit")) is None


def test_too_many_open_files():
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert "ulimit -n" in shortage(error)
    wrapped = UserError("cannot write x")
    wrapped.__cause__ = error
    assert "ulimit -n" in shortage(wrapped)


def test_errors_may_name_each_other_as_cause():
    one, other = UserError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert shortage(one) is None and shortage(other) is None
