"""The comparison: table, tests, answers, subgroups, and what it refuses or says aloud."""

import re

import numpy as np
import pandas as pd
import pytest
from made_runs import predict, utterances, write_run

from korser.comparison.compare import compare
from korser.comparison.questions import default_questions
from korser.comparison.subgroups import groups_of
from korser.metrics import significance
from korser.metrics.scores import scores
from korser.runs.load import load_runs
from korser.runs.pool import pool
from korser.utils.errors import UserError
from korser.utils.files import read_csv


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Four models, three seeds, three folds, nine speakers; wav2vec_leaf is much better than leaf."""
    folder = tmp_path_factory.mktemp("runs")
    table = utterances(n_speakers=9)
    for model, right in (("leaf_stl", 0.4), ("leaf_mtl", 0.42), ("wav2vec_leaf_stl", 0.85), ("wav2vec_leaf_mtl", 0.88)):
        for seed in (1, 2, 3):
            for fold in (0, 1, 2):
                write_run(folder, model, seed=seed, fold=fold, right=right, table=table)
    return load_runs(folder)


@pytest.fixture(scope="module")
def comparison(runs):
    return compare(runs)


def test_one_row_a_model(comparison):
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


def test_best_and_those_as_good_are_marked(comparison):
    marks = comparison.marks["emotion_uar"]
    assert sorted(marks.values()) == ["", "", "best", "same"]
    assert marks["leaf_stl"] == marks["leaf_mtl"] == ""
    assert comparison.marks["gender_accuracy"]["leaf_stl"] == ""


def test_the_papers_questions_are_answered(comparison):
    planned = comparison.planned
    assert list(planned["question"].unique()) == ["Does wav2vec_leaf beat leaf?", "Does multitask beat single-task?"]
    assert list(planned["verdict"]) == ["yes", "yes", "cannot be told", "cannot be told"]
    assert np.allclose(planned["p_holm"], significance.holm(list(planned["p"])))  # these four alone
    answer = comparison.answers[0]
    number = r"[+-]?\d?\.\d{3}"
    assert re.fullmatch(
        rf"Does wav2vec_leaf beat leaf\? wav2vec_leaf_stl against leaf_stl: yes: difference in emotion UAR \+{number} "
        rf"\[{number}, {number}\], p = \.004 \(Holm \.016\), exact over 9 speakers, 3 seeds\.",
        answer,
    ), answer


def test_worse_is_said_to_be_worse(runs):
    comparison = compare(runs, questions=[{"title": "Is it?", "pairs": [["leaf_stl", "wav2vec_leaf_stl"]]}])
    assert "no, it is worse: difference in emotion UAR -." in comparison.answers[0]
    assert "It is lower for 9 of 9 speakers" in comparison.answers[0] and "gender female (-." in comparison.answers[0]


def test_missing_models_and_bad_questions(runs):
    comparison = compare(runs, questions=[{"title": "Q?", "pairs": [["leaf_stl", "gone_stl"]]}])
    assert comparison.answers == ["Q? leaf_stl against gone_stl: cannot be told: there is no complete run of gone_stl."]
    for bad in ([{"title": "Q?"}], ["Q?"], [{"title": "Q?", "pairs": [["leaf_stl"]]}]):
        with pytest.raises(UserError, match="questions"):
            compare(runs, questions=bad)


def test_too_few_speakers_are_said(tmp_path):
    table = utterances(n_speakers=4)
    for model, right in (("leaf_stl", 0.2), ("leaf_mtl", 0.9)):
        write_run(tmp_path, model, right=right, table=table)
    comparison = compare(load_runs(tmp_path))
    assert comparison.planned["verdict"].tolist() == ["cannot be told"]
    assert (
        "With 4 speakers the smallest p is .125: no difference, however large, could reach .05" in comparison.answers[0]
    )
    assert "One seed says nothing" in comparison.answers[0]
    assert "no difference in emotion accuracy, emotion UAR, emotion macro-F1 could be" in comparison.to_markdown()
    assert "\\* says nothing there" in comparison.to_markdown()


def test_without_an_interval_nothing_is_significant(tmp_path):
    """A class that a single speaker has: UAR without that speaker is undefined, whatever p says."""
    table = utterances(n_speakers=10)
    table = table[(table["emotion"] != "neutral") | (table["speaker"] == "s0")].reset_index(drop=True)
    for model, right in (("leaf_stl", 0.1), ("leaf_mtl", 0.95)):
        for seed in (1, 2, 3):
            write_run(tmp_path, model, seed=seed, right=right, table=table)
    comparison = compare(load_runs(tmp_path))
    row = comparison.planned.iloc[0]
    assert row["p_holm"] < 0.01 and pd.isna(row["low"]) and not row["significant"]
    assert row["verdict"] == "cannot be told" and "p alone does not tell" in comparison.answers[0]
    assert comparison.marks["emotion_uar"]["leaf_stl"] == "same"


def test_a_model_that_is_better_on_the_seeds_that_both_have_is_not_marked_as_worse(tmp_path):
    table = utterances(n_speakers=9)
    for seed, right in ((1, 0.05), (2, 0.98), (3, 0.98)):
        write_run(tmp_path, "mel_stl", seed=seed, right=right, table=table)
    write_run(tmp_path, "leaf_stl", seed=1, right=0.6, table=table)
    comparison = compare(load_runs(tmp_path))
    values = comparison.table.set_index("model")["emotion_uar"]
    pair = comparison.pairs.iloc[0]
    assert values["mel_stl"] > values["leaf_stl"] and pair["significant"] and pair["n_seeds"] == 1
    assert comparison.marks["emotion_uar"] == {"mel_stl": "best", "leaf_stl": "same"}


def test_equal_models_are_both_the_best(tmp_path):
    for model in ("leaf_stl", "mel_stl"):
        write_run(tmp_path, model, right=1.0)
    assert compare(load_runs(tmp_path)).marks["emotion_uar"] == {"leaf_stl": "best", "mel_stl": "best"}


def test_other_recordings_and_other_training_parts_are_said_aloud(tmp_path):
    table = utterances()
    trained = table.assign(id="t_" + table["id"], split="train")
    for model, audio, n in (("leaf_stl", "a", 50), ("leaf_mtl", "a", 50), ("mel_stl", "b", 50), ("mel_mtl", "a", 40)):
        path = write_run(tmp_path, model, table=table)
        manifest = pd.concat([table.assign(digest=audio), trained[:n].assign(digest="a")])
        manifest.to_csv(path / "manifest.csv", index=False)
    comparison = compare(load_runs(tmp_path))
    assert comparison.warnings == [
        "DIFFERENT TRAINING PARTS: 40 utterances in mel_mtl-1-None-made-0.001, 50 in leaf_mtl-1-None-made-0.001",
        "DIFFERENT AUDIO: mel_stl-1-None-made-0.001 has other recordings of 54 utterances (first: s0_joy_0) than "
        "leaf_mtl-1-None-made-0.001",
    ]


def test_the_legend_says_which_column_cannot_tell(tmp_path):
    table = utterances(n_speakers=8)
    for model in ("a_stl", "b_stl", "c_stl", "d_stl", "e_stl", "f_mtl", "g_mtl"):  # 21 pairs, and one of gender
        write_run(tmp_path, model, table=table)
    text = compare(load_runs(tmp_path)).to_markdown()
    assert "no difference in emotion accuracy, emotion UAR, emotion macro-F1 could be significant" in text


def test_the_family_is_of_the_tests_that_were_made(tmp_path, runs):
    text = compare(runs, questions=[{"title": "Q?", "pairs": [["leaf_stl", "wav2vec_leaf_stl"], ["leaf_stl", "x"]]}])
    assert "Holm's correction is for" not in text.to_markdown()
    assert "Holm's correction is for the 4 tests" in compare(runs).to_markdown()


def test_holm_can_put_it_out_of_reach(tmp_path):
    table = utterances(n_speakers=6)
    for model in ("leaf_stl", "leaf_mtl", "mel_stl", "mel_mtl"):
        write_run(tmp_path, model, table=table)
    comparison = compare(load_runs(tmp_path))
    assert len(comparison.answers) == 2 and not comparison.planned["can_reach"].any()
    assert "smallest p is .031, after Holm's correction for 2 tests .062" in comparison.answers[0]


def test_a_difference_that_seeds_may_explain_is_no_yes(tmp_path):
    """Equal on average over seeds that differ by far more than speakers do: p is small, the interval holds 0."""
    table = utterances(n_speakers=8, per_class=10)
    for model, levels in (("leaf_stl", (5, 5, 5)), ("leaf_mtl", (9, 5, 5))):
        for seed, level in enumerate(levels, 1):
            order = table.groupby(["speaker", "emotion"]).cumcount().to_numpy()
            write_run(
                tmp_path, model, seed=seed, table=table, right=(order < level) | (np.arange(len(table)) % 97 == 0)
            )
    comparison = compare(load_runs(tmp_path))
    row = comparison.planned.iloc[0]
    assert row["p_holm"] < 0.05 and row["low"] < 0 < row["high"] and row["verdict"] == "cannot be told"
    assert "with other seeds it might be otherwise" in comparison.answers[0]
    assert comparison.marks["emotion_uar"] == {"leaf_mtl": "best", "leaf_stl": "same"}


def test_only_common_seeds_are_paired(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path, "leaf_mtl", seed=seed)
    write_run(tmp_path, "leaf_stl", seed=2)
    write_run(tmp_path, "mel_stl", seed=9)
    pairs = compare(load_runs(tmp_path)).pairs.set_index(["model_a", "model_b"])
    assert pairs.loc[("leaf_mtl", "leaf_stl"), "n_seeds"] == 1
    apart = pairs.loc[("leaf_mtl", "mel_stl")]
    assert np.isnan(apart["p"]) and np.isnan(apart["p_holm"]) and apart["note"] == "they have no seed in common"


def test_a_model_that_lacks_a_fold_is_not_compared(tmp_path):
    for model, folds in (("leaf_stl", (0, 1, 2)), ("leaf_mtl", (0, 2)), ("mel_stl", (0, 1, 2))):
        for fold in folds:
            write_run(tmp_path, model, fold=fold, right=0.99 if model == "leaf_mtl" else 0.5)
    comparison = compare(load_runs(tmp_path))
    assert len(comparison.table) == 3 and len(comparison.pairs) == 1
    assert comparison.marks["emotion_uar"].keys() == {"leaf_stl", "mel_stl"}  # .99 of two folds is not the best
    note = "leaf_mtl was tested on 36 of 54 utterances (folds 0, 2) and is not compared with the others"
    assert note in comparison.notes and note in comparison.table["note"][0] and note in comparison.answers[0]
    assert "leaf\\_mtl\N{DOUBLE DAGGER}" in comparison.to_markdown() and "\\ddag{}" in comparison.to_latex()


def test_other_test_sets_are_refused(tmp_path):
    write_run(tmp_path, "leaf_stl")
    write_run(tmp_path, "leaf_mtl", table=utterances().replace({"id": {"s0_joy_0": "x"}}))
    with pytest.raises(UserError, match="was tested on 1 utterances that"):
        compare(load_runs(tmp_path))


def test_other_studies_are_refused(tmp_path):
    write_run(tmp_path, "leaf_stl")
    write_run(tmp_path, "leaf_mtl", corpus="other")
    with pytest.raises(UserError, match="different studies.*other, speaker_holdout; made, speaker_holdout"):
        compare(load_runs(tmp_path))


def test_trials_of_a_search_are_left_out(tmp_path):
    write_run(tmp_path, "leaf_stl")
    (write_run(tmp_path, "leaf_stl", lr=0.1) / "test.csv").unlink()
    comparison = compare(load_runs(tmp_path))
    assert list(comparison.table["model"]) == ["leaf_stl"] and comparison.notes[0].endswith("are left out: 1")
    (tmp_path / "leaf_stl-1-None-made-0.001" / "test.csv").unlink()
    with pytest.raises(UserError, match="evaluate_test: true"):
        compare(load_runs(tmp_path))


def test_unknown_metric_is_refused(runs):
    with pytest.raises(UserError, match="metric 'qwk' is none of accuracy, uar, macro_f1"):
        compare(runs, metric="qwk")


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_other_metrics_decide(runs, metric):
    comparison = compare(runs[:9] + runs[18:27], metric=metric)
    assert comparison.pairs is comparison.tests[f"emotion_{metric}"]
    assert f"worst_speaker_emotion_{metric}" in comparison.table and len(comparison.pairs) == 1


def test_default_questions_need_both_models():
    assert default_questions(["mel_stl", "leaf_mtl", "myfrontend"]) == []


# -- what tables say aloud --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "about, text",
    [
        ({"synthetic": True}, "SYNTHETIC speech"),
        ({"protocol": "random_stratified"}, "RANDOM SPLIT"),
        ({"pretrained": False}, "NOT PRETRAINED"),
        ({"lexical_leakage": True}, "LEXICAL LEAKAGE"),
    ],
)
def test_what_is_no_result_is_said_in_every_table(tmp_path, about, text):
    write_run(tmp_path, "leaf_stl", **about)
    comparison = compare(load_runs(tmp_path))
    comparison.to_csv(tmp_path / "out")
    assert text in comparison.to_markdown() and comparison.to_latex().count(text) == 2
    assert text in (tmp_path / "out" / "models.csv").read_text(encoding="utf-8-sig")


def test_models_searched_on_test_speakers_are_marked(runs):
    comparison = compare(runs, searched_on={"leaf_stl": "searched on s1"})
    assert comparison.searched == {"leaf_stl": "searched on s1"}
    assert comparison.to_markdown().count("leaf\\_stl\N{DAGGER}") == 2  # both tables
    assert "\N{DAGGER}: searched on s1." in comparison.to_markdown()
    assert comparison.to_latex().count("leaf\\_stl\\dag{}") == 2 and "\\dag{}: searched on s1." in comparison.to_latex()
    assert comparison.table.set_index("model").loc["leaf_stl", "note"] == "searched on s1"
    with pytest.raises(UserError, match="searched_on names 'x'"):
        compare(runs, searched_on={"x": ""})


def test_runs_that_carry_their_search_are_marked(tmp_path):
    write_run(tmp_path, "leaf_stl")
    write_run(tmp_path, "leaf_mtl")
    runs = load_runs(tmp_path)
    runs[0].searched_on, runs[1].searched_on = ["s1", "s9"], ["s9"]  # s9 is not tested
    assert compare(runs).searched == {"leaf_mtl": "settings searched on speakers whom it is tested on (s1)"}


# -- subgroups, calibration, files ------------------------------------------------------------------------------------
def test_subgroups(tmp_path):
    table = utterances(n_speakers=7)
    right = (table["speaker"] != "s2").to_numpy() & (np.random.default_rng(0).random(len(table)) < 0.8)
    write_run(tmp_path, "leaf_mtl", table=table, right=right, tasks=("emotion",))
    comparison = compare(load_runs(tmp_path))
    groups = comparison.subgroups.set_index(["attribute", "group"])
    assert list(groups.loc["gender"].index) == ["female", "male"]
    assert groups.loc["age", "n_speakers"].to_dict() == {"<30": 1, "30-39": 1, "40-49": 1, "50+": 4}
    assert groups.loc[("intensity", "1"), "note"].startswith("no neutral")  # classes that the group lacks
    assert groups.loc[("age", "<30"), "note"] == "no interval: 1 speaker, 3 are needed"
    male = (table["gender"] == "male").to_numpy()
    assert np.isclose(groups.loc[("gender", "male"), "accuracy"], right[male].mean())
    assert groups.loc[("gender", "male"), "uar_low"] < groups.loc[("gender", "male"), "uar"]
    assert groups.index[groups["worst"]].tolist() == [("speaker", "s2")]
    assert (
        comparison.table.loc[0, "worst_speaker"] == "s2" and comparison.table.loc[0, "worst_speaker_emotion_uar"] == 0
    )


def test_subgroups_stand_in_the_order_of_their_classes(tmp_path):
    table = utterances()
    table["intensity"] = table["intensity"].map({"1": "weak", "2": "strong"})
    write_run(tmp_path, "leaf_stl", table=table)
    (model,) = compare(load_runs(tmp_path)).models.values()
    names = [
        group for attribute, group, _ in groups_of(model, {"intensity": ("weak", "strong")}) if attribute == "intensity"
    ]
    assert names == ["weak", "strong"]


def test_labels_that_are_no_class_are_refused(tmp_path):
    # they were counted as no label, without a word
    path = write_run(tmp_path, "leaf_stl")
    table = pd.read_csv(path / "test.csv", encoding="utf-8-sig")
    table.loc[3, "emotion"] = "Joy"
    table.to_csv(path / "test.csv", index=False, encoding="utf-8-sig")
    with pytest.raises(UserError, match=f"'Joy' in the column emotion of {table['id'][3]} is none of the classes"):
        compare(load_runs(tmp_path))


def test_a_model_trained_in_two_ways_is_named(tmp_path):
    for lr in (0.001, 0.01):
        write_run(tmp_path, "leaf_stl", lr=lr)
    write_run(tmp_path, "leaf_mtl")
    notes = compare(load_runs(tmp_path)).notes
    assert "leaf_stl was trained with different settings: the default questions leave it out" in notes


def test_every_table_names_what_must_be_known(tmp_path):
    for model in ("leaf_stl", "leaf_mtl"):
        write_run(tmp_path / "runs", model, synthetic=True)
    runs = load_runs(tmp_path / "runs")
    runs[0].searched_on = ["s1"]
    compare(runs).to_csv(tmp_path)
    for name in ("models", "pairs", "questions", "subgroups", "calibration"):
        (said,) = pd.read_csv(tmp_path / f"{name}.csv", encoding="utf-8-sig")["warnings"].unique()
        assert "SYNTHETIC" in said and "searched on speakers" in said, name


def test_age_that_is_no_number_stays_as_it_is(tmp_path):
    write_run(tmp_path, "leaf_stl", table=utterances().assign(age=["young", "old"] * 27))
    groups = compare(load_runs(tmp_path)).subgroups
    assert list(groups[groups["attribute"] == "age"]["group"]) == ["old", "young"]


def test_reliability(comparison):
    bins = comparison.calibration[comparison.calibration["model"] == "leaf_stl"]
    assert bins["count"].sum() == 3 * 81 and len(bins) == 15
    filled = bins[bins["count"] > 0]
    assert ((filled["low"] < filled["confidence"]) & (filled["confidence"] <= filled["high"])).all()
    accuracy = comparison.table.set_index("model").loc["leaf_stl", "emotion_accuracy"]
    assert np.isclose((filled["accuracy"] * filled["count"]).sum() / bins["count"].sum(), accuracy)
    assert bins[bins["count"] == 0]["accuracy"].isna().all()


def test_unknown_speakers_give_no_interval_and_no_test(tmp_path):
    table = utterances().assign(speaker="")
    for model in ("leaf_stl", "leaf_mtl"):
        write_run(tmp_path, model, table=table, protocol="random_stratified")
    comparison = compare(load_runs(tmp_path))
    assert comparison.table["emotion_uar_low"].isna().all() and comparison.pairs["p"].isna().all()
    assert "no interval: the speaker of some utterances is not known" in comparison.table["note"][0]
    assert "not tested" in comparison.answers[0] and "differences could not be tested" in comparison.to_markdown()


def test_another_part_of_the_run(tmp_path):
    path = write_run(tmp_path, "leaf_stl")
    (path / "robustness").mkdir()
    clean = read_csv(path / "test.csv", ["emotion"])
    noisy = predict(clean[clean.columns[:8]], ["emotion"], 0.0, np.random.default_rng(0))
    noisy.to_csv(path / "robustness" / "snr_0.csv", index=False)
    runs = load_runs(tmp_path)
    assert compare(runs, part="robustness/snr_0").table["emotion_accuracy"][0] == 0
    assert pool("leaf_stl", runs, part="robustness/snr_0").counts("emotion").sum() == 54


def test_csv_opens_in_excel_with_hangul(tmp_path):
    write_run(tmp_path, "한국어_stl")
    write_run(tmp_path, "leaf_stl")
    comparison = compare(load_runs(tmp_path))
    comparison.write(tmp_path / "out")
    names = {"models.csv", "pairs.csv", "questions.csv", "subgroups.csv", "calibration.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"comparison.md", "comparison.tex"}
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\xef\xbb\xbf") for name in names)
    models = pd.read_csv(tmp_path / "out" / "models.csv", encoding="utf-8-sig")
    assert sorted(models["model"]) == ["leaf_stl", "한국어_stl"] and {"emotion_uar_low", "emotion_uar_high"} <= set(
        models
    )
    assert "XeLaTeX" in (tmp_path / "out" / "comparison.tex").read_text(encoding="utf-8")


# -- Markdown and LaTeX -----------------------------------------------------------------------------------------------
def test_markdown(comparison):
    lines = comparison.to_markdown().splitlines()
    assert "corpus made, protocol speaker\\_kfold: 9 speakers, 81 utterances, 3 seeds" in lines[0]
    assert sum(line.count("**") for line in lines if line.startswith("| wav2vec")) == 2 * len(comparison.columns)
    tables = [line for line in lines if line.startswith("|")]
    for row in tables:
        assert len(re.findall(r"(?<!\\)\|", row)) in (9, 9, 8)
    assert "94.4 M" in "".join(tables) and "6.9 G" in "".join(tables) and "1 GB" in "".join(tables)
    assert "(two-sided, exact, 9 speakers, the 3 seeds that both have" in "".join(lines)


def test_latex_is_well_formed(comparison):
    text = comparison.to_latex()
    body = re.sub(r"%.*", "", text.replace("\\%", ""))
    assert body.replace("\\{", "").replace("\\}", "").count("{") == body.replace("\\{", "").replace("\\}", "").count(
        "}"
    )
    opened = re.findall(r"\\begin\{([a-z*]+)\}", text)
    assert (
        sorted(opened) == sorted(re.findall(r"\\end\{([a-z*]+)\}", text)) == ["table*", "table*", "tabular", "tabular"]
    )
    for tabular in re.findall(r"\\begin\{tabular\}\{@\{\}(l[c]*)@\{\}\}(.*?)\\end\{tabular\}", text, re.S):
        columns, content = tabular
        rows = [line for line in content.splitlines() if line.endswith("\\\\")]
        assert len(rows) == 5 and all(row.count("&") == len(columns) - 1 for row in rows)
        assert all(rule in content for rule in ("\\toprule", "\\midrule", "\\bottomrule"))
    assert not re.search(r"(?<!\\)[_#]", re.sub(r"\\label\{[^}]*\}", "", body))
    assert text.count("\\textbf{.") == len(comparison.columns) and "wav2vec\\_leaf\\_mtl" in text
    assert text.isascii()
