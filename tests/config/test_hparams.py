"""Loading of a model's YAML file, its resolved text and its digest."""

import subprocess
import sys

import pytest
from conftest import HPARAMS

from korser.config.hparams import load_hparams, load_resolved, resolve_hparams
from korser.utils.errors import UserError


def test_same_seed_same_weights(yaml_folder):
    one, two = (load_hparams(yaml_folder / "model.yaml")["layer"].weight for _ in range(2))
    other = load_hparams(yaml_folder / "model.yaml", {"seed": 2})["layer"].weight
    assert one.equal(two)
    assert not one.equal(other)


def test_the_resolved_text_builds_the_same_again(yaml_folder):
    hparams = load_hparams(yaml_folder / "model.yaml", {"weights": "{emotion: 3}"})
    again = load_resolved(hparams.text, name=hparams.name, folders=hparams.folders, source="x", trusted=True)
    assert again["layer"].weight.equal(hparams["layer"].weight)
    assert again["weights"] == {"emotion": 3}
    assert again.digest() == hparams.digest()


def test_recorded_settings_whose_code_is_missing(tmp_path):
    trusted = {"source": "hparams.yaml", "trusted": True}
    with pytest.raises(UserError, match=f"'frontend': .* there is no module 'gone' .searched in {tmp_path}"):
        load_resolved("frontend: !new:gone.Conv\n", name="model", folders=[str(tmp_path)], **trusted)
    with pytest.raises(UserError, match="no module 'gone' .* if it was moved, add its folder to PYTHONPATH"):
        load_resolved(
            "frontend: !new:gone.Conv\n", name="model", folders=[str(tmp_path / "no_longer_there")], **trusted
        )


def test_the_digest_identifies_the_settings_that_have_an_effect(yaml_folder):
    digest = load_hparams(yaml_folder / "model.yaml").digest()
    assert load_hparams(yaml_folder / "model.yaml", {"output_folder": "there"}).digest() == digest
    assert load_hparams(yaml_folder / "model.yaml", {"width": 5}).digest() == digest, "the same value, stated again"
    assert load_hparams(yaml_folder / "model.yaml", {"seed": 2}).digest() != digest
    assert load_hparams(yaml_folder / "model.yaml", {"layer.in_features": 2}).digest() != digest
    assert load_hparams(yaml_folder / "model.yaml", {"debug": True}).digest() != digest
    assert load_hparams(yaml_folder / "model.yaml", {"tqdm_colored_bar": True}).digest() == digest


def test_a_run_is_named_without_building_objects(yaml_folder):
    overrides = {"width": 7, "layer.bias": False, "debug": True}
    hparams = load_hparams(yaml_folder / "model.yaml", overrides)
    assert resolve_hparams(yaml_folder / "model.yaml", overrides).run_name == f"model-{hparams.digest()}"
    resolved = resolve_hparams(yaml_folder / "model.yaml", overrides, keys=["weights"])
    assert (resolved.text, resolved.folders) == (hparams.text, hparams.folders)
    assert dict(resolved) == {"weights": {"emotion": 1.0, "gender": 0.5}}


def test_a_run_is_named_without_importing_torch(yaml_folder):
    code = f"""
import sys
from korser.config.hparams import resolve_hparams
print(resolve_hparams({str(yaml_folder / "model.yaml")!r}, {{"layer.bias": "false", "debug": True}}).run_name)
print([name for name in ("torch", "speechbrain", "transformers") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert found[0] == resolve_hparams(yaml_folder / "model.yaml", {"layer.bias": "false", "debug": True}).run_name
    assert found[1] == "[]"


# -- a user's frontend that is wrong -----------------------------------------------------------------------------------
FRONTEND = """import torch
from korser import Frontend

class Conv({parent}):
    def __init__(self, *, n_filters=64):
        {first}
        {then}
