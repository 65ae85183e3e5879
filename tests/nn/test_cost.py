"""Counted operations."""

import numpy as np
import pytest
import torch
from conftest import HPARAMS
from torch import nn

from korser import Frontend, load_hparams
from korser.nn.cost import macs_per_second
from korser.nn.model import SpeechEmotionModel
from korser.plugins.backbones.convnet import ConvNet
from korser.training.build import build_model
from korser.training.tasks import recorded_tasks


def test_what_an_encoder_derives_once_is_not_counted(tiny):
    hparams = load_hparams(HPARAMS / "wav2vec_stl.yaml", tiny)
    tasks = recorded_tasks(hparams, {"tasks": [{"name": "emotion", "classes": ["joy", "anger"]}]})
    model = build_model(hparams, tasks).eval()
    assert macs_per_second(model) == macs_per_second(model)


def test_operations_of_a_frozen_stage_for_long_utterances_alone_are_counted(tiny):
    class Long(Frontend):
        def __init__(self):
            super().__init__(output_size=2, frame_rate=0.5, min_length=32000)
            self.conv = torch.nn.Conv1d(1, 2, 32000, 32000).requires_grad_(False)

        def output_lengths(self, lengths):
            return lengths // 32000

        def forward(self, x, lengths):
            return self.conv(x[:, None]).transpose(1, 2), self.output_lengths(lengths)

    hparams = load_hparams(HPARAMS / "mel_stl.yaml", tiny)
    hparams = {**hparams, "frontend": Long(), "backbone": ConvNet(in_channels=2, frame_rate=0.5)}
    model = build_model(hparams, recorded_tasks(hparams, {"tasks": [{"name": "emotion", "classes": ["joy", "anger"]}]}))
    macs, not_counted = macs_per_second(model.eval())
    assert macs > 2 * 64000 / 4 and not_counted == []


def test_operations_are_counted_on_the_longest_input_that_is_accepted():
    class Second(Frontend):
        def __init__(self):
            super().__init__(output_size=2, frame_rate=100, max_length=16_000)
            self.conv = nn.Conv1d(1, 2, 160, 160)

        def output_lengths(self, lengths):
            assert lengths.max() <= self.max_length
            return lengths // 160

        def forward(self, x, lengths):
            return self.conv(x[:, None]).mT, self.output_lengths(lengths)

    assert counted(Second()) == (2 * 16_000, [])


class Frames(Frontend):
    """A hundred frames a second of 160 samples, without any counted operation."""

    def __init__(self, outside=None):
        super().__init__(output_size=160, frame_rate=100)
        self.outside = outside

    def forward(self, x, lengths):
        if self.outside:
            x = self.outside(x)
        return x[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160)), lengths // 160


class Backbone(nn.Module):
    def __init__(self, layer, packed=False):
        super().__init__()
        self.layer, self.packed, self.output_size = layer, packed, 8

    def forward(self, x, lengths):
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y = self.layer(x)
        y = y[0] if isinstance(y, tuple) else y
        return (y.data if self.packed else y[0]).mean(0, keepdim=True)[:, :8]


class Head(nn.Module):
    def forward(self, embedding):
        return embedding


class ByHand(nn.Module):
    """A matrix product of elementwise operations."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 160))

    def forward(self, x):
        return (x[..., None, :] * self.weight).sum(-1)


def counted(frontend=None, layer=None, packed=False):
    layer = nn.Identity() if layer is None else layer
    model = SpeechEmotionModel(frontend=frontend or Frames(), backbone=Backbone(layer, packed), head=Head())
    return macs_per_second(model.eval())


GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cls", GATES)
def test_recurrent_layers_are_counted(cls, packed):
    layer = cls(160, 8, num_layers=2, bidirectional=True, batch_first=True)
    weights = 2 * GATES[cls] * 8 * (160 + 8) + 2 * GATES[cls] * 8 * (16 + 8)
    assert counted(layer=layer, packed=packed) == (100 * weights, [])


def test_transformers_are_counted_without_their_fast_path():
    layer = nn.TransformerEncoderLayer(160, 4, dim_feedforward=32, batch_first=True)
    macs, not_counted = counted(layer=layer)
    assert macs == 100 * (4 * 160 * 160 + 2 * 160 * 400 + 2 * 160 * 32) and not_counted == []


@torch.library.custom_op("korser_tests::same", mutates_args=())
def same(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@pytest.mark.parametrize(
    "outside", [lambda x: torch.from_numpy(np.asarray(x) * 2), lambda x: torch.tensor(x.tolist()), same]
)
def test_a_stage_outside_torch_is_not_counted(outside):
    assert counted(Frames(outside)) == (0, [f"{__name__}.Frames"])


def test_a_part_with_weights_and_no_counted_operation_is_named():
    assert counted(layer=ByHand()) == (0, [f"{__name__}.Backbone"])
    assert counted() == (0, [])
