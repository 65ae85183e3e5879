"""Statistics over valid frames, layer behind layer."""

import torch

from korser.plugins.backbones.statistics import Statistics


def test_mean_and_deviation_of_each_channel_over_valid_frames():
    x, lengths = torch.randn(2, 9, 4), torch.tensor([9, 5])
    backbone = Statistics(in_channels=4, frame_rate=100.0)
    y = backbone(x, lengths)
    assert y.shape == (2, backbone.output_size) == (2, 8)
    own = x[1, :5]
    torch.testing.assert_close(y[1].view(4, 2), torch.stack([own.mean(0), own.std(0, unbiased=False)], 1))
    halves = [Statistics(in_channels=2, frame_rate=100.0)(part, lengths) for part in x.split(2, -1)]
    torch.testing.assert_close(y, torch.cat(halves, 1))  # so that an embedding can be cut into layers


def test_one_frame_is_the_embedding():
    x = torch.randn(3, 1, 4)
    backbone = Statistics(in_channels=4, frame_rate=None)
    assert backbone(x, torch.ones(3, dtype=torch.int64)).equal(x[:, 0]) and backbone.output_size == 4


def test_embeddings_can_be_normalised():
    backbone = Statistics(in_channels=3, frame_rate=None, normalize=True)
    assert not list(backbone.parameters())
    y = backbone(1e6 * torch.randn(20, 1, 3) + 1e6, torch.ones(20, dtype=torch.int64))
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    before = backbone.norm.running_mean.clone()
    assert backbone(torch.zeros(1, 1, 3), torch.ones(1, dtype=torch.int64)).isfinite().all()
    assert backbone.norm.running_mean.equal(before), "one utterance has no variance"
