"""The comparison: results, tests and marks."""

import numpy as np
import pandas as pd
import pytest
from made_runs import predict, utterances, write_run

from korser.comparison.compare import compare
from korser.comparison.estimates import significance_marks
from korser.comparison.verdict import Verdict
from korser.metrics import significance
from korser.metrics.scores import scores
from korser.runs.load import load_runs
from korser.runs.pool import pool_runs
from korser.utils.errors import UserError
from korser.utils.files import read_csv


def test_one_row_per_model(comparison):
    table = comparison.table.set_index("model")
    assert list(table.index) == ["leaf_mtl", "leaf_stl", "wav2vec_leaf_mtl", "wav2vec_leaf_stl"]
    row = table.loc["leaf_mtl"]
    assert (row["n_seeds"], row["n_folds"], row["n_speakers"], row["n_utterances"]) == (3, 3, 9, 81)
    counts = comparison.models["leaf_mtl"].counts("emotion").sum(1)
    for metric in ("accuracy", "uar", "macro_f1"):
        assert np.isclose(row[f"emotion_{metric}"], np.mean([scores(c)[metric] for c in counts]))
        assert row[f"emotion_{metric}_low"] < row[f"emotion_{metric}"] < row[f"emotion_{metric}_high"]
    assert np.isfinite([row["gender_accuracy"], row["intensity_qwk"], row["emotion_ece"]]).all()
    assert np.isnan(table.loc["leaf_stl", "gender_accuracy"])
    assert (row["parameters"], row["trainable_parameters"], row["macs_per_second"]) == (94_371_712, 120_000, 6.9e9)
    assert (row["train_seconds"], row["peak_memory_bytes"], row["device"]) == (120, 10**9 + 3, "cpu")


def test_pairs_are_all_pairs_with_holm(comparison):
    pairs = comparison.pairs
    assert len(pairs) == 6 and pairs["exact"].all() and set(pairs["n_speakers"]) == {9} and set(pairs["n_seeds"]) == {3}
    assert np.allclose(pairs["p_holm"], significance.holm(list(pairs["p"])))
    pair = pairs.set_index(["model_a", "model_b"]).loc[("leaf_mtl", "wav2vec_leaf_stl")]
    values = comparison.table.set_index("model")["emotion_uar"]
    assert np.isclose(pair["difference"], values["leaf_mtl"] - values["wav2vec_leaf_stl"])
    assert pair["p"] == 2 / 2**9 and pair["high"] < 0 and pair["significant"] and pair["speakers_lower"] == 9
    assert len(comparison.tests["gender_accuracy"]) == 1  # two models have it


def test_the_best_and_those_not_significantly_worse_are_marked(comparison):
    marks = comparison.marks["emotion_uar"]
    assert sorted(marks.values()) == ["", "", "best", "same"]
    assert marks["leaf_stl"] == marks["leaf_mtl"] == ""
    assert comparison.marks["gender_accuracy"]["leaf_stl"] == ""


def test_a_model_that_is_better_on_the_seeds_that_both_have_is_not_marked_as_worse():
    entries = {"mel_stl": {"value": 0.65}, "leaf_stl": {"value": 0.6}}
    pair = {"model_a": "mel_stl", "model_b": "leaf_stl", "difference": -0.1, "p": 0.01, "significant": True}
    tests = pd.DataFrame([pair | {"can_reach": True}])
    assert significance_marks(entries, entries, tests, "uar") == {"mel_stl": "best", "leaf_stl": "same"}


def test_with_one_common_seed_the_variance_between_the_seeds_of_the_others_counts(tmp_path):
    table = utterances(n_speakers=9)
    for seed, right in ((1, 0.05), (2, 0.98), (3, 0.98)):
        write_run(tmp_path, "mel_stl", seed=seed, right=right, table=table)
    write_run(tmp_path, "leaf_stl", seed=1, right=0.6, table=table)
    pair = compare(load_runs(tmp_path)).pairs.iloc[0]
    assert pair["n_seeds"] == 1 and not pair["significant"] and "that of the other models" in pair["note"]


def test_equal_models_are_both_the_best(tmp_path):
    for model in ("leaf_stl", "mel_stl"):
        write_run(tmp_path, model, right=1.0)
    assert compare(load_runs(tmp_path)).marks["emotion_uar"] == {"leaf_stl": "best", "mel_stl": "best"}


def test_only_common_seeds_are_paired(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path, "leaf_mtl", seed=seed)
    write_run(tmp_path, "leaf_stl", seed=2)
    write_run(tmp_path, "mel_stl", seed=9)
    pairs = compare(load_runs(tmp_path)).pairs.set_index(["model_a", "model_b"])
    assert pairs.loc[("leaf_mtl", "leaf_stl"), "n_seeds"] == 1
    apart = pairs.loc[("leaf_mtl", "mel_stl")]
    assert np.isnan(apart["p"]) and np.isnan(apart["p_holm"]) and apart["note"] == "they have no seed in common"


def test_models_without_a_common_seed_are_not_tested(tmp_path):
    write_run(tmp_path, "a", seed=1)
    write_run(tmp_path, "b", seed=2)
    text = compare(load_runs(tmp_path)).to_markdown()
    assert "they have no seed in common" in text and "differences could not be tested" in text


