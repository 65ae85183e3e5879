import pytest
import torch

from korser.frontend.lengths import masked_mean_std
from korser.plugins.backbones.blstm import BLSTM
from korser.plugins.backbones.linear_pool import LinearPool
from korser.plugins.backbones.temporal import TemporalNet
from korser.utils.errors import UserError


def test_a_frame_sees_its_neighbours_only_if_there_are_layers():
    x, lengths = torch.randn(1, 20, 6), torch.tensor([20])
    shuffled = x[:, torch.randperm(20)]
    for n_layers in 0, 2:
        net = TemporalNet(in_channels=6, width=4, n_layers=n_layers).eval()
        assert torch.allclose(net(x, lengths), net(shuffled, lengths), atol=1e-5) == (n_layers == 0)


def test_dropout_draws_the_same_whatever_the_padding():
    net = TemporalNet(in_channels=6, width=8, dropout=0.5, input_dropout=0.5)
    x, lengths = torch.randn(2, 30, 6), torch.tensor([20, 11])
    torch.manual_seed(1)
    short = net(x[:, :20], lengths)
    torch.manual_seed(1)
    torch.testing.assert_close(short, net(x, lengths))


def test_linear_pool_is_the_mean_of_the_projection():
    net = LinearPool(in_channels=6, width=4, pooling="mean_std")
    x, lengths = torch.randn(2, 30, 6), torch.tensor([20, 11])
    mean, std = masked_mean_std(x, lengths)
    y = net(x, lengths)
    torch.testing.assert_close(y[:, :4], net.projection(mean))
    assert y.shape == (2, net.output_size) and (y[:, 4:] > 0).all()
    assert LinearPool(in_channels=6, width=4)(x, lengths).shape == (2, 4)


def test_the_backward_direction_begins_at_the_last_valid_frame():
    net = BLSTM(in_channels=6, width=3).eval()
    x, lengths = torch.randn(1, 30, 6), torch.tensor([12])
    torch.testing.assert_close(net(x, lengths), net(x[:, :12], lengths))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kernel_size": 4}, "TemporalNet: kernel_size=4: expected an odd number"),
        ({"n_layers": -1}, "TemporalNet: n_layers=-1: expected 0 or more"),
    ],
)
def test_wrong_options_of_the_temporal_net_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        TemporalNet(in_channels=4, **settings)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(UserError, match="LinearPool: pooling='max': expected mean or mean_std"):
        LinearPool(in_channels=4, pooling="max")
