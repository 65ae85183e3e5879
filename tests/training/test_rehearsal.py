"""Mistakes in the user's parts are told in one line before the first epoch, and nothing else changes."""

import sys

import pytest
import safetensors.torch
import torch
from conftest import HPARAMS
from helpers import WAV_AUGMENT, assert_same_run, run

from korser import UserError, load_hparams
from korser.training.brain import EmotionBrain
from korser.training.build import build_model
from korser.training.rehearsal import rehearse, synthetic_batch
from korser.training.tasks import recorded_tasks

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

class Head(nn.Module):
    def __init__(self, *, in_features, tasks, class_weights=None):
        super().__init__()
        self.tasks = list(tasks)
        self.layers = nn.ModuleDict({t.name: nn.Linear(in_features, len(t.classes)) for t in tasks})
    def forward(self, e):
        return {n: l(e) for n, l in self.layers.items()}
    def loss(self, logits, labels, mix=None):
        parts = {t.name: F.cross_entropy(logits[t.name], labels[t.name], ignore_index=-1) for t in self.tasks}
        return sum(parts.values()), parts
class NoLoss(Head):
    loss = None
class Scalar(Head):
    def loss(self, *given): return super().loss(*given)[0]
class NoMix(Head):
    def loss(self, logits, labels): return super().loss(logits, labels)
class Tensor(Head):
    def forward(self, e): return self.layers["emotion"](e)
class NoParts(Head):
    def loss(self, *given): return super().loss(*given)[0], {}
class Numbers(Head):
    def loss(self, *given): return super().loss(*given)[0], {"emotion": 1.0}
class Softmax(Head):
    def forward(self, e): return {n: l(e).softmax(-1) for n, l in self.layers.items()}
class Detached(Head):
    def forward(self, e): return super().forward(e.detach())
class Flaky(Head):
    def loss(self, *given):
        if len(given[0]["emotion"]) > 1: raise RuntimeError("some CUDA thing\\nsecond line")
        return super().loss(*given)
class NoWeights(Head):
    def __init__(self, *, in_features, tasks): super().__init__(in_features=in_features, tasks=tasks)
class Extra(Head):
    def get_extra_state(self): return {"a": 1}
    def set_extra_state(self, state): pass
class Tied(Head):
    def __init__(self, **k):
        super().__init__(**k)
        self.again = self.layers
class Alike(Head):
    def loss(self, logits, labels, mix=None):
        parts = {t.name: F.cross_entropy(logits[t.name], labels[t.name]) for t in self.tasks}
        return sum(parts.values()), parts
class Undefined(Head):
    def forward(self, e): return {n: y if self.training else y / 0 for n, y in super().forward(e).items()}
class Infinite(Head):
    def loss(self, *given):
        loss, parts = super().loss(*given)
        return loss / 0, parts
class Plain:
    def __init__(self, **k): pass

class Mean(nn.Module):
    def __init__(self, *, in_channels, size=4):
        super().__init__()
        self.l, self.output_size = nn.Linear(in_channels, 4), size
    def forward(self, x, lengths): return self.l(x).mean(1)
class OnlyX(Mean):
    def forward(self, x): return super().forward(x, None)
class Squeezes(Mean):
    def forward(self, x, lengths): return super().forward(x, lengths).squeeze()
class Normed(Mean):
    def __init__(self, **k):
        super().__init__(**k)
        self.norm = nn.BatchNorm1d(4)
    def forward(self, x, lengths): return self.norm(super().forward(x, lengths))
class Double(Mean):
    def forward(self, x, lengths): return super().forward(x, lengths).double()
class Raises(Mean):
    def forward(self, x, lengths): return x @ x
class Exits(Mean):
    def forward(self, x, lengths): raise SystemExit("no data")

