"""Settings of a comparison."""

import pytest
from conftest import HPARAMS, ROOT
from made_comparison import COMPARE

from korser import UserError
from korser.comparison.settings import load_settings


class TestSettings:
    def test_the_default_is_the_eight_models(self):
        settings = load_settings(COMPARE)
        assert [path.stem for path in settings.models] == [
            f"{frontend}_{head}" for frontend in ("mel", "leaf", "wav2vec", "wav2vec_leaf") for head in ("stl", "mtl")
        ]
        assert all(path.is_file() for path in settings.models)
        assert (settings.seeds, settings.folds, settings.search, settings.robustness) == ([1, 2, 3], None, None, None)

    def test_a_file_states_only_what_differs(self, tmp_path):
        (tmp_path / "mine.yaml").write_text(
            "base: compare.yaml\nmodels: [mel_stl.yaml, own.yaml]\noverrides: {n_epochs: 3, lr: 1e-3}\n"
        )
        (tmp_path / "own.yaml").write_text("base: mel_stl.yaml\n")
        settings = load_settings(tmp_path / "mine.yaml", {"overrides.lr": "0.1", "folds": "6"})
        assert settings.models == [HPARAMS / "mel_stl.yaml", tmp_path / "own.yaml"]
        assert settings.overrides == {"n_epochs": 3, "lr": 0.1}
        assert settings.folds == 6

    @pytest.mark.parametrize(
        "key, value, said",
        [
            ("seed", "[1]", "unknown setting 'seed'.*did you mean 'seeds'"),
            ("n_epochs", "3", "--overrides.n_epochs"),
            ("seeds", "3", "seeds=3: expected a list of integers >= 0"),
            ("seeds", "[1, 1]", "duplicate 1"),
            ("seeds", "[-1]", r"seeds=\[-1\]: expected a list of integers >= 0"),
            ("seeds", "[]", "nothing to compare"),
            ("folds", "2", "folds=2: expected an integer >= 3 or null"),
            ("folds", "many", "folds=many: expected an integer >= 3 or null"),
            ("models", "[mel_slt.yaml]", "file not found: mel_slt.yaml.*did you mean 'mel_stl.yaml'"),
            ("models", "mel_stl.yaml", "expected a list of YAML files of models"),
            ("models", "[mel_stl.yaml, hparams/../hparams/mel_stl.yaml]", "two files are called mel_stl"),
            ("metric", "uarr", "did you mean 'uar'"),
            ("names.mel_slt", "Mel", "'mel_slt' is not one of the models.*did you mean 'mel_stl'"),
            ("names.mel_stl", "''", "expected a mapping {model: name} of one-line names"),
            ("names", "[mel_stl]", r"names=\[mel_stl\]: expected a mapping"),
            ("runs", "results", "runs=results: expected a list of folders"),
            ("search", "[a]", "expected the path of a folder or null"),
            ("output_folder", "''", "expected the path of a folder"),
            ("allow_searched_speakers", "perhaps", "allow_searched_speakers=perhaps: expected true or false"),
            ("robustness", "[noice_10dB]", "did you mean 'noise_10dB'"),
            ("questions", "why", "a list of"),
            ("questions", "[{title: a, pairs: [[mel_stl]]}]", r"expected a pair of models \[a, b\], got \[mel_stl\]"),
            (
                "questions",
                "[{title: a, pairs: [[mel_stl, lief_stl]]}]",
                "not one of the models.*did you mean 'leaf_stl'",
            ),
            ("overrides", "[1]", "expected a mapping"),
            ("overrides.seed", "1", "list the seeds"),
            ("overrides.evaluate_test", "false", "models are compared on their test split"),
            ("overrides.output_folder", "x", "of the comparison"),
        ],
    )
    def test_a_mistake_is_one_line(self, key, value, said, monkeypatch):
        monkeypatch.chdir(ROOT)
        with pytest.raises(UserError, match=said) as error:
            load_settings(COMPARE, {key: value})
        assert "\n" not in str(error.value)

    def test_folds_and_the_split_do_not_contradict_each_other(self):
        with pytest.raises(UserError, match="overrides.split.fold is not allowed: it is set by folds=6"):
            load_settings(COMPARE, {"folds": "6", "overrides.split.fold": "1"})

    def test_the_yaml_of_a_model_is_refused(self):
        with pytest.raises(UserError, match="is the YAML file of a model"):
            load_settings(HPARAMS / "mel_stl.yaml")

    def test_a_file_without_its_base_or_with_an_unknown_key(self, tmp_path):
        (tmp_path / "a.yaml").write_text("models: []\n")
        with pytest.raises(UserError, match="missing name, seeds, .*: add 'base: compare.yaml'"):
            load_settings(tmp_path / "a.yaml")
        (tmp_path / "b.yaml").write_text("base: compare.yaml\nseedz: [1]\n")
        with pytest.raises(UserError, match="unknown setting 'seedz'.*did you mean 'seeds'"):
            load_settings(tmp_path / "b.yaml")
        (tmp_path / "c.yaml").write_text("base: compare.yaml\noverrides:\n    opt_class: !name:torch.optim.SGD\n")
        with pytest.raises(UserError, match="write it in quotes"):
            load_settings(tmp_path / "c.yaml")
