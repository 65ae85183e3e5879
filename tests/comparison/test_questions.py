"""Questions, verdicts and answers."""

import re

import numpy as np
import pandas as pd
import pytest
from made_runs import utterances, write_run

from korser.comparison import Verdict
from korser.comparison.compare import compare
from korser.comparison.questions import default_questions
from korser.metrics import significance
from korser.runs.load import load_runs
from korser.utils.errors import UserError
from korser.utils.files import read_csv
from korser.utils.notes import Note


def test_default_questions_are_answered(comparison):
    planned = comparison.planned
    assert list(planned["question"].unique()) == ["Does wav2vec_leaf beat leaf?", "Does multitask beat single-task?"]
    assert list(planned["verdict"]) == ["yes", "yes", "inconclusive", "inconclusive"]
    assert np.allclose(planned["p_holm"], significance.holm(list(planned["p"])))  # these four alone
    assert all(isinstance(verdict, Verdict) for verdict in planned["verdict"])
    answer = str(comparison.answers[0])
    number = r"[+-]?\d?\.\d{3}"
    assert re.fullmatch(
        rf"Does wav2vec_leaf beat leaf\? wav2vec_leaf_stl vs leaf_stl: emotion UAR difference \+{number} "
        rf"\[{number}, {number}\], p = \.004 \(Holm \.016; exact, 9 speakers, 3 seeds\): yes\.",
        answer,
    ), answer


def test_a_worse_model_gets_the_verdict_worse(four_models):
    comparison = compare(four_models, questions=[{"title": "Is it?", "pairs": [["leaf_stl", "wav2vec_leaf_stl"]]}])
    (answer,) = comparison.answers
    assert answer.verdict is Verdict.NO_WORSE and answer.result.startswith("emotion UAR difference -.")
    assert str(answer).count(": no, it is worse. It is lower for 9 of 9 speakers") == 1
    assert "gender female (-." in answer.details


def test_missing_models_and_bad_questions(four_models):
    comparison = compare(four_models, questions=[{"title": "Q?", "pairs": [["leaf_stl", "gone_stl"]]}])
    (answer,) = comparison.answers
    assert answer.verdict is Verdict.NOT_COMPARED
    assert str(answer) == "Q? leaf_stl vs gone_stl: there is no complete run of gone_stl: not compared."
    for bad in ([{"title": "Q?"}], ["Q?"], [{"title": "Q?", "pairs": [["leaf_stl"]]}]):
        with pytest.raises(UserError, match="questions"):
            compare(four_models, questions=bad)


def test_too_few_speakers_are_reported(tmp_path):
    table = utterances(n_speakers=4)
    for model, right in (("leaf_stl", 0.2), ("leaf_mtl", 0.9)):
        write_run(tmp_path, model, right=right, table=table)
    comparison = compare(load_runs(tmp_path))
    assert comparison.planned["verdict"].tolist() == [Verdict.INCONCLUSIVE]
    details = comparison.answers[0].details
    assert "With 4 speakers the smallest possible p is .125: no difference could be significant." in details
    assert "One seed: the interval is over speakers only." in details
    assert "no difference in emotion accuracy, emotion UAR, emotion macro-F1 could be" in comparison.to_markdown()
    assert "\\* is not used there" in comparison.to_markdown()
    assert {mark for marks in comparison.marks.values() for mark in marks.values()} == {"best", ""}


def test_without_an_interval_nothing_is_significant(tmp_path):
    """A class that a single speaker has: UAR without that speaker is undefined, whatever p says."""
    table = utterances(n_speakers=10)
    table = table[(table["emotion"] != "neutral") | (table["speaker"] == "s0")].reset_index(drop=True)
    for model, right in (("leaf_stl", 0.1), ("leaf_mtl", 0.95)):
        for seed in (1, 2, 3):
            write_run(tmp_path, model, seed=seed, right=right, table=table)
    comparison = compare(load_runs(tmp_path))
    row = comparison.planned.iloc[0]
    assert row["exact"] and pd.isna(row["p"]) and pd.isna(row["low"]) and not row["significant"]
    assert row["verdict"] is Verdict.INCONCLUSIVE and "not tested" in comparison.answers[0].result
    assert "no interval: it depends on a class that only one speaker has" in comparison.answers[0].result
    assert comparison.marks["emotion_uar"]["leaf_stl"] == "untested"


