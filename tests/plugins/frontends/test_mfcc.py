"""MFCC against torchaudio's functions."""

import pytest
import torch
import torchaudio
from helpers import failed_checks

from korser import UserError
from korser.plugins.frontends.mel import Mel
from korser.plugins.frontends.mfcc import MFCC


def test_coefficients_and_slopes_are_those_of_torchaudio():
    x, lengths = 0.1 * torch.randn(2, 8000), torch.tensor([8000, 4321])
    features, frames = MFCC(n_mfcc=13, deltas=2)(x, lengths)
    for i, n in enumerate(lengths.tolist()):
        mel, _ = Mel()(x[i : i + 1, :n], lengths[i : i + 1])
        mfcc = (mel[0] @ torchaudio.functional.create_dct(13, 64, "ortho")).T  # (C, K)
        delta = torchaudio.functional.compute_deltas(mfcc)
        expected = torch.cat([mfcc, delta, torchaudio.functional.compute_deltas(delta)]).T
        torch.testing.assert_close(features[i, : frames[i]], expected, rtol=1e-4, atol=1e-4)


def test_fewer_frames_than_a_slope_needs():
    features, frames = MFCC(deltas=1)(torch.randn(1, 100), torch.tensor([100]))
    assert frames.tolist() == [1] and not features[0, 0, 40:].any()


def test_contract_with_slopes():
    assert failed_checks(lambda: MFCC(n_mfcc=13, deltas=2)) == {}


def test_settings_of_the_filterbank_are_passed_on():
    frontend = MFCC(hop_ms=20.0, compression="pcen", lr=0.1)
    assert frontend.frame_rate == 50 and frontend.lr == 0.1 and not frontend.frozen
    assert "PCEN alpha" in frontend.interpretable_parameters()


@pytest.mark.parametrize("settings", [{"n_mfcc": 65}, {"n_mfcc": 0}, {"deltas": 3}])
def test_settings_are_checked(settings):
    with pytest.raises(UserError, match="expected 1 to n_mels=64 coefficients and deltas of 0, 1 or 2"):
        MFCC(**settings)