def crops(x, lengths): return x[:, :5], lengths.clamp(max=5)
def halves(x, lengths): return x[:1], lengths[:1], None
def floats(x, lengths): return x, lengths / 1, None
def only(x): return x
def doubled(x, lengths): return x.double(), lengths, None
def longer(x, lengths): return x, lengths + 100, None
def emptied(x, lengths): return x, 0 * lengths, None
def broken(x, lengths): return x / 0, lengths, None
def absolute(x, lengths): return x, lengths * x.shape[1]
def twice(x, lengths): return torch.cat([x, x]), torch.cat([lengths, lengths])
class Breaks(torch.optim.SGD):
    def step(self, closure=None): self.param_groups[0]["params"][0].data.fill_(torch.nan)
def falling(optimizer): return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: -1.0)
class Step:
    def __init__(self, parameters, lr): pass
class Constant:
    def __init__(self, lr): pass
    def __call__(self, optimizer): raise KeyError("lr")
    def state_dict(self): return {}
class ByEpoch(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self): return [1 / (1 - self.last_epoch) for _ in self.base_lrs]
"""
LOSS = "; expected loss(logits, labels, mix) -> joint loss, {task: loss}"
LOGITS = "; expected forward(embedding (B, E)) -> {task: logits (B, K)}"
EMBEDDING = "; expected forward(features (B, T, C), lengths (B,)) -> embedding (B, output_size)"
AUGMENT = "; expected (features (B, T, C), lengths (B,)) -> features, lengths, mix"
BACKBONE = "!new:parts.{} {{in_channels: !ref <frontend.output_size>}}"
TORCH = "torch.optim."
MISTAKES = {
    ("head", "!name:parts.NoLoss"): "head: parts.NoLoss has no method loss" + LOSS,
    ("head", "!name:parts.Scalar"): "head: parts.Scalar: loss returned a tensor of shape () and torch.float32" + LOSS,
    ("head", "!name:parts.NoMix"): "head: parts.NoMix: loss(logits, labels) does not take its arguments" + LOSS,
    ("head", "!name:parts.Tensor"): "head: parts.Tensor: forward returned a tensor of shape (2, 2) and torch.float32",
    ("head", "!name:parts.NoParts"): "head: parts.NoParts: loss returned None as loss of 'emotion' instead of a tensor",
    (
        "head",
        "!name:parts.Numbers",
    ): "head: parts.Numbers: loss returned a float as loss of 'emotion' instead of a tens",
    ("head", "!name:parts.Softmax"): "head: parts.Softmax: forward returned probabilities, of which softmax would be",
    (
        "head",
        "!name:parts.Detached",
    ): "backbone: korser.plugins.backbones.convnet.ConvNet: no gradient reaches its para",
    ("head", "!name:parts.Flaky"): "parts.py:34, in loss: RuntimeError: some CUDA thing second line",
    (
        "head",
        "!name:parts.NoWeights",
    ): "head: parts.NoWeights: TypeError: NoWeights.__init__() got an unexpected keyword",
    ("head", "!name:parts.Plain"): "head: parts.Plain is not a subclass of torch.nn.Module",
    ("head", "!name:parts.Extra"): "head._extra_state in the state of the model are no tensors, which cannot be saved",
    ("head", "!name:parts.Undefined"): "head: parts.Undefined: forward returned 2 of 2 values that are NaN or infinite",
    ("head", "!name:parts.Infinite"): "head: parts.Infinite: loss returned 1 of 1 values that are NaN or infinite",
    ("backbone", BACKBONE.format("Double")): "backbone: parts.Double: forward returned a tensor of shape (2, 4) and "
    "torch.float64, which the head does not take",
    ("lr_scheduler", f"!name:{TORCH}lr_scheduler.OneCycleLR {{total_steps: 3}}"): "OneCycleLR has 3 steps, the run 20",
    ("opt_class", "!name:parts.Step"): "opt_class: parts.Step makes no torch.optim.Optimizer",
    ("backbone", BACKBONE.format("OnlyX")): "backbone: parts.OnlyX: forward(x) does not take its arguments" + EMBEDDING,
    ("backbone", BACKBONE.format("Squeezes")): "backbone: parts.Squeezes: forward returned a tensor of shape (4,) and",
    ("backbone", BACKBONE.format("Exits")): "in forward: SystemExit: no data",
    ("backbone", BACKBONE.format("Raises")): "parts.py:75, in forward: RuntimeError: ",
    (
        "backbone",
        BACKBONE.format("Mean").replace("}", ", size: 8}", 1),
    ): "parts.Mean: forward returned a tensor of shape (2, 4) and torch.float32 instead of (2, 8), for 2 utterances",
    (
        "augment",
        "!name:parts.crops",
    ): "augment: parts.crops: crops returned (a tensor of shape (2, 5, 40) and torch.float",
    (
        "augment",
        "!name:parts.halves",
    ): "augment: parts.halves: halves returned features of shape (1, 54, 40) for (2, 54",
    ("augment", "!name:parts.floats"): "augment: parts.floats: floats returned lengths as torch.float32 of shape (2,)",
    ("augment", "!name:parts.only"): "augment: parts.only: only(x) does not take its arguments" + AUGMENT,
    (
        "augment",
        "!name:parts.doubled",
    ): "augment: parts.doubled: doubled returned features as torch.float64 for torch.f",
    ("augment", "!name:parts.longer"): "augment: parts.longer: longer returned lengths 154, 150 for 54 frames",
    ("augment", "!name:parts.emptied"): "augment: parts.emptied: emptied returned lengths 0, 0 for 54 frames" + AUGMENT,
    ("augment", "!name:parts.broken"): "augment: parts.broken: broken returned 4320 of 4320 values that are NaN or inf",
    (
        "wav_augment",
        "!name:parts.absolute",
    ): "absolute returned lengths 8500.0, 8000.0 instead of proportions of 8500",
    (
        "wav_augment",
        "!name:parts.twice",
    ): "twice returned 4 utterances for 2, without a method replicate_labels(labels)",
    ("opt_class", "!name:parts.Breaks"): "opt_class: parts.Breaks: a step makes backbone.",
    ("lr_scheduler", "!name:parts.falling"): "lr_scheduler: parts.falling: sets learning rates -0.003",
    ("wav_augment", "!name:parts.only"): "wav_augment: parts.only: only(x) does not take its arguments; expected (x (B",
    ("opt_class", f"!name:{TORCH}AdamW {{betas: a}}"): "opt_class: torch.optim.adamw.AdamW: ",
    ("opt_class", f"!name:{TORCH}LBFGS"): "opt_class: torch.optim.lbfgs.LBFGS: TypeError: LBFGS.step() missing 1 req",
    ("lr_scheduler", "!name:parts.Constant"): "lr_scheduler: parts.Constant cannot be saved in checkpoints",
    ("lr_scheduler", "!name:parts.ByEpoch"): "lr_scheduler: parts.ByEpoch: parts.py:99, in ",
    (
        "lr_scheduler",
        f"!name:{TORCH}lr_scheduler.StepLR {{step_size: a}}",
    ): "lr_scheduler.step_size=a: expected an integer (argument of torch.optim.lr_scheduler.StepLR)",
}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The file of :data:`SOURCE`; returns its folder."""
    (tmp_path / "parts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(settings, model="mel_stl"):
    """Return a brain, a batch of two utterances and one of one."""
    hparams = load_hparams(HPARAMS / f"{model}.yaml", settings)
    recorded = {"tasks": [{"name": task.name, "classes": ["a", "b"]} for task in hparams["tasks"]]}
    tasks = recorded_tasks(hparams, recorded)
    brain = EmotionBrain(model=build_model(hparams, tasks), hparams={**hparams, "device": "cpu"}, tasks=tasks)
    return brain, *([synthetic_batch(brain, hparams["frontend"], n)] for n in ((8500, 8000), (8000,)))


@pytest.mark.parametrize(("key", "value"), MISTAKES)
def test_a_mistake_is_told_in_one_line(parts, tiny, key, value):
    with pytest.raises(UserError) as error:
        rehearse(*made({**tiny, key: value}), 10)
    said = str(error.value)
    assert MISTAKES[key, value] in said and "\n" not in said


@pytest.mark.parametrize(
    "settings",
    [
        {"head": "!name:parts.Head", "backbone": BACKBONE.format("Normed"), "augment": "null"},
        {"wav_augment": WAV_AUGMENT, "augment.mixup_alpha": "0.2"},
        {"lr_scheduler": "!new:speechbrain.nnet.schedulers.NewBobScheduler {initial_value: 0.1}"},
    ],
)
def test_what_is_right_passes_and_is_left_as_it_was(parts, tiny, settings):
    brain, *batches = made({**tiny, **settings}, model="leaf_mtl")
    before = {name: value.clone() for name, value in brain.raw_model.state_dict().items()}
    generators = torch.get_rng_state()
    rehearse(brain, *batches, 10)
    after = brain.raw_model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in brain.raw_model.parameters()) and brain.optimizers_dict is None
    assert torch.equal(torch.get_rng_state(), generators)


