"""The fast path gives the numbers of the definition, over all parameters, lengths, windows and signals."""

import copy
import math
import pickle

import pytest
import torch

from korser.frontend.lengths import mask_padding
from korser.frontend.pcen import bounded
from korser.plugins.frontends.leaf import fft, geometry
from korser.plugins.frontends.leaf.fft import pooled_energies
from korser.plugins.frontends.leaf.geometry import Geometry, grid, quadrature
from korser.plugins.frontends.leaf.leaf import ENERGY_FLOOR, Leaf
from korser.plugins.frontends.leaf.rates import (
    BAND,
    SPREAD_SLACK,
    WIDTH_SLACK,
    PinnedReader,
    RatePlan,
    admits,
    choose_rates,
)

N_FILTERS = 16
TOLERANCE = 1e-4  # what is promised
# A transform in float32 rounds every bin by 1e-7 of the loudest, and the logarithm of an energy that is 70 dB below
# that has a gradient that shows it. Parameters average over it, the input does not: 8e-4 was the most of 360 draws.
INPUT_OF_LOGARITHM = 2e-3
OPTIONS = [
    {},
    {"window_ms": 20.0, "pool_ms": 30.0},
    {"hop_ms": 5.0},
    {"window_ms": 32.0, "hop_ms": 12.5},
    {"hop_ms": 40.0},
    {"hop_ms": 1.0},
]
KINDS = ["noise", "brown", "dc", "click", "onset", "tones"]
ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=ON_A_GPU)]
FEW_AND_MANY = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))]


def signal(kind, n, generator):
    """``(n,)`` float64, within [-1, 1]."""
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
    if kind == "tones":  # three, up to 40 dB apart, nothing between
        omega, level = torch.rand(2, 3, 1, generator=generator, dtype=torch.float64)
        return 0.3 * (10 ** (-2 * level) * torch.cos(math.pi * omega * torch.arange(n))).sum(0)
    raise ValueError(kind)


def batch(kind, lengths, generator):
    x = torch.zeros(len(lengths), max(lengths), dtype=torch.float64)
    for row, n in zip(x, lengths):
        row[:n] = signal(kind, n, generator)
    return x.float(), torch.tensor(lengths)


