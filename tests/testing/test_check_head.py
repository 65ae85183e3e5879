"""The checks of a head pass for korser's and for usual losses, and fail with the reason for broken heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import korser
from korser import Task, UserError
from korser.nn.losses import MISSING
from korser.plugins.heads.linear import LinearHeads
from korser.testing import quick_check_head


class Focal(LinearHeads):
    """Lin et al. 2017; refuses mixup."""

    def __init__(self, *, gamma=2.0, **kwargs):
        super().__init__(**kwargs)
        self.gamma = gamma

    def loss(self, logits, labels, mix=None):
        if mix is not None:
            raise ValueError("Focal does not know mixup")
        by_task = {}
        for task in self.tasks:
            y = labels[task.name]
            present = y != MISSING
            ce = F.cross_entropy(logits[task.name].float(), y, ignore_index=MISSING, reduction="none")
            by_task[task.name] = ((1 - (-ce).exp()) ** self.gamma * ce * present).sum() / present.sum().clamp(min=1)
        return sum(task.weight * by_task[task.name] for task in self.tasks), by_task


class Uncertainty(LinearHeads):
    """Task weights learnt as homoscedastic uncertainties (Kendall et al. 2018)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.log_var = nn.Parameter(torch.zeros(len(self.tasks)))

    def loss(self, logits, labels, mix=None):
        _, by_task = super().loss(logits, labels, mix)
        losses = torch.stack([by_task[task.name] for task in self.tasks])
        return (losses * (-self.log_var).exp() + self.log_var / 2).sum(), by_task


class Ordinal(LinearHeads):
    """CORAL (Cao et al. 2020) for the ordinal tasks: one direction, K - 1 thresholds."""

    def __init__(self, *, in_features, tasks, **kwargs):
        super().__init__(in_features=in_features, tasks=tasks, **kwargs)
        for task in self.tasks:
            if task.kind == "ordinal":
                self.layers[task.name] = nn.Linear(in_features, 1, bias=False)
        ordinal = [t for t in tasks if t.kind == "ordinal"]
        self.cuts = nn.ParameterDict({t.name: nn.Parameter(torch.linspace(1, -1, len(t.classes) - 1)) for t in ordinal})

    def forward(self, embedding):
        out = super().forward(embedding)
        for name, cuts in self.cuts.items():
            above = torch.sigmoid(out[name] + cuts.sort(descending=True).values)  # (B, K - 1): P(y > k)
            one, zero = above.new_ones(len(above), 1), above.new_zeros(len(above), 1)
            p = torch.cat([one, above], 1) - torch.cat([above, zero], 1)
            out[name] = p.clamp_min(1e-6).log()  # whose softmax is p
        return out


def failed(factory):
    found = {}
    for check in korser.check_head(factory):
        try:
            check()
        except AssertionError as error:
            found[check.name] = str(error)
    return found


@pytest.mark.parametrize("head", [LinearHeads, Focal, Uncertainty, Ordinal])
def test_good_heads_pass(head):
    assert failed(head) == {}


@pytest.mark.parametrize("loss", ["ccc", "mse"])
def test_heads_of_numbers_pass(loss):
    number = Task("valence", kind="number", loss=loss)
    for tasks in ([number], [Task("emotion"), number]):
        for check in korser.check_head(LinearHeads, tasks=tasks):
            check()


class PlainLoss(LinearHeads):
    def loss(self, logits, labels, mix=None):
        parts = {t.name: F.cross_entropy(logits[t.name], labels[t.name].clamp(min=0)) for t in self.tasks}
        return sum(parts.values()), parts


class NanMean(LinearHeads):
    def loss(self, logits, labels, mix=None):
        parts = {t.name: F.cross_entropy(logits[t.name], labels[t.name], ignore_index=-1) for t in self.tasks}
        return sum(parts.values()), parts


class NoMixArgument(LinearHeads):
    def loss(self, logits, labels):
        return super().loss(logits, labels)


