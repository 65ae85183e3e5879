"""A run of one's own needs no ceremony; one of somebody else runs no code without consent."""

import io
import json
import shutil
import sys

import pytest
from conftest import tiny_overrides
from helpers import run

from korser import load_hparams, train
from korser.inference.load import load_trained_model
from korser.runs.directory import RunDirectory, run_folder
from korser.runs.load import load_runs
from korser.runs.trust import load_recorded
from korser.utils.errors import UserError

FRONTEND = """
import torch
from korser import Frontend, mask_padding

class Frames(Frontend):
    def __init__(self):
        super().__init__(output_size=160, frame_rate=100, min_length=160)
        self.scale = torch.nn.Parameter(torch.ones(160))

    def output_lengths(self, lengths):
        return lengths // 160

    def forward(self, x, lengths):
        lengths = self.output_lengths(lengths)
        y = x[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160)) * self.scale
        return mask_padding(y, lengths), lengths
"""


@pytest.fixture(scope="module")
def runs(tiny_corpus, tmp_path_factory):
    """A run of a shipped model and one of a plugin beside its YAML."""
    folder = tmp_path_factory.mktemp("trust")
    settings = {**tiny_overrides(tiny_corpus, folder), "n_epochs": "1"}
    (folder / "project").mkdir()
    (folder / "project" / "frames_of_mine.py").write_text(FRONTEND)
    (folder / "project" / "mine.yaml").write_text("base: base.yaml\nfrontend: !new:frames_of_mine.Frames\n")
    hparams = load_hparams(folder / "project" / "mine.yaml", settings)
    mine = run_folder(hparams)
    train(hparams, mine)
    return {"shipped": run(settings, "mel_stl"), "mine": mine, "corpus": tiny_corpus}


@pytest.fixture
def fresh(monkeypatch):
    """A process that has imported nothing beside a run; returns a function that makes it another user's."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not folder.endswith("project")])
    monkeypatch.delitem(sys.modules, "frames_of_mine", raising=False)
    return lambda folder: monkeypatch.setenv("XDG_STATE_HOME", str(folder))


@pytest.fixture
def tampered(runs, tmp_path):
    """A run of the user whose settings someone has changed."""
    copy = shutil.copytree(runs["shipped"], tmp_path / "run")
    text = (copy / "hparams.yaml").read_text()
    (copy / "hparams.yaml").write_text(text + f"more: !apply:os.system ['touch {tmp_path}/executed']\n")
    return copy


def answering(monkeypatch, answer):
    """Make a terminal at which the user answers."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)


def test_a_run_of_ones_own_needs_no_ceremony(runs, fresh, call):
    code, out, err = call("predict", runs["mine"], runs["corpus"] / "s0_joy_1.wav")
    assert code == 0 and "emotion" in out, err


def test_a_shipped_model_of_another_user_needs_no_trust(runs, fresh, tmp_path):
    fresh(tmp_path)
    path = list(sys.path)
    assert load_trained_model(runs["shipped"]).tasks
    assert sys.path == path


def test_a_plugin_of_another_user_needs_trust(runs, fresh, tmp_path, call):
    fresh(tmp_path)
    code, _, err = call("predict", runs["mine"], runs["corpus"] / "s0_joy_1.wav")
    project = json.loads((runs["mine"] / "run.json").read_text())["yaml_folders"][0]
    assert code == 2 and err.count("\n") == 1 and "frames_of_mine" not in sys.modules and project not in sys.path
    assert f"{runs['mine']}/hparams.yaml is not signed by you" in err and "give --trust" in err
    assert f"frames_of_mine.Frames ({project}/frames_of_mine.py)" in err
    code, _, err = call("predict", runs["mine"], runs["corpus"] / "s0_joy_1.wav", "--trust")
    assert code == 0, err


def test_changed_settings_are_not_ones_own(tampered, fresh, tmp_path, call):
    for command in (
        ["predict", tampered, "x.wav"],
        ["evaluate", tampered, "--corpus=csv", "--data_folder=x"],
    ):
        code, _, err = call(*command)
        assert code == 2 and "os.system (" in err and err.count("\n") == 1
    assert not (tmp_path / "executed").exists()
    with pytest.raises(UserError, match="trust=True"):
        load_trained_model(tampered)


def test_a_comparison_asks_before_it_trains(tampered, fresh, comparison_overrides, tmp_path, call):
    options = [f"--{name}={value}" for name, value in comparison_overrides.items()]
    code, _, err = call("compare", "compare.yaml", *options, f"--runs=[{tampered}]", "--robustness=default")
    assert code == 2 and "os.system (" in err and not (tmp_path / "results").exists()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_the_question_at_the_terminal(tampered, fresh, tmp_path, monkeypatch, capsys, answer):
    answering(monkeypatch, answer)
    if answer == "y":
        for _ in range(2):
            answering(monkeypatch, answer)
            load_trained_model(tampered)
        err = capsys.readouterr().err
        assert err.count("Run it? [y/N]") == 1, "asked once"
    else:
        with pytest.raises(UserError, match="not run"):
            load_trained_model(tampered)
        assert "os.system (" in capsys.readouterr().err
    assert (tmp_path / "executed").exists() == (answer == "y")


def test_relative_paths_are_those_of_the_folder_where_the_run_was_made(tiny_corpus, tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    shutil.copytree(tiny_corpus, project / "data")
    (project / "scale.txt").write_text("2")
    (project / "scaled_frontend.py").write_text(
        "from pathlib import Path\nfrom korser.plugins.frontends.mel import Mel\n\nclass Scaled(Mel):\n"
        "    def __init__(self, *, file):\n        super().__init__()\n"
        "        self.scale = float(Path(file).read_text())\n"
    )
    (project / "my.yaml").write_text("base: mel_stl.yaml\nfrontend: !new:scaled_frontend.Scaled {file: scale.txt}\n")
    monkeypatch.chdir(project)
    settings = tiny_overrides("data", tmp_path) | {"n_epochs": "1"}
    hparams = load_hparams("my.yaml", settings)
    train(hparams, run_folder(hparams))
    monkeypatch.chdir(tmp_path)
    assert load_recorded(RunDirectory(run_folder(hparams)))["frontend"].scale == 2
    assert not load_trained_model(run_folder(hparams)).warnings
    assert load_runs(run_folder(hparams))[0].data_folder("s0_joy_1") == project / "data"
