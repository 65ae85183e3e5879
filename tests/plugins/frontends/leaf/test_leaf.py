import math
from itertools import product

import numpy as np
import pytest
import torch
from helpers import failed_checks

from korser.frontend.base import Chain, Frontend
from korser.plugins.frontends.leaf.leaf import Leaf, mel_init, modulation_init
from korser.utils.errors import UserError


def plain_leaf(x, mu, sigma, w, *, taps, pool_taps, hop, alpha, smooth=0.04, delta=2.0, root=2.0):
    """The formulas written out for one utterance and one filter: ``(T,)`` -> ``(K,)``, float64."""
    half, pool_half, n = taps // 2, pool_taps // 2, len(x)
    t = np.arange(-half, half + 1)
    g = np.exp(1j * mu * t) * np.exp(-(t**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    e = np.zeros(n)
    for i in range(n):
        first, last = max(0, i - half), min(n, i + half + 1)
        e[i] = abs(sum(x[j] * g[half + i - j] for j in range(first, last))) ** 2
    out, mean = [], None
    for k in range(math.ceil(n / hop)):
        p = 0.0
        for i in range(max(0, k * hop - pool_half), min(n, k * hop + pool_half + 1)):
            p += e[i] * math.exp(-0.5 * ((i - k * hop) / (w * pool_half)) ** 2)
        p = max(p, 1e-5)
        mean = p if mean is None else (1 - smooth) * mean + smooth * p
        out.append((p / (1e-12 + mean) ** alpha + delta) ** (1 / root) - delta ** (1 / root))
    return np.array(out)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 161, 900])
