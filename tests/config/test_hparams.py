"""Layers, overrides and their mistakes."""

import pytest
from conftest import HPARAMS

from korser.config.hparams import load_hparams, load_resolved, run_name
from korser.config.overrides import parse_overrides
from korser.config.schema import check_settings
from korser.utils.errors import UserError

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
        ("base: bse.yaml\n", "model.yaml: its base 'bse.yaml' is neither in {folder} nor one of korser's own (did you"),
        ("base: bse.yaml\n", "(did you mean 'base.yaml'?)"),
        ("base: model.yaml\n", "circle"),
        ("base: base.yaml\nlayer: {a: [\n", "not valid YAML"),
        ("just words\n", "no 'key: value' lines"),
        ("base: base.yaml\nseed: 1\nseed: 2\n", "'seed' stands there twice"),
        ("base: base.yaml\nwidth: !PLACEHOLDER\n", "'width' is a !PLACEHOLDER"),
        (
            "base: base.yaml\nwidth: !ref <sed>\n",
            "'width' is !ref <sed>, but there is no key 'sed' (did you mean 'seed'?)",
        ),
        (
            "base: base.yaml\nlayer.in_features: !ref <wid> * 2\n",
            "'layer.in_features' is !ref <wid>, but there is no key",
        ),
        ("base: base.yaml\nwidht: 4\n", "model.yaml: nothing uses 'widht' (did you mean 'width'?); name it in a !ref"),
        ("base: base.yaml\nlearning_rate: 4\n", "model.yaml: nothing uses 'learning_rate'; name it in a !ref"),
        (
            "base: base.yaml\nlayer: !new:torch.nn.Linear {in: 2}\n",
            "model.yaml: unknown setting 'layer.in': torch.nn.Li",
        ),
        ("base: base.yaml\nlayer: !new:Linear\n", "names Linear, but not where it is: write FILE.Linear"),
        ("base: base.yaml\nlayer: !new:nowhere.Linear\n", "there is no module 'nowhere' (looked for in {folder} and"),
        ('base: base.yaml\nwidth: "4\n', "in line 2, column 8"),
    ],
)
def test_a_wrong_file_is_named(folder, text, said):
    (folder / "model.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_hparams(folder / "model.yaml")
    assert said.replace("{folder}", str(folder)) in str(error.value)
    assert "\n" not in str(error.value) and "unicode string" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "n: 2\nwidth: !ref <n> * 2\n",
        "sizes: {a: 4}\nwidth: !ref <sizes[a]>\n",
        "part: !new:torch.nn.Linear {in_features: 1, out_features: 4}\nwidth: !ref <part.out_features>\n",
        "n: 4\nlayer.in_features: !ref <n>\n",
        "n: &n 4\nwidth: *n\n",
        "sizes: {a: &n 4}\nlayer.in_features: *n\n",
        "threads: !apply:torch.get_num_threads []\n",
        "description: four wide\n",
        "_mine: 4\n",
        "grad_accumulation_factor: 2\n",  # SpeechBrain reads it
        "memory_gb: 2\n",  # korser does
    ],
)
def test_a_new_key_that_is_used(folder, text):
    (folder / "model.yaml").write_text(f"base: base.yaml\n{text}")
    load_hparams(folder / "model.yaml")


def test_a_key_may_be_used_by_another_layer_or_by_an_override(folder):
    (folder / "model.yaml").write_text("base: base.yaml\nn: 4\n")
    (folder / "top.yaml").write_text("base: model.yaml\nwidth: !ref <n>\n")
    assert load_hparams(folder / "top.yaml")["width"] == 4
    assert load_hparams(folder / "top.yaml", {"width": 3})["width"] == 3, (
        "what replaces a part leaves its own keys behind"
    )
    assert load_hparams(folder / "model.yaml", {"layer.in_features": "!ref <n>"})["layer"].in_features == 4


