"""Frontends side by side."""

import copy

import pytest
import torch
from helpers import failed_checks
from test_base import Halve

from korser import Chain, Frontend, Parallel, UserError
from korser.plugins.frontends.encoder import LayerMix, PretrainedEncoder
from korser.plugins.frontends.mel import Mel
from korser.testing import check_frontend, quick_check


class Functionals(Frontend):
    """One frame per utterance: its level."""

    def __init__(self):
        super().__init__(output_size=1, frame_rate=None)

    def output_lengths(self, lengths):
        return torch.ones_like(lengths)

    def forward(self, x, lengths):
        return (x.square().sum(1) / lengths)[:, None, None], self.output_lengths(lengths)


def test_what_a_parallel_declares():
    parallel = Parallel(Mel(n_mels=8), Halve(min_length=700, max_length=9000, trained=False), Mel(n_mels=4))
    assert (parallel.output_size, parallel.frame_rate, parallel.in_channels) == (16, 100, None)
    assert (parallel.min_length, parallel.max_length, parallel.frequency_axis) == (700, 9000, False)
    assert Parallel(Mel(), Mel()).max_length is None
    behind = Parallel(Halve(in_channels=4, input_rate=50), Halve(in_channels=4, input_rate=50))
    assert (behind.in_channels, behind.input_rate, behind.frame_rate) == (4, 50, 25)


def test_channels_of_the_branches_are_side_by_side():
    x, lengths = torch.randn(2, 1000), torch.tensor([1000, 800])
    features, frames = Parallel(Mel(n_mels=8), Mel(n_mels=4))(x, lengths)
    assert torch.equal(features[..., :8], Mel(n_mels=8)(x, lengths)[0])
    assert torch.equal(features[..., 8:], Mel(n_mels=4)(x, lengths)[0])
    assert frames.tolist() == [7, 5]


def test_a_faster_branch_is_averaged_over_valid_frames():
    x, lengths = torch.randn(2, 1100), torch.tensor([1100, 800])  # 7 and 5 frames, and 4 and 3 of the slower one
    fast, _ = Mel(n_mels=8)(x, lengths)
    features, frames = Parallel(Mel(n_mels=8), Mel(n_mels=4, hop_ms=20))(x, lengths)
    assert frames.tolist() == [4, 3]
    torch.testing.assert_close(features[0, :3, :8], fast[0, :6].unflatten(0, (3, 2)).mean(1))
    torch.testing.assert_close(features[0, 3, :8], fast[0, 6])
    torch.testing.assert_close(features[1, 2, :8], fast[1, 4])
    assert not features[1, 3].any()


def test_functionals_side_by_side():
    parallel = Parallel(Functionals(), Functionals())
    features, frames = parallel(torch.randn(2, 100), torch.tensor([100, 50]))
    assert parallel.frame_rate is None and features.shape == (2, 1, 2) and frames.tolist() == [1, 1]


@pytest.mark.parametrize(
    "branches, message",
    [
        ([], "Parallel has no branches"),
        ([Mel(), Halve(in_channels=4, input_rate=50)], "Mel takes waveforms, but Halve takes 4 channels at 50 Hz"),
        ([Mel(), Mel(hop_ms=15)], "of Mel 100 Hz, Mel 66.6667 Hz: expected integer multiples of the lowest"),
        ([Mel(), Functionals()], "Functionals one frame per utterance: none or all give one per utterance"),
    ],
    ids=["none", "inputs", "rates", "one frame"],
)
def test_what_does_not_fit_is_refused(branches, message):
    with pytest.raises(ValueError, match=message):
        Parallel(*branches)


def test_frozen_branches_stay_in_eval():
    frozen, trained = Halve(trained=False), Halve()
    parallel = Parallel(Chain(frozen, Halve(in_channels=4, input_rate=8000)), trained, frozen).train()
    assert parallel.training and trained.drop.training and not frozen.drop.training


@pytest.mark.slow
def test_contract_at_different_rates():
    assert (
        failed_checks(lambda: Parallel(Mel(n_mels=8, compression="pcen"), PretrainedEncoder(source="nano-random")))
        == {}
    )


def test_contract_of_nested_branches():
    inner = Parallel(Mel(n_mels=4), Mel(n_mels=2, hop_ms=5))
    frontend = Parallel(inner, Chain(Mel(n_mels=2, hop_ms=20)))
    whole = [check for check in check_frontend(lambda: copy.deepcopy(frontend)) if not check.name.startswith("branch")]
    for check in whole:
        check()


class Reversed(Halve):
    """Small features that depend on the padding."""

    def forward(self, x, lengths):
        features, lengths = super().forward(x.flip(1), lengths)
        return 1e-9 * features, lengths


def test_a_fault_of_a_branch_is_found_and_named():
    frontend = Parallel(Mel(n_mels=8), Reversed(trained=False))
    with pytest.raises(UserError, match=r"^branch 2 \(Reversed\): .*features"):
        quick_check(frontend)
    failed = failed_checks(lambda: Parallel(Mel(n_mels=8), Reversed(trained=False)))
    assert "branch 2 (Reversed): same_alone_as_in_a_batch" in failed
    assert not any(name.startswith("branch 1") for name in failed)


def test_the_check_before_training_goes_through_branches():
    mix = LayerMix(in_channels=8, n_layers=2, input_rate=100)
    quick_check(Parallel(Chain(Mel(n_mels=8), mix), Parallel(Mel(n_mels=4, compression="pcen"), Mel(hop_ms=20))))

    class Stops(LayerMix):
        def forward(self, x, lengths):
            return super().forward(x.detach(), lengths)

    last = Parallel(
        LayerMix(in_channels=8, n_layers=2, input_rate=100), Stops(in_channels=8, n_layers=2, input_rate=100)
    )
    with pytest.raises(UserError, match=r"^branch 2 \(Stops\): .*Stops passes no gradient on to the stage before it"):
        quick_check(Chain(Mel(n_mels=8, compression="pcen"), last))