def test_what_cannot_be_copied_is_not_rehearsed(tiny, tmp_path, caplog):
    brain, *batches = made(tiny)
    with open(tmp_path / "open", "w") as brain.raw_model.backbone.file, caplog.at_level("INFO"):
        rehearse(brain, *batches, 10)
    assert "training is not rehearsed, since a part of it cannot be copied" in caplog.text


def test_the_numbers_of_a_run_do_not_depend_on_it(tiny, tmp_path, monkeypatch):
    rehearsed = run({**tiny, "augment.mixup_alpha": "0.2"}, model="leaf_mtl")
    monkeypatch.setattr("korser.training.train.rehearse", lambda *arguments: None)
    tiny |= {"output_folder": str(tmp_path / "other"), "augment.mixup_alpha": "0.2"}
    assert_same_run(rehearsed, run(tiny, model="leaf_mtl"))


def test_weights_of_two_names_are_saved(parts, tiny):
    run_dir = run({**tiny, "head": "!name:parts.Tied", "n_epochs": "1"}, model="mel_stl")
    saved = safetensors.torch.load_file(run_dir / "model.safetensors")
    assert saved["head.again.emotion.weight"].equal(saved["head.layers.emotion.weight"])


def test_a_batch_with_missing_labels_is_rehearsed(parts, tiny):
    with pytest.raises(
        UserError, match=r"head: parts.Alike: parts.py:\d+, in .*: IndexError: Target -1 is out of bounds"
    ):
        run({**tiny, "head": "!name:parts.Alike", "batch_size": "4"})