def test_a_base_may_hold_what_only_some_of_its_models_use(folder):
    (folder / "mid.yaml").write_text("base: base.yaml\nn: 4\nm: 5\n")
    (folder / "model.yaml").write_text("base: mid.yaml\nwidth: !ref <n>\n")
    assert load_hparams(folder / "model.yaml")["width"] == 4
    (folder / "model.yaml").write_text("base: mid.yaml\nwidht: 4\n")
    with pytest.raises(UserError, match="model.yaml: nothing uses 'widht'"):
        load_hparams(folder / "model.yaml")
    (folder / "model.yaml").write_text("base: base.yaml\nwidth: &n 4\nwidht: *n\n")
    with pytest.raises(UserError, match="model.yaml: nothing uses 'widht'"):  # it uses another, but nothing uses it
        load_hparams(folder / "model.yaml")


def test_an_alias_is_not_taken_for_a_reference(folder):
    (folder / "model.yaml").write_text("base: base.yaml\nseed: &n 7\nother: !ref <layer>\n_last: *n\n")
    hparams = load_hparams(folder / "model.yaml")
    assert hparams["_last"] == 7 and hparams["other"] is hparams["layer"]


def test_a_model_without_its_base(folder):
    (folder / "model.yaml").write_text("frontend: !new:torch.nn.Identity\n")
    with pytest.raises(UserError, match="model.yaml has no 'n_epochs': add 'base: base.yaml'"):
        load_hparams(folder / "model.yaml", {"n_epochs": 1})


# -- a frontend of one's own that is wrong -----------------------------------------------------------------------------
STAGE = """import torch
from korser import Frontend

class Conv({parent}):
    def __init__(self, *, n_filters=64):
        {first}
        {then}
"""
SUPER = "super().__init__(output_size=n_filters, frame_rate=100)"
LAYER = "self.conv = torch.nn.Conv1d(1, n_filters, 400)"
WRONG_STAGES = {
    "no super": (
        ("Frontend", "pass", LAYER),
        "call super().__init__(output_size=..., frame_rate=...) first ({file}, line 7)",
    ),
    "no super of a module": (("torch.nn.Module", "pass", LAYER), "call super().__init__() first ({file}, line 7)"),
    "no super, no layer": (
        ("Frontend", "pass", "pass"),
        "wrong_2.Conv: call super().__init__(output_size=..., frame_rate=...)",
    ),
    "an error inside": (
        ("Frontend", SUPER, "torch.hamming(400)"),
        "AttributeError: module 'torch' has no attribute 'hamming' ({file}, line 7)",
    ),
    "an argument that torch refuses": (
        ("Frontend", SUPER, "torch.nn.Conv1d(1, 'many', 400)"),
        "Invalid argument to class wrong_4.Conv: ",
    ),
    "a module": (
        ("torch.nn.Module", "super().__init__()", LAYER),
        "frontend is a wrong_5.Conv, which is no korser.Frontend",
    ),
    "a rate that is text": (
        ("Frontend", SUPER.replace("100", "'100'"), LAYER),
        "wrong_6.Conv: frame_rate is '100': give super().__init__ a number of frames per second",
    ),
    "error at import": (("Stag", SUPER, LAYER), "NameError: name 'Stag' is not defined ({file}, line 4)"),
    "missing import": (
        ("Frontend", SUPER, "pass\nimport librosaa"),
        "cannot be imported: ModuleNotFoundError: No module named 'librosaa' ({file}, line 8)",
    ),
    "no Python": (("Frontend", SUPER, "x ="), "cannot be imported: SyntaxError: invalid syntax ({file}, line 7)"),
}


