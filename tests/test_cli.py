"""The korser command: help, mistakes, and answers without waiting for imports."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import korser
from korser import cli


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command(call, command):
    for arguments in ["--help"], ["-h"], ["something", "--out=figures", "--help"]:
        code, out, err = call(command, *arguments)
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: korser {command} ") and f"    korser {command} " in out
    if command == "corpora":  # which needs no arguments
        return
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.endswith(f"(see korser {command} --help)\n") and err.count("\n") == 1


def test_commands_are_the_recipes(call):
    assert sorted(cli.COMMANDS) == sorted(path.stem for path in (ROOT / "recipes").glob("[!_]*.py"))
    code, out, _ = call("--help")
    assert code == 0 and "  train     Train and evaluate one model.\n" in out
    assert call() == (code, out, "")


def test_version_and_unknown_command(call):
    assert call("--version") == (0, f"korser {korser.__version__}\n", "")
    assert call("tain", "mel_stl.yaml") == (2, "", "error: unknown command 'tain' (did you mean 'train'?)\n")


def test_a_file_that_does_not_exist(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model.yaml").touch()
    assert call("train", "mel_slt.yaml")[2] == "error: mel_slt.yaml: no such file (did you mean 'mel_stl.yaml'?)\n"
    assert call("train", "my_mode.yaml")[2] == "error: my_mode.yaml: no such file (did you mean 'my_model.yaml'?)\n"
    assert call("train", "absent/mel_stl.yaml")[2].startswith("error: absent/mel_stl.yaml: no such file")


def test_an_interrupted_command(capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        cli.run(interrupted, [])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"


class Stopped(KeyboardInterrupt):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (asyncio.CancelledError("no\nmore"), "CancelledError: no more"),
        (GeneratorExit(), "GeneratorExit at `raise error`"),
        (Stopped(), "Stopped: (its message cannot be read)"),
    ],
)
def test_exceptions_of_any_class_are_one_line(capsys, error, said):
    def failing(arguments):
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.run(failing, [])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert re.fullmatch(rf"error: \S+test_cli.py:\d+, in failing: {re.escape(said)}\n", err), err


def test_several_mistakes_are_a_line_each(capsys):
    def mistaken(arguments):
        raise korser.UserError("lr=a: wrong\nseed=b: wrong")

    with pytest.raises(SystemExit):
        cli.run(mistaken, [])
    assert capsys.readouterr().err == "error: lr=a: wrong\nerror: seed=b: wrong\n"


def test_a_backend_of_matplotlib_that_is_not_installed(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://not_installed")
    cli.run(lambda arguments: None, [])
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
def test_a_lack_of_memory_or_files_is_one_line(capsys, error):
    def starved(arguments):
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.run(starved, [])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_output_that_cannot_be_written():
    code = "from korser import cli; cli.run(lambda arguments: print('x' * 100_000), [])"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr == "error: cannot write the output: No space left on device\n"


def test_names_that_the_terminal_cannot_show_are_printed():
    code = "from korser import cli; cli.run(lambda arguments: print('기쁨.wav \\udcb1.wav'), [])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "\\uae30\\uc068.wav \\udcb1.wav\n"


def test_files_behind_two_dashes_may_begin_with_a_dash():
    parser = cli.Parser("predict", "")
    parser.add_argument("files", nargs="+")
    assert parser.parse_args(["--", "-a.wav", "--b.wav"]).files == ["-a.wav", "--b.wav"]
    with pytest.raises(korser.UserError, match="unknown option --jsn"):
        parser.parse_args(["--jsn", "--", "-a.wav"])


SCRIPT = """
import sys
from korser import cli
try:
    cli.main(sys.argv[1:])
finally:
    print(*sorted({"torch", "speechbrain", "transformers"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ("--help", "usage: korser COMMAND"),
        ("train --help", "usage: korser train"),
        ("train --help", "batch_size: 16"),  # settings with their defaults
        ("train mel_stl.yaml --batch_size=0", "mel_stl.yaml: batch_size=0: expected an integer >= 1"),
        ("train mel_stl.yaml --gender_weight=1", "'gender_weight' has no effect on mel_stl"),
        ("trian mel_stl.yaml", "unknown command 'trian'"),
        ("train nothing.yaml", "nothing.yaml: no such file"),
        ("plot results --outt=figures", "unknown option --outt"),
        ("train mel_stl.yaml --grad_accumulation_factor=two", "invalid int value: 'two'"),
        ("train mel_stl.yaml --n_epoch=3", "unknown setting 'n_epoch' (did you mean 'n_epochs'?)"),
        ("search search.yaml --modle=mel_stl.yaml", "unknown setting 'modle' (did you mean 'model'?)"),
        ("compare compare.yaml --sedes=[1]", "unknown setting 'sedes' (did you mean 'seeds'?)"),
        ("pretrain pretrain_nano.yaml --n_setps=1", "unknown setting 'n_setps' (did you mean 'n_steps'?)"),
    ],
)
def test_quick_answers_import_nothing_large(arguments, answer, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments.split()], cwd=tmp_path, capture_output=True, text=True
    )
    assert answer in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "", "imported: " + done.stderr.splitlines()[-1]


def test_public_names():
    assert sorted(korser.__all__) == sorted(korser._MODULES)
    assert all(getattr(korser, name) is not None for name in korser.__all__)
    assert set(korser.__all__) <= set(dir(korser))
    with pytest.raises(AttributeError, match="no attribute 'Fronted'"):
        _ = korser.Fronted
    source = Path(korser.__file__).read_text()
    assert [name for name in korser.__all__ if source.count(name) < 3] == [], "missing for type checkers"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "abc"}, "environment variable WORLD_SIZE=abc: expected an integer >= 1"),
        ({"WORLD_SIZE": "0"}, "environment variable WORLD_SIZE=0: expected an integer >= 1"),
        ({"RANK": ""}, "environment variable RANK=: expected an integer >= 0"),
        ({"LOCAL_RANK": "-1"}, "environment variable LOCAL_RANK=-1: expected"),
        ({"MASTER_PORT": "99999999"}, "environment variable MASTER_PORT=99999999: expected"),
        (
            {"RANK": "0", "LOCAL_RANK": "0"},
            "environment variables RANK and LOCAL_RANK without WORLD_SIZE, MASTER_PORT, MASTER_ADDR: unset",
        ),
        (
            {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1", "MASTER_ADDR": "localhost"},
            "environment variable RANK=2: expected an integer < WORLD_SIZE=2",
        ),
    ],
    ids=str,
)
def test_malformed_variables_of_torchrun(call, monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, _, err = call("train", "mel_stl.yaml")
    assert code == 2 and f"error: {said}" in err and err.count("\n") == 1
