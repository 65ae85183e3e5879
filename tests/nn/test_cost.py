"""Counted operations."""

import torch
from conftest import HPARAMS

from korser import Frontend, load_hparams
from korser.nn.cost import macs_per_second
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
    assert macs_per_second(model.eval()) > 2 * 64000 / 4