def test_different_corpora_are_refused(tmp_path):
    write_run(tmp_path, "leaf_stl")
    write_run(tmp_path, "leaf_mtl", corpus="other")
    with pytest.raises(UserError, match="different corpora or splits.*other, speaker_holdout; made, speaker_holdout"):
        compare(load_runs(tmp_path))


def test_trials_of_a_search_are_left_out(tmp_path):
    write_run(tmp_path, "leaf_stl")
    (write_run(tmp_path, "leaf_stl", lr=0.1) / "test.csv").unlink()
    comparison = compare(load_runs(tmp_path))
    assert list(comparison.table["model"]) == ["leaf_stl"] and comparison.notes[0].text.endswith("are left out: 1")
    (tmp_path / "leaf_stl-1-None-made-0.001" / "test.csv").unlink()
    with pytest.raises(UserError, match="evaluate_test: true"):
        compare(load_runs(tmp_path))


def test_unknown_metric_is_refused(four_models):
    with pytest.raises(UserError, match="metric=qwk: expected one of accuracy, uar, macro_f1"):
        compare(four_models, metric="qwk")


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_other_metrics_decide(four_models, metric):
    comparison = compare(four_models[:9] + four_models[18:27], metric=metric)
    assert comparison.pairs is comparison.tests[f"emotion_{metric}"]
    assert f"worst_speaker_emotion_{metric}" in comparison.table and len(comparison.pairs) == 1


def test_unknown_labels_are_refused(tmp_path):
    # they were counted as no label, without a word
    path = write_run(tmp_path, "leaf_stl")
    table = pd.read_csv(path / "test.csv", encoding="utf-8-sig")
    table.loc[3, "emotion"] = "Joy"
    table.to_csv(path / "test.csv", index=False, encoding="utf-8-sig")
    with pytest.raises(UserError, match=f"'Joy' in column emotion of {table['id'][3]}: expected one of"):
        compare(load_runs(tmp_path))


def test_unknown_speakers_give_no_interval_and_no_test(tmp_path):
    table = utterances().assign(speaker="")
    for model in ("leaf_stl", "leaf_mtl"):
        write_run(tmp_path, model, table=table, protocol="random_stratified")
    comparison = compare(load_runs(tmp_path))
    assert comparison.table["emotion_uar_low"].isna().all() and comparison.pairs["p"].isna().all()
    assert "no interval: the speaker of some utterances is unknown" in comparison.table["note"][0]
    assert (
        "not tested" in comparison.answers[0].result and "differences could not be tested" in comparison.to_markdown()
    )


def test_another_part_of_the_run(tmp_path):
    path = write_run(tmp_path, "leaf_stl")
    (path / "robustness").mkdir()
    clean = read_csv(path / "test.csv", ["emotion"])
    noisy = predict(clean[clean.columns[:8]], ["emotion"], 0.0, np.random.default_rng(0))
    noisy.to_csv(path / "robustness" / "snr_0.csv", index=False)
    runs = load_runs(tmp_path)
    assert compare(runs, part="robustness/snr_0").table["emotion_accuracy"][0] == 0
    assert pool_runs("leaf_stl", runs, split="robustness/snr_0").counts("emotion").sum() == 54


def test_models_of_numbers_are_compared_by_ccc(tmp_path):
    rng = np.random.default_rng(0)
    table = utterances(n_speakers=8)
    rating = rng.uniform(1, 5, len(table)).round(1).astype(str)
    table = table.assign(valence=np.where(np.arange(len(table)) % 9 == 0, "", rating)).replace({"valence": {"": None}})
    for model, right in (("leaf_stl", 0.2), ("wav2vec_leaf_stl", 0.7)):
        for seed in (1, 2, 3):
            for fold in (0, 1, 2):
                write_run(tmp_path, model, seed=seed, fold=fold, right=right, table=table, tasks=("valence", "gender"))
    found = compare(load_runs(tmp_path))
    assert (found.main, found.metric) == ("valence", "ccc") and found.calibration.empty
    assert list(found.columns) == ["valence_ccc", "valence_pearson", "valence_mae", "gender_accuracy"]
    assert set(found.table["n_utterances"]) == {64} and "8 speakers, 64 utterances" in found.to_text()  # of 72
    better = {"leaf_stl": "", "wav2vec_leaf_stl": "best"}
    assert found.marks["valence_ccc"] == found.marks["valence_mae"] == better  # the lower error is the better one
    pair = found.planned.iloc[0]
    assert pair["verdict"] is Verdict.YES and pair["exact"] and pair["low"] > 0
    assert (found.subgroups["attribute"] == "speaker").sum() == 16 and found.subgroups["mae"].notna().all()
    assert "CCC is the concordance correlation coefficient" in found.to_text() and "valence_ece" not in found.table
    found.write(tmp_path / "out")
    for metric in ("uar", "mae"):
        with pytest.raises(UserError, match=f"metric={metric}: expected one of ccc, pearson"):
            compare(load_runs(tmp_path), metric=metric)
