"""The check before training reports in one line how a frontend breaks its contract, and changes nothing."""

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HPARAMS
from torch import nn

import korser
from korser import Chain, Frontend, Parallel, UserError, load_hparams
from korser.comparison.compare import compare
from korser.frontend.lengths import mask_padding
from korser.runs.load import load_runs
from korser.testing import quick_check

SOURCE = """
import numpy
import torch
from korser import Frontend
from korser.frontend.lengths import mask_padding
from torch import nn

class Conv(Frontend):
    def __init__(self, *, n_filters=8):
        super().__init__(output_size=n_filters, frame_rate=100)
        self.conv = nn.Conv1d(1, n_filters, kernel_size=400, stride=160, padding=200)
        self.mean = 0

    def output_lengths(self, lengths):
        return lengths // 160 + 1

    def forward(self, x, lengths):
        y = self.conv(mask_padding(x, lengths)[:, None]).transpose(1, 2)
        y = y.abs().log1p()
        lengths = self.output_lengths(lengths)
        return mask_padding(y, lengths), lengths
"""
LOG = "y = y.abs().log1p()"
GAIN = 'self.gain = getattr(self, "gain", None) or nn.Parameter(torch.ones(1)); y = y * self.gain'
KEEPS = "y = y.abs() - self.mean; self.mean = 0.9 * self.mean + 0.1 * y.mean((0, 1)).detach()"
IN_TRAINING = "y = y.abs()\n        if self.training: self.mean = y.mean((0, 1)).detach()\n        y = y - self.mean"
REUSES = "y = y.abs()\n        if self.training: y = y + self.mean; self.mean = y.mean()"
BROKEN = {  # (what is replaced, by what): what is said
    ("return mask_padding(y, lengths)", "return y"): "features beyond lengths must be 0",
    ("lengths = self.output_lengths(lengths)", "pass"): "return self.output_lengths",
    (
        "self.output_lengths(lengths)",
        "lengths // 80",
    ): r"inputs of \[14955\] samples give \[186\] frames, but output_lengths returns \[94\]",
    ("return lengths // 160", "return lengths / 160"): "lengths as torch.float32, expected torch.int64",
    (
        ".transpose(1, 2)",
        "",
    ): r"shape \(1, 8, 94\), which looks like \(B, C, T\): return features.transpose",
    (
        "frame_rate=100",
        "frame_rate=50",
    ): "10 s give 1000 frames, but frame_rate=50 gives 500: set frame_rate=100 in super",
    ("frame_rate=100", "frame_rate=100, input_rate=8000"): "input_rate=8000: expected 16000 for waveforms",
    ("frame_rate=100", "frame_rate='100'"): "frame_rate='100': expected a number",
    ("output_size=n_filters", "output_size=5"): "forward returns 8 channels, but output_size=5",
    (LOG, "y = y.double()"): "forward returns torch.float64 for an input of torch.float32",
    ("return lengths // 160 + 1", "return int(lengths.max()) // 160 + 1"): "output_lengths returns lengths as int",
    (LOG, "y = y / 0"): "features are NaN or infinite",
    (LOG, "y = y / y.sum(1, keepdim=True)"): "differ alone and in a batch padded to the longest",
    ("mask_padding(x, lengths)[:, None]", "x[:, None]"): "differ alone and in a batch padded with loud noise",
    (LOG, GAIN): "forward creates gain: create it in __init__, or the optimizer does not train it",
    (LOG, KEEPS): "forward in eval mode returns different features at every call",
    (LOG, IN_TRAINING): "features change after load_state_dict .*: mean is not a parameter or persistent buffer",
    (LOG, REUSES): "keeps a tensor of the first one with its graph",
    (LOG, "y = y + torch.randn_like(y)"): "draws random numbers in eval mode",
    (LOG, "y = y + numpy.random.rand()"): "draws random numbers in eval mode",
    (LOG, "y = y.detach()"): "no gradient reaches conv.weight, conv.bias",
    (LOG, "y = y.squeeze(0)"): r"features of shape \(\d+, 8\), expected \(B, T, C\)",
    (
        LOG,
        "y = y[:, :1]",
        "lengths // 160 + 1",
        "lengths // lengths",
    ): "both give 1 frames, .*: leave pooling over time to the backbone, or set frame_rate=None",
    (
        "nn.Conv1d(",
        "nn.Sequential(",
        "1, n_filters, kernel_size=400, stride=160, padding=200)",
        "nn.Conv1d(1, n_filters, 400, 160, 200), nn.BatchNorm1d(n_filters))",
    ): r"amount of padding .* is it conv.1 \(BatchNorm1d\)\? Use korser.plugins.backbones.masked.MaskedBatchNorm",
    (
        LOG,
        "y = (y - self.conv.bias).abs(); y = y.clamp_min(1e-4 * y.detach().max())",
    ): "differ alone and beside one that is 60 dB louder",
    ("frame_rate=100", "frame_rate=100, max_length=500000", LOG, "y = y.view(3, 3) if len(y[0]) > 999 else y"): (
        "Conv fails on inputs of 480000 samples: set max_length in super"
    ),
    (LOG, "x.zero_()"): "changes its input in place",
    ("), lengths\n", ")\n"): "forward returns a single Tensor, not features and lengths",
    ("), lengths\n", "), lengths.tolist()\n"): "returns lengths as list, expected a tensor",
    ("forward(self, x, lengths)", "forward(self, x)"): r"forward\(self, x\) does not take \(x, lengths\)",
    ("nn.Conv1d(1, ", "nn.LazyConv1d("): "forward creates conv.weight, conv.bias",
    (LOG, 'y = {}["abc"]'): "mine.py:19, in forward: KeyError: 'abc'",
    (LOG, "assert y.dim() == 2, 'no pictures'"): "mine.py:19, in forward: AssertionError: no pictures",
    (LOG, "y = y.view(3, 3)"): "mine.py:19, in forward: RuntimeError: shape '.*' is invalid for input",
}


