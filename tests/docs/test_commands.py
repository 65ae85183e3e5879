"""The commands in README and docs: their files, options and settings exist. (test_examples.py runs some of them.)"""

import re
import shlex
import sys

import pytest
from conftest import ROOT

import korser.testing.report  # noqa: F401  before load_hparams is replaced where it is defined
from korser import UserError, load_hparams
from korser.cli import COMMANDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LOADERS = {
    "train": "korser.config.hparams.load_hparams",
    "check": "korser.config.hparams.load_hparams",
    "search": "korser.search.settings.load_settings",
    "compare": "korser.comparison.settings.load_settings",
    "probe": "korser.probing.settings.load_settings",
    "pretrain": "korser.pretraining.settings.load_settings",
}

HUB_ID = r"(facebook|openai)/[\w.-]+"


def documented_commands():
    """Return (page, words) of every command of korser in a block of bash."""
    found = []
    for page in PAGES:
        blocks = page.read_text(encoding="utf-8").split("```bash\n")[1:]
        text = "\n".join(block.split("```")[0] for block in blocks)
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for start in range(len(words)):
                if words[start] == "korser" or words[start].startswith("recipes/"):
                    found.append((page.name, words[start:]))
                    break
    return found


class Parsed(Exception):
    """Stops a recipe as soon as its command line is understood."""


def stop(*args, **kwargs):
    raise Parsed


@pytest.fixture
def recipe_stops(monkeypatch, tmp_path):
    """Let recipes stop where they would begin to work; what they would read exists."""
    import pydoc

    monkeypatch.chdir(tmp_path)
    for path in LOADERS.values():
        original = pydoc.locate(path)
        module, _, name = path.rpartition(".")

        def load_and_stop(*args, original=original, **kwargs):
            original(*args, **kwargs)
            raise Parsed

        monkeypatch.setattr(pydoc.locate(module), name, load_and_stop)
    monkeypatch.setattr("korser.load_hparams", lambda *args: load_hparams(*args) and stop(), raising=False)
    monkeypatch.setattr("korser.testing.report.load_hparams", lambda *args: load_hparams(*args) and stop())
    monkeypatch.setattr("korser.runs.complete.find_complete_run", lambda *args: None)
    monkeypatch.setattr("korser.inference.predict.load_trained_model", stop)
    monkeypatch.setattr("korser.demo.page.require_gradio", stop)
    monkeypatch.setattr("korser.reporting.figures.draw_all", stop)
    monkeypatch.setattr("korser.description.describe", stop)
    monkeypatch.setattr("korser.description.audit", stop)
    monkeypatch.setattr("korser.search.load_settings", pydoc.locate(LOADERS["search"]), raising=False)
    monkeypatch.setattr("korser.probing.load_settings", pydoc.locate(LOADERS["probe"]), raising=False)
    monkeypatch.setattr("korser.corpora.find_adapter", stop)
    monkeypatch.setattr("korser.pretraining.load_settings", pydoc.locate(LOADERS["pretrain"]), raising=False)


def test_every_command_is_documented():
    commands = {words[1] if words[0] == "korser" else words[0][8:-3] for _, words in documented_commands()}
    assert commands == set(COMMANDS)


@pytest.mark.parametrize("page, words", documented_commands(), ids=lambda value: str(value)[:70])
def test_documented_command_is_valid(page, words, recipe_stops, monkeypatch):
    import importlib

    command = words[1] if words[0] == "korser" else words[0][8:-3]
    arguments = words[2:] if words[0] == "korser" else words[1:]
    if arguments and arguments[0].startswith("my_"):
        pytest.skip("test_examples.py runs it")
    arguments = [word.replace("hparams/", "") for word in arguments]
    if command != "probe":  # which loads no checkpoint before it begins to work
        arguments = [re.sub(HUB_ID, "nano", word) for word in arguments]
    monkeypatch.setattr(sys, "argv", ["korser", command, *arguments])
    with pytest.raises(Parsed):
        importlib.import_module(f"korser.recipes.{command}").main(arguments)


def test_a_wrong_command_would_be_noticed(recipe_stops):
    from korser.recipes import train

    with pytest.raises(UserError, match="did you mean 'data_folder'"):
        train.main(["mel_stl.yaml", "--data_foder=/data/ravdess"])