class BatchNormed(LinearHeads):
    def __init__(self, *, in_features, **settings):
        super().__init__(in_features=in_features, **settings)
        self.norm = nn.BatchNorm1d(in_features)

    def forward(self, embedding):
        return super().forward(self.norm(embedding))


class Softmax(LinearHeads):
    def forward(self, embedding):
        return {name: y.softmax(1) for name, y in super().forward(embedding).items()}


class Detached(LinearHeads):
    def forward(self, embedding):
        return super().forward(embedding.detach())


class Unused(LinearHeads):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.unused = nn.Linear(2, 2)


class Centred(LinearHeads):
    def forward(self, embedding):
        return super().forward(embedding - embedding.mean(0))


class Forgets(LinearHeads):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.offset = torch.randn(1)

    def forward(self, embedding):
        return {name: y * self.offset for name, y in super().forward(embedding).items()}


class FillsLabels(LinearHeads):
    def loss(self, logits, labels, mix=None):
        result = super().loss(logits, labels, mix)
        labels["emotion"][labels["emotion"] < 0] = 0
        return result


class TakesLogits(LinearHeads):
    def loss(self, logits, labels, mix=None):
        return super().loss({name: logits.pop(name) for name in list(logits)}, labels, mix)


class LeafWeight(LinearHeads):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.weight = torch.zeros(1, requires_grad=True)

    def loss(self, *given):
        joint, by_task = super().loss(*given)
        return (joint * self.weight.exp() - self.weight).squeeze(), by_task


class Exits(LinearHeads):
    def loss(self, *given):
        raise SystemExit


class NoWeights(LinearHeads):
    def __init__(self, *, in_features, tasks):
        super().__init__(in_features=in_features, tasks=tasks)


BROKEN = {
    PlainLoss: ("missing_labels_ignored", "an utterance whose label of 'emotion' is missing has a part in the loss"),
    NanMean: ("all_labels_missing", "the joint loss is nan"),
    NoMixArgument: ("loss_of_every_task", "loss(logits, labels) does not take its arguments; expected loss(logits, l"),
    BatchNormed: ("trains_on_a_batch_of_one", "Expected more than 1 value per channel when training"),
    Softmax: ("logits_of_every_task", "forward returned probabilities, of which softmax would be taken once more"),
    Detached: ("gradients_reach_every_parameter", "no gradient reaches the embedding"),
    Unused: ("gradients_reach_every_parameter", "no gradient reaches unused.weight, unused.bias"),
    Centred: ("deterministic_in_eval", "logits of an utterance depend on the others of the batch"),
    Forgets: ("state_dict_round_trip", "logits change after load_state_dict into a new head"),
    FillsLabels: ("arguments_not_modified", "loss changes the labels of emotion in place: clone them first"),
    TakesLogits: ("arguments_not_modified", "loss changes the logits of emotion, gender, intensity in place"),
    LeafWeight: ("parameters_registered", "weight are not registered, so that neither optimizer nor checkpoint know"),
    Exits: ("loss_of_every_task", "in loss: SystemExit at `raise SystemExit`"),
    NoWeights: ("logits_of_every_task", "unexpected keyword argument 'class_weights'"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_heads_fail_by_name_and_reason(broken):
    name, reason = BROKEN[broken]
    assert reason in failed(broken)[name]


def test_ignoring_mixup_is_found():
    assert "the loss of utterances mixed with 75% of another one" in failed(PlainLoss)["mixup_used_or_refused"]


def test_the_check_before_training_names_the_head():
    tasks = [Task("emotion", classes=("a", "b"))]
    quick_check_head(LinearHeads, 4, tasks)
    quick_check_head(Exits, 4, tasks)  # is left to the rehearsal of training
    with pytest.raises(UserError, match=r"head: \S+Unused: no gradient reaches unused.*korser check mine.yaml$"):
        quick_check_head(Unused, 4, tasks, "mine.yaml")