def test_holms_correction_can_make_significance_impossible(tmp_path):
    table = utterances(n_speakers=6)
    for model in ("leaf_stl", "leaf_mtl", "mel_stl", "mel_mtl"):
        write_run(tmp_path, model, table=table)
    comparison = compare(load_runs(tmp_path))
    assert len(comparison.answers) == 2 and not comparison.planned["can_reach"].any()
    assert (
        "smallest possible p is .031, .062 after Holm's correction over 2 comparisons" in comparison.answers[0].details
    )


def test_a_difference_within_the_variance_of_seeds_is_inconclusive(tmp_path):
    """Equal on average over seeds that differ by far more than speakers do: swapping speakers alone gives a small p."""
    table = utterances(n_speakers=8, per_class=10)
    for model, levels in (("leaf_stl", (5, 5, 5)), ("leaf_mtl", (9, 5, 5))):
        for seed, level in enumerate(levels, 1):
            order = table.groupby(["speaker", "emotion"]).cumcount().to_numpy()
            write_run(
                tmp_path, model, seed=seed, table=table, right=(order < level) | (np.arange(len(table)) % 97 == 0)
            )
    comparison = compare(load_runs(tmp_path))
    a, b = (model.counts("emotion") for model in comparison.models.values())
    row = comparison.planned.iloc[0]
    assert significance.permutation_test(a, b, "uar")["p"] < 0.05 < row["p"]
    assert row["low"] < 0 < row["high"] and row["verdict"] is Verdict.INCONCLUSIVE and row["reason"] is None
    assert comparison.marks["emotion_uar"] == {"leaf_mtl": "best", "leaf_stl": "same"}


def test_an_interval_without_0_that_is_not_significant_has_one_reason(tmp_path):
    """The same reason in the answer, the table of pairs, its CSV and the caption of the figure."""
    table = utterances(n_speakers=12, per_class=8)
    order = table.groupby(["speaker", "emotion"]).cumcount().to_numpy()
    speaker = table["speaker"].str[1:].astype(int).to_numpy()
    for model, better in (("leaf_stl", 0), ("leaf_mtl", 9)):  # three of four speakers are better by one utterance
        right = order < 4 + (speaker < better)
        for seed in (1, 2, 3):
            write_run(tmp_path, model, seed=seed, table=table, right=right)
    for model in ("b_stl", "c_stl", "d_stl", "e_stl", "f_stl", "g_stl", "h_stl", "i_stl", "j_stl"):
        write_run(tmp_path, model, table=table)
    comparison = compare(load_runs(tmp_path))
    pair = comparison.pairs.set_index(["model_a", "model_b"]).loc[("leaf_mtl", "leaf_stl")]
    n = len(comparison.pairs)
    reason = f"not significant after Holm's correction over {n} comparisons"
    assert 0 < pair["low"] and pair["p"] <= 0.05 < pair["p_holm"] and pair["reason"] == Note("after_correction", reason)
    assert f"leaf\\_mtl and leaf\\_stl: {reason}." in comparison.to_markdown().replace("; ", "\n")
    questions = [
        {"title": "Q?", "pairs": [list(pair) for pair in zip(comparison.pairs["model_a"], comparison.pairs["model_b"])]}
    ]
    asked = compare(load_runs(tmp_path), questions=questions)
    (answer,) = (a for a in asked.answers if a.pair == "leaf_mtl vs leaf_stl")
    assert answer.verdict is Verdict.INCONCLUSIVE and f"Not{reason[3:]}." in answer.details
    asked.to_csv(tmp_path / "out")
    assert (read_csv(tmp_path / "out" / "questions.csv")["reason"] == reason).any()


def test_default_questions_need_both_models():
    assert default_questions(["mel_stl", "leaf_mtl", "myfrontend"]) == []


def test_a_model_trained_in_two_ways_is_named(tmp_path):
    for lr in (0.001, 0.01):
        write_run(tmp_path, "leaf_stl", lr=lr)
    write_run(tmp_path, "leaf_mtl")
    notes = compare(load_runs(tmp_path)).notes
    assert [note.code for note in notes] == ["several_settings"] and "leaf_stl was trained" in notes[0].text
