"""Which runs a comparison needs, and settings that were searched."""

import pytest
from conftest import HPARAMS
from made_comparison import InProcessWorkers, settings_of, write_search

from korser import UserError, load_hparams
from korser.comparison.plan import make_plan
from korser.comparison.run import run_experiment
from korser.corpora import load_corpus
from korser.data.audio_cache import scan_audio
from korser.runs.directory import run_folder
from korser.utils.files import write_csv


class TestPlan:
    def test_models_seeds_and_folds(self, comparison_overrides):
        plan = make_plan(settings_of(comparison_overrides, models="[mel_stl.yaml, mel_mtl.yaml]"))
        assert {(p.model, p.seed, p.fold) for p in plan} == {
            (model, seed, fold) for model in ("mel_stl", "mel_mtl") for seed in (1, 2) for fold in range(3)
        }
        assert len({p.job.run_dir for p in plan}) == 12 and not any(p.complete for p in plan)

    def test_a_run_is_the_same_as_that_of_korser_train(self, comparison_overrides):
        planned = make_plan(settings_of(comparison_overrides))[-1]
        hand = load_hparams(planned.job.yaml, {key: str(value) for key, value in planned.job.overrides.items()})
        assert str(run_folder(hand)) == planned.job.run_dir
        split = hand["split"].keywords
        assert (split["protocol"], split["n_folds"], split["fold"]) == ("speaker_kfold", 3, 2)
        assert (hand["seed"], hand["n_epochs"], hand["comparison"]) == (2, 1, "compare")

    def test_the_order_of_overrides_does_not_matter(self, comparison_overrides):
        backwards = dict(reversed(comparison_overrides.items()))
        assert make_plan(settings_of(comparison_overrides)) == make_plan(settings_of(backwards))

    def test_names_do_not_change_runs(self, comparison_overrides, tmp_path):
        plan = make_plan(settings_of(comparison_overrides))
        named = make_plan(settings_of(comparison_overrides, names="{mel_stl: 'Mel → x'}"))
        assert {p.name for p in plan} == {"mel_stl"} and {p.name for p in named} == {"Mel → x"}
        assert [p.job for p in named] == [p.job for p in plan]
        (tmp_path / "mel_stl.yaml").write_text(f"base: {HPARAMS / 'mel_stl.yaml'}\nlabel: Mel of its file\n")
        labelled = make_plan(settings_of(comparison_overrides, models=f"[{tmp_path / 'mel_stl.yaml'}]"))
        assert {p.name for p in labelled} == {"Mel of its file"}
        assert [p.job.run_dir for p in labelled] == [p.job.run_dir for p in plan]

    def test_the_base_split_is_kept_without_folds(self, comparison_overrides):
        del comparison_overrides["overrides.split.folds"]
        plan = make_plan(settings_of(comparison_overrides, folds="null"))
        assert [(p.seed, p.fold) for p in plan] == [(1, None), (2, None)]

    @pytest.mark.parametrize(
        "more, said",
        [
            ({"folds": "7"}, "n_folds=7"),
            ({"overrides.lr": "fast"}, "lr=fast: expected a number"),
            ({"overrides.lrr": "1"}, "unknown setting 'lrr'"),
            ({"overrides.batch_size": "0"}, "batch_size=0: expected an integer >= 1"),
            ({"overrides.corpus": "ravdes"}, "unknown corpus 'ravdes'"),
            ({"overrides.data_folder": "nowhere"}, "nowhere"),
            ({"search": "nowhere"}, "search=nowhere: folder not found"),
            (
                {"models": "[mel_stl.yaml, mel_mtl.yaml]", "names": "{mel_mtl: mel_stl}"},
                "would both be called 'mel_stl'",
            ),
            ({"metric": "qwk"}, "main task of mel_stl, emotion, is of kind classes"),
        ],
    )
    def test_mistakes_are_found_before_anything_runs(self, comparison_overrides, more, said):
        workers = InProcessWorkers()
        with pytest.raises(UserError, match=said):
            run_experiment(settings_of(comparison_overrides, **more), workers)
        assert not workers.made