@pytest.mark.parametrize("case", WRONG_STAGES)
def test_a_wrong_frontend_is_named_with_its_line(tmp_path, case):
    (parent, first, then), said = WRONG_STAGES[case]
    name = f"wrong_{list(WRONG_STAGES).index(case)}"  # a module is imported once in a process
    file = tmp_path / f"{name}.py"
    file.write_text(STAGE.format(parent=parent, first=first, then=then))
    (tmp_path / "my.yaml").write_text(f"base: base.yaml\nfrontend: !new:{name}.Conv\n")
    with pytest.raises(UserError) as error:
        load_hparams(tmp_path / "my.yaml")
    assert said.format(file=file) in str(error.value)
    assert str(tmp_path / "my.yaml") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "korser.plugins.frontends.mel.Mel",
            "frontend is the text 'korser.plugins.frontends.mel.Mel', no korser.Frontend: write !new:korser.plug",
        ),
        (
            "!name:korser.plugins.frontends.mel.Mel {n_mels: 8}",
            "frontend is !name:korser.plugins.frontends.mel.Mel, no korser.Frontend",
        ),
        ("'!new:korser.plugins.frontends.mel.Mel'", "no korser.Frontend: take the quotes away"),
        ("null", "frontend is a NoneType, which is no korser.Frontend"),
        (
            "!name:korser.plugins.frontends.mel.Mel",
            "frontend is !name:korser.plugins.frontends.mel.Mel, no korser.Frontend",
        ),
    ],
)
def test_a_frontend_that_is_not_built(tmp_path, value, said):
    (tmp_path / "my.yaml").write_text(f"base: base.yaml\nfrontend: {value}\n")
    with pytest.raises(UserError) as error:
        load_hparams(tmp_path / "my.yaml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("split: {protocol: speaker_kfold}", "write 'split.protocol: speaker_kfold'"),
        ("frontend: !new:lazy_stage.Lazy", "conv.weight has no size yet"),
    ],
)
def test_settings_that_no_run_can_be_made_with(tmp_path, text, said):
    (tmp_path / "lazy_stage.py").write_text(
        "import torch\nfrom korser import Frontend\n\nclass Lazy(Frontend):\n    def __init__(self):\n"
        "        super().__init__(output_size=8, frame_rate=100)\n        self.conv = torch.nn.LazyConv1d(8, 400)\n"
    )
    (tmp_path / "my.yaml").write_text(f"base: mel_stl.yaml\n{text}\n")
    with pytest.raises(UserError) as error:
        check_settings(load_hparams(tmp_path / "my.yaml"))
    assert said in str(error.value)


def test_what_lies_beside_the_yaml_can_be_imported(folder):
    (folder / "my_own_part.py").write_text("class Part:\n    def __init__(self, *, size):\n        self.size = size\n")
    (folder / "model.yaml").write_text("base: base.yaml\nother: !new:my_own_part.Part\n    size: 3\n")
    assert load_hparams(folder / "model.yaml")["other"].size == 3


def test_an_object_with_one_argument_may_stand_in_a_list(folder):
    # ruamel drops the braces of a one-pair mapping there
    part = "!new:torch.nn.Dropout {p: 0.25}"
    more = f"listed: [{part}, [{part}]]\nsingle: {part}\nreferred: [!ref <single>]\n"
    (folder / "base.yaml").write_text(f"{BASE}\n{more}")
    for source, overrides in ("model.yaml", {}), ("model.yaml", {"listed": f"[{part}, [{part}]]"}):
        hparams = load_hparams(folder / source, overrides)
        (one, (two,)), (three,) = hparams["listed"], hparams["referred"]
        assert [module.p for module in (one, two, three)] == [0.25] * 3


def test_null_may_replace_a_number(folder):
    (folder / "mine.yaml").write_text("base: model.yaml\nother: 3\n")
    assert load_hparams(folder / "mine.yaml", {"other": "null"})["other"] is None


