"""A fitted head chooses a layer and C on training speakers, and its state is all that prediction needs."""

import numpy as np
import pytest
import torch

from korser import Task, UserError
from korser.classical.head import FittedHead
from korser.nn.losses import MISSING
from korser.plugins.heads.fitted import LinearSVM, LogisticRegression

TASKS = [Task("emotion", classes=("joy", "anger", "neutral")), Task("gender", classes=("female", "male"))]


def made_up():
    """Embeddings of three layers, of which the second holds the emotion; the gender is in all of them."""
    rng = np.random.default_rng(0)
    emotion, speakers = np.tile([0, 1, 2], 24), np.repeat(np.arange(6), 12)
    x = rng.normal(size=(72, 3, 4)) + (speakers % 2)[:, None, None]
    x[:, 1] += 3 * np.eye(3, 4)[emotion]
    return x.reshape(72, 12).astype(np.float32), {"emotion": emotion, "gender": speakers % 2}, speakers


def fitted(head=LinearSVM, **options):
    x, labels, speakers = made_up()
    head = head(in_features=12, tasks=TASKS, C=[0.01, 1.0], inner_folds=3, **options)
    return x, labels, head, head.fit(x, labels, [speakers], ["0", "1", "2"])


@pytest.mark.parametrize("head", [LinearSVM, LogisticRegression])
def test_the_layer_is_chosen_for_each_task(head):
    x, labels, head, tasks = fitted(head)
    assert tasks["emotion"].choice["layer"] == "1" and tasks["emotion"].choice["inner_uar"] > 0.8
    logits = head(torch.from_numpy(x))
    assert (logits["emotion"].argmax(1).numpy() == labels["emotion"]).mean() > 0.9
    assert logits["emotion"].dtype == torch.float32 and logits["gender"].shape == (72, 2)
    assert not head.emotion_weight[:, :4].any() and not head.emotion_weight[:, 8:].any()
    np.testing.assert_allclose(tasks["emotion"].predictions.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("head", [LinearSVM, LogisticRegression])
def test_numbers_are_fitted_by_regression(head):
    x, _, speakers = made_up()
    age = Task("age", kind="number", scaling=(40.0, 10.0))
    y = x[:, 5].astype(float) + 0.1 * np.random.default_rng(1).normal(size=72)  # a feature of the second layer
    y = (y - y.mean()) / y.std()
    y[::9] = np.nan
    head = head(in_features=12, tasks=[age], C=[1e-6, 0.1], inner_folds=3)
    fitted = head.fit(x, {"age": y}, [speakers], ["0", "1", "2"])["age"]
    assert (fitted.choice["layer"], fitted.choice["C"]) == ("1", 0.1) and fitted.choice["inner_ccc"] > 0.9
    labelled = ~np.isnan(y)
    assert (np.isnan(fitted.predictions[:, 0]) == ~labelled).all()
    np.testing.assert_allclose(fitted.predictions[labelled, 0], 40 + 10 * y[labelled], atol=8)
    outputs = head(torch.from_numpy(x))["age"]
    assert outputs.shape == (72, 1)
    np.testing.assert_allclose(outputs.detach()[labelled, 0], y[labelled], atol=0.5)


def test_its_state_is_all_of_it():
    x, _, head, _ = fitted()
    other = LinearSVM(in_features=12, tasks=TASKS)
    other.load_state_dict(head.state_dict())
    for name, logits in other(torch.from_numpy(x)).items():
        assert logits.equal(head(torch.from_numpy(x))[name])


def test_unlabelled_utterances_are_not_fitted_to():
    x, labels, speakers = made_up()
    rows = np.arange(72) % 4 > 0
    masked = {"emotion": np.where(rows, labels["emotion"], MISSING), "gender": labels["gender"]}
    heads = [LinearSVM(in_features=12, tasks=TASKS[:1], C=0.1) for _ in range(2)]
    task = heads[0].fit(x, masked, [speakers])["emotion"]
    heads[1].fit(x[rows], {"emotion": labels["emotion"][rows]}, [speakers[rows]])
    assert heads[0].emotion_weight.equal(heads[1].emotion_weight)
    assert (np.isnan(task.predictions[:, 0]) == ~rows).all()


def test_one_speaker_is_divided_by_utterances():
    x, labels, _ = made_up()
    head = LinearSVM(in_features=12, tasks=TASKS[:1], C=0.1)
    assert head.fit(x, labels, [np.zeros(72)])["emotion"].choice["inner_uar"] > 0.8


@pytest.mark.parametrize("options", [{"C": []}, {"C": [0.1, -1]}, {"C": "1"}, {"inner_folds": 1}])
def test_invalid_arguments_are_refused(options):
    [name] = options
    with pytest.raises(UserError, match=f"head.{name}=.*: expected"):
        LinearSVM(in_features=2, tasks=TASKS, **options)


def test_a_head_without_a_classifier_is_named():
    class Own(FittedHead):
        pass

    head = Own(in_features=2, tasks=[Task("emotion", classes=("a", "b"))])
    with pytest.raises(NotImplementedError, match="^Own does not define fit_classifier$"):
        head.fit_classifier(np.zeros((2, 2)), np.array([0, 1]), [1.0], n_classes=2, class_weight=None)
    with pytest.raises(UserError, match="^head: Own classifies, but age is a number: define fit_regression"):
        Own(in_features=2, tasks=[Task("age", kind="number")])
