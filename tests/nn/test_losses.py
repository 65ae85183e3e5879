"""The joint loss."""

import torch
from torch.nn import functional as F

from korser import Task
from korser.nn.losses import MISSING, balanced_weights, joint_loss

TASKS = [Task("emotion", weight=1.0, classes=("a", "b", "c")), Task("gender", weight=0.3, classes=("f", "m"))]


def batch(n=6):
    torch.manual_seed(0)
    logits = {"emotion": torch.randn(n, 3, requires_grad=True), "gender": torch.randn(n, 2, requires_grad=True)}
    return logits, {"emotion": torch.arange(n) % 3, "gender": torch.arange(n) % 2}


def test_weighted_sum_of_cross_entropies():
    logits, labels = batch()
    loss, by_task = joint_loss(logits, labels, TASKS)
    emotion, gender = (F.cross_entropy(logits[name], labels[name]) for name in ("emotion", "gender"))
    torch.testing.assert_close(loss, emotion + 0.3 * gender)
    torch.testing.assert_close(by_task["gender"], gender)


def test_missing_labels_take_no_part():
    logits, labels = batch()
    labels["gender"] = torch.tensor([0, 1, MISSING, MISSING, MISSING, MISSING])
    loss, by_task = joint_loss(logits, labels, TASKS)
    torch.testing.assert_close(by_task["gender"], F.cross_entropy(logits["gender"][:2], labels["gender"][:2]))
    loss.backward()
    assert (logits["gender"].grad[2:] == 0).all()


def test_a_task_without_labels_adds_nothing():
    logits, labels = batch()
    labels["gender"] = torch.full((6,), MISSING)
    loss, by_task = joint_loss(logits, labels, TASKS)
    assert by_task["gender"] == 0
    torch.testing.assert_close(loss, by_task["emotion"])
    loss.backward()
    assert torch.isfinite(logits["gender"].grad).all()


def test_mixup_shares_the_labels():
    logits, labels = batch()
    partner, share = torch.tensor([1, 2, 3, 4, 5, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 1.0])
    _, by_task = joint_loss(logits, labels, TASKS, mix=(partner, share))
    own = F.cross_entropy(logits["emotion"], labels["emotion"], reduction="none")
    other = F.cross_entropy(logits["emotion"], labels["emotion"][partner], reduction="none")
    torch.testing.assert_close(by_task["emotion"], (share * own + (1 - share) * other).mean())


def test_balanced_weights():
    weights = balanced_weights(torch.tensor([0, 0, 0, 1, MISSING]), 3)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2.0, 0.0]))
    # as scikit-learn's compute_class_weight("balanced") over the classes that occur
    assert weights[:2] @ torch.tensor([3.0, 1.0]) == 4
