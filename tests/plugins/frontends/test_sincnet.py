"""The filters of SincNet."""

import pytest
import torch

from korser import UserError
from korser.plugins.frontends.sincnet import SincNet


def tone(frequency, n=16_000):
    return torch.sin(2 * torch.pi * frequency * torch.arange(n) / 16_000)[None], torch.tensor([n])


@torch.no_grad()
def test_a_tone_in_a_band_has_its_power_there():
    frontend = SincNet()
    low, high = frontend.band_edges()
    band = 25
    features, _ = frontend(*tone(float(low[band] + high[band]) / 2))
    power = features[0, 20:80].mean(0).exp()
    assert power.argmax() == band and power[band] == pytest.approx(0.5, rel=0.05)  # of a sine of amplitude 1
    assert power[: band - 3].max() < 1e-3 and power[band + 4 :].max() < 1e-3


@torch.no_grad()
def test_the_stride_leaves_the_mean_power():
    x = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)), torch.tensor([16_000])
    fine, coarse = (SincNet(stride=stride)(*x)[0][0].exp().mean(0) for stride in (1, 4))
    torch.testing.assert_close(fine, coarse, rtol=0.2, atol=0)  # less than 1 dB


@torch.no_grad()
def test_initial_edges_are_those_of_mel_filters():
    low, high = SincNet(n_filters=4, f_min=100.0, f_max=4000.0).band_edges()
    assert low[0] == pytest.approx(100, abs=1) and high[-1] == pytest.approx(4000, abs=1)
    torch.testing.assert_close(low[2:], high[:-2], rtol=1e-3, atol=0)  # each begins where the last but one ends


def test_training_moves_the_edges():
    frontend = SincNet(n_filters=8)
    before = frontend.interpretable_parameters()["upper edge"][1].detach()
    optimizer = torch.optim.Adam(frontend.parameters(), lr=0.003)
    for _ in range(10):
        optimizer.zero_grad()
        frontend(*tone(1000.0))[0].mean().neg().backward()
        optimizer.step()
    moved = frontend.interpretable_parameters()["upper edge"][1] - before
    assert moved.abs().max() > 5  # Hz


def test_edges_stay_below_half_the_sampling_rate():
    frontend = SincNet()
    torch.nn.init.constant_(frontend.band, 1000.0)
    assert frontend.interpretable_parameters()["upper edge"][1].max() == 8000


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"kernel_size": 250}, "an odd number of taps"),
        ({"stride": 3}, "a divisor of hop_ms=10 .160 samples."),
        ({"f_max": 9000.0}, "expected 0 <= f_min < f_max <= 8000 Hz"),
        ({"min_band": 500.0}, "expected 0 to 135 mel"),
    ],
)
def test_settings_are_checked(settings, reason):
    with pytest.raises(UserError, match=reason):
        SincNet(**settings)