@pytest.fixture
def conv(tmp_path):
    """The class of :data:`SOURCE`, in a file of its own, with text replaced."""

    def write(*replaced):
        source = SOURCE
        for old, new in zip(replaced[::2], replaced[1::2]):
            assert old in source
            source = source.replace(old, new)
        (tmp_path / "mine.py").write_text(source)
        spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Conv

    return write


def test_a_valid_frontend_passes(conv):
    quick_check(conv()())


@pytest.mark.parametrize("name", ["mel_mtl", "leaf_mtl", "wav2vec_mtl", "wav2vec_leaf_mtl"])
def test_shipped_frontends_pass(name):
    quick_check(load_hparams(HPARAMS / f"{name}.yaml")["frontend"])


@pytest.mark.parametrize("replaced", BROKEN)
def test_a_broken_frontend_is_refused_in_one_line(conv, replaced):
    frontend = conv(*replaced)()
    with pytest.raises(UserError, match=BROKEN[replaced]) as error:
        quick_check(frontend)
    said = str(error.value)
    assert "mine.py:1" in said and "\n" not in said and said.endswith("for all checks: korser check YAML")


def test_a_norm_over_the_padding_is_named(conv):
    frontend = conv("self.mean = 0", "self.norm = nn.GroupNorm(8, 8)", LOG, "y = self.norm(y.mT).mT")()
    with pytest.raises(UserError, match=r"alone and in a batch .*\(is it norm\?\), .* pad the end with zeros"):
        quick_check(frontend)


def test_the_min_length_that_will_do_is_said(conv):
    frontend = conv("padding=200", "padding=0", "lengths // 160 + 1", "(lengths - 400) // 160 + 1")()
    with pytest.raises(UserError, match="Conv fails on inputs of 1 samples, its min_length: set min_length=400 in"):
        quick_check(frontend)


def test_the_min_length_for_which_nothing_is_nan_is_said(conv):
    frontend = conv(LOG, "y = y.abs() + 0 * y[0].std(0)")()
    with pytest.raises(UserError, match="Conv fails on inputs of 1 samples, its min_length: set min_length=160 in"):
        quick_check(frontend)


