"""Predictions to metrics with intervals, and the table that is printed."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from made_counts import interval_of
from sklearn import metrics as sk

from korser import Task, UserError
from korser.metrics.evaluate import evaluate_predictions, summary_table
from korser.utils.notes import Note
from korser.utils.text import interval_text, number

EMOTION = Task("emotion", classes=("joy", "sadness", "neutral", "anger"))
INTENSITY = Task("intensity", kind="ordinal", classes=("0", "1", "2", "3"))


def predictions(n_speakers=6, per_speaker=40, tasks=(EMOTION, INTENSITY), seed=0):
    """Speakers of unlike difficulty; a third of the intensities is missing."""
    rng = np.random.default_rng(seed)
    n = n_speakers * per_speaker
    speaker = np.repeat(np.arange(n_speakers), per_speaker)
    table = pd.DataFrame(
        {"id": [f"u{i}" for i in range(n)], "path": "x.wav", "speaker": [f"s{s:02d}" for s in speaker], "split": "test"}
    )
    skill = rng.uniform(0.5, 2.5, n_speakers)[speaker]
    for task in tasks:
        classes = np.array(task.classes)
        truth = rng.integers(0, len(classes), n)
        logits = rng.normal(size=(n, len(classes)))
        logits[np.arange(n), truth] += skill
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        table[task.name] = classes[truth].astype(object)
        table[f"{task.name}_pred"] = classes[probabilities.argmax(1)]
        for k, name in enumerate(classes):
            table[f"{task.name}_prob_{name}"] = probabilities[:, k]
    if "intensity" in table:
        table.loc[::3, "intensity"] = None
    return table


def test_values_are_those_of_scikit_learn():
    table = predictions()
    got = evaluate_predictions(table, [EMOTION, INTENSITY])
    truth, predicted = table["emotion"], table["emotion_pred"]
    assert got["emotion"]["n"] == 240 and got["emotion"]["n_speakers"] == 6
    assert np.isclose(got["emotion"]["accuracy"]["value"], sk.accuracy_score(truth, predicted))
    assert np.isclose(got["emotion"]["uar"]["value"], sk.balanced_accuracy_score(truth, predicted))
    assert got["emotion"]["confusion"] == sk.confusion_matrix(truth, predicted, labels=EMOTION.classes).tolist()
    assert np.isclose(got["emotion"]["recall"]["joy"]["value"], (predicted == truth)[truth == "joy"].mean())

    labelled = table.dropna(subset="intensity")
    truth, predicted = labelled["intensity"].astype(int), labelled["intensity_pred"].astype(int)
    assert got["intensity"]["n"] == len(labelled) == 160
    assert np.isclose(got["intensity"]["qwk"]["value"], sk.cohen_kappa_score(truth, predicted, weights="quadratic"))
    assert np.isclose(got["intensity"]["mae_levels"]["value"], (truth - predicted).abs().mean())
    assert "qwk" not in got["emotion"]


def test_intervals_leave_out_a_speaker_at_a_time():
    table = predictions()
    got = evaluate_predictions(table, [EMOTION])["emotion"]

    def without(statistic):
        return [statistic(table[table["speaker"] != s]) for s in table["speaker"].unique()]

    def uar(t):
        return sk.balanced_accuracy_score(t["emotion"], t["emotion_pred"])

    def recall_of_anger(t):
        return (t["emotion_pred"] == t["emotion"])[t["emotion"] == "anger"].mean()

    n = pd.crosstab(table["speaker"], table["emotion"])
    for entry, statistic, weights in (
        (got["uar"], uar, (n / n.sum()).sum(axis=1) ** 2 / n.sum(axis=1)),
        (got["recall"]["anger"], recall_of_anger, n["anger"]),
    ):
        expected = interval_of(statistic(table), without(statistic), weights, wilson=True)
        assert np.allclose([entry["low"], entry["high"]], expected)
    for metric in "accuracy", "uar", "macro_f1", "ece":
        assert got[metric]["low"] < got[metric]["value"] < got[metric]["high"]


def test_ordinal_intervals_stay_in_range():
    got = evaluate_predictions(predictions(3, 12), [INTENSITY])["intensity"]
    assert -1 <= got["qwk"]["low"] < got["qwk"]["high"] <= 1
    assert 0 <= got["mae_levels"]["low"] < got["mae_levels"]["high"] <= 3


def test_is_json():
    got = evaluate_predictions(predictions(2, 8), [EMOTION, INTENSITY])
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@pytest.mark.parametrize(
    "n, words", [(1, "1 speaker, at least 3 are needed"), (2, "2 speakers, at least 3 are needed")]
)
def test_one_or_two_speakers_give_no_interval_and_a_note(n, words):
    metrics = evaluate_predictions(predictions(n), [EMOTION])
    assert metrics["emotion"]["uar"]["low"] is None and metrics["emotion"]["uar"]["note"] == words
    assert words in summary_table(metrics, title="m", corpus="c", protocol="p")


def test_unknown_speakers_give_no_interval_and_a_note():
    table = predictions()
    table.loc[5, "speaker"] = ""
    got = evaluate_predictions(table, [EMOTION])["emotion"]
    assert got["n"] == 240 and got["accuracy"]["low"] is None and "is unknown" in got["accuracy"]["note"]


def test_a_class_of_a_single_speaker():
    table = predictions()
    alone = (table["emotion"] == "anger") & (table["speaker"] != "s00")
    table.loc[alone, "emotion"] = "joy"
    got = evaluate_predictions(table, [EMOTION])["emotion"]
    assert got["accuracy"]["low"] is not None  # does not depend on the set of classes
    assert got["recall"]["joy"]["low"] is not None
    assert (
        got["recall"]["anger"]["n_speakers"] == 1
        and "1 speaker, at least 3 are needed" == got["recall"]["anger"]["note"]
    )
    assert got["uar"]["low"] is None and "a class that only one speaker has" in got["uar"]["note"]
    assert got["macro_f1"]["low"] is None


def test_all_right_gives_no_interval_of_width_zero():
    table = predictions()
    table["emotion_pred"] = table["emotion"]
    got = evaluate_predictions(table, [EMOTION])["emotion"]
    assert got["accuracy"]["value"] == 1 and got["accuracy"]["low"] is None and "spread" in got["accuracy"]["note"]


@pytest.mark.parametrize("how", ["empty", "no column"])
def test_a_task_without_labels_is_reported_as_absent(how):
    table = predictions()
    table = table.drop(columns="intensity") if how == "no column" else table.assign(intensity=None)
    metrics = evaluate_predictions(table, [EMOTION, INTENSITY])
    assert metrics["intensity"] == {"n": 0, "n_speakers": 0, "classes": ["0", "1", "2", "3"]}
    assert "no labels in this split" in summary_table(metrics, title="m", corpus="c", protocol="p")


def test_a_table_read_back_from_csv_gives_the_same():
    table = predictions()
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert again["intensity"].dtype == float  # "2" was read as 2.0, since some are missing
    tasks = [EMOTION, INTENSITY]
    expected = json.dumps(evaluate_predictions(table, tasks))
    assert json.dumps(evaluate_predictions(again, tasks)) == expected


def test_classes_are_taken_from_the_columns_if_not_stated():
    table = predictions()
    assert evaluate_predictions(table, [Task("emotion")])["emotion"]["classes"] == list(EMOTION.classes)


@pytest.mark.parametrize(
    "column, value, words",
    [
        ("emotion_prob_joy", np.nan, "u3: emotion_prob_joy = nan is not a finite number"),
        ("emotion_prob_joy", np.inf, "u3: emotion_prob_joy = inf is not a finite number"),
        ("emotion_prob_joy", -2.5, "u3: emotion_prob_joy = -2.5 is not between 0 and 1"),
        ("emotion", "calm", "'calm' in the column emotion is not one of the classes joy, sadness, neutral, anger"),
        ("emotion_pred", "calm", "'calm' in the column emotion_pred"),
        ("emotion_pred", None, "empty emotion_pred"),
    ],
)
def test_bad_values_are_named(column, value, words):
    table = predictions()
    table.loc[3, column] = value
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        evaluate_predictions(table, [EMOTION])


@pytest.mark.parametrize("column", ["speaker", "emotion_pred", "emotion_prob_anger"])
def test_missing_columns_are_named(column):
    with pytest.raises(UserError, match=f"no column {column}"):
        evaluate_predictions(predictions().drop(columns=column), [EMOTION])


def test_120_speakers_and_68000_utterances():
    metrics = evaluate_predictions(predictions(120, 567), [EMOTION, INTENSITY])
    assert metrics["emotion"]["n"] == 120 * 567


def test_summary_has_corpus_protocol_and_warnings():
    metrics = evaluate_predictions(predictions(), [EMOTION, INTENSITY])
    plain = summary_table(metrics, title="mel_stl, test", corpus="ravdess", protocol="holdout")
    accuracy = metrics["emotion"]["accuracy"]
    row = next(line for line in plain.splitlines() if line.startswith("emotion    accuracy"))
    assert row.split()[2] == number(accuracy["value"]) and interval_text(accuracy["low"], accuracy["high"]) in row
    assert row.split()[-2:] == ["240", "6"]
    assert "mel_stl, test" in plain and "corpus ravdess, protocol holdout" in plain
    assert "SYNTHETIC" not in plain and "!!!" not in plain

    loud = summary_table(metrics, title="m", corpus="mini", protocol="random", warnings=[Note("a", "ONE"), "OTHER"])
    assert "!!! ONE" in loud and "!!! OTHER" in loud


def test_absent_classes_are_reported():
    table = predictions()
    table = table[table["emotion"] != "anger"]
    metrics = evaluate_predictions(table, [EMOTION, INTENSITY])
    assert metrics["emotion"]["recall"]["anger"]["note"] == "no utterance of this class"
    text = summary_table(metrics, title="m", corpus="c", protocol="p")
    assert text.splitlines()[-3:-1] == [
        "(1) no value: no utterance of this class",
        "emotion: UAR and macro-F1 are means over 3 of 4 classes; there is no utterance of anger",
    ]
    assert "means over" not in summary_table(
        evaluate_predictions(predictions(), [EMOTION]), title="m", corpus="c", protocol="p"
    )


def test_a_recall_has_its_own_counts():
    table = predictions()
    metrics = evaluate_predictions(table, [EMOTION])
    text = summary_table(metrics, title="m", corpus="c", protocol="p")
    row = next(line for line in text.splitlines() if "recall joy" in line)
    assert row.split()[-2:] == [str((table["emotion"] == "joy").sum()), "6"]


def test_the_table_has_the_notes_on_intervals():
    metrics = json.loads(json.dumps(evaluate_predictions(predictions(), [EMOTION, INTENSITY])))
    assert [note["code"] for note in metrics["emotion"]["cautions"]] == ["one_seed"]
    metrics["intensity"]["cautions"].append({"code": "near_bound", "text": "most speakers are nearly perfect"})
    lines = summary_table(metrics, title="m", corpus="c", protocol="p").splitlines()
    assert lines[-2].startswith("One seed: ") and lines[-1] == "Most speakers are nearly perfect (intensity)."


def rated(n_speakers=5, per_speaker=20):
    rng = np.random.default_rng(0)
    table = predictions(n_speakers, per_speaker, tasks=())
    truth = rng.uniform(1, 5, len(table)).round(1)
    table["valence"] = [None if i % 7 == 0 else str(value) for i, value in enumerate(truth)]  # text, as read from CSV
    return table.assign(valence_pred=0.6 * truth + 1 + 0.5 * rng.normal(size=len(table)))


def test_numbers_have_metrics_with_intervals():
    valence, table = Task("valence", kind="number"), rated()
    got = evaluate_predictions(table, [valence])
    result = json.loads(json.dumps(got))["valence"]
    labelled = table.dropna(subset="valence")
    error = (labelled["valence"].astype(float) - labelled["valence_pred"]).abs()
    assert result["n"] == len(labelled) and result["n_speakers"] == 5
    assert np.isclose(result["mae"]["value"], error.mean())
    assert (
        0 < result["ccc"]["low"] < result["ccc"]["value"] < result["pearson"]["value"] < result["pearson"]["high"] < 1
    )
    assert [note["code"] for note in result["cautions"]] == ["one_seed"]
    text = summary_table(got, title="t", corpus="c", protocol="p")
    assert "CCC" in text and "Pearson's r" in text and "MAE " in text and "recall" not in text
    unknown = evaluate_predictions(table.assign(speaker=None), [valence])["valence"]
    assert unknown["ccc"]["low"] is None and "unknown" in unknown["ccc"]["note"]
    assert evaluate_predictions(table.drop(columns="valence"), [valence]) == {"valence": {"n": 0, "n_speakers": 0}}


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda t: t.assign(valence_pred=np.where(t["id"] == "u3", np.nan, 1.0)),
            "an empty valence_pred: predict again",
        ),
        (lambda t: t.drop(columns="valence_pred"), "no column valence_pred: predict again"),
        (lambda t: t.assign(valence="3,5"), "100 of 100 values of valence are no finite numbers, such as '3,5' of u0"),
    ],
)
def test_damaged_numbers_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        evaluate_predictions(change(rated()), [Task("valence", kind="number")])
