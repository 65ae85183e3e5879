"""The joint loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from korser import Task
from korser.metrics.moments import ccc, speaker_moments
from korser.nn.losses import MISSING, balanced_weights, concordance, joint_loss

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


NAN = float("nan")


def numbers(n=8):
    torch.manual_seed(0)
    targets = torch.randn(n, dtype=torch.float64)
    return (0.6 * targets + 0.5 * torch.randn(n) + 0.2)[:, None].requires_grad_(), targets


def test_concordance_is_one_minus_ccc():
    values, targets = numbers()
    moments = speaker_moments(targets.numpy(), values.detach().numpy()[:, 0], np.zeros(8, dtype=int))
    assert concordance(values[:, 0], targets).item() == pytest.approx(1 - ccc(moments)[0])
    assert torch.autograd.gradcheck(lambda x: concordance(x[:, 0], targets), values)
    assert concordance(targets, targets) == 0


@pytest.mark.parametrize("loss", ["ccc", "mse"])
def test_missing_numbers_take_no_part_and_few_give_the_squared_error(loss):
    task = Task("valence", kind="number", loss=loss)
    values, targets = numbers()
    part = torch.where(torch.arange(8) < 5, targets, NAN)
    given = {"valence": values}
    alone, _ = joint_loss({"valence": values[:5]}, {"valence": targets[:5]}, [task])
    torch.testing.assert_close(joint_loss(given, {"valence": part}, [task])[0], alone)
    for left, expected in ((1, (values[0, 0] - targets[0]) ** 2), (0, torch.tensor(0.0))):
        values.grad = None
        total, _ = joint_loss(given, {"valence": torch.where(torch.arange(8) < left, targets, NAN)}, [task])
        assert total.item() == pytest.approx(expected.item(), abs=1e-6)
        total.backward()
        assert values.grad.isfinite().all() and not values.grad[left:].any()
    equal = joint_loss(given, {"valence": torch.ones(8)}, [task])[0]
    assert equal.item() == pytest.approx((values - 1).square().mean().item(), abs=1e-6)


def test_mixup_mixes_numbers():
    values, targets = numbers()
    targets[2] = NAN
    partner, share = torch.tensor([1, 2, 3, 4, 5, 0, 7, 6]), torch.tensor([0.9, 1.0, 0.7, 0.6, 0.5, 1.0, 0.8, 0.5])
    task = Task("valence", kind="number", loss="mse")
    loss, _ = joint_loss({"valence": values}, {"valence": targets}, [task], mix=(partner, share))
    mixed = share * targets.nan_to_num() + (1 - share) * targets[partner].nan_to_num()
    kept = torch.arange(8) != 2  # the utterance without a number, mixed; another's partner has no part in it
    torch.testing.assert_close(loss, F.mse_loss(values[kept, 0].float(), mixed[kept].float()))


def test_numbers_and_classes_are_trained_together():
    logits, labels = batch()
    values = torch.randn(6, 1, requires_grad=True)
    tasks = [*TASKS, Task("valence", kind="number", weight=0.5)]
    targets = torch.randn(6)
    loss, by_task = joint_loss({**logits, "valence": values}, {**labels, "valence": targets}, tasks)
    expected = joint_loss(logits, labels, TASKS)[0] + 0.5 * concordance(values[:, 0], targets)
    torch.testing.assert_close(loss, expected)
    assert list(by_task) == ["emotion", "gender", "valence"]