def test_agrees_with_the_formulas_on_audio(n):
    leaf = Leaf(n_filters=5).double()
    x = 0.3 * noise(1, n).double()
    y, lengths = leaf(x, torch.tensor([n]))
    assert lengths.tolist() == [math.ceil(n / 160)]
    for c in range(5):
        mu, sigma, w = leaf.center[c].item(), leaf.width[c].item(), leaf.pool_width[c].item()
        alpha = leaf.pcen.alpha[c].item()  # 0.96 in float32
        expected = plain_leaf(x[0].numpy(), mu, sigma, w, taps=401, pool_taps=401, hop=160, alpha=alpha)
        np.testing.assert_allclose(y[0, :, c].detach().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_agrees_with_the_formulas_on_features():
    leaf = Leaf(in_channels=6, sample_rate=50.0, n_carriers=2, n_filters=3).double()
    x = noise(1, 41, 6).double()
    y, lengths = leaf(x, torch.tensor([41]))
    assert lengths.tolist() == [21] and y.shape == (1, 21, 6)
    frames = x[0].numpy()
    frames = (frames - frames.mean(1, keepdims=True)) / np.sqrt(frames.var(1, keepdims=True) + 1e-5)
    carriers = frames @ leaf.mix.weight.detach().numpy().T
    for i, (g, _) in enumerate(product(range(2), range(3))):
        mu, sigma, w = leaf.center[i].item(), leaf.width[i].item(), leaf.pool_width[i].item()
        expected = plain_leaf(carriers[:, g], mu, sigma, w, taps=25, pool_taps=11, hop=2, alpha=0.5)
        np.testing.assert_allclose(y[0, :, i].detach().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_agrees_with_speechbrain_once_its_differences_are_undone():
    theirs = pytest.importorskip("speechbrain.lobes.features").Leaf(out_channels=40, in_channels=1, max_freq=7800.0)
    leaf = Leaf()
    x, lengths = 0.1 * noise(2, 16000), torch.tensor([16000, 16000])
    with torch.no_grad():
        ours, _ = leaf(x, lengths)
        assert (ours - theirs(x)).norm() > 0.4 * ours.norm()  # its bias of 1
        theirs.pooling._bias.zero_()
        kernel = theirs.complex_conv.kernel
        torch.testing.assert_close(kernel[:, 0], leaf.center)
        assert (abs(kernel[:, 1] / leaf.width - 1) > 1e-5).sum() == 3  # initial widths, see the docstring
        kernel[:, 1] = leaf.width
        torch.testing.assert_close(ours, theirs(x), rtol=2e-6, atol=2e-6)


def test_initialisation_is_mel():
    mu, sigma = mel_init(40, 60.0, 7800.0, 16000)
    hertz = mu * 16000 / (2 * math.pi)
    assert hertz[0] == 93.75 and (hertz.diff() > 0).all() and 7300 < hertz[-1] < 7800
    torch.testing.assert_close(sigma[0].item(), 95.944, rtol=1e-5, atol=0)  # two bins wide
    leaf = Leaf(n_filters=64)
    assert leaf.width.max() <= leaf.width_bounds[1]  # one bin would be 191.9


def test_initial_modulation_filters_cover_the_band():
    mu, sigma = modulation_init(8, 50.0)
    hertz = mu * 50 / (2 * math.pi)
    assert 0 < hertz[0] < 0.5
    torch.testing.assert_close(hertz[1:], torch.logspace(math.log10(2), math.log10(20), 7))
    assert (sigma.diff() <= 0).all()
    assert modulation_init(1, 50.0)[0].shape == (1,)


FRONTENDS = {  # with options that the shipped YAMLs do not use
    "reference": lambda: Leaf(n_filters=2, window_ms=8.0, implementation="reference"),
    "log and other windows": lambda: Leaf(n_filters=8, window_ms=20.0, pool_ms=30.0, hop_ms=12.5, compression="log"),
    "features": lambda: Leaf(in_channels=24, sample_rate=50.0),
    "one carrier, no decimation": lambda: Leaf(in_channels=5, sample_rate=50.0, n_carriers=1, hop_ms=20.0),
}


@pytest.mark.parametrize("name", FRONTENDS)
def test_contract(name):
    assert failed_checks(FRONTENDS[name]) == {}


class Frames(Frontend):
    """Stands for a frozen encoder: 20 ms frames as they are."""

    def __init__(self):
        super().__init__(output_size=320, frame_rate=50.0, min_length=320)

    def forward(self, x, lengths):
        return x[:, : x.shape[1] // 320 * 320].unflatten(1, (-1, 320)), lengths // 320


def test_in_a_chain():
    frames = Frames()
    chain = Chain(frames, Leaf(in_channels=frames.output_size, sample_rate=frames.frame_rate))
    y, lengths = chain(noise(2, 16000), torch.tensor([16000, 9000]))
    assert y.shape == (2, 25, 64) and lengths.tolist() == [25, 14]
    assert chain.frame_rate == 25.0


def test_carriers_see_only_their_own_filters():
    leaf = Leaf(in_channels=4, sample_rate=50.0, n_carriers=2, n_filters=3)
    y, _ = leaf(noise(1, 60, 4), torch.tensor([60]))
    (grad,) = torch.autograd.grad(y[..., :3].sum(), leaf.mix.weight)
    assert grad[0].any() and not grad[1].any()


def test_scale_of_the_features_does_not_matter():
    leaf = Leaf(in_channels=16, sample_rate=50.0)
    x, lengths = noise(1, 60, 16), torch.tensor([60])
    torch.testing.assert_close(leaf(300 * x, lengths)[0], leaf(x, lengths)[0], rtol=1e-3, atol=1e-3)


def test_initial_pcen_can_be_set():
    leaf = Leaf(n_filters=2, pcen={"delta": 0.01, "root": 6.0})
    assert {name: p.tolist() for name, p in leaf.pcen.named_parameters()} == {
        "alpha": [pytest.approx(0.96)] * 2,
        "smooth": [pytest.approx(0.04)] * 2,
        "delta": [pytest.approx(0.01)] * 2,
        "root": [6.0] * 2,
    }
    on_features = Leaf(in_channels=4, sample_rate=50.0, pcen={"delta": 1.0})
    assert on_features.pcen.alpha.unique().tolist() == [0.5] and on_features.pcen.delta.unique().tolist() == [1.0]


def test_gain_lifts_quiet_speech_above_the_floor():
    quiet, lengths = 3e-4 * noise(1, 4000), torch.tensor([4000])
    for compression in ("pcen", "log"):
        plain, louder = Leaf(compression=compression), Leaf(compression=compression, gain_db=30.0)
        torch.testing.assert_close(louder(quiet, lengths)[0], plain(10**1.5 * quiet, lengths)[0])
    floor = torch.tensor(1e-5).log()
    assert (plain(quiet, lengths)[0] == floor).all() and (louder(quiet, lengths)[0] > floor).float().mean() > 0.9


def test_parameters_beyond_their_bounds_come_back():
    leaf, target = Leaf(n_filters=2), Leaf(n_filters=2)
    with torch.no_grad():
        leaf.width[0], leaf.pool_width[1] = 160.0, 0.55
    optimizer = torch.optim.Adam([{"params": [leaf.pool_width], "lr": 2e-3}, {"params": [leaf.width], "lr": 0.5}])
    x, lengths = 0.1 * noise(2, 4000), torch.tensor([4000, 4000])
    wanted = target(x, lengths)[0].detach()
    for _ in range(60):
        optimizer.zero_grad()
        (leaf(x, lengths)[0] - wanted).square().mean().backward()
        optimizer.step()
    assert leaf.width[0] < leaf.width_bounds[1] and leaf.pool_width[1] < 0.5


@pytest.mark.parametrize("beyond, inside", [(-0.3, 0.3), (math.pi + 0.2, math.pi - 0.2), (7.0, 7.0 - 2 * math.pi)])
def test_center_beyond_its_bounds_acts_as_its_reflection(beyond, inside):
    outputs, grads = [], []
    for center in beyond, inside:
        leaf = Leaf(n_filters=1).double()
        with torch.no_grad():
            leaf.center[0] = center
        assert 0 <= leaf.filters()[0].item() <= math.pi
        outputs.append(leaf(noise(1, 1000).double(), torch.tensor([1000]))[0])
        grads.append(torch.autograd.grad(outputs[-1].sum(), leaf.center)[0].abs())
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*grads)
    assert grads[0] > 0


@pytest.mark.parametrize(
    "options",
    [
        {"f_max": 9000.0},
        {"f_min": 500.0, "f_max": 400.0},
        {"n_filters": 0},
        {"n_filters": 500},
        {"hop_ms": 0.0},
        {"window_ms": 0.1},
        {"compression": "cubic"},
        {"implementation": "slow"},
        {"in_channels": 1, "sample_rate": 50.0},
        {"in_channels": 8, "sample_rate": 50.0, "pool_ms": 20.0},
        {"in_channels": 8, "sample_rate": 50.0, "n_carriers": 0},
        {"in_channels": 8, "sample_rate": 50.0, "gain_db": 30.0},
        {"pcen": {"rate": 0.1}},
        {"pcen": 0.5},
        {"pcen": {"delta": 0.0}},
        {"pcen": {"alpha": 1.5}},
    ],
)
def test_bad_options_give_one_line(options):
    with pytest.raises(UserError) as error:
        Leaf(**options)
    assert "\n" not in str(error.value)