def test_the_class_is_named_if_a_base_class_defines_forward(conv):
    class Alone(korser.OneAtATime):
        def one(self, x):
            return x[::160, None]

    with pytest.raises(UserError, match=rf"{Path(__file__).name}:\d+, Alone: .* as measured it is: return"):
        quick_check(Alone(output_size=1, frame_rate=100))


class Mix(Frontend):
    """A stage behind another."""

    def __init__(self, channels=8):
        super().__init__(output_size=channels, frame_rate=100, in_channels=8, input_rate=100)
        self.linear = nn.Linear(8, channels)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, lengths):
        return mask_padding(self.drop(self.linear(x)), lengths), lengths


class Stops(Mix):
    def forward(self, x, lengths):
        return super().forward(x.detach(), lengths)


def test_every_stage_of_a_chain_is_run(conv):
    first = conv()()
    quick_check(Chain(first, Chain(Mix(), Mix())))
    quick_check(Chain(first, Mix().requires_grad_(False), Mix()))
    quick_check(Chain(first.requires_grad_(False), Stops()))
    with pytest.raises(UserError, match="test_quick_check.py:.*Stops passes no gradient on to the stage before it"):
        quick_check(Chain(conv()(), Mix(), Stops()))


class Log(Mix):
    def forward(self, x, lengths):
        return super().forward(mask_padding(x, lengths).add(1e-6).log(), lengths)


def test_a_stage_is_given_the_features_of_the_stage_before_it(conv):
    quick_check(Chain(conv()(), Log()))  # of normal noise the logarithm would be NaN


class DropsLayers(Mix):
    """Layer dropping, as in encoders of transformers."""

    def forward(self, x, lengths):
        if self.training:
            return mask_padding(x + 0 * self.drop(x), lengths), lengths
        return super().forward(x, lengths)


def test_a_layer_dropped_in_training_is_still_reached(conv):
    quick_check(Chain(conv()(), DropsLayers()))


def test_a_frontend_with_a_longest_input_passes(conv):
    quick_check(conv("lengths // 160 + 1", "(lengths // 160 + 1).clamp(max=3000)")())


def test_what_is_hidden_from_the_optimiser_is_named(conv):
    frontend = conv(
        "self.conv = nn", "self.convs = [nn", "padding=200)", "padding=200)]", "self.conv(", "self.convs[0]("
    )
    with pytest.raises(UserError, match=r"convs\[0\].weight, convs\[0\].bias are not registered"):
        quick_check(frontend())


def test_only_what_makes_a_difference_in_eval_is_state(conv):
    quick_check(conv(LOG, LOG + "\n        self.mean = y.mean().detach()")())  # kept, never used


def losses(frontend, dry):
    """Of three steps."""
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    frontend = frontend()
    if dry:
        quick_check(frontend)
    found = []
    optimiser = torch.optim.SGD(frontend.parameters(), lr=0.1)
    for _ in range(3):
        frontend.train()
        x = torch.randn(2, 4000) * np.random.rand() * random.random()
        loss = frontend(x, torch.tensor([4000, 3000]))[0].square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found, frontend.state_dict()


def test_the_numbers_of_training_are_the_same_to_the_bit(conv):
    def frontend():
        return Chain(conv("self.mean = 0", 'self.register_buffer("mean", torch.zeros(8))', LOG, moves)(), Mix())

    moves = LOG + "\n        if self.training: self.mean += y.detach()[:, 0].mean(0)\n        y = y + self.mean"
    (expected, state), (found, after) = losses(frontend, False), losses(frontend, True)
    assert found == expected
    assert all(torch.equal(state[name], after[name]) for name in state)


def test_the_frontend_is_left_as_it_was(conv):
    frontend = Chain(conv()(), Mix()).train()
    quick_check(frontend)
    assert all(m.training for m in frontend.modules())
    assert all(p.grad is None for p in frontend.parameters())


def test_gpus_are_not_seeded(conv, monkeypatch):
    def manual_seed(seed):
        raise RuntimeError("seeds GPUs, too, at once or when CUDA is there")

    monkeypatch.setattr(torch, "manual_seed", manual_seed)
    quick_check(conv()())


