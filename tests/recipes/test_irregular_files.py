"""A FIFO in place of a file is refused in one line by whatever reads it, and blocks no command."""

import os
import signal

import pytest
from conftest import write_tiny_corpus
from made_runs import write_run

COMMANDS = ("train", "search", "compare", "probe", "pretrain", "check")
LIMIT = 20  # s


@pytest.fixture(autouse=True)
def no_blocking():
    """Fail a test that waits for a FIFO."""

    def stop(*_):
        raise AssertionError("the command waits for the FIFO")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def fifo(tmp_path, monkeypatch):
    """Make a FIFO below the current folder, in place of what is there."""
    monkeypatch.chdir(tmp_path)

    def make(name):
        path = tmp_path / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return path

    return make


def refused(call, path, *arguments):
    code, _, err = call(*arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and lines and "Traceback" not in err
    assert any(str(path) in line for line in lines), err


@pytest.mark.parametrize("command", COMMANDS)
def test_settings(call, fifo, tmp_path, command):
    fifo("a.yaml")
    refused(call, "a.yaml", command, "a.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    refused(call, "a.yaml", command, "b.yaml")


@pytest.mark.parametrize("name", ["manifest.csv", "s0_joy_1.wav"])
def test_corpus(call, fifo, tmp_path, name):
    data = write_tiny_corpus(tmp_path / "data")
    fifo(f"data/{name}")
    given = ["--corpus=csv", f"--data_folder={data}"]
    refused(call, name, "train", "mel_stl.yaml", *given)


@pytest.mark.parametrize("name", ["search.json", "trials.csv", "comparison.json", "probe.csv", "run.json", "test.csv"])
def test_results_that_are_plotted(call, fifo, tmp_path, name):
    run_dir = write_run(tmp_path / "results", "mel_stl")
    (run_dir / "trials.csv").write_text("state,valid_uar\n")
    if name == "trials.csv":
        (run_dir / "search.json").touch()
    fifo(run_dir / name)
    refused(call, name, "plot", "results", "--out=figures")
