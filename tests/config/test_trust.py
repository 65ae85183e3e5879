"""Recorded settings of someone else build nothing but classes of korser, PyTorch, SpeechBrain and installed plugins."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from conftest import HPARAMS

from korser import load_hparams
from korser.config.hparams import find_foreign_names, load_resolved
from korser.config.trust import origin_of
from korser.utils.errors import UserError

TOUCH = "touch executed"
LINEAR = "m: &m !new:torch.nn.Linear {in_features: 1, out_features: 2}\n"
ATTACKS = {
    "apply": f"a: !apply:os.system [{TOUCH}]",
    "new": "a: !new:subprocess.Popen [[touch, executed]]",
    "name": "a: !name:os.system",
    "python tag": f"a: !!python/object/apply:os.system [{TOUCH}]",
    "verbatim tag": f"a: !<tag:yaml.org,2002:python/object/apply:os.system> [{TOUCH}]",
    "escaped tag": f"a: !apply:os.%73ystem [{TOUCH}]",
    "tag directive": f"%TAG !x! !apply:os.\n---\na: !x!system [{TOUCH}]",
    "while resolving": f"a: !applyref:os.system\n  - {TOUCH}",
    "other file": "a: !include:/etc/passwd",
    "module": "a: !module:my_module",
    "in a key": f"? !apply:os.system [{TOUCH}]\n: 1",
    "in a merge": f"a: {{<<: !apply:os.system [{TOUCH}]}}",
    "in an implicit tuple": f"a: (!!python/object/apply:os.system [{TOUCH}])",
    "in a tuple": f"a: !tuple '(!!python/object/apply:os.system [{TOUCH}])'",
    "through korser": f"a: !apply:korser.utils.files.os.system [{TOUCH}]",
    "through a plugin": "a: !name:korser.plugins.frontends.encoder.checkpoint.AutoModel.from_pretrained",
    "class through korser": "a: !new:korser.plugins.frontends.encoder.checkpoint.Path [x]",
    "korser's command": "a: !apply:korser.cli.main [[train]]",
    "a function of korser": "a: !name:korser.train",
    "hub": "a: !apply:torch.hub.load [evil/evil, x]",
    "unpickling": "a: !apply:torch.load [x.pt]",
    "compiling": "a: !apply:torch.utils.cpp_extension.load_inline {name: x, cpp_sources: ''}",
    "unpickling from a table": "a: !new:speechbrain.augment.time_domain.AddNoise {csv_file: x.csv}",
    "unpickling a checkpoint": "a: !new:speechbrain.lobes.models.beats.BEATs {ckp_path: x}",
    "a shell of SpeechBrain": f"a: !apply:speechbrain.utils.superpowers.run_shell [{TOUCH}]",
    "built-in": "a: !apply:exec ['import os']",
    "private attribute": f"{LINEAR}a: !apply:getattr [*m, __class__]",
    "attribute of a mapping": "a: !apply:getattr {a: 1, b: 2}",
    "method": f"{LINEAR}a: !apply:getattr [*m, forward]",
    "arithmetic without end": "a: 9\nb: !ref <a>**<a>**<a>**<a>",
    "beside the run": "a: !new:my_module.Mine",
}


def load(text, folders=()):
    return load_resolved(text, name="model", folders=folders, source="hparams.yaml", trusted=False)


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_nothing_is_run_for_a_stranger(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "my_module.py").write_text("open('executed', 'w')\nclass Mine: pass\n")
    path = list(sys.path)
    with pytest.raises(UserError, match="trust|expected text as key") as error:
        load(text, [str(tmp_path)])
    assert "\n" not in str(error.value)
    assert not Path("executed").exists() and sys.path == path and "my_module" not in sys.modules


def test_what_models_are_made_of_is_built():
    text = """
{linear}
width: !apply:getattr [*m, out_features]
seed: !apply:torch.manual_seed [1]
opt_class: !name:torch.optim.AdamW {{lr: 0.1}}
plateau: !name:torch.optim.lr_scheduler.ReduceLROnPlateau {{patience: 2}}
warmup: !name:speechbrain.nnet.schedulers.LinearWarmupScheduler
activation: !name:torch.nn.functional.gelu
split: !name:korser.data.splits.assign_splits {{protocol: speaker_holdout}}
task: !new:korser.Task {{name: emotion}}
mel: !new:torchaudio.transforms.MelSpectrogram
drop: !new:speechbrain.augment.time_domain.DropChunk {{drop_length_high: 400}}
tuple: (1, 2)
text: "(hello!)"
"""
    hparams = load(text.format(linear=LINEAR))
    assert hparams["width"] == 2 and isinstance(hparams["m"], torch.nn.Linear) and hparams["tuple"] == (1, 2)


@pytest.mark.parametrize("model", ["mel_stl", "leaf_mtl", "wav2vec_leaf_stl"])
def test_shipped_models_need_no_trust(model):
    text = load_hparams(HPARAMS / f"{model}.yaml").text
    assert find_foreign_names(text, model) == []
    assert load(text)["frontend"].output_size > 0


def test_what_is_missing_is_named_as_such():
    with pytest.raises(UserError, match="cannot import korser.plugins.gone.Gone"):
        load("a: !new:korser.plugins.gone.Gone")


def test_installed_packages_declare_their_plugins(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text("import os\nclass Theirs: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = "a: !new:their_package.Theirs"
    assert find_foreign_names(text, "x") == ["their_package.Theirs"]
    point = EntryPoint("theirs", "their_package", "korser.plugins")
    monkeypatch.setattr("korser.config.trust.entry_points", lambda group: [point] if group == point.group else [])
    assert type(load(text)["a"]).__name__ == "Theirs"
    for other in ("!name:their_package.os.system", "!apply:their_package.Theirs", "!new:their_packages.Theirs"):
        assert find_foreign_names(f"a: {other}", "x") == [other.partition(":")[2]]


def test_the_file_behind_a_name_is_found_without_importing_it(tmp_path):
    (tmp_path / "not_imported.py").write_text("raise RuntimeError")
    expected = {
        "not_imported.Mine": str(tmp_path / "not_imported.py"),
        "posix.system": "built into Python",
        "exec": "built into Python",
        "gone.Mine": "not found",
        "tag:yaml.org,2002:python/object/apply:os.system": "a YAML tag",
    }
    assert {name: origin_of(name, [str(tmp_path)]) for name in expected} == expected
