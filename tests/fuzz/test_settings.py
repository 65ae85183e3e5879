"""Every setting with wrong values: one line that names it, exit code 2, no traceback.

The quick selection takes some values for each setting; ``KORSER_FUZZ=all`` takes all of them.
"""

import os

import pytest
import yaml
from conftest import HPARAMS

from korser.config.schema import TrainSettings

VALUES = [
    "",
    "null",
    "-1",
    "0",
    "3.5",
    "1e400",
    "9" * 30,
    "true",
    "text",
    "'2026-01-01'",
    "[1, [2]]",
    "{a: {b: 1}}",
    "!new:torch.nn.Linear {in_features: 1, out_features: 1}",
    "!name:math.sqrt",
    "!ref <no_such_key>",
    "!new:no_such_module.Class",
    "*alias",
    "[" * 60 + "]" * 60,
    "{a: [",
    "\x00",
]
PER_KEY = len(VALUES) if os.environ.get("KORSER_FUZZ") == "all" else 3


def keys_of(name):
    """Return the top-level keys of a shipped file and one level of the arguments of its objects."""
    root = yaml.compose((HPARAMS / name).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    keys = []
    for key, value in root.value:
        keys.append(key.value)
        if isinstance(value, yaml.MappingNode):
            keys += [f"{key.value}.{name.value}" for name, _ in value.value]
    return [key for key in keys if key not in ("__set_seed", "description", "base")]


# file, settings, prefix of those of the corpus, and what makes a case quick
CASES = {
    "train": ("mel_mtl.yaml", [*dict.fromkeys([*keys_of("base.yaml"), *TrainSettings.model_fields])], "", {}),
    "compare": ("compare.yaml", keys_of("compare.yaml"), "overrides.", {"models": "[mel_stl.yaml]", "seeds": "[1]"}),
    "search": ("search.yaml", keys_of("search.yaml"), "overrides.", {"space": "{lr: [0.01]}"}),
    "probe": ("probe.yaml", keys_of("probe.yaml"), "", {"sources": "[nano-random]", "folds": "3"}),
    "pretrain": (
        "pretrain_nano.yaml",
        keys_of("pretrain_wav2vec.yaml"),
        "",
        {"corpus_options": "{}", "min_seconds": "0.25"},
    ),
}


# what a message may name in place of a setting: one that refers to it, or what becomes of the value
USERS = {"emotion": "tasks", "gender": "tasks", "intensity": "tasks", "config": "architecture", "lr": "NaN"}


class Began(BaseException):
    """The settings were accepted, and the work has begun."""


def chosen(index):
    """Return values for the setting with an index, each value equally often."""
    return [VALUES[(PER_KEY * index + i) % len(VALUES)] for i in range(PER_KEY)]


def _names(key, value):
    """Return what a message must contain one of: the setting, its object, what uses it, or its value."""
    top, _, last = key.partition(".")
    return [part for part in (top, last, USERS.get(top), value.strip("'")) if part]


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """Stop every command where its work begins; return the list to which each such stop is added."""
    began = []

    def begin(*_, **__):
        began.append(True)
        raise Began

    monkeypatch.chdir(tmp_path)
    for place in (
        "korser.training.brain.EmotionBrain.fit",
        "korser.comparison.run.run_jobs",
        "korser.search.searcher.Searcher.run",
        "korser.probing.run.pooled_statistics",
        "korser.pretraining.brain.PretrainBrain.fit",
    ):
        monkeypatch.setattr(place, begin)
    return began


@pytest.mark.slow
@pytest.mark.parametrize("command", CASES)
def test_a_wrong_value_is_one_line_that_names_the_setting(call, stopped, tiny_corpus, tmp_path, command):
    file, keys, prefix, given = CASES[command]
    given = {**given, f"{prefix}corpus": "csv", f"{prefix}data_folder": tiny_corpus, "cache_folder": tmp_path / "cache"}
    faults, counts = [], {"refused": 0, "accepted": 0}
    for index, key in enumerate(keys):
        for value in chosen(index):
            case = f"{command} {file} --{key}={value!r}"
            try:
                code, _, err = call(
                    command, HPARAMS / file, *(f"--{name}={v}" for name, v in {**given, key: value}.items())
                )
            except Exception as error:
                faults.append(f"{case}: {type(error).__name__}: {str(error)[:200]}")
                continue
            if stopped:
                stopped.clear()
                code, err = 0, ""
            counts["refused" if code == 2 else "accepted"] += 1
            if code not in (0, 2) or "Traceback" in err:
                faults.append(f"{case}: exit code {code}: {err[-200:]}")
            elif code == 2 and not any(part in err for part in _names(key, value)):
                faults.append(f"{case}: does not name the setting: {err[:200]}")
    print(f"{command}: {counts}", *faults, sep="\n")
    assert not faults, f"{len(faults)} of {sum(counts.values())} cases"
