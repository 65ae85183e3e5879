"""Frontends side by side."""

import pytest
import torch
from helpers import failed_checks
from test_base import Halve

from korser import Chain, Frontend, Parallel, UserError
from korser.plugins.frontends.encoder import PretrainedEncoder
from korser.plugins.frontends.mel import Mel
from korser.testing import check_frontend, quick_check


def test_what_a_parallel_declares():
    parallel = Parallel(Mel(n_mels=8), Halve(min_length=700, max_length=9000, trained=False), Mel(n_mels=4))
    assert (parallel.output_size, parallel.frame_rate, parallel.in_channels) == (16, 100, None)
    assert (parallel.min_length, parallel.max_length, parallel.frequency_axis) == (700, 9000, False)
    x, lengths = torch.randn(2, 1000), torch.tensor([1000, 800])
    features, frames = parallel.eval()(x, lengths)
    assert features.shape == (2, 7, 16) and frames.tolist() == [7, 5]
    assert torch.equal(parallel.output_lengths(lengths), frames)
    assert torch.equal(features[..., :8], Mel(n_mels=8)(x, lengths)[0])
    assert Parallel(Mel(), Mel()).max_length is None
