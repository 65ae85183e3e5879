"""Names of keys, references, modules and arguments."""

import sys
import types

import pytest
from conftest import HPARAMS

from korser.config.hparams import load_hparams
from korser.config.names import check_overrides
from korser.utils.errors import UserError


@pytest.mark.parametrize(
    "text, message",
    [
        ("width: !ref <sed>\n", "'width' refers to <sed>, which is not a key (did you mean 'seed'?)"),
        ("layer.in_features: !ref <wid> * 2\n", "'layer.in_features' refers to <wid>, which is not a key"),
        ("widht: 4\n", "nothing uses 'widht' (did you mean 'width'?): name it in a !ref"),
        ("learning_rate: 4\n", "nothing uses 'learning_rate': name it in a !ref"),
        ("profile_training: true\n", "unsupported setting 'profile_training': use torch.profiler"),
        (
            "layer.in_feature: 9\n",
            "unknown setting 'layer.in_feature': torch.nn.Linear has no argument 'in_feature'",
        ),
        ("layer: !new:torch.nn.Linear {in: 2}\n", "unknown setting 'layer.in': torch.nn.Linear has no argument 'in'"),
        (
            "layer: !new:torch.nn.Linaer {}\n",
            "'layer': cannot import torch.nn.Linaer: torch.nn has no 'Linaer' (did",
        ),
        ("layer: !new:Linear\n", "'layer': cannot import Linear: its module is missing: write FILE.Linear"),
        (
            "layer: !new:nowhere.Linear\n",
            "there is no module 'nowhere' (searched in {folder} and in what is",
        ),
        ("layer: !new:torch.nn.LINEAR {}\n", "torch.nn has no 'LINEAR' (did you mean 'Linear'?)"),
        ("layer: !new:./torch.nn.Linear {}\n", "cannot import ./torch.nn.Linear: write FILE.NAME with dots"),
        ("layer: !new:torch.nn.Linear(2,3)\n", "write arguments below it or as {name: value}"),
        ("layer: !new:torch/nn.Linear {}\n", "cannot import torch/nn.Linear: write FILE.NAME with dots"),
        ("layer: !new:colorsys.py.Part {}\n", "leave out .py: write colorsys.Part"),
        ("layer: !new:colorsys.py\n", "leave out .py: write colorsys.NAME"),
        ("layer: !new:torch.nn\n", "'layer': torch.nn is a module, not what it defines: write !new:torch.nn.NAME"),
        ("layer: !new:torch.nn.Linear 3\n", "the text '3' after !new:torch.nn.Linear has no effect: write"),
        ("layer: !new: torch.nn.Linear\n", "the text 'torch.nn.Linear' after !new: has no effect: write the import"),
        ("layer: !New:torch.nn.Linear {}\n", "'layer': unknown tag !New:torch.nn.Linear (did you mean '!new'?)"),
        ("width: !ref seed\n", "'width' is the text 'seed': write !ref <seed>"),
        ("\u00a0width: 4\n", "replace them by spaces"),
    ],
)
def test_an_unknown_name(yaml_folder, text, message):
    (yaml_folder / "model.yaml").write_text(f"base: base.yaml\n{text}")
    with pytest.raises(UserError) as error:
        load_hparams(yaml_folder / "model.yaml")
    assert str(error.value).startswith(f"{yaml_folder / 'model.yaml'}: ")
    assert message.replace("{folder}", str(yaml_folder)) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_reference_is_found_before_anything_is_imported(tmp_path):
    (tmp_path / "model.yaml").write_text("base: mel_stl.yaml\nmine: !new:nowhere.Mel\nfrontend: !ref <mien>\n")
    with pytest.raises(UserError, match=r"'frontend' refers to <mien>, which is not a key \(did you mean 'mine'\?\)"):
        check_overrides(tmp_path / "model.yaml", {})


