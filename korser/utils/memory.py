"""Lack of memory and of open files, said in one line.

The command line imports this before PyTorch.
"""

from __future__ import annotations

import errno
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from korser.utils.errors import UserError, causes
from korser.utils.text import one_line

__all__ = ["gpu_is_full", "is_out_of_memory", "memory_advice", "shortage"]

GPU_OUT_OF_MEMORY = "OutOfMemoryError"  # the class of PyTorch
GPU_ALLOCATION_FAILED = "_ALLOC_FAILED"  # in the RuntimeError of cuBLAS, cuFFT and cuDNN
OUT_OF_MEMORY = (  # in a RuntimeError of PyTorch, its libraries or Python
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "can't start new thread",
)
WANTED = re.compile(r"allocate ([\d.]+) (bytes|[KMGT]iB)")
UNITS = {"bytes": 2**-30, "KiB": 2**-20, "MiB": 2**-10, "GiB": 1, "TiB": 2**10}  # in GiB


def gpu_is_full(error: BaseException) -> bool:
    """Return whether an exception means that a GPU ran out of memory.

    Example
    -------
    >>> gpu_is_full(RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED")), gpu_is_full(RuntimeError("shapes do not fit"))
    (True, False)
    """
    if not isinstance(error, RuntimeError):
        return False
    return type(error).__name__ == GPU_OUT_OF_MEMORY or GPU_ALLOCATION_FAILED in one_line(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, also where a :class:`UserError` was raised ``from`` that error."""
    for cause in causes(error):
        if isinstance(cause, MemoryError) or gpu_is_full(cause):
            return True
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return True
        if isinstance(cause, RuntimeError) and any(text in one_line(cause) for text in OUT_OF_MEMORY):
            return True
    return False


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn a lack of memory inside the block into one line that ends with ``advice``.

    Raises
    ------
    UserError
        Of GPU or host memory, with how much was wanted, if that is known.

    Example
    -------
    >>> with memory_advice("lower batch_size (now 128)"):
    ...     raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes")
    Traceback (most recent call last):
    korser.utils.errors.UserError: out of memory (2.00 GiB wanted): lower batch_size (now 128)
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(_describe(error, advice)) from error


def shortage(error: BaseException) -> str | None:
    """Return what to do about a lack of memory or of open files, in one line.

    None for any other error, and for one that says it itself (:func:`memory_advice`).
    """
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f"too many open files: raise the limit (ulimit -n, now {limit}), or run fewer workers at a time"
    if isinstance(error, UserError) or not is_out_of_memory(error):
        return None
    return _describe(error, "give shorter recordings, or fewer of them or of the runs at a time, or end other programs")


def _describe(error: BaseException, advice: str) -> str:
    found = WANTED.search(str(error))
    wanted = f" ({float(found[1]) * UNITS[found[2]]:.2f} GiB wanted)" if found else ""
    return f"out of {'GPU ' if gpu_is_full(error) else ''}memory{wanted}: {advice}"
