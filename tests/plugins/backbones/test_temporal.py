import pytest
import torch

from korser.frontend.lengths import masked_mean_std
from korser.plugins.backbones.blstm import BLSTM
from korser.plugins.backbones.linear_pool import LinearPool
from korser.plugins.backbones.temporal import TemporalNet
from korser.utils.errors import UserError


def test_a_frame_sees_its_neighbours_in_the_temporal_net_only():
    x, lengths = torch.randn(1, 20, 6), torch.tensor([20])
    shuffled = x[:, torch.randperm(20)]
    for backbone in TemporalNet, LinearPool:
        net = backbone(in_channels=6, width=4).eval()
        assert torch.allclose(net(x, lengths), net(shuffled, lengths), atol=1e-5) == (backbone is LinearPool)


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


def test_linear_pool_attends_to_every_channel_by_itself():
    net = LinearPool(in_channels=6, width=4, pooling="attentive", input_norm="batch").eval()
    x, lengths = torch.randn(2, 30, 6), torch.tensor([20, 11])
    torch.testing.assert_close(net(x, lengths)[1:], net(x[1:, :11], lengths[1:]))
    with torch.no_grad():
        net.attention.score.weight.zero_()
    mean, _ = masked_mean_std(x / (1 + 1e-5) ** 0.5, lengths)
    torch.testing.assert_close(net(x, lengths)[:, :4], net.projection(mean), msg="equal weights give the mean")


def test_the_backward_direction_begins_at_the_last_valid_frame():
    net = BLSTM(in_channels=6, width=3).eval()
    x, lengths = torch.randn(1, 30, 6), torch.tensor([12])
    torch.testing.assert_close(net(x, lengths), net(x[:, :12], lengths))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kernel_size": 4}, "TemporalNet: kernel_size=4: expected an odd number"),
        ({"n_layers": 0}, "TemporalNet: n_layers=0: expected 1 or more"),
    ],
)
def test_wrong_options_of_the_temporal_net_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        TemporalNet(in_channels=4, **settings)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(UserError, match="LinearPool: pooling='max': expected mean, mean_std or attentive"):
        LinearPool(in_channels=4, pooling="max")
