"""Settings given on the command line or by a search."""

import pytest

from korser.config.hparams import load_hparams
from korser.config.overrides import parse_overrides
from korser.utils.errors import UserError


def test_command_line():
    assert parse_overrides(["--seed=1", "--a.b", "x=y"]) == {"seed": "1", "a.b": "x=y"}
    for wrong, message in (
        (["seed=1"], "unexpected argument 'seed=1'"),
        (["--seed"], "--seed has no value"),
        (["--seed", "--lr=1"], "--seed has no value"),
    ):
        with pytest.raises(UserError, match=message):
            parse_overrides(wrong)


@pytest.mark.parametrize(
    "key, value, read",
    [
        ("seed", "9", lambda h: h["seed"] == 9),
        ("seed", "1e-3", lambda h: h["seed"] == 1e-3),  # PyYAML would read text
        ("seed", 9, lambda h: h["seed"] == 9),
        ("weights", "{gender: 2}", lambda h: h["weights"] == {"gender": 2}),
        ("weights.gender", "0.25", lambda h: h["weights"] == {"emotion": 1.0, "gender": 0.25}),
        ("layer.in_features", "2", lambda h: h["layer"].in_features == 2),
        ("layer.bias", "false", lambda h: h["layer"].bias is None),  # not in the YAML, but an argument of Linear
        ("label_map", "{emotion: {기쁨: joy}}", lambda h: h["label_map"] == {"emotion": {"기쁨": "joy"}}),
        ("function.p", "0.1", lambda h: h["function"].keywords == {"p": 0.1}),
        ("output_folder", "2026-01-01", lambda h: h["output_folder"] == "2026-01-01"),  # neither a date
        ("output_folder", "007", lambda h: h["output_folder"] == "007"),  # nor a number
        ("output_folder", "null", lambda h: h["output_folder"] is None),
        ("output_folder", "", lambda h: h["output_folder"] is None),
        ("width", "null", lambda h: h["layer"] is None),
        ("grad_accumulation_factor", "2", lambda h: h["grad_accumulation_factor"] == 2),  # SpeechBrain's
        ("debug", True, lambda h: h["debug"] is True),
    ],
)
def test_overrides(yaml_folder, key, value, read):
    if (key, value) == ("width", "null"):
        (yaml_folder / "base.yaml").write_text("width: 3\nlayer: !ref <width>\n")
    assert read(load_hparams(yaml_folder / "model.yaml", {key: value}))


def test_arguments_for_an_object_without_any_reach_all_its_aliases(yaml_folder):
    (yaml_folder / "base.yaml").write_text("one: &one !name:torch.nn.Dropout\ntwo: *one\nwidth: 1\n")
    hparams = load_hparams(yaml_folder / "model.yaml", {"one.p": "0.25"})
    assert hparams["one"].keywords == hparams["two"].keywords == {"p": 0.25}


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("sead", "9", "unknown setting 'sead' (did you mean 'seed'?)"),
        ("weights.gendre", "1", "unknown setting 'weights.gendre' (did you mean 'gender'?)"),
        ("weights", "{gendre: 1}", "unknown setting 'weights.gendre' (did you mean 'gender'?)"),
        ("seed.deeper", "1", "unknown setting 'seed.deeper'"),
        ("layr.bias", "1", "unknown setting 'layr.bias': there is no 'layr' (did you mean 'layer'?)"),
        (
            "__set_seed.seed",
            "1",
            "unknown setting '__set_seed.seed': the arguments of !apply:torch.manual_seed are a list",
        ),
        ("seed", "many", "seed=many: expected a number, such as 1"),
        ("weights", "{gender: true}", "weights.gender=true: expected a number, such as 0.5"),
        ("layer", "Linear", "layer=Linear: expected an object, as !new:torch.nn.Linear is"),
        ("layer.in_features", "many", "layer.in_features=many: expected a number, such as 4"),
        ("seed", "{a: [", "--seed: '{a: [' is not valid YAML"),
        ("test_only", True, "unsupported setting 'test_only': evaluate a trained run with `korser evaluate`"),
    ],
)
def test_a_wrong_override(yaml_folder, key, value, message):
    with pytest.raises(UserError) as error:
        load_hparams(yaml_folder / "model.yaml", {key: value})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_setting_that_the_file_should_have_from_its_base(yaml_folder):
    (yaml_folder / "model.yaml").write_text("frontend: !new:torch.nn.Identity\n")
    with pytest.raises(UserError, match="model.yaml: missing device, .* more: add 'base: base.yaml'"):
        load_hparams(yaml_folder / "model.yaml", {"n_epochs": 1})
