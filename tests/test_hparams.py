"""Layers, overrides and their mistakes."""

import pytest

from korser.errors import UserError
from korser.hparams import load_hparams, load_resolved, parse_overrides, run_name

BASE = """
seed: 1
__set_seed: !apply:torch.manual_seed [!ref <seed>]
weights: {emotion: 1.0, gender: 0.5}
label_map: {}
output_folder: here
layer: !new:torch.nn.Linear
    in_features: 4
    out_features: !ref <width>
width: 3
other: !ref <layer.out_features>
function: !name:torch.nn.functional.dropout
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "model.yaml").write_text("base: base.yaml\nwidth: 5\n")
    return tmp_path


def test_a_model_states_only_what_differs(folder):
    hparams = load_hparams(folder / "model.yaml")
    assert hparams["width"] == 5
    assert hparams["layer"].out_features == 5
    assert hparams["other"] == 5, "a reference to an attribute of an object that depends on the model's own key"
    assert hparams.name == "model"
    assert "__set_seed" not in hparams


def test_a_dotted_key_changes_one_value(folder):
    (folder / "model.yaml").write_text("base: base.yaml\nlayer.in_features: 9\nlayer.bias: false\n")
    layer = load_hparams(folder / "model.yaml")["layer"]
    assert (layer.in_features, layer.out_features, layer.bias) == (9, 3, None)
    (folder / "model.yaml").write_text("base: base.yaml\nlayer.in_feature: 9\n")
    with pytest.raises(UserError, match="layer.in_feature.*did you mean 'in_features'"):
        load_hparams(folder / "model.yaml")


def test_an_object_is_replaced_whole(folder):
    # HyperPyYAML's own overrides keep the base's class and merge the arguments
    (folder / "model.yaml").write_text("base: base.yaml\nlayer: !new:torch.nn.Identity\nother: 0\n")
    assert type(load_hparams(folder / "model.yaml")["layer"]).__name__ == "Identity"
    hparams = load_hparams(folder / "model.yaml", {"layer": "!new:torch.nn.Linear {in_features: 2, out_features: 1}"})
    assert hparams["layer"].in_features == 2


def test_a_mapping_is_replaced_whole(folder):
    assert load_hparams(folder / "model.yaml", {"weights": "{gender: 2}"})["weights"] == {"gender": 2}


def test_layers_go_as_deep_as_they_like(folder):
    (folder / "top.yaml").write_text("base: model.yaml\nseed: 7\n")
    hparams = load_hparams(folder / "top.yaml")
    assert (hparams["seed"], hparams["width"]) == (7, 5)


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("seed", "9", lambda h: h["seed"] == 9),
        ("seed", "1e-3", lambda h: h["seed"] == 1e-3),  # PyYAML would take it for text
        ("seed", 9, lambda h: h["seed"] == 9),
        ("weights.gender", "0.25", lambda h: h["weights"] == {"emotion": 1.0, "gender": 0.25}),
        ("layer.in_features", "2", lambda h: h["layer"].in_features == 2),
        ("layer.bias", "false", lambda h: h["layer"].bias is None),  # not in the YAML, but an argument of Linear
        ("label_map", "{emotion: {기쁨: joy}}", lambda h: h["label_map"] == {"emotion": {"기쁨": "joy"}}),
        ("function.p", "0.1", lambda h: h["function"].keywords == {"p": 0.1}),
        ("output_folder", "null", lambda h: h["output_folder"] is None),
        ("output_folder", "", lambda h: h["output_folder"] is None),
    ],
)
def test_overrides(folder, key, value, read):
    assert read(load_hparams(folder / "model.yaml", {key: value}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sead", "9", "unknown setting 'sead' (did you mean 'seed'?)"),
        ("weights.gendre", "1", "unknown setting 'weights.gendre' (did you mean 'gender'?)"),
        ("weights", "{gendre: 1}", "unknown setting 'weights.gendre' (did you mean 'gender'?)"),
        ("layer.in_featurs", "2", "unknown setting 'layer.in_featurs' (did you mean 'in_features'?)"),
        ("layer", "!new:torch.nn.Linear {in_featurs: 2}", "takes no 'in_featurs' (did you mean 'in_features'?)"),
        ("layer", "!new:torch.nn.Linaer {}", "there is no such thing in torch.nn (did you mean 'Linear'?)"),
        ("layer", "!new:no_such_module.Thing {}", "no_such_module"),
        ("seed", "many", "'seed' must be a number (it is 1 by default), not 'many'"),
        ("weights", "{gender: true}", "'weights.gender' must be a number"),
        ("seed.deeper", "1", "unknown setting 'seed.deeper'"),
        ("layr.bias", "1", "there is no 'layr' (did you mean 'layer'?)"),
        ("seed", "{a: [", "is not valid YAML"),
        ("layer.in_features", "many", "'layer.in_features' must be a number"),
    ],
)
def test_a_wrong_override_is_named(folder, key, value, said):
    with pytest.raises(UserError) as error:
        load_hparams(folder / "model.yaml", {key: value})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: absent.yaml\n", "absent.yaml"),
        ("base: model.yaml\n", "circle"),
        ("base: base.yaml\nlayer: {a: [\n", "not valid YAML"),
        ("just words\n", "no 'key: value' lines"),
        ("base: base.yaml\nseed: 1\nseed: 2\n", "'seed' stands there twice"),
        ("base: base.yaml\nnew: !PLACEHOLDER\n", "'new' is a !PLACEHOLDER"),
        ("base: base.yaml\nnew: !ref <nothing>\n", "nothing"),
    ],
)
def test_a_wrong_file_is_named(folder, text, said):
    (folder / "model.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_hparams(folder / "model.yaml")
    assert said in str(error.value)


def test_what_lies_beside_the_yaml_can_be_imported(folder):
    (folder / "my_own_part.py").write_text("class Part:\n    def __init__(self, *, size):\n        self.size = size\n")
    (folder / "model.yaml").write_text("base: base.yaml\nmine: !new:my_own_part.Part\n    size: 3\n")
    assert load_hparams(folder / "model.yaml")["mine"].size == 3


def test_what_lies_beside_a_base_elsewhere_can_be_imported(folder, tmp_path):
    home = folder / "home"
    home.mkdir()
    (home / "beside_a_base.py").write_text("import torch\n\nclass Mine(torch.nn.Identity): pass\n")
    (home / "mine.yaml").write_text("base: base.yaml\nlayer: !new:beside_a_base.Mine\nother: 0\n")
    (home / "base.yaml").write_text(BASE)
    (folder / "best.yaml").write_text("base: home/mine.yaml\nseed: 4\n")
    hparams = load_hparams(folder / "best.yaml")
    assert type(hparams["layer"]).__name__ == "Mine"
    assert hparams.folders == [str(folder), str(home)]


def test_a_run_is_named_without_building_it(folder):
    overrides = {"width": 7}
    name = run_name(folder / "model.yaml", overrides)
    assert name == f"model-{load_hparams(folder / 'model.yaml', overrides).digest()}"


def test_same_seed_same_weights(folder):
    one, two = (load_hparams(folder / "model.yaml")["layer"].weight for _ in range(2))
    other = load_hparams(folder / "model.yaml", {"seed": 2})["layer"].weight
    assert one.equal(two)
    assert not one.equal(other)


def test_the_resolved_text_gives_the_same_again(folder):
    hparams = load_hparams(folder / "model.yaml", {"weights": "{emotion: 3}"})
    again = load_resolved(hparams.text, name=hparams.name, folders=hparams.folders)
    assert again["layer"].weight.equal(hparams["layer"].weight)
    assert again["weights"] == {"emotion": 3}
    assert again.digest() == hparams.digest()


def test_the_digest_names_settings_and_nothing_else(folder):
    digest = load_hparams(folder / "model.yaml").digest()
    assert load_hparams(folder / "model.yaml", {"output_folder": "there"}).digest() == digest
    assert load_hparams(folder / "model.yaml", {"width": 5}).digest() == digest, "the same value, said again"
    assert load_hparams(folder / "model.yaml", {"seed": 2}).digest() != digest
    assert load_hparams(folder / "model.yaml", {"layer.in_features": 2}).digest() != digest


def test_command_line():
    assert parse_overrides(["--seed=1", "--a.b", "x=y"]) == {"seed": "1", "a.b": "x=y"}
    for wrong in (["seed=1"], ["--seed"], ["--seed", "--lr=1"]):
        with pytest.raises(UserError):
            parse_overrides(wrong)
