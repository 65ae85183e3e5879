import pytest
import torch

from korser.frontend.lengths import length_mask
from korser.plugins.backbones.masked import InputNorm, MaskedBatchNorm
from korser.utils.errors import UserError


def test_masked_batch_norm_is_batch_norm_of_the_valid_frames():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 7, 2)
    lengths = torch.tensor([7, 1, 4])
    norm, reference = MaskedBatchNorm(5), torch.nn.BatchNorm1d(5)
    frames = torch.cat([x[i, :, :n].permute(1, 2, 0).reshape(-1, 5) for i, n in enumerate(lengths)])
    expected = reference(frames)
    y = norm(x, lengths)
    got = torch.cat([y[i, :, :n].permute(1, 2, 0).reshape(-1, 5) for i, n in enumerate(lengths)])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    assert y[1, :, 1:].abs().max() == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lengths", [[7, 3, 1], [7, 7, 7], [1]])
@pytest.mark.parametrize("affine", [True, False])
def test_masked_batch_norm_is_the_same_on_a_gpu(training, lengths, affine):
    torch.manual_seed(0)
    norms = [MaskedBatchNorm(5, torch.relu, affine=affine).train(training) for _ in range(2)]
    with torch.no_grad():
        for name, value in norms[0].state_dict().items():
            value.copy_(torch.rand(value.shape) + 0.5)
            norms[1].state_dict()[name].copy_(value)
    n, bands = len(lengths), 1 if lengths == [1] else 2  # a single value per channel has no variance
    x = (3 * torch.randn(n, 5, max(lengths), bands) + 1).requires_grad_()
    mask = length_mask(torch.tensor(lengths), max(lengths))
    results = []
    for norm, how in zip(norms, (norms[0].packed, norms[1].masked)):
        poisoned = x.masked_fill(~mask[:, None, :, None], float("nan"))
        y = how(poisoned, mask)
        grads = torch.autograd.grad((y**2).sum(), [x, *norm.parameters()])
        results.append([y, *grads, norm.running_mean, norm.running_var])
    for packed, masked in zip(*results):
        torch.testing.assert_close(packed, masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["packed", "masked"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])  # whose square is infinite
def test_running_statistics_outlive_a_batch_that_is_not_finite(how, value):
    torch.manual_seed(0)
    norm, healthy = MaskedBatchNorm(4), MaskedBatchNorm(4)
    x, mask = torch.randn(3, 4, 10, 1), length_mask(torch.tensor([10, 7, 3]), 10)
    broken = x.clone()
    broken[1, 2, 3:5] = value
    for batch in x, broken, x:
        getattr(norm, how)(batch, mask)
    for batch in x, x:
        getattr(healthy, how)(batch, mask)
    others = [0, 1, 3]  # of these channels that batch was finite
    assert norm.running_mean.isfinite().all() and norm.running_var.isfinite().all()
    assert torch.equal(norm.running_mean[2], healthy.running_mean[2])
    assert torch.equal(norm.running_var[2], healthy.running_var[2])
    assert not torch.equal(norm.running_mean[others], healthy.running_mean[others])


@pytest.mark.parametrize("kind", ["layer", "batch", "none"])
def test_input_norm_normalises_valid_frames_and_clears_the_padding(kind):
    torch.manual_seed(0)
    x, lengths = 5 + 3 * torch.randn(2, 40, 6), torch.tensor([40, 25])
    x[1, 25:] = float("nan")
    y = InputNorm(6, kind)(x, lengths)
    valid = y[length_mask(lengths, 40)]
    assert y[1, 25:].abs().max() == 0
    if kind == "none":
        assert torch.equal(valid, x[length_mask(lengths, 40)])
    else:
        axis = 1 if kind == "layer" else 0
        torch.testing.assert_close(valid.mean(axis), torch.zeros(valid.shape[1 - axis]), atol=1e-5, rtol=0)
        torch.testing.assert_close(valid.var(axis, correction=0), torch.ones(valid.shape[1 - axis]), atol=1e-3, rtol=0)


def test_an_unknown_input_norm_is_refused():
    with pytest.raises(UserError, match="input_norm='frame': expected layer, batch or none"):
        InputNorm(4, "frame")
