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
        ({"model": "mel_mlt.yaml"}, "there is no file mel_mlt.yaml (did you mean 'mel_mtl.yaml'"),
        ({"models": "[]"}, "empty list"),
        ({"models": "[mel_mtl.yaml, mel_mtl.yaml]"}, "two files are called mel_mtl"),
        ({"sampler": "!new:optuna.samplers.RandomSampler"}, "!name:"),
        ({"sampler": "!name:optuna.samplers.RandomSmapler"}, "did you mean 'RandomSampler'"),
        ({"sampler": "!name:optuna.samplers.TPESampler {multi: true}"}, "takes no 'multi'"),
        ({"sampler": "!name:optuna.samplers.RandomSampler"}, "n_trials is null"),
        ({"sampler": "!name:torch.optim.SGD", "n_trials": "3"}, "takes no seed"),
        ({"n_trials": "3"}, "goes with a sampler"),
        ({"n_trials": "0"}, "at least 1"),
        ({"pruner": "!name:optuna.pruners.MedianPruner"}, "!new:"),
        ({"storage": "results.db"}, "write a URL"),
        ({"seed": "-1"}, "seed is -1"),
        ({"space": "{}"}, "space is empty"),
        ({"space": "[lr]"}, "space is ['lr']: write a mapping"),
        ({"overrides.lr": "0.1"}, "lr is in overrides and in space"),
        ({"overrides.output_folder": "x"}, "set output_folder of the search"),
        ({"overrides.evaluate_test": "true"}, "never reads the test part"),
        ({"space.opt_class": "[!name:torch.optim.SGD {momentum: 0.9}]"}, "space.opt_class holds an object"),
        ({"space.lr": "[0.1"}, "cannot be read"),
    ],
)
def test_an_invalid_setting_is_one_line(tiny, overrides, message):
    with pytest.raises(UserError) as error:
        settings_of(search_options(tiny), **overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_yaml_of_a_model_is_not_a_search():
    with pytest.raises(UserError, match="--model="):
        load_settings(HPARAMS / "mel_mtl.yaml")
