"""What follows from the kind of a task."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from korser import Task, UserError

EMOTION = Task("emotion", classes=("joy", "anger", "fear"))
AGE = Task("age", kind="number", scaling=(40.0, 10.0))


@pytest.mark.parametrize(
    "options, said",
    [
        (
            {"kind": "numbers"},
            "kind of task 'x' is 'numbers': expected one of classes, ordinal, number, distribution .did you mean",
        ),
        ({"kind": None}, "kind of task 'x' is None"),
        ({"kind": "number", "loss": "mae"}, "loss of task 'x' is 'mae': expected one of ccc, mse"),
        ({"loss": "mse"}, "only a task of kind 'number' has one"),
    ],
)
def test_invalid_kinds_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        Task("x", **options)


def test_targets_are_indices_or_standardised_numbers():
    assert [EMOTION.strategy.target(label) for label in ("fear", None, math.nan)] == [2, -1, -1]
    assert AGE.strategy.target("55") == 1.5 and AGE.strategy.target(30) == -1 and math.isnan(AGE.strategy.target(None))
    assert (EMOTION.n_outputs, AGE.n_outputs) == (3, 1)


def test_votes_are_targets_of_a_distribution():
    task = Task(
        "emotion", kind="distribution", classes=EMOTION.classes, raters=("r1", "r2", "r3"), consensus="majority"
    )
    votes = [["fear", "fear", "joy"], ["joy", "anger", None], [None, "boredom", None]]
    table = pd.DataFrame(votes, columns=list(task.raters))
    targets = np.stack(task.strategy.targets(table))
    assert targets.tolist() == [[1, 0, 2], [1, 1, 0], [0, 0, 0]] and targets.dtype == np.float32
    assert task.strategy.present(targets).tolist() == [True, True, False]
    outputs = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    assert task.strategy.validation_scores(targets, outputs.softmax(-1).numpy()) == {"accuracy": 1, "uar": 1}
    expected = -(torch.tensor([[1 / 3, 0, 2 / 3], [0.5, 0.5, 0]]) * outputs[:2].log_softmax(-1)).sum(-1)
    assert torch.isclose(task.strategy.loss(outputs, torch.from_numpy(targets)), expected.mean())
    smooth = task.strategy.loss(outputs, torch.from_numpy(targets), label_smoothing=0.3)
    uniform = -outputs[:2].log_softmax(-1).mean(-1)
    assert torch.isclose(smooth, (0.7 * expected + 0.3 * uniform).mean())


@pytest.mark.parametrize("task", [EMOTION, AGE])
def test_written_predictions_are_read_again(task):
    outputs = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])[:, : task.n_outputs]
    predictions = task.strategy.predictions(outputs).numpy()
    columns = task.strategy.columns(predictions)
    assert list(columns) == task.strategy.required_columns()
    table = pd.DataFrame({"id": ["a", "b"], **columns}, dtype=object).astype({f"{task.name}_pred": str})
    read = task.strategy.read(table, f"{task.name}_pred")
    expected = [0, 1] if task is EMOTION else [60, 40]
    assert np.allclose(read, expected)
    assert not task.strategy.present(task.strategy.read(table, task.name)).any()  # no column of labels


def test_other_values_are_refused():
    table = pd.DataFrame({"id": ["a", "b", "c"], "emotion": ["joy", None, "boredom"], "age": ["31", "", "3O"]})
    with pytest.raises(UserError, match="'boredom' in column emotion of c: expected one of joy, anger, fear"):
        EMOTION.strategy.read(table, "emotion")
    with pytest.raises(UserError, match="1 of 3 values of age are no finite numbers, such as '3O' of c"):
        AGE.strategy.read(table, "age")


def test_validation_scores_are_of_the_labelled_utterances():
    predictions = np.array([[35.0], [52.0], [60.0], [90.0]])
    scores = AGE.strategy.validation_scores(np.array([-0.5, 1.0, 2.5, math.nan]), predictions)
    assert scores["mae"] == pytest.approx((0 + 2 + 5) / 3) and 0.9 < scores["ccc"] < 1
    p = np.eye(3)[[0, 1, 1, 2]]
    assert EMOTION.strategy.validation_scores(np.array([0, 1, 2, -1]), p) == pytest.approx(
        {"accuracy": 2 / 3, "uar": 2 / 3}
    )


def test_recorded_tasks_are_read_again():
    record = {"name": "age", "weight": 0.5, "kind": "number", "classes": [], "loss": "mse", "scaling": [40.0, 10.0]}
    assert Task.from_record(record) == Task("age", weight=0.5, kind="number", loss="mse", scaling=(40.0, 10.0))