def test_the_command_line_names_modules_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here_only.py").write_text("import torch\nclass Part(torch.nn.Identity): output_size = 3\n")
    (tmp_path / "colorsys.py").write_text("class Part: pass\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.yaml").write_text("base: mel_stl.yaml\nbackbone: !new:here_only.Part\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    with pytest.raises(UserError, match=r"here_only.py of the current folder is found by a YAML file beside it, or"):
        load_hparams("elsewhere/model.yaml")
    hparams = load_hparams("mel_stl.yaml", {"backbone": "!new:here_only.Part"})
    assert hparams["backbone"].output_size == 3 and hparams.folders == [str(tmp_path)]
    assert load_hparams("mel_stl.yaml", {"backbone": "!new:torch.nn.Identity", "lr": 1}).folders == []
    with pytest.raises(UserError, match="colorsys has no 'Part'"):
        load_hparams("mel_stl.yaml", {"backbone": "!new:colorsys.Part"})


def test_lazy_modules_are_not_imported_by_a_file_of_their_name(yaml_folder, monkeypatch):
    class Lazy(types.ModuleType):
        def __getattr__(self, name):
            raise ImportError(name)

    monkeypatch.setitem(sys.modules, "lazy_part", Lazy("lazy_part"))
    (yaml_folder / "lazy_part.yaml").write_text("base: base.yaml\n")
    load_hparams(yaml_folder / "lazy_part.yaml")


def test_all_wrong_names_are_reported_together(yaml_folder):
    (yaml_folder / "model.yaml").write_text(
        "base: base.yaml\nwidht: 4\nlayer.in_feature: 2\nwieghts.gender: 2\nfunction: !name:torch.sqroot\n"
    )
    with pytest.raises(UserError) as error:
        load_hparams(yaml_folder / "model.yaml", {"weights.emotion": "high"})
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    for name in "wieghts.gender", "weights.emotion=high", "widht", "layer.in_feature", "torch.sqroot":
        assert sum(name in line for line in lines) == 1


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
        "grad_accumulation_factor: 2\n",  # a run option of SpeechBrain
        "memory_gb: 2\n",  # a setting of korser
    ],
)
def test_a_new_key_that_is_used(yaml_folder, text):
    (yaml_folder / "model.yaml").write_text(f"base: base.yaml\n{text}")
    load_hparams(yaml_folder / "model.yaml")


def test_a_key_may_be_used_by_another_layer_or_by_an_override(yaml_folder):
    (yaml_folder / "model.yaml").write_text("base: base.yaml\nn: 4\n")
    (yaml_folder / "top.yaml").write_text("base: model.yaml\nwidth: !ref <n>\nm: 2\nlayer.in_features: !ref <m>\n")
    assert load_hparams(yaml_folder / "top.yaml")["width"] == 4
    # an override may remove the only use of a key
    assert load_hparams(yaml_folder / "top.yaml", {"width": 3, "layer.in_features": 3})["width"] == 3
    used = load_hparams(yaml_folder / "model.yaml", {"layer.in_features": "!ref <n>"})
    assert used["layer"].in_features == 4


def test_keys_of_a_base_need_not_be_used(yaml_folder):
    (yaml_folder / "mid.yaml").write_text("base: base.yaml\nn: 4\nm: 5\n")
    (yaml_folder / "model.yaml").write_text("base: mid.yaml\nwidth: !ref <n>\n")
    assert load_hparams(yaml_folder / "model.yaml")["width"] == 4
    (yaml_folder / "model.yaml").write_text("base: mid.yaml\nwidht: 4\n")
    with pytest.raises(UserError, match="model.yaml: nothing uses 'widht'"):
        load_hparams(yaml_folder / "model.yaml")


def test_a_module_that_an_installed_one_hides(yaml_folder):
    (yaml_folder / "korser" / "plugins" / "frontends").mkdir(parents=True)
    for module in "korser.plugins.frontends.hidden_part", "colorsys":
        file = yaml_folder.joinpath(*module.split(".")).with_suffix(".py")
        file.write_text("class Part: pass\n")
        (yaml_folder / "model.yaml").write_text(f"base: base.yaml\nother: !new:{module}.Part\n")
        with pytest.raises(UserError, match=rf"'other': cannot import .*Part: {file} is hidden by .*: rename it"):
            load_hparams(yaml_folder / "model.yaml")


def test_two_modules_of_one_name(tmp_path):
    # Python would give the second model the code of the first, and the two would be equal
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


@pytest.mark.parametrize(
    "file, overrides",
    [
        ("mel_stl", {"lr": 1, "debug": True, "backbone.bands.dropout": 0.1}),
        ("search", {"space.lr": [1], "overrides.n_epochs": 3, "seed": 2}),
        ("compare", {"overrides.backbone.bands.dropout": 0.1, "folds": 6}),
        ("probe", {"split.hold_out": "sentence"}),
        ("pretrain_nano", {"grad_accumulation_factor": 2, "config.layerdrop": 0.1}),
    ],
)
def test_overrides_that_exist(file, overrides):
    check_overrides(HPARAMS / f"{file}.yaml", overrides)


@pytest.mark.parametrize(
    "file, key, message",
    [
        ("mel_stl", "n_epoch", "unknown setting 'n_epoch' (did you mean 'n_epochs'?)"),
        ("mel_stl", "test_only", "unsupported setting 'test_only'"),
        ("compare", "n_epochs", "a setting of the models is overridden by --overrides.n_epochs=..."),
        ("probe", "sorces", "unknown setting 'sorces' (did you mean 'sources'?)"),
        ("pretrain_nano", "architecture.hiden_size", "unknown setting 'architecture.hiden_size' (did you mean 'hidden"),
    ],
)
def test_overrides_that_do_not_exist(file, key, message):
    with pytest.raises(UserError) as error:
        check_overrides(HPARAMS / f"{file}.yaml", {key: 1})
    assert message in str(error.value)