class Slow(Frontend):
    """Learns its mean, but not by gradient; one frame a second, normalised over time."""

    def __init__(self):
        super().__init__(output_size=1, frame_rate=1, min_length=16000)
        self.mean = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.gain = nn.Parameter(torch.ones(1))

    def output_lengths(self, lengths):
        return lengths // 16000

    def forward(self, x, lengths):
        n = self.output_lengths(lengths)
        y = x[:, : n.max() * 16000].unflatten(1, (-1, 16000)).square().mean(-1, keepdim=True) + self.mean
        if self.training:
            if y.shape[1] < 2:
                raise ValueError("it takes two frames to normalise over")
            self.mean.lerp_(y.detach().mean(), 0.1)
        return mask_padding(self.gain * y, n), n


def test_what_is_learnt_without_gradients_is_left_as_it_was():
    stage = Slow()
    quick_check(stage)
    assert stage.mean == 0


def test_what_a_function_holds_is_not_run_on_the_original(conv):
    frontend = conv(LOG, "y = self.apply_it(x[:, None]).transpose(1, 2).abs().log1p()")()
    frontend.apply_it = lambda x: frontend.conv(x)
    quick_check(frontend)
    assert frontend.conv.weight.grad is None


class Large(Mix):
    pointers = set()

    def forward(self, x, lengths):
        self.pointers.add(self.linear.weight.data_ptr())
        return super().forward(x, lengths)


def test_frozen_parameters_are_not_copied(conv):
    large = Large().requires_grad_(False)
    writes = large.linear.weight._version
    quick_check(Chain(conv()(), large))
    assert Large.pointers == {large.linear.weight.data_ptr()}
    assert large.linear.weight._version == writes


def test_what_cannot_be_copied_is_not_run(conv, tmp_path):
    frontend = conv(LOG, "1 / 0")()
    with open(tmp_path / "open", "w") as frontend.file:
        quick_check(frontend)


def test_what_cannot_be_copied_is_built_anew(conv):
    broken = conv("return mask_padding(y, lengths)", "return y")

    def build():
        last = broken()
        last.hook = lambda x: last.conv(x)
        return Chain(Parallel(Chain(conv()(), Mix()), last))

    frontend = build()
    quick_check(frontend)
    with pytest.raises(UserError, match="branch 2.*features beyond lengths must be 0"):
        quick_check(frontend, "mine.yaml", build)
    with pytest.raises(UserError, match="features beyond lengths must be 0"):
        quick_check(frontend.requires_grad_(False), "mine.yaml", lambda: build().requires_grad_(False))


def test_nothing_is_loaded_that_compiles(monkeypatch, conv):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(torch.compiler, "set_stance", None)
    quick_check(conv()())


def test_training_begins_with_it(conv, tiny, tmp_path, monkeypatch):
    conv(".transpose(1, 2)", "")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nfrontend: !new:mine.Conv\n")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(UserError, match=r"looks like .*: korser check .*mine\.yaml$"):
        korser.train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_it_can_be_switched_off_and_tables_say_so(conv, tiny, tmp_path):
    """As for code that runs on GPUs alone, whose operations cannot be counted either."""
    conv("return mask_padding(y, lengths)", 'assert x.shape[1] != 64000, "none here"; return y')
    (tmp_path / "mine.py").rename(tmp_path / "unchecked.py")  # no other test imports one of this name
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nfrontend: !new:unchecked.Conv\n")
    checked = load_hparams(tmp_path / "mine.yaml", tiny)
    hparams = load_hparams(tmp_path / "mine.yaml", {**tiny, "check_contract": "false"})
    assert hparams.digest() == checked.digest()
    korser.train(hparams, tmp_path / "run")
    comparison = compare(load_runs(tmp_path / "run"))
    assert comparison.warnings[-1].code == "not_checked"
    assert comparison.table["macs_per_second"].isna().all() and "NOT CHECKED" in comparison.to_markdown()