def test_a_file_that_is_hidden_by_what_is_installed_is_named(folder):
    (folder / "korser" / "plugins" / "frontends").mkdir(parents=True)
    for module in "korser.plugins.frontends.hidden_part", "colorsys":
        file = folder.joinpath(*module.split(".")).with_suffix(".py")
        file.write_text("class Part: pass\n")
        (folder / "model.yaml").write_text(f"base: base.yaml\nother: !new:{module}.Part\n")
        with pytest.raises(UserError, match=rf"'other' names .*Part, but {file} is hidden by .*: rename it"):
            load_hparams(folder / "model.yaml")


def test_two_files_of_one_name_beside_two_yamls_are_refused(tmp_path):
    # Python would give the second model the first one's code, and the two would come out equal
    def write(name, helper, gain):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "namesake_part.py").write_text(f"from {helper} import GAIN\nclass Part: gain = GAIN\n")
        (tmp_path / name / f"{helper}.py").write_text(f"GAIN = {gain}\n")
        (tmp_path / name / "model.yaml").write_text("part: !new:namesake_part.Part\n")
        return tmp_path / name / "model.yaml"

    first = write("first", "namesake_help", 1)
    assert load_hparams(first)["part"].gain == 1
    assert load_hparams(write("copy", "namesake_help", 1))["part"].gain == 1
    with pytest.raises(UserError, match="first/namesake_help.py and .*helper/namesake_help.py are both the module"):
        load_hparams(write("helper", "namesake_help", 2))
    with pytest.raises(UserError, match="first/namesake_part.py and .*part/namesake_part.py .*: rename one"):
        load_hparams(write("part", "namesake_other_help", 2))

    for gain in 1, 2:  # the same in packages
        (tmp_path / f"packages{gain}" / "namesake_lib").mkdir(parents=True)
        (tmp_path / f"packages{gain}" / "namesake_lib" / "parts.py").write_text(f"class Part: gain = {gain}\n")
        (tmp_path / f"packages{gain}" / "model.yaml").write_text("part: !new:namesake_lib.parts.Part\n")
    load_hparams(tmp_path / "packages1" / "model.yaml")
    with pytest.raises(UserError, match="are both the module 'namesake_lib.parts'"):
        load_hparams(tmp_path / "packages2" / "model.yaml")


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


def test_recorded_settings_whose_code_has_gone(tmp_path):
    with pytest.raises(
        UserError, match=f"'frontend' names gone.Conv, but there is no module 'gone' .looked for in {tmp_path}"
    ):
        load_resolved("frontend: !new:gone.Conv\n", name="model", folders=[str(tmp_path)])
    with pytest.raises(UserError, match="no module 'gone' .* moved, name its folder by PYTHONPATH"):
        load_resolved("frontend: !new:gone.Conv\n", name="model", folders=[str(tmp_path / "no_longer_there")])


def test_the_digest_names_settings_and_nothing_else(folder):
    digest = load_hparams(folder / "model.yaml").digest()
    assert load_hparams(folder / "model.yaml", {"output_folder": "there"}).digest() == digest
    assert load_hparams(folder / "model.yaml", {"width": 5}).digest() == digest, "the same value, said again"
    assert load_hparams(folder / "model.yaml", {"seed": 2}).digest() != digest
    assert load_hparams(folder / "model.yaml", {"layer.in_features": 2}).digest() != digest


@pytest.mark.parametrize(
    "name, value, message",
    [("in_channels", 3, "frontend takes features at 16000 Hz"), ("input_rate", 8000, "it takes waveforms at 8000 Hz")],
)
def test_a_frontend_that_does_not_take_our_waveforms_is_refused(name, value, message):
    hparams = load_hparams(HPARAMS / "mel_stl.yaml")
    setattr(hparams["frontend"], name, value)
    with pytest.raises(UserError, match=message):
        check_settings(hparams)


def test_command_line():
    assert parse_overrides(["--seed=1", "--a.b", "x=y"]) == {"seed": "1", "a.b": "x=y"}
    for wrong in (["seed=1"], ["--seed"], ["--seed", "--lr=1"]):
        with pytest.raises(UserError):
            parse_overrides(wrong)