def test_a_run_stops_before_its_first_epoch(parts, tiny, call):
    (parts / "mine.yaml").write_text("base: mel_stl.yaml\nhead: !name:parts.Scalar\n")
    code, _, err = call("train", "mine.yaml", *(f"--{key}={value}" for key, value in tiny.items()))
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and "head: parts.Scalar: loss returned a tensor" in line and "Traceback" not in err
    (parts / "mine.yaml").write_text("base: mel_stl.yaml\nhead: !name:parts.Flaky\n")
    code, _, err = call("train", "mine.yaml", *(f"--{key}={value}" for key, value in tiny.items()))
    assert code == 2 and "parts.Flaky" in err and "(traceback: " in err and list(parts.glob("results/*/traceback.txt"))
    assert not list(parts.glob("results/*/log.csv"))


def test_an_error_later_in_training_names_the_part_and_its_line(parts, tiny, monkeypatch, call):
    monkeypatch.setattr("korser.training.train.rehearse", lambda *arguments: None)
    (parts / "mine.yaml").write_text("base: mel_stl.yaml\nhead: !name:parts.Flaky\n")
    arguments = "train", "mine.yaml", *(f"--{key}={value}" for key, value in tiny.items())
    code, _, err = call(*arguments)
    (traceback,) = parts.glob("results/*/traceback.txt")
    said = "error: head: parts.Flaky: parts.py:34, in loss: RuntimeError: some CUDA thing second line (traceback: "
    assert code == 2 and f"{said}{traceback})" in err and "Traceback" not in err
    assert "raise RuntimeError" in traceback.read_text()
    (parts / "parts.py").write_text(SOURCE.replace("> 1: raise", "> 1000: raise"))
    del sys.modules["parts"]
    assert call(*arguments)[0] == 0