def random_options(seed, generator):
    """Windows from 4 to 40 ms and hops from 1 to 30 ms; every other time one of the usual ones."""
    if seed % 2:
        return OPTIONS[(seed // 2) % len(OPTIONS)]
    window, pool, hop = torch.rand(3, generator=generator).tolist()
    return {"window_ms": 4 * 10**window, "pool_ms": 4 * 10**pool, "hop_ms": 30**hop}


def random_pair(options, generator, device="cpu", **settings):
    """The same random filters, fast in float32 and plain in float64; extremes of every parameter are among them."""
    fast = Leaf(n_filters=N_FILTERS, **options, **settings)
    u = torch.rand(3, N_FILTERS, generator=generator)
    u[:, :6] = torch.tensor([[0, 1, 0.4, 0.3, 0.2, 0.6], [0.7, 0.6, 0, 1, 0.5, 0.4], [0.3, 0.4, 0.5, 0.6, 0, 1]])
    u[1:] = 1e-6 + (1 - 2e-6) * u[1:]  # on a bound itself, float32 and float64 may fall on different sides of it
    low, high = fast.width_bounds
    with torch.no_grad():
        fast.center.copy_(math.pi * u[0])
        fast.width.copy_(low * (high / low) ** u[1])
        fast.pool_width.copy_(2 / fast.pool_taps + u[2] * (0.5 - 2 / fast.pool_taps))
        if fast.pcen is not None:
            alpha, smooth, delta, root = torch.rand(4, N_FILTERS, generator=generator)
            fast.pcen.alpha.copy_(alpha)
            fast.pcen.smooth.copy_(0.001 + 0.998 * smooth)
            fast.pcen.delta.copy_(10 ** (3 * delta - 2))
            fast.pcen.root.copy_(1.01 + 5 * root)
    plain = Leaf(n_filters=N_FILTERS, implementation="reference", **options, **settings)
    plain.load_state_dict(fast.state_dict())
    return fast.to(device), plain.double()


def random_lengths(generator, longest=4.0):
    """Three of 1 to 10**longest samples."""
    n = int(10 ** (2 + (longest - 2) * torch.rand(1, generator=generator)))
    return [n, 1 + int(n * torch.rand(1, generator=generator)), 1 + n // 7]


def energies(leaf, x, lengths):
    """``(B, K, C)`` before the floor, zero past the lengths."""
    e = leaf._energies(mask_padding(x.to(leaf.center.dtype), lengths)[:, None], lengths)
    return mask_padding(e.transpose(1, 2), leaf.output_lengths(lengths))


def outputs_and_gradients(leaf, function, x, lengths, wants_input=True):
    """``function(leaf, x, lengths)``, its weighted sum's gradient by each parameter and by the input, float64."""
    device = leaf.center.device
    x = x.to(device, leaf.center.dtype).requires_grad_(wants_input)
    y = function(leaf, x, lengths.to(device)).cpu().double()
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = dict(leaf.named_parameters())
    wanted = parameters | ({"input": x} if wants_input else {})
    grads = torch.autograd.grad((y * weights).sum(), list(wanted.values()), allow_unused=True)
    named = dict(zip(wanted, grads))
    return y.detach(), weights, {name: g.cpu().double() for name, g in named.items() if g is not None}


def assert_same(fast, plain, x, lengths, wants_input=True):
    """Energies per filter, and gradients per tensor of the energies and of their logarithms above the floor."""
    a, _, grads = outputs_and_gradients(fast, energies, x, lengths, wants_input)
    b, weights, exact = outputs_and_gradients(plain, energies, x, lengths, wants_input)
    error = (a - b).norm(dim=(0, 1)) / b.norm(dim=(0, 1)).clamp(min=ENERGY_FLOOR)  # (C,); below, the floor hides it
    assert error.max() < TOLERANCE, f"filter {int(error.argmax())} is {error.max():.1e} off"
    # In mu the shares of the frames can cancel to nothing (a constant signal, an utterance shorter than the filter);
    # what float32 leaves of them then is rounding, measured by their sizes.
    rounding = 3e-7 * ((weights.abs() * b).sum((0, 1)) * plain.filters()[1]).norm().item()
    assert_same_gradients(grads, exact, rounding)

    audible = mask_padding((a > ENERGY_FLOOR) & (b > ENERGY_FLOOR), plain.output_lengths(lengths))
    if audible.any():

        def logarithms(leaf, x, lengths):
            here = audible.to(leaf.center.device)
            return energies(leaf, x, lengths).masked_fill(~here, 1).log()

        _, weights, exact = outputs_and_gradients(plain, logarithms, x, lengths, wants_input)
        grads = outputs_and_gradients(fast, logarithms, x, lengths, wants_input)[2]
        rounding = 3e-7 * ((weights.abs() * audible).sum((0, 1)) * plain.filters()[1]).norm().item()
        assert_same_gradients(grads, exact, rounding, INPUT_OF_LOGARITHM)


def assert_same_gradients(grads, exact, rounding, input_tolerance=TOLERANCE):
    assert grads.keys() == exact.keys()
    for name, q in exact.items():
        tolerance = input_tolerance if name == "input" else TOLERANCE
        allowed = tolerance * q.norm() + (rounding if name == "center" else 1e-9)
        error = (grads[name] - q).norm()
        assert error < allowed, f"the gradient of {name} is {error / q.norm():.1e} off"


@pytest.mark.parametrize("seed", FEW_AND_MANY)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", DEVICES)
def test_agrees_with_the_definition(device, kind, seed):
    generator = torch.Generator().manual_seed(1000 * seed + KINDS.index(kind))
    fast, plain = random_pair(random_options(seed, generator), generator, device, compression="log")
    assert_same(fast, plain, *batch(kind, random_lengths(generator), generator))


@pytest.mark.parametrize(
    "device, kind", [("cpu", "brown"), *(pytest.param("cuda", kind, marks=ON_A_GPU) for kind in KINDS)]
)
def test_agrees_with_the_definition_on_audio_without_a_gradient(device, kind):
    """As in training, where on a GPU the signal is cut by a kernel."""
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    fast, plain = random_pair({}, generator, device, compression="log")
    assert_same(fast, plain, *batch(kind, [20_000, 12_345, 170], generator), wants_input=False)


@pytest.mark.parametrize("seed", FEW_AND_MANY)
@pytest.mark.parametrize("device", DEVICES)
def test_agrees_with_the_definition_after_pcen(device, seed):
    """All parameters of the layer, those of PCEN too; the signal keeps the energies above the floor."""
    generator = torch.Generator().manual_seed(seed)
    fast, plain = random_pair(random_options(seed, generator), generator, device)
    x, lengths = batch("noise", random_lengths(generator), generator)
    x = 100 * x
    assert energies(plain, x, lengths)[0].min() > 2 * ENERGY_FLOOR

    def outputs(leaf, x, lengths):
        return leaf(x, lengths)[0]

    a, _, grads = outputs_and_gradients(fast, outputs, x, lengths)
    b, _, exact = outputs_and_gradients(plain, outputs, x, lengths)
    assert ((a - b).norm(dim=(0, 1)) / b.norm(dim=(0, 1))).max() < TOLERANCE
    assert len(exact) == 8
    assert_same_gradients(grads, exact, rounding=0)


@pytest.mark.parametrize("n", [1, 159, 160, 161, 319, 320, 321, 359, 360, 361, 640, 641, 8639, 8640, 9280, 9281])
def test_agrees_at_every_kind_of_end(n):
    """One frame, two, all of them at the ends, one between, one block more or less; and lengths about the hop."""
    generator = torch.Generator().manual_seed(n)
    fast, plain = random_pair({}, generator, compression="log")
    assert_same(fast, plain, *batch("noise", [n, max(1, n - 1)], generator))


@pytest.mark.parametrize("seed", range(4))
def test_the_floor_takes_the_same_frames(seed):
    """But for energies that are at the floor to within the tolerance, where its slope jumps."""
    generator = torch.Generator().manual_seed(seed)
    fast, plain = random_pair({}, generator, compression="log")
    x, lengths = batch("onset", [6000, 3000], generator)
    with torch.no_grad():
        a, b = energies(fast, x, lengths).double(), energies(plain, x, lengths)
        y, z = fast(x, lengths)[0], plain(x.double(), lengths)[0]
    below = (b < ENERGY_FLOOR) & (b > 0)
    assert below.any() and (b > ENERGY_FLOOR).any()
    close = (b / ENERGY_FLOOR - 1).abs() < TOLERANCE
    assert torch.equal((a < ENERGY_FLOOR)[~close], (b < ENERGY_FLOOR)[~close])
    assert torch.equal(y[below & ~close], z[below & ~close].float())
    assert ((y - z).norm(dim=(0, 1)) / z.norm(dim=(0, 1))).max() < TOLERANCE


@pytest.mark.parametrize(
    "device, n, seconds", [("cpu", 5, 1.5), *(pytest.param("cuda", n, 4.5, marks=ON_A_GPU) for n in (128, 509))]
)
def test_many_chunks_agree_with_the_definition(device, n, seconds):
    """Batches as in training, whose filters' outputs are computed in many pieces; all float32."""
    samples, at_once = int(seconds * 16000), 2 if device == "cpu" else 64
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(samples // 3, samples + 1, (n,), generator=generator)
    lengths[-1] = samples
    x = (0.1 * torch.randn(n, samples, generator=generator)).to(device)
    lengths = lengths.to(device)
    fast, plain = Leaf().to(device), Leaf(implementation="reference").to(device)

    def features(leaf, rows):
        y, _ = leaf(x[rows], lengths[rows])
        weights = torch.linspace(-1, 1, y[0].numel(), device=device).view(y[0].shape).cos()
        (y * weights).sum().backward()
        return y.detach()

    y = features(fast, slice(None))
    for start in range(0, n, at_once):
        rows = slice(start, start + at_once)
        expected = features(plain, rows)
        error = (y[rows] - expected).norm(dim=(0, 1)) / expected.norm(dim=(0, 1))
        assert error.max() < 1e-5, f"{error.max():.1e} in {rows}"
    for (name, p), q in zip(fast.named_parameters(), plain.parameters()):
        assert (p.grad - q.grad).norm() < 1e-3 * q.grad.norm(), name


def test_agrees_on_silence():
    x, lengths = torch.zeros(2, 16000), torch.tensor([16000, 1])
    fast, plain = Leaf(), Leaf(implementation="reference")
    assert torch.equal(fast(x, lengths)[0], plain(x, lengths)[0])


def test_whole_utterances_agree_after_compression():
    generator = torch.Generator().manual_seed(0)
    x, lengths = batch("brown", [50_000, 31_234], generator)
    fast, plain = Leaf(), Leaf(implementation="reference").double()
    a, b = fast(x, lengths)[0], plain(x.double(), lengths)[0]
    assert ((a - b).norm(dim=(0, 1)) / b.norm(dim=(0, 1))).max() < 1e-5


@pytest.mark.parametrize("device", DEVICES)
def test_an_utterance_is_the_same_in_any_batch(device):
    generator = torch.Generator().manual_seed(0)
    fast, _ = random_pair({}, generator, device)
    x, _ = batch("brown", [20_011], generator)
    x, n = x.to(device), torch.tensor([20_011], device=device)
    alone, frames = fast(x, n)
    for extra in 1, 160, 5_000, 60_000:
        longer = torch.cat([torch.nn.functional.pad(x, (0, extra)), torch.ones(1, 20_011 + extra, device=device)])
        together, _ = fast(longer, torch.tensor([20_011, 20_011 + extra], device=device))
        difference = (together[0, : frames[0]] - alone[0]).norm() / alone.norm()
        assert difference < 1e-6


def test_a_backward_pass_under_autocast_is_the_same():
    leaf, x, lengths = Leaf(compression="log"), 0.1 * torch.randn(1, 4000), torch.tensor([4000])

    def gradients():
        y = leaf(x, lengths)[0].square().mean()
        return torch.autograd.grad(y, [leaf.center, leaf.width, leaf.pool_width])

    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = gradients()
    for grad, expected in zip(under_autocast, gradients()):
        assert (grad - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [name for name, _ in Leaf(n_filters=1).named_parameters()] + ["input"])
def test_each_parameter_can_be_trained_alone(name, device):
    generator = torch.Generator().manual_seed(0)
    x, lengths = batch("brown", [8000, 5000], generator)
    fast, plain = random_pair({}, generator, device)
    grads = []
    for leaf in fast, plain:
        own, parameters = x.to(leaf.center.device, leaf.center.dtype, copy=True), dict(leaf.named_parameters())
        for other in parameters.values():
            other.requires_grad_(False)
        wanted = (own if name == "input" else parameters[name]).requires_grad_()
        leaf(own, lengths.to(own.device))[0].square().sum().backward()
        grads.append(wanted.grad.cpu().double())
    assert (grads[0] - grads[1]).norm() < TOLERANCE * grads[1].norm()


def test_only_what_it_applies_to_is_fast(monkeypatch):
    calls = []

    def spy(carriers, *rest):
        calls.append(carriers.dtype)
        return pooled_energies(carriers, *rest)

    monkeypatch.setattr("korser.plugins.frontends.leaf.leaf.pooled_energies", spy)
    x, n = 0.1 * torch.randn(1, 1000), torch.tensor([1000])
    Leaf()(x, n)
    Leaf().to(torch.bfloat16)(x.to(torch.bfloat16), n)
    assert calls == [torch.float32] * 2
    Leaf(implementation="reference")(x, n)
    Leaf().double()(x.double(), n)
    Leaf(in_channels=4, sample_rate=50.0)(torch.randn(1, 30, 4), torch.tensor([30]))
    assert len(calls) == 2


def test_padding_is_not_computed(monkeypatch):
    fast = Leaf()
    seen = []
    fft = torch.fft.fft
    monkeypatch.setattr(torch.fft, "fft", lambda x: seen.append(x.shape) or fft(x))
    fast(torch.zeros(8, 160_000), torch.tensor([160_000] + [1_000] * 7))
    assert [19 + 7, 9600] in [list(shape) for shape in seen]  # blocks of 54 frames; 8 * 19 with the padding


# Where the host must not wait for the device.


class Reader:
    """Copies that arrive when told to."""

    def __init__(self):
        self.values, self.arrived = None, False

    @property
    def busy(self):
        return self.values is not None

    def start(self, values):
        self.values, self.arrived = values.clone(), False

    def result(self):
        if not self.arrived:
            return None
        values, self.values, self.arrived = self.values, None, False
        return values

    def drop(self):
        self.values, self.arrived = None, False


def widths(sigma, spread):
    return torch.tensor([sigma, spread], dtype=torch.float64)


def rates(sigma, spread, slack=0.0):
    return list(choose_rates(*widths(sigma, spread), 200, 160, slack))


def test_rates_keep_everything_where_the_taps_are_cut():
    assert rates([1.5, 64.0, 150.0], [80.0] * 3) == [160, 160, 160]
    assert rates([10.0, 20.0, 38.4, 48.0], [80.0] * 4) == [40, 20, 10, 40]


def test_rates_are_no_coarser_than_the_pooling_window():
    assert rates([20.0] * 4, [1.0, 3.0, 6.0, 80.0]) == [160, 60, 30, 20]


def test_rates_of_most_of_the_initial_filters_are_coarse():
    assert sum(r < 160 for r in rates(Leaf().width.tolist(), [80.0] * 40)) == 33


def test_rates_with_slack_hold_for_all_widths_near():
    generator = torch.Generator().manual_seed(0)
    sigma = 1.5 * 100 ** torch.rand(500, generator=generator).double()
    spread = 100 ** torch.rand(500, generator=generator).double()
    kept = torch.tensor(choose_rates(sigma, spread, 200, 160, slack=1.0))
    assert (kept < 160).sum() > 100
    for factor in torch.linspace(-1, 1, 11).tolist():
        for wider in 1 / SPREAD_SLACK, 1.0, 10.0:
            assert admits(kept, sigma * 0.9999 * WIDTH_SLACK**factor, spread * wider * 1.0001, 200, 160).all()


def test_plan_waits_only_for_what_it_does_not_know():
    near, far = widths([20.0, 64.0], [80.0, 80.0]), widths([8.0, 4.0], [80.0, 80.0])
    plan = RatePlan(200, 160, Reader())
    assert plan(near, version=0, wait=False) == (30, 160)  # at first
    plan.learns(None)
    assert plan(far, version=1, wait=False) == (30, 160)  # a step: looked at later
    assert not plan.outgrown(near) and plan.outgrown(far)
    plan.reader.arrived = True
    assert plan(far, version=1, wait=False) == (60, 160)
    assert not plan.outgrown(far)

    assert plan(near, version=2, wait=False) == (60, 160)  # changed, but nothing was learnt; enough for these, too
    plan.learns(None)
    assert plan(far, version=3, wait=True) == (60, 160)  # an evaluation
    plan.learns(None)
    plan.forget()
    assert plan(near, version=4, wait=False) == (30, 160)  # told so


def test_plan_does_not_believe_an_old_copy():
    near, far = widths([20.0], [80.0]), widths([8.0], [80.0])
    plan = RatePlan(200, 160, Reader())
    plan(near, version=0, wait=False)
    plan.learns(None)
    plan(near, version=1, wait=False)  # starts a copy
    assert plan(far, version=2, wait=True) == (60,)
    plan.reader.arrived = True
    assert plan(far, version=2, wait=False) == (60,)


def test_training_under_a_kept_plan_stays_exact():
    """Steps large enough that the plan has to be changed, and copies that arrive a step late."""
    generator = torch.Generator().manual_seed(0)
    fast, plain = random_pair({}, generator, compression="log")
    fast.plan.reader = Reader()
    x, lengths = batch("noise", [4000, 2500], generator)
    optimizer = torch.optim.SGD(fast.parameters(), lr=0.0)
    plans = set()
    for _ in range(12):
        a = energies(fast, x, lengths)
        plans.add(fast.plan.rates)
        with torch.no_grad():
            plain.load_state_dict(fast.state_dict())
            b = energies(plain, x, lengths)
        assert ((a - b).norm(dim=(0, 1)) / b.norm(dim=(0, 1))).max() < TOLERANCE
        a.sum().backward()
        optimizer.step()
        with torch.no_grad():
            fast.width.mul_(0.99)
        fast.plan.reader.arrived = fast.plan.reader.busy
    assert len(plans) > 1
    with torch.no_grad():
        fast.width.mul_(0.6)  # as if an optimizer had done it
    a = energies(fast, x, lengths)
    assert a.isnan().any()
    fast.plan.reader.arrived = True
    assert not energies(fast, x, lengths).isnan().any()


def test_loading_parameters_makes_a_new_plan():
    leaf, other = Leaf(), Leaf()
    leaf.plan.reader = Reader()
    x, lengths = 0.1 * torch.randn(1, 2000), torch.tensor([2000])
    leaf(x, lengths)[0].sum().backward()
    with torch.no_grad():
        other.width.mul_(0.5)
    leaf.load_state_dict(other.state_dict())
    torch.testing.assert_close(leaf(x, lengths)[0], other(x, lengths)[0])
    assert leaf.outdated() is False


def test_a_graph_is_told_when_it_is_outdated():
    leaf = Leaf()
    assert leaf.outdated() is False  # on a CPU nothing is kept
    leaf.plan.reader = Reader()
    x, lengths = 0.1 * torch.randn(1, 2000), torch.tensor([2000])
    leaf(x, lengths)

    def outdated():
        answer = leaf.outdated()
        leaf.plan.reader.arrived = leaf.plan.reader.busy  # until the next step
        return answer

    assert [outdated(), outdated()] == [False, False]
    leaf.width.data.mul_(0.9)  # as an optimizer in a graph does it: torch counts no change
    assert [outdated() for _ in range(3)] == [False, True, False]  # a copy of before, one of after


def test_a_layer_back_from_a_gpu_trains_on():
    leaf, x, lengths = Leaf(), 0.1 * torch.randn(1, 2000), torch.tensor([2000])
    leaf.plan.reader, leaf.plan.rates = PinnedReader(), (1,) * 40
    for _ in range(3):
        y = leaf(x, lengths)[0]
        torch.testing.assert_close(y, Leaf(implementation="reference")(x, lengths)[0])
        y.sum().backward()
        with torch.no_grad():
            leaf.width.mul_(1)  # a step
    assert leaf.plan.reader is None and leaf.plan.rates is None


def test_a_copied_layer_plans_for_itself():
    leaf = Leaf()
    leaf.plan.reader = Reader()
    leaf(torch.zeros(1, 2000), torch.tensor([2000]))
    for other in copy.deepcopy(leaf), pickle.loads(pickle.dumps(leaf)):
        assert other.plan is not leaf.plan and other.plan.rates is None and other.plan.reader is None
        other(torch.zeros(1, 2000), torch.tensor([2000]))


def test_nothing_is_skipped_where_reading_would_stall(monkeypatch):
    """The way that a GPU takes, on a CPU."""
    generator = torch.Generator().manual_seed(0)
    fast, _ = random_pair({}, generator)
    x, lengths = batch("brown", [20_000, 1_000, 500], generator)

    def outputs(leaf, x, lengths):
        return leaf(x, lengths)[0]

    a, _, grads = outputs_and_gradients(fast, outputs, x, lengths)
    monkeypatch.setattr(fft, "reading_is_free", lambda x: False)
    b, _, other = outputs_and_gradients(fast, outputs, x, lengths)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for name, g in grads.items():
        assert (g - other[name]).norm() < 1e-5 * g.norm()


def planned_on_meta(n_filters=40):
    """A layer whose tensors have no values, so that nobody can read one."""
    leaf = Leaf(n_filters=n_filters)
    leaf.plan.reader = Reader()
    leaf(torch.zeros(1, 2000), torch.tensor([2000]))  # makes the plan
    plan = leaf.plan.rates
    leaf = leaf.to("meta")
    leaf.plan.rates, leaf.plan.learning = plan, True
    return leaf


def test_a_training_step_reads_nothing():
    leaf = planned_on_meta()
    x = torch.empty(4, 1, 30_000, device="meta", requires_grad=True)
    e = leaf._energies(x, torch.empty(4, dtype=torch.int64, device="meta"))
    e.sum().backward()
    assert x.grad.shape == x.shape and e.shape == (4, 40, 188)


def test_a_batch_of_128_keeps_less_than_2_gib():
    leaf = planned_on_meta()
    kept = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        lengths = torch.empty(128, dtype=torch.int64, device="meta")
        e = leaf._energies(torch.empty(128, 1, 72_000, device="meta"), lengths)
    temporaries = 3 * 8 * geometry.GPU_CHUNK  # of a backward pass
    assert e.requires_grad and 1 * 2**30 < sum(kept.values()) < 2 * 2**30 - temporaries


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestOnAGpu:
    def test_a_training_step_does_not_wait(self):
        leaf = Leaf().cuda()
        optimizer = torch.optim.Adam(leaf.parameters(), lr=1e-3)
        x, lengths = 0.1 * torch.randn(8, 40_000, device="cuda"), torch.full((8,), 40_000, device="cuda")

        def step():
            optimizer.zero_grad()
            leaf(x, lengths)[0].square().mean().backward()
            optimizer.step()

        for _ in range(3):
            step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_a_graph_gives_the_same(self):
        leaf = Leaf().cuda()
        x, lengths = 0.1 * torch.randn(8, 40_000, device="cuda"), torch.full((8,), 40_000, device="cuda")

        def step():
            leaf.zero_grad(set_to_none=True)
            y, _ = leaf(x, lengths)
            y.square().mean().backward()
            return y

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                expected = step().detach().clone()
        grads = {name: p.grad.clone() for name, p in leaf.named_parameters()}
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = step()
        graph.replay()
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
        for name, p in leaf.named_parameters():
            assert (p.grad - grads[name]).norm() < 1e-5 * grads[name].norm()
        assert leaf.outdated() is False

    def test_memory_of_a_batch_of_128(self):
        leaf = Leaf().cuda()
        x, lengths = 0.1 * torch.randn(128, 72_000, device="cuda"), torch.full((128,), 72_000, device="cuda")
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        leaf(x, lengths)[0].square().mean().backward()
        assert torch.cuda.max_memory_allocated() - before < 2 * 2**30

    def test_pinned_reader(self):
        reader = PinnedReader()
        assert not reader.busy and reader.result() is None
        reader.start(torch.arange(3.0, device="cuda"))
        torch.cuda.synchronize()
        assert reader.busy and reader.result().tolist() == [0, 1, 2] and not reader.busy


# The parts.


@pytest.mark.parametrize("r", [8, 15, 20, 60])
@pytest.mark.parametrize("width", [0.1, 0.2, 0.4, 0.5])  # no narrower than the coarsest grid
def test_quadrature_is_exact_for_the_energies_of_its_rate(r, width):
    """Each frequency of an energy, weighted by how much of it the narrowest filter of this rate lets through."""
    geometry = Geometry.of(401, 401, 160)
    t = torch.arange(-200, 201, dtype=torch.float64)
    window = torch.exp(-0.5 * (t / (200 * width)) ** 2)
    coarse, points = quadrature(r, geometry) @ window, grid(r, geometry)
    sigma = BAND * 160 / r / math.pi
    omega = torch.linspace(0, 14 / sigma, 300, dtype=torch.float64)[:, None]
    exact = torch.complex(torch.cos(omega * t) @ window, torch.sin(omega * t) @ window)
    error = exact - torch.complex(torch.cos(omega * points) @ coarse, torch.sin(omega * points) @ coarse)
    passed = torch.exp(-((sigma * omega[:, 0]) ** 2) / 4)
    assert (error.abs() * passed / window.sum()).max() < 2e-6


@pytest.mark.parametrize("width", [0.005, 0.1, 0.4, 0.5])
def test_derivatives_of_the_pooling_window(width):
    w = torch.tensor([width], dtype=torch.float64)
    window, slope = fft._windows(w, 401)
    up, down = (fft._windows(w * (1 + d), 401)[0] for d in (1e-6, -1e-6))
    torch.testing.assert_close(slope, (up - down) / (2e-6 * w), rtol=1e-6, atol=1e-6)
    leaf = Leaf(n_filters=1)
    assert bounded(leaf.pool_width, 2 / 401, 0.5).item() == leaf.pool_width.item()
    assert window[0, 200] == 1


@pytest.mark.parametrize("hop", [7, 16, 80, 160, 441, 2000])
def test_geometry_leaves_room_for_every_frame(hop):
    g = Geometry.of(401, 401, hop)
    reach = g.pool_half + 60  # three steps of the coarsest grid
    assert g.frames >= 1
    assert g.margin * hop + g.centre >= reach + g.half  # a block's first valid frame
    assert g.block - 1 - (g.margin + g.frames - 1) * hop - g.centre >= reach + g.half  # its last
    assert g.edge * hop >= reach  # an utterance's first inner frame
    ends, reach = g.at_the_ends, g.pool_half + g.half
    assert ends.margin * hop + g.centre >= reach
    assert ends.block - 1 - (ends.margin + g.edge - 1) * hop - g.centre >= reach
    for r in [hop] + [r for r in (10, 20, 80) if hop % r == 0]:
        points, step = grid(r, g), hop / r
        extra = 1.5 * step if r < hop else 0
        assert points[0] <= -200 - extra and points[-1] >= 200 + extra
        assert len(points) % r == 0 and (len(points) // r) % 2 == 1
