"""How a command ends when it is interrupted or terminated."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import importlib, multiprocessing, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with it ignored
from korser import cli

def train(arguments):
    if arguments[0] == "importing":
        try:
            importlib.import_module("slow_library")
        except BaseException as error:  # as pydoc does, by which the objects of a YAML file are found
            raise ImportError("slow_library") from error
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60], daemon=True)
    child.start()
    print(child.pid, flush=True)
    try:
        time.sleep(60)
    except BaseException:  # as in a finaliser, which ignores it
        if arguments[0] == "swallowing":
            time.sleep(60)
        raise

cli.run(train)
"""


@pytest.mark.parametrize(
    ("doing", "sent", "code", "line"),
    [
        ("importing", signal.SIGINT, 130, "interrupted"),
        ("importing", signal.SIGTERM, 143, "terminated"),
        ("training", signal.SIGINT, 130, "interrupted"),
        ("training", signal.SIGTERM, 143, "terminated"),
        ("swallowing", signal.SIGTERM, 143, "terminated"),
    ],
)
def test_a_command_ends_with_one_line_and_its_children(tmp_path, doing, sent, code, line):
    (tmp_path / "slow_library.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "command.py").write_text(COMMAND)
    command = subprocess.Popen(
        [sys.executable, tmp_path / "command.py", doing], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        started = command.stdout.readline().strip()
        time.sleep(0.05)
        command.send_signal(sent)
        _, said = command.communicate(timeout=10)
    finally:
        command.kill()
    assert (command.returncode, said) == (code, f"{line}; run the same command again to resume\n")
    if started != "importing":
        with pytest.raises(ProcessLookupError):
            os.kill(int(started), 0)
