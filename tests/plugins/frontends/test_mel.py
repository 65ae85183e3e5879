import math

import numpy as np
import pytest
import torch
from helpers import failed_checks

from korser.plugins.frontends.leaf.leaf import Leaf
from korser.plugins.frontends.mel import Mel
from korser.utils.errors import UserError


def test_contract():
    """With the options that the shipped YAML does not use."""
    assert failed_checks(lambda: Mel(n_mels=80, window_ms=32.0, hop_ms=12.5, compression="pcen")) == {}


def plain_log_mel(x, n_mels=64):
    """One utterance ``(T,)`` by plain DFTs; frame k centred at sample 160 k."""
    n_fft, window = 512, 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    mel = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (60, 7800)), n_mels + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.arange(n_fft // 2 + 1) * 16000 / n_fft
    out = []
    for k in range(math.ceil(len(x) / 160)):
        frame = np.array([x[i] if 0 <= i < len(x) else 0.0 for i in range(160 * k - 200, 160 * k + 200)])
        power = np.abs(np.fft.rfft(frame * window, n_fft)) ** 2
        row = []
        for low, peak, high in zip(edges, edges[1:], edges[2:]):
            triangle = np.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak))
            row.append(power @ np.maximum(triangle, 0))
        out.append(np.log(np.array(row) + 1e-6))
    return np.array(out)


@pytest.mark.parametrize("n", [1, 160, 161, 3000])
def test_agrees_with_the_formulas(n):
    x = 0.1 * torch.randn(1, n, generator=torch.Generator().manual_seed(0)).double()
    y, lengths = Mel().double()(x, torch.tensor([n]))
    assert lengths.tolist() == [math.ceil(n / 160)]
    np.testing.assert_allclose(y[0], plain_log_mel(x[0].numpy()), atol=1e-4)  # the filter matrix is float32


def test_frames_align_with_leaf():
    mel, leaf = Mel(), Leaf()
    lengths = torch.arange(1, 2000)
    assert torch.equal(mel.output_lengths(lengths), leaf.output_lengths(lengths))
    assert mel.frame_rate == leaf.frame_rate
    click = torch.zeros(1, 16000)
    click[:, 50 * 160] = 1.0
    n = torch.tensor([16000])
    leaf = Leaf(compression="log")
    assert mel(click, n)[0].mean(-1).argmax() == leaf(click, n)[0].mean(-1).argmax() == 50


def test_log_is_frozen_and_pcen_is_not():
    assert Mel().frozen
    assert not Mel(compression="pcen").frozen


def test_survives_a_trip_through_bfloat16():
    """The window and the filters are used in float32 even if the module was cast."""
    x, n = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)), torch.tensor([4000])
    expected, _ = Mel()(x, n)
    got, _ = Mel().to(torch.bfloat16)(x.to(torch.bfloat16), n)
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")  # torchaudio's word on the same mistake
@pytest.mark.parametrize(
    "options", [{"n_mels": 0}, {"n_mels": 400}, {"f_max": 9000.0}, {"hop_ms": 0.0}, {"compression": "sqrt"}]
)
def test_bad_options_give_one_line(options):
    with pytest.raises(UserError) as error:
        Mel(**options)
    assert "\n" not in str(error.value)
