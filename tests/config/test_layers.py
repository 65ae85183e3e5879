"""A settings file over its bases."""

import json

import pytest
from conftest import BASE_YAML

from korser.config.hparams import load_hparams
from korser.utils.errors import UserError


def test_a_model_states_only_what_differs(yaml_folder):
    hparams = load_hparams(yaml_folder / "model.yaml")
    assert hparams["width"] == 5
    assert hparams["layer"].out_features == 5
    assert hparams["other"] == 5, "a reference to an attribute of an object that depends on the model's own key"
    assert hparams.name == "model"
    assert "__set_seed" not in hparams


def test_a_dotted_key_replaces_one_value(yaml_folder):
    (yaml_folder / "model.yaml").write_text("base: base.yaml\nlayer.in_features: 9\nlayer.bias: false\n")
    layer = load_hparams(yaml_folder / "model.yaml")["layer"]
    assert (layer.in_features, layer.out_features, layer.bias) == (9, 3, None)


def test_an_object_is_replaced_completely(yaml_folder):
    # HyperPyYAML's own overrides keep the base's class and merge the arguments
    (yaml_folder / "model.yaml").write_text("base: base.yaml\nlayer: !new:torch.nn.Identity\nother: 0\n")
    assert type(load_hparams(yaml_folder / "model.yaml")["layer"]).__name__ == "Identity"
    linear = {"layer": "!new:torch.nn.Linear {in_features: 2, out_features: 1}"}
    assert load_hparams(yaml_folder / "model.yaml", linear)["layer"].in_features == 2


def test_a_file_may_have_several_bases_below_it(yaml_folder):
    (yaml_folder / "top.yaml").write_text("base: model.yaml\nseed: 7\n")
    hparams = load_hparams(yaml_folder / "top.yaml")
    assert (hparams["seed"], hparams["width"]) == (7, 5)


@pytest.mark.parametrize(
    "text, message",
    [
        ("base: bse.yaml\n", "model.yaml: base 'bse.yaml' is neither in {folder} nor a file of korser (did you mean "),
        ("base: model.yaml\n", "model.yaml: circular 'base'"),
        ("base: base.yaml\nlayer: {a: [\n", "model.yaml is not valid YAML"),
        ('base: base.yaml\nwidth: "4\n', "in line 2, column 8"),
        ("base: [base.yaml]\n", "model.yaml: base is a sequence, expected the name of one settings file"),
        ("base: ''\n", "model.yaml: base '' is neither in"),
        ("base: base.yaml\n[a, b]: 3\n", "model.yaml is not valid YAML: expected text as key in line 2, column 1"),
        ("just words\n", "model.yaml is not a settings file: expected lines 'key: value'"),
        ("base: base.yaml\nseed: 1\nseed: 2\n", "model.yaml: duplicate key 'seed'"),
        ("base: base.yaml\nlayer.in_features: many\n", "model.yaml: layer.in_features=many: expected a number"),
        ("base: base.yaml\nwidth: !PLACEHOLDER\n", "'width' is a !PLACEHOLDER"),
    ],
)
def test_a_file_that_cannot_be_merged(yaml_folder, text, message):
    (yaml_folder / "model.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_hparams(yaml_folder / "model.yaml")
    assert message.replace("{folder}", str(yaml_folder)) in str(error.value)
    assert "\n" not in str(error.value) and "unicode string" not in str(error.value)


def test_an_alias_is_not_taken_for_a_reference(yaml_folder):
    (yaml_folder / "model.yaml").write_text("base: base.yaml\nseed: &n 7\nother: !ref <layer>\n_last: *n\n")
    hparams = load_hparams(yaml_folder / "model.yaml")
    assert hparams["_last"] == 7 and hparams["other"] is hparams["layer"]


def test_an_object_with_one_argument_may_be_in_a_list(yaml_folder):
    # ruamel drops the braces of a one-pair mapping there
    part = "!new:torch.nn.Dropout {p: 0.25}"
    more = f"listed: [{part}, [{part}]]\nsingle: {part}\nreferred: [!ref <single>]\n"
    (yaml_folder / "base.yaml").write_text(f"{BASE_YAML}\n{more}")
    for overrides in {}, {"listed": f"[{part}, [{part}]]"}:
        hparams = load_hparams(yaml_folder / "model.yaml", overrides)
        (one, (two,)), (three,) = hparams["listed"], hparams["referred"]
        assert [module.p for module in (one, two, three)] == [0.25] * 3


def test_modules_next_to_the_yaml_and_to_its_bases_can_be_imported(yaml_folder):
    home = yaml_folder / "home"
    home.mkdir()
    (home / "beside_a_base.py").write_text("import torch\n\nclass Mine(torch.nn.Identity): pass\n")
    (home / "mine.yaml").write_text("base: base.yaml\nlayer: !new:beside_a_base.Mine\nother: 0\n")
    (home / "base.yaml").write_text(BASE_YAML)
    (yaml_folder / "my_own_part.py").write_text("class Part:\n    def __init__(self, *, n):\n        self.n = n\n")
    (yaml_folder / "best.yaml").write_text("base: home/mine.yaml\nother: !new:my_own_part.Part\n    n: 3\n")
    hparams = load_hparams(yaml_folder / "best.yaml")
    assert type(hparams["layer"]).__name__ == "Mine" and hparams["other"].n == 3
    assert hparams.folders == [str(yaml_folder), str(home)]


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(yaml_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(yaml_folder))
    (yaml_folder / "base.yaml").write_text(f"{BASE_YAML}\nfolders: [~/a, '~/b']\nnothing: ~\nnote: ~ 3 dB\n")
    (yaml_folder / "sub").mkdir()
    (yaml_folder / "sub" / "model.yaml").write_text("base: ~/base.yaml\nlabel_map: {a: ~/c}\n")
    hparams = load_hparams(yaml_folder / "sub" / "model.yaml", {"output_folder": "~/out"})
    assert hparams["folders"] == [f"{yaml_folder}/a", f"{yaml_folder}/b"]
    assert (hparams["output_folder"], hparams["label_map"]) == (f"{yaml_folder}/out", {"a": f"{yaml_folder}/c"})
    assert hparams["nothing"] is None and hparams["note"] == "~ 3 dB"


def test_text_with_signs_of_yaml_stays_as_it_is(yaml_folder):
    texts = [
        "why?",
        "?",
        "a?b",
        "? a",
        "a: b",
        ":a",
        ": z",
        "{a}",
        "[",
        "a, b",
        "#c",
        "- d",
        "!e",
        "null",
        "é%",
        "'q'",
        '"',
    ]
    written = ", ".join(f"{json.dumps(text)}: [{json.dumps(text)}, b]" for text in texts)
    (yaml_folder / "model.yaml").write_text(f"base: base.yaml\nother: {{{written}}}\n")
    assert load_hparams(yaml_folder / "model.yaml")["other"] == {text: [text, "b"] for text in texts}
    assert load_hparams(yaml_folder / "model.yaml", {"other": f"[{json.dumps('why?')}, b]"})["other"] == ["why?", "b"]
