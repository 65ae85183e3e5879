import numpy as np
import pytest
import torch

from korser.frontend.pcen import BOUNDS, PCEN, bounded, linear_recursion


def plain_pcen(x, alpha, smooth, delta, root, floor=1e-12):
    """The formulas, frame by frame: ``(T,)`` float64 of one channel."""
    alpha, smooth, delta, root = min(alpha, 1), min(max(smooth, 0), 1), max(delta, BOUNDS["delta"][0]), max(root, 1)
    mean, out = x[0], []
    for value in x:
        mean = (1 - smooth) * mean + smooth * value
        out.append((value / (floor + mean) ** alpha + delta) ** (1 / root) - delta ** (1 / root))
    return np.array(out)


def energies(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).square()


def set_parameters(pcen, **values):
    with torch.no_grad():
        for name, value in values.items():
            getattr(pcen, name).fill_(value)


@pytest.mark.parametrize("n_frames", [1, 2, 31, 32, 33, 64, 65, 1024, 1025, 3000])
def test_agrees_with_the_formula(n_frames):
    x = energies(2, n_frames, 3).double()
    pcen = PCEN(n_channels=3).double()
    set_parameters(pcen, alpha=0.96, smooth=0.04)  # in float64, where the initial values are rounded to float32
    y = pcen(x)
    for b in range(2):
        for c in range(3):
            expected = plain_pcen(x[b, :, c].numpy(), 0.96, 0.04, 2.0, 2.0)
            np.testing.assert_allclose(y[b, :, c].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        {"smooth": 0.0},
        {"smooth": 1e-6},
        {"smooth": 1.0},
        {"smooth": 0.999999},
        {"smooth": -0.3},
        {"smooth": 1.7},
        {"alpha": 3.0},
        {"alpha": -0.5},
        {"delta": 0.0},
        {"delta": -5.0},
        {"root": 0.2},
        {"root": 9.0},
    ],
)
def test_extreme_parameters(values):
    pcen = PCEN(n_channels=1)
    set_parameters(pcen, **values)
    x = energies(1, 500, 1)
    y = pcen(x)
    settings = {name: p.item() for name, p in pcen.named_parameters()}
    expected = plain_pcen(x[0, :, 0].double().numpy(), **settings)
    np.testing.assert_allclose(y[0, :, 0].detach(), expected, rtol=1e-4, atol=2e-6)
    y.sum().backward()
    for name, p in pcen.named_parameters():
        assert torch.isfinite(p.grad).all(), name


def test_gradients_agree_with_finite_differences():
    pcen = PCEN(n_channels=2).double()
    x = energies(1, 70, 2).double().requires_grad_()
    names = [name for name, _ in pcen.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(pcen, dict(zip(names, parameters)), (x,))

    assert torch.autograd.gradcheck(run, (x, *pcen.parameters()))


def test_parameters_beyond_their_bounds_come_back():
    """With a plain clamp in the forward pass they never would."""
    pcen = PCEN(n_channels=4)
    set_parameters(pcen, alpha=1.5, smooth=-0.5, delta=-3.0, root=0.5)
    target = PCEN(n_channels=4)
    x = energies(8, 60, 4)
    optimizer = torch.optim.Adam(pcen.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (pcen(x) - target(x).detach()).square().mean().backward()
        optimizer.step()
    assert (pcen.alpha <= 1).all() and (pcen.smooth > 0).all() and (pcen.delta > 0).all() and (pcen.root > 1).all()


def test_bounded_drops_only_what_leads_outwards():
    x = torch.tensor([-1.0, -1.0, 0.5, 2.0, 2.0], requires_grad=True)
    y = bounded(x, 0.0, 1.0)
    assert y.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    y.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert x.grad.tolist() == [0.0, -1.0, 1.0, 1.0, 0.0]


def test_silence_click_and_loudness_stay_finite():
    x = torch.zeros(1, 200, 2)
    x[:, 100, 1] = 1e6
    x = torch.cat([x, torch.full_like(x, 1e12)])
    pcen = PCEN(n_channels=2)
    y = pcen(x)
    assert torch.isfinite(y).all()
    assert (y[0, :, 0] == 0).all()  # silence is 0
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in pcen.parameters())


def test_an_utterance_is_the_same_in_a_longer_batch():
    pcen = PCEN(n_channels=5)
    x = energies(1, 77, 5)
    alone = pcen(x)
    padded = pcen(torch.cat([x, 50 * energies(1, 2000, 5, seed=1)], 1))
    torch.testing.assert_close(padded[:, :77], alone, rtol=1e-6, atol=1e-6)


def test_float32_inside_bf16_autocast():
    pcen = PCEN(n_channels=5)
    x = energies(2, 100, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = pcen(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, pcen(x))


def test_float32_is_accurate_for_quiet_frames():
    x, pcen = energies(2, 50, 3) ** 8, PCEN(n_channels=3)
    torch.testing.assert_close(pcen(x), pcen.double()(x.double()).float(), rtol=1e-5, atol=0)


def test_not_trainable():
    assert not any(p.requires_grad for p in PCEN(n_channels=2, trainable=False).parameters())


def test_linear_recursion_of_ten_minutes():
    """A quadratic cost in the number of frames would show here."""
    y = linear_recursion(torch.ones(1, 2, 60_000), torch.tensor([1.0, 0.5]), torch.zeros(1, 2))
    assert y[0, 0, -1] == 60_000
    assert y[0, 1, -1] == 2