class TestSearched:
    """Who was searched on is not tested, or every table says so."""

    def test_settings_come_from_the_search(self, comparison_overrides, tmp_path):
        search = write_search(tmp_path / "search", best={"lr": 0.02, "backbone.bands.dropout": 0.4})
        settings = settings_of(comparison_overrides, search=search, models="[mel_stl.yaml, mel_mtl.yaml]")
        for planned in make_plan(settings):
            hparams = load_hparams(planned.job.yaml, planned.job.overrides)
            assert hparams["lr"] == (0.02 if planned.model == "mel_stl" else 0.003)
            assert planned.searched == (
                {"lr": 0.02, "backbone.bands.dropout": 0.4} if planned.model == "mel_stl" else {}
            )

    def test_a_missing_search_is_logged(self, comparison_overrides, tmp_path, caplog):
        (tmp_path / "search").mkdir()
        make_plan(settings_of(comparison_overrides, search=str(tmp_path / "search")))
        assert "no search of mel_stl" in caplog.text

    @pytest.mark.parametrize("file", ["", "manifest.csv"])
    def test_searched_speakers_are_refused(self, comparison_overrides, tmp_path, tiny_corpus, file):
        data = {"data_folder": str(tiny_corpus / file)}
        search = write_search(tmp_path / "search", speakers=["s4", "s3"], data=data)
        said = "settings of mel_stl were searched.*test split of fold 1.*s3.*allow_searched_speakers"
        with pytest.raises(UserError, match=said) as error:
            make_plan(settings_of(comparison_overrides, search=search))
        assert "\n" not in str(error.value)

    def test_searched_recordings_are_refused_under_another_name(self, comparison_overrides, tmp_path, tiny_corpus):
        data = load_corpus("csv", tiny_corpus).data
        cache = comparison_overrides["cache_folder"]
        data["digest"] = scan_audio(data["path"].tolist(), cache)["digest"].to_numpy()
        search = write_search(tmp_path / "search")  # of another folder
        trial = tmp_path / "search" / "mel_stl" / "runs" / "trial"
        write_csv(trial / "manifest.csv", data[data["speaker"] == "s3"].assign(speaker="x"))
        settings = settings_of(comparison_overrides, search=search)
        with pytest.raises(UserError, match="settings of mel_stl were searched.*test split of fold 1.*s3"):
            make_plan(settings)
        settings = settings_of(comparison_overrides, search=search, allow_searched_speakers="true")
        plan = make_plan(settings)
        assert [planned.searched_on for planned in plan] == [[], [], ["s3"], ["s3"], [], []]
        assert {tuple(planned.job.overrides["searched_in"]) for planned in plan} == {(str(trial.parents[1]),)}

    def test_searched_speakers_outside_the_test_split_are_allowed(self, comparison_overrides, tmp_path, tiny_corpus):
        search = write_search(tmp_path / "search", speakers=["s0", "s1"], data={"data_folder": str(tiny_corpus)})
        more = {"folds": "null", "overrides.split.test_speakers": "[s4, s5]", "search": search}
        del comparison_overrides["overrides.split.folds"]
        assert all(p.searched and not p.searched_on for p in make_plan(settings_of(comparison_overrides, **more)))

    @pytest.mark.parametrize("other", [{"corpus": "ravdess"}, {"data": {"data_folder": "/another/folder"}}])
    def test_the_same_names_in_another_corpus_are_other_speakers(
        self, comparison_overrides, tmp_path, tiny_corpus, other
    ):
        known = {"speakers": ["s4"], "data": {"data_folder": str(tiny_corpus)}, **other}
        search = write_search(tmp_path / "search", **known)
        assert not any(p.searched_on for p in make_plan(settings_of(comparison_overrides, search=search)))

    @pytest.mark.parametrize("found, said", [({"complete": False}, "is incomplete"), ({"best": {}}, "is incomplete")])
    def test_an_unfinished_search_is_refused(self, comparison_overrides, tmp_path, found, said):
        with pytest.raises(UserError, match=said):
            make_plan(settings_of(comparison_overrides, search=write_search(tmp_path / "search", **found)))

    def test_a_searched_setting_cannot_be_overridden(self, comparison_overrides, tmp_path):
        search = write_search(tmp_path / "search")
        with pytest.raises(UserError, match="overrides.lr was also searched"):
            make_plan(settings_of(comparison_overrides, search=search, **{"overrides.lr": "0.1"}))
