"""The fast path gives the numbers of the definition, over all parameters, lengths and signals."""

import math

import pytest
import torch

from korser.lengths import zero_padding
from plugins.frontends._leaf_fast import Geometry, plan, pooled_energies, quadrature
from plugins.frontends.leaf import Leaf

N_FILTERS = 16
TOLERANCE = 1e-4  # what is promised; measured: 1e-5 and below
OPTIONS = [
    {},
    {"window_ms": 20.0, "pool_ms": 30.0},
    {"hop_ms": 5.0},
    {"window_ms": 32.0, "hop_ms": 12.5},
    {"hop_ms": 40.0},
    {"hop_ms": 1.0},
]


def signal(kind, n, generator):
    """``(n,)`` float64."""
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    if kind == "noise":
        return 0.1 * noise
    if kind == "brown":  # low frequencies 60 dB above high ones, as in speech
        walk = noise.cumsum(0)
        return 0.3 * walk / walk.abs().max()
    if kind == "dc":
        return torch.full((n,), 0.5, dtype=torch.float64)
    if kind == "click":
        noise *= 1e-3
        noise[n // 3] = 1
        return noise
    if kind == "onset":  # 50 dB within a sample
        noise[: n // 2] *= 1e-3
        return 0.3 * noise
    raise ValueError(kind)


def batch(kind, lengths, generator):
    x = torch.zeros(len(lengths), max(lengths), dtype=torch.float64)
    for row, n in zip(x, lengths):
        row[:n] = signal(kind, n, generator)
    return x.float(), torch.tensor(lengths)


def random_pair(options, generator):
    """The same random filters, fast in float32 and plain in float64; extremes of every parameter are among them."""
    fast = Leaf(n_filters=N_FILTERS, compression="log", **options)
    u = torch.rand(3, N_FILTERS, generator=generator)
    u[:, :6] = torch.tensor([[0, 1, 0.4, 0.3, 0.2, 0.6], [0.7, 0.6, 0, 1, 0.5, 0.4], [0.3, 0.4, 0.5, 0.6, 0, 1]])
    low, high = fast.width_bounds
    with torch.no_grad():
        fast.center.copy_(math.pi * u[0])
        fast.width.copy_(low * (high / low) ** u[1])
        fast.pool_width.copy_(2 / fast.pool_taps + u[2] * (0.5 - 2 / fast.pool_taps))
    plain = Leaf(n_filters=N_FILTERS, compression="log", implementation="reference", **options)
    plain.load_state_dict(fast.state_dict())
    return fast, plain.double()


def energies(leaf, x, lengths):
    """``(B, K, C)`` before the floor, zero past the lengths."""
    e = leaf._energies(zero_padding(x.to(leaf.center.dtype), lengths)[:, None], lengths)
    return zero_padding(e.transpose(1, 2), leaf.output_lengths(lengths))


def assert_same(fast, plain, x, lengths, generator):
    a, b = energies(fast, x, lengths), energies(plain, x, lengths)
    error = (a - b).norm(dim=(0, 1)) / b.norm(dim=(0, 1)).clamp(min=1e-5)  # (C,); below, the floor hides it
    assert error.max() < TOLERANCE, f"filter {int(error.argmax())} is {error.max():.1e} off"
    weights = torch.randn(b.shape, generator=generator, dtype=torch.float64)
    parameters = ["center", "width", "pool_width"]
    grads = [
        torch.autograd.grad((e * weights).sum(), [getattr(leaf, p) for p in parameters])
        for leaf, e in ((fast, a), (plain, b))
    ]
    # In mu the shares of the frames can cancel to nothing (a constant signal, an utterance shorter than the filter);
    # what float32 leaves of them then is rounding, measured by their sizes.
    rounding = 3e-7 * ((weights.abs() * b).sum((0, 1)) * plain.filters()[1]).norm()
    for name, p, q in zip(parameters, *grads):
        allowed = TOLERANCE * q.norm() + (rounding if name == "center" else 1e-9)
        assert (p - q).norm() < allowed, f"the gradient of {name} is {(p - q).norm() / q.norm():.1e} off"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["noise", "brown", "dc", "click", "onset"])
def test_agrees_with_the_definition(kind, seed):
    generator = torch.Generator().manual_seed(seed)
    options = OPTIONS[(seed + len(kind)) % len(OPTIONS)]
    fast, plain = random_pair(options, generator)
    longest = int(10 ** (2 + 2.4 * torch.rand(1, generator=generator)))
    lengths = [longest, 1 + int(longest * torch.rand(1, generator=generator)), 1 + longest // 7]
    assert_same(fast, plain, *batch(kind, lengths, generator), generator)


@pytest.mark.parametrize("n", [100, 159, 160, 161, 319, 320, 321, 359, 360, 361, 640, 641, 8639, 8640, 9280, 9281])
def test_agrees_at_every_kind_of_end(n):
    """One frame, two, all of them at the ends, one between, one block more or less; and lengths about the hop."""
    generator = torch.Generator().manual_seed(n)
    fast, plain = random_pair({}, generator)
    assert_same(fast, plain, *batch("noise", [n, max(1, n - 1)], generator), generator)


def test_agrees_on_silence():
    x, lengths = torch.zeros(2, 16000), torch.tensor([16000, 1])
    fast, plain = Leaf(), Leaf(implementation="reference")
    assert torch.equal(fast(x, lengths)[0], plain(x, lengths)[0])


def test_the_gradient_of_the_signal_agrees():
    generator = torch.Generator().manual_seed(0)
    fast, plain = random_pair({}, generator)
    x, lengths = batch("noise", [9000, 5000], generator)
    weights = torch.randn(2, 57, N_FILTERS, generator=generator, dtype=torch.float64)
    a, b = (
        torch.autograd.grad((energies(leaf, s, lengths) * weights).sum(), s)[0]
        for leaf, s in ((fast, x.clone().requires_grad_()), (plain, x.double().requires_grad_()))
    )
    assert (a - b).norm() < TOLERANCE * b.norm()


def test_whole_utterances_agree_after_compression():
    generator = torch.Generator().manual_seed(0)
    x, lengths = batch("brown", [50_000, 31_234], generator)
    fast, plain = Leaf(), Leaf(implementation="reference").double()
    a, b = fast(x, lengths)[0], plain(x.double(), lengths)[0]
    assert ((a - b).norm(dim=(0, 1)) / b.norm(dim=(0, 1))).max() < 1e-5


def test_an_utterance_is_the_same_in_any_batch():
    generator = torch.Generator().manual_seed(0)
    fast, _ = random_pair({}, generator)
    x, _ = batch("brown", [20_011], generator)
    n = torch.tensor([20_011])
    alone, frames = fast(x, n)
    for extra in 1, 160, 5_000, 60_000:
        longer = torch.cat([torch.nn.functional.pad(x, (0, extra)), torch.ones(1, 20_011 + extra)])
        together, _ = fast(longer, torch.tensor([20_011, 20_011 + extra]))
        difference = (together[0, : frames[0]] - alone[0]).norm() / alone.norm()
        assert difference < 1e-6


def test_only_what_it_applies_to_is_fast(monkeypatch):
    calls = []

    def spy(carriers, *rest):
        calls.append(carriers.dtype)
        return pooled_energies(carriers, *rest)

    monkeypatch.setattr("plugins.frontends.leaf.pooled_energies", spy)
    x, n = 0.1 * torch.randn(1, 1000), torch.tensor([1000])
    Leaf()(x, n)
    Leaf().to(torch.bfloat16)(x.to(torch.bfloat16), n)
    assert calls == [torch.float32] * 2
    Leaf(implementation="reference")(x, n)
    Leaf().double()(x.double(), n)
    Leaf(in_channels=4, sample_rate=50.0)(torch.randn(1, 30, 4), torch.tensor([30]))
    assert len(calls) == 2


def test_plan_keeps_everything_where_the_taps_are_cut():
    assert plan([1.5, 64.0, 150.0], [80.0] * 3, half=200, hop=160) == [160, 160, 160]
    assert plan([10.0, 20.0, 38.4], [80.0] * 3, half=200, hop=160) == [40, 20, 10]


def test_plan_is_no_coarser_than_the_pooling_window():
    assert plan([20.0] * 4, [1.0, 3.0, 6.0, 80.0], half=200, hop=160) == [160, 60, 30, 20]


def test_plan_does_most_of_the_initial_filters_coarsely():
    rates = plan(Leaf().width.tolist(), [80.0] * 40, half=200, hop=160)
    assert sum(r < 160 for r in rates) >= 25


@pytest.mark.parametrize("r", [8, 20, 60])
@pytest.mark.parametrize("width", [0.1, 0.2, 0.4, 0.5])  # no narrower than the coarsest grid
def test_quadrature_is_exact_for_the_energies_of_its_rate(r, width):
    """Each frequency of an energy, weighted by how much of it the narrowest filter of this rate lets through."""
    step = 160 / r
    t = torch.arange(-200, 201, dtype=torch.float64)
    window = torch.exp(-0.5 * (t / (200 * width)) ** 2)
    coarse = quadrature(r, 160, 200) @ window
    grid = step * torch.arange(-(len(coarse) // 2), len(coarse) // 2 + 1, dtype=torch.float64)
    sigma = 6.5 * step / math.pi
    omega = torch.linspace(0, 12 / sigma, 300, dtype=torch.float64)[:, None]
    error = torch.cos(omega * t) @ window - torch.cos(omega * grid) @ coarse
    passed = torch.exp(-((sigma * omega[:, 0]) ** 2) / 4)
    assert (error.abs() * passed / window.sum()).max() < 2e-6


@pytest.mark.parametrize("hop", [7, 16, 80, 160, 441, 2000])
def test_geometry_leaves_room_for_every_frame(hop):
    g = Geometry.of(401, 401, hop)
    reach = g.pool_half + 60  # three steps of the coarsest grid
    assert g.frames >= 1
    assert g.margin * hop >= reach + g.half  # a block's first valid frame
    assert g.edge * hop >= reach  # an utterance's first inner frame


def test_padding_is_not_computed(monkeypatch):
    fast = Leaf()
    seen = []
    fft = torch.fft.fft
    monkeypatch.setattr(torch.fft, "fft", lambda x: seen.append(x.shape) or fft(x))
    fast(torch.zeros(8, 160_000), torch.tensor([160_000] + [1_000] * 7))
    assert [19 + 7, 9600] in [list(shape) for shape in seen]  # blocks of 54 frames; 8 * 19 with the padding
