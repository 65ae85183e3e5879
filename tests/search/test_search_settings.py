"""Settings of a search."""

import pytest
from conftest import HPARAMS
from made_up_search import search_options, settings_of

from korser import UserError
from korser.search import load_settings


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"n_epoch": "3"}, "--overrides.n_epoch="),
        ({"sampel": "null"}, "did you mean 'sampler'"),
        ({"model": "mel_mlt.yaml"}, "file not found: mel_mlt.yaml (did you mean 'mel_mtl.yaml'"),
        ({"models": "[]"}, "models=[]: expected at least one entry"),
        ({"models": "[mel_mtl.yaml, mel_mtl.yaml]"}, "two files are called mel_mtl"),
        ({"sampler": "!new:optuna.samplers.RandomSampler"}, "!name:"),
        ({"sampler": "!name:optuna.samplers.RandomSmapler"}, "did you mean 'RandomSampler'"),
        ({"sampler": "!name:optuna.samplers.TPESampler {multi: true}"}, "has no argument 'multi'"),
        ({"sampler": "!name:optuna.samplers.RandomSampler"}, "n_trials=null: expected the number"),
        ({"sampler": "!name:torch.optim.SGD", "n_trials": "3"}, "takes no seed"),
        ({"n_trials": "3"}, "n_trials=3: expected null"),
        ({"n_trials": "0"}, "n_trials=0: expected an integer >= 1"),
        ({"pruner": "!name:optuna.pruners.MedianPruner"}, "!new:"),
        ({"storage": "results.db"}, "storage=results.db: expected a URL"),
        ({"seed": "-1"}, "seed=-1: expected an integer >= 0"),
        ({"space": "{}"}, "space={}: expected at least one entry"),
        ({"space": "[lr]"}, "space=[lr]: expected a mapping"),
        ({"overrides.lr": "0.1"}, "lr is in overrides and in space"),
        ({"overrides.output_folder": "x"}, "set output_folder of the search"),
        ({"overrides.evaluate_test": "true"}, "evaluate_test is not allowed: a search never reads the test split"),
        ({"space.opt_class": "[!name:torch.optim.SGD {momentum: 0.9}]"}, "space.opt_class holds an object"),
        ({"space.lr": "[0.1"}, "--space.lr: '[0.1' is not valid YAML"),
        ({"space.lr": "&a [*a]"}, "does not contain itself"),
    ],
)
def test_an_invalid_setting_is_one_line(tiny, overrides, message):
    with pytest.raises(UserError) as error:
        settings_of(search_options(tiny), **overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_yaml_of_a_model_is_not_a_search():
    with pytest.raises(UserError, match="--model="):
        load_settings(HPARAMS / "mel_mtl.yaml")
