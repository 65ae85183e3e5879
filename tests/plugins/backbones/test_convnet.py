import pytest
import torch

from korser.plugins.backbones.convnet import ConvNet
from korser.utils.errors import UserError

SHAPES = [(1, 1), (7, 3), (40, 120), (64, 370), (192, 180), (1536, 25)]


def batch(channels, longest, n=4):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(n, longest, channels, generator=generator) * 4 - 10
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    lengths[0] = longest
    return x, lengths


def trained(net, x, lengths):
    """Move the weights and running statistics away from where they start."""
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        net(x, lengths).square().mean().backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize("channels, longest", SHAPES)
def test_embedding_is_the_same_alone_and_in_any_padded_batch(channels, longest):
    torch.manual_seed(0)
    x, lengths = batch(channels, longest)
    net = trained(ConvNet(in_channels=channels), x, lengths)
    for extra in (0, 1, 37):
        padding = torch.full((len(x), extra, channels), 1e4)
        padded = torch.cat([x, padding], 1)
        padded[~(torch.arange(longest + extra)[None] < lengths[:, None])] = float("nan")  # must never leak
        together = net(padded, lengths)
        for i, n in enumerate(lengths.tolist()):
            alone = net(x[i : i + 1, :n], lengths[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_padding_does_not_change_training_either():
    torch.manual_seed(0)
    x, lengths = batch(8, 60)
    lengths[0] = 50
    net = ConvNet(in_channels=8, dropout=0.0)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    results = []
    for size in (50, 60):
        net.load_state_dict(state)
        net.zero_grad()
        net(x[:, :size], lengths).square().sum().backward()
        results.append([p.grad.clone() for p in net.parameters()] + [b.clone() for b in net.buffers()])
    for short, long in zip(*results):
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_of_one_frame_trains(channels):
    net = ConvNet(in_channels=channels)
    y = net(torch.randn(1, 1, channels), torch.tensor([1]))
    y.sum().backward()
    assert y.shape == (1, net.output_size)
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert all(torch.isfinite(b).all() for b in net.buffers())


def test_every_parameter_learns_and_the_default_is_small():
    net = ConvNet(in_channels=64)
    x, lengths = batch(64, 200)
    net(x, lengths).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())
    assert sum(p.numel() for p in net.parameters()) < 1_000_000


def test_constant_features_stay_finite():
    net = ConvNet(in_channels=4)
    for value in (0.0, -23.0, 1e4):
        y = net(torch.full((2, 30, 4), value), torch.tensor([30, 9]))
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_runs_under_bf16_autocast_and_in_float64():
    torch.manual_seed(0)
    x, lengths = batch(64, 120)
    net = trained(ConvNet(in_channels=64), x, lengths)
    expected = net(x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x, lengths)
        net.train()(x, lengths).sum().backward()
    assert y.dtype == torch.float32
    assert (y - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert net.eval().double()(x.double(), lengths).dtype == torch.float64


def test_state_dict_round_trip_is_bit_equal():
    x, lengths = batch(16, 50)
    net = trained(ConvNet(in_channels=16, max_bands=12), x, lengths)
    other = ConvNet(in_channels=16, max_bands=12).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x, lengths), other(x, lengths))


def test_the_network_sees_the_same_rate_behind_every_frontend():
    for frame_rate, stride in ((100, 4), (50, 2), (25, 1), (12.5, 1)):
        net = ConvNet(in_channels=8, frame_rate=frame_rate)
        assert net.blocks[0].conv.stride[0] == stride


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match="3 time_strides and 4 band_strides for 2 maps: expected 1 and 2"):
        ConvNet(in_channels=4, maps=(8, 16))
    with pytest.raises(UserError, match="kernel_size=4: expected an odd number"):
        ConvNet(in_channels=4, kernel_size=4)
