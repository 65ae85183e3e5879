"""What a command does when it is interrupted or terminated."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["cleanup_at_sigterm", "end_children", "orderly_exit"]

IMPORTING = "<frozen importlib._bootstrap>"  # in the stack of every import
LINES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
PATIENCE = 5  # seconds until a child that does not end is killed


@contextmanager
def orderly_exit() -> Iterator[None]:
    """End a command with one line at SIGINT and SIGTERM, and its children with it.

    SIGINT raises KeyboardInterrupt, except inside an import, where libraries catch it or leave modules half imported,
    so that another error is reported. There, and at SIGTERM, the process exits at once: a run resumes as after a kill.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = {}
    for number in LINES:
        if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored, as by nohup
            before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Terminated(SystemExit):
    """SIGTERM within :func:`cleanup_at_sigterm`."""


@contextmanager
def cleanup_at_sigterm() -> Iterator[None]:
    """Leave a block by an exception at SIGTERM, so that its temporary files are deleted, and only then handle it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise _Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def end_children() -> None:
    """Terminate the processes that this one has started by multiprocessing, and kill those that do not end."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    end = time.monotonic() + PATIENCE
    for child in children:
        child.join(max(0, end - time.monotonic()))
        child.kill()


def _end(number: int, frame: FrameType | None) -> None:
    importing = False
    while frame is not None and not importing:
        importing, frame = frame.f_code.co_filename == IMPORTING, frame.f_back
    if number == signal.SIGINT and not importing:
        raise KeyboardInterrupt
    if multiprocessing.parent_process() is None:  # else a process of a loader, which has inherited this
        os.write(sys.stderr.fileno(), f"{LINES[number]}; run the same command again to resume\n".encode())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a loader reports the end of its processes as an error
        end_children()
    os._exit(128 + number)
