"""Votes of raters: consensus, distance of predictions from them, and raters against each other."""

import numpy as np
import pandas as pd
import pytest

from korser import Task
from korser.metrics.divergences import cross_entropy, jensen_shannon, speaker_divergences
from korser.metrics.evaluate import evaluate_predictions, evaluate_raters, summary_table
from korser.metrics.raters import agreed, average, is_class_rule, raters_ceiling, vote_counts
from korser.metrics.scores import ALL_METRICS

RATERS = ("r1", "r2", "r3")
EMOTION = Task("emotion", classes=("joy", "anger"), raters=RATERS, consensus="majority")


def rated(n_speakers=6, seed=0):
    """Predictions and the votes of three raters, who are right with the probability .8; some did not vote."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (n_speakers * 20, 1))
    votes = np.where(rng.random((len(truth), 3)) < 0.8, truth, 1 - truth)
    names = np.array(["joy", "anger"], dtype=object)
    table = pd.DataFrame(names[votes], columns=list(RATERS))
    table.loc[rng.random(len(table)) < 0.2, "r3"] = None
    counts = vote_counts(table, EMOTION)
    p = rng.uniform(0.05, 0.95, len(table))
    table["emotion"] = np.array([*names, None], dtype=object)[agreed(counts, "majority")]
    table["emotion_pred"] = names[(p < 0.5).astype(int)]
    table["emotion_prob_joy"], table["emotion_prob_anger"] = p, 1 - p
    table["speaker"] = [f"s{i % n_speakers}" for i in range(len(table))]
    table["id"] = table.index.astype(str)
    return table


def test_rules():
    counts = np.array([[0, 0], [1, 0], [2, 2], [3, 2], [3, 3]])
    assert agreed(counts, "majority").tolist() == [-1, 0, -1, 0, -1]
    assert agreed(counts, "at_least_3").tolist() == [-1, -1, -1, 0, -1]  # of two classes with three each: neither
    assert agreed(np.zeros((2, 0)), "plurality").tolist() == [-1, -1]
    assert [is_class_rule(rule) for rule in ("at_least_2", "at_least_0", "at_least", "mean", 3)] == [True] + [False] * 4
    ratings = np.array([[1, 2, 6], [np.nan, 4, np.nan], [np.nan] * 3])
    assert np.allclose(average(ratings, "mean"), [3, 4, np.nan], equal_nan=True)
    assert np.allclose(average(ratings, "median"), [2, 4, np.nan], equal_nan=True)


def test_each_rater_is_compared_with_the_others():
    votes = [["joy", "joy", "joy"], ["joy", "joy", "anger"], ["joy", "anger", None], ["anger", "fear", "anger"]]
    table = pd.DataFrame(votes, columns=list(RATERS)).assign(
        speaker=["a", "b", "b", "a"], id=list("wxyz"), emotion=["joy", "joy", None, "anger"]
    )
    ceiling = raters_ceiling(table, EMOTION)
    # w: all agree; x: only r3 finds others who do; y: no label; z: fear is no class, and r1 or r3 alone decide
    assert ceiling.statistics.tolist() == [[[3, 0], [0, 0]], [[0, 1], [0, 0]]]
    assert (ceiling.n_raters, ceiling.n_utterances, ceiling.n_votes, ceiling.known) == (3, 2, 4, True)
    unknown = raters_ceiling(table.assign(speaker=[None, "b", "b", "a"]), EMOTION)
    assert not unknown.known and unknown.statistics.tolist() == [[[3, 1], [0, 0]]]


@pytest.mark.parametrize("n_raters, rule", [(3, "at_least_3"), (4, "majority"), (4, "plurality"), (5, "majority")])
def test_whether_an_utterance_counts_does_not_depend_on_the_rater(n_raters, rule):
    names = tuple(f"r{k}" for k in range(n_raters))
    task = Task("emotion", classes=("joy", "anger"), raters=names, consensus=rule)
    votes = np.random.default_rng(0).integers(0, 2, (4000, n_raters))  # by chance: raters know nothing of each other
    label = agreed(np.stack([(votes == k).sum(1) for k in (0, 1)], axis=1), rule)
    words = np.array(["joy", "anger", None], dtype=object)
    table = pd.DataFrame(words[votes], columns=list(names)).assign(emotion=words[label], speaker="s")
    ceiling = raters_ceiling(table, task)
    if rule == "at_least_3":  # of three: a rater who differs is never in a labelled utterance
        assert ceiling.n_votes == 0 and evaluate_raters(table, task)["uar"]["value"] is None
    else:
        assert float(ALL_METRICS["uar"](ceiling.statistics.sum(0))) == pytest.approx(0.5, abs=0.03)


def test_each_rating_is_compared_with_the_mean_of_the_others():
    task = Task("valence", kind="number", raters=RATERS, consensus="mean")
    table = pd.DataFrame({"r1": [1, 4], "r2": ["3", ""], "r3": [5, 2]}).assign(speaker="a", id=["x", "y"], valence=3)
    count, *sums = raters_ceiling(table, task).statistics[0]
    others, own = np.array([4, 3, 2, 2, 4]) - 3, np.array([1, 3, 5, 4, 2]) - 3
    assert count == 5
    assert np.allclose(sums, [others.sum(), (others**2).sum(), own.sum(), (own**2).sum(), others @ own, 10])


@pytest.mark.parametrize(
    "task",
    [
        Task("emotion", classes=EMOTION.classes, raters=RATERS),
        Task("emotion", classes=EMOTION.classes, consensus="majority"),
    ],
)
def test_without_votes_or_a_rule_there_is_no_ceiling(task):
    assert raters_ceiling(rated(), task) is None
    assert "raters" not in evaluate_predictions(rated(), [task])["emotion"]


def test_raters_are_measured_beside_the_model():
    table = rated()
    metrics = evaluate_predictions(table, [EMOTION])
    raters = metrics["emotion"]["raters"]
    assert raters["consensus"] == "majority" and raters["n_raters"] == 3 and raters["n"] <= metrics["emotion"]["n"]
    assert 0.5 < raters["uar"]["low"] < raters["uar"]["value"] < raters["uar"]["high"] < 0.95
    text = summary_table(metrics, title="m", corpus="c", protocol="p")
    assert "raters: UAR" in text and "Raters of emotion are no model: each of 3 against the consensus" in text


def test_divergences():
    votes, probabilities = np.array([[3, 1], [0, 2], [1, 0]]), np.array([[0.75, 0.25], [0.0, 1.0], [0.0, 1.0]])
    sums = speaker_divergences(votes, probabilities, np.array([0, 0, 1]))
    assert sums[:, 0].tolist() == [2, 1] and np.allclose(jensen_shannon(sums), [0, 1])
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert np.allclose(cross_entropy(sums), [entropy / 2, -np.log(1e-7)])
    assert np.isnan(jensen_shannon(np.zeros((1, 3)))).all()


def test_distributions_are_measured_where_there_are_votes():
    task = Task("emotion", kind="distribution", classes=EMOTION.classes, raters=RATERS, consensus="majority")
    table = rated()
    result = evaluate_predictions(table, [task])["emotion"]
    assert result["jsd"]["n"] == len(table) > result["n"]
    assert 0 < result["jsd"]["low"] < result["jsd"]["value"] < result["jsd"]["high"] < 1
    p = vote_counts(table, task) / vote_counts(table, task).sum(1, keepdims=True)
    q = table[["emotion_prob_joy", "emotion_prob_anger"]].to_numpy()
    assert result["cross_entropy"]["value"] == pytest.approx(-(p * np.log(q)).sum(1).mean())
    assert result["uar"] == evaluate_predictions(table, [EMOTION])["emotion"]["uar"]
    without = evaluate_predictions(table.drop(columns=list(RATERS)), [task])["emotion"]
    assert "jsd" not in without and "raters" not in without