"""
SUPER = "super().__init__(output_size=n_filters, frame_rate=100)"
LAYER = "self.conv = torch.nn.Conv1d(1, n_filters, 400)"
WRONG_FRONTENDS = {
    "no super": (
        ("Frontend", "pass", LAYER),
        "{file}:7, in __init__: call super().__init__(output_size=..., frame_rate=...) first",
    ),
    "no super of a module": (
        ("torch.nn.Module", "pass", LAYER),
        "{file}:7, in __init__: call super().__init__() first",
    ),
    "no super, no layer": (
        ("Frontend", "pass", "pass"),
        "wrong_2.Conv: call super().__init__(output_size=..., frame_rate=...)",
    ),
    "an error inside": (
        ("Frontend", SUPER, "torch.hamming(400)"),
        "{file}:7, in __init__: AttributeError: module 'torch' has no attribute 'hamming'",
    ),
    "an argument that torch refuses": (
        ("Frontend", SUPER, "torch.nn.Conv1d(1, 'many', 400)"),
        "Invalid argument to class wrong_4.Conv: ",
    ),
    "a module": (("torch.nn.Module", "super().__init__()", LAYER), "frontend is a wrong_5.Conv"),
    "a rate that is text": (("Frontend", SUPER.replace("100", "'100'"), LAYER), "wrong_6.Conv: frame_rate"),
    "error at import": (("Stag", SUPER, LAYER), "{file}:4, in <module>: NameError: name 'Stag' is not defined"),
    "missing import": (
        ("Frontend", SUPER, "pass\nimport librosaa"),
        "cannot import wrong_8.Conv: {file}:8, in <module>: ModuleNotFoundError: No module named 'librosaa'",
    ),
    "exit at import": (("Frontend", SUPER, "pass\nraise SystemExit(3)"), "cannot import wrong_9.Conv: {file}:8, in"),
    "exit": (("Frontend", "raise SystemExit(3)", LAYER), "{file}:6, in __init__: SystemExit: 3"),
    "no Python": (("Frontend", SUPER, "x ="), "wrong_11.Conv: {file}:7: SyntaxError: invalid syntax"),
}


@pytest.mark.parametrize("case", WRONG_FRONTENDS)
def test_a_wrong_frontend_is_named_with_its_line(tmp_path, case, monkeypatch):
    monkeypatch.chdir(HPARAMS)  # a path below the current folder would be relative
    (parent, first, then), message = WRONG_FRONTENDS[case]
    name = f"wrong_{list(WRONG_FRONTENDS).index(case)}"  # a module is imported once in a process
    file = tmp_path / f"{name}.py"
    file.write_text(FRONTEND.format(parent=parent, first=first, then=then))
    (tmp_path / "my.yaml").write_text(f"base: base.yaml\nfrontend: !new:{name}.Conv\n")
    with pytest.raises(UserError) as error:
        load_hparams(tmp_path / "my.yaml")
    assert message.format(file=file) in str(error.value)
    assert str(tmp_path / "my.yaml") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value, message",
    [
        ("korser.plugins.frontends.mel.Mel", "write !new:korser.plugins.frontends.mel.Mel"),
        ("!name:korser.plugins.frontends.mel.Mel {n_mels: 8}", "frontend is !name:korser.plugins.frontends.mel.Mel"),
        ("'!new:korser.plugins.frontends.mel.Mel'", "quotes"),
        ("null", "frontend is a NoneType"),
    ],
)
def test_a_frontend_that_is_not_built(tmp_path, value, message):
    (tmp_path / "my.yaml").write_text(f"base: base.yaml\nfrontend: {value}\n")
    with pytest.raises(UserError) as error:
        load_hparams(tmp_path / "my.yaml")
    assert message in str(error.value)


def test_settings_are_read_only_and_replace_loads_what_depends_on_them_again():
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", {"n_epochs": 4})
    for change in (
        "hparams['n_epochs'] = 1",
        "hparams.n_epochs = 1",
        "del hparams['n_epochs']",
        "hparams.update(n_epochs=1)",
        "hparams.update({'n_epochs': 1})",
        "hparams |= {'n_epochs': 1}",
        "hparams.pop('n_epochs')",
    ):
        with pytest.raises(UserError, match=r"settings are read-only, .* 'n_epochs': use .* h.replace\(n_epochs=...\)"):
            exec(change)
    with pytest.raises(UserError, match=r"h.replace\({'backbone.dropout': ...}\)"):
        hparams["backbone.dropout"] = 0.5
    with pytest.raises(UserError, match="settings are read-only"):
        hparams.name = "other"
    changed = hparams.replace({"backbone.bands.dropout": 0.5}, n_epochs=1)
    assert (changed["n_epochs"], changed["epoch_counter"].limit, changed["backbone"].dropout.p) == (1, 1, 0.5)
    assert (
        changed.run_name
        == load_hparams(HPARAMS / "mel_stl.yaml", {"n_epochs": 1, "backbone.bands.dropout": 0.5}).run_name
    )
    assert hparams["n_epochs"] == 4
    assert (
        changed.replace(backbone="!new:korser.plugins.backbones.convnet.ConvNet {in_channels: 80, frame_rate: 100}")[
            "backbone"
        ].dropout.p
        != 0.5
    ), "in the order in which they were given"
    with pytest.raises(UserError, match="unknown setting 'n_epoch'"):
        hparams.replace(n_epoch=1)
    recorded = load_resolved(hparams.text, name="mel_stl", folders=[], source="hparams.yaml", trusted=False)
    with pytest.raises(UserError, match="recorded by a run: load its YAML file"):
        recorded.replace(n_epochs=1)


def test_a_file_is_found_by_its_name_and_settings_are_keywords_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hparams = load_hparams("mel_stl.yaml", {"frontend.n_mels": 64}, n_epochs=1, lr=1e-2)
    same = load_hparams(HPARAMS / "mel_stl.yaml", {"frontend.n_mels": 64, "n_epochs": 1, "lr": 1e-2})
    assert hparams.run_name == same.run_name == resolve_hparams("mel_stl.yaml", {**hparams._layers.overrides}).run_name
    assert repr(hparams) == f"HParams('mel_stl.yaml', run {hparams.run_name})"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("mel.yaml",), r"mel.yaml: no such file \(did you mean 'mel_stl.yaml'\?\)"),
        (("xyz",), r"xyz: no such file \(known: base.yaml, .*mel_stl.yaml"),
        ((None,), r"settings file: expected the path of a YAML file, got None \(known: .*mel_stl.yaml"),
        (({"lr": 3},), r"settings file: expected the path of a YAML file, got dict \(known: "),
        (("",), "settings file: expected the path of a YAML file, got ''"),
        (("mel_stl.yaml", 3), "overrides of mel_stl.yaml: expected a dict .*, got int"),
    ],
)
def test_what_is_no_settings_file(given, said):
    with pytest.raises(UserError, match=said) as error:
        load_hparams(*given)
    assert "\n" not in str(error.value)


def test_a_setting_without_effect_is_refused_or_if_a_base_states_it_ignored(tmp_path):
    (tmp_path / "own_base.yaml").write_text("base: mel_mtl.yaml\nwav2vec_source: other\ngender_weight: 0.9\n")
    (tmp_path / "mel_stl.yaml").write_text("base: own_base.yaml\ntasks: [!ref <emotion>]\n")
    own, shipped = load_hparams(tmp_path / "mel_stl.yaml"), load_hparams(HPARAMS / "mel_stl.yaml")
    assert own.run_name == shipped.run_name and "gender_weight" not in own
    for key in "gender_weight", "gender.weight", "wav2vec_source":
        with pytest.raises(UserError, match=f"'{key}' has no effect on mel_stl, where nothing refers to it"):
            load_hparams(HPARAMS / "mel_stl.yaml", {key: "0.5"})
    (tmp_path / "my.yaml").write_text("base: mel_stl.yaml\nhead: !name:korser.plugins.heads.linear.LinearHeads\n")
    with pytest.raises(UserError, match="'label_smoothing' has no effect on my"):  # the head is not given it
        load_hparams(tmp_path / "my.yaml", {"label_smoothing": 0.1})
    assert load_hparams(HPARAMS / "mel_mtl.yaml", {"gender_weight": 0.5})["gender"].weight == 0.5


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"emotion_weight": "null"}, "emotion.weight=null .!ref <emotion_weight>.: expected a number"),
        ({"emotion_weight": "-1"}, "weight of task 'emotion' is -1: .* .in emotion: .*<emotion_weight>"),
        ({"emotion.name": "[1]"}, r"emotion.name=\[1\]: expected text .argument of korser.Task"),
        (
            {"backbone.bands.dropout": "1.5"},
            "dropout probability .* but got 1.5.*in backbone: !apply:korser.*dropout: 1.5",
        ),
        ({"epoch_counter.limit": "text"}, "invalid literal .*in epoch_counter: .*limit: text"),
        ({"seed": "9" * 30}, "seed=9+: expected an integer >= 0 and < 2"),
        ({"opt_class": "!new:torch.optim.SGD"}, r"in opt_class: !new:torch.optim.SGD; write !name: for !new:\)$"),
    ],
    ids=str,
)
def test_an_object_that_cannot_be_built_is_named_by_its_key(overrides, said):
    with pytest.raises(UserError, match=said):
        load_hparams(HPARAMS / "mel_mtl.yaml", overrides)
