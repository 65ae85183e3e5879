"""Learning rates and weight decay."""

import pytest
import torch
from conftest import HPARAMS
from helpers import run

from korser import Frontend, UserError, load_hparams, train
from korser.nn.model import SpeechEmotionModel
from korser.training.brain import EmotionBrain
from korser.training.optimizers import make_optimizers
from korser.utils.files import read_csv


def test_each_learning_rate_has_its_optimizer_and_vectors_do_not_decay(tiny, tmp_path):
    settings = {
        **tiny,
        "frontend": "!new:korser.plugins.frontends.leaf.Leaf {n_filters: 8, lr: 1.0e-5}",
        "n_epochs": "1",
    }
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", settings)
    seen = {}
    original = EmotionBrain.init_optimizers

    def spy(self):
        original(self)
        for optimizer in self.optimizers_dict.values():
            (group,) = optimizer.param_groups
            for parameter in group["params"]:
                seen[parameter] = (group["lr"], group["weight_decay"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmotionBrain, "init_optimizers", spy)
        train(hparams, tmp_path / "run")
    leaf = hparams["frontend"]
    assert {seen[p] for p in leaf.parameters()} == {(1e-5, 0.0)}
    backbone = hparams["backbone"]
    assert all((seen[p][0], seen[p][1] > 0) == (hparams["lr"], p.dim() > 1) for p in backbone.parameters())


def test_a_constant_rate_and_no_augmentation(tiny):
    log = read_csv(run({**tiny, "lr_scheduler": "null", "augment": "null", "lr": "0.002"}, model="mel_stl") / "log.csv")
    assert log["lr"].tolist() == [0.002, 0.002]


class Scaled(Frontend):
    """Two vectors, one of which is trained more slowly."""

    def __init__(self, scales):
        super().__init__(output_size=1, frame_rate=100)
        self.fast, self.slow = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
        self.scales = scales

    def lr_scales(self):
        return self.scales


def test_a_frontend_scales_learning_rates():
    def rates(scales):
        frontend = Scaled(scales)
        model = SpeechEmotionModel(frontend=frontend, backbone=torch.nn.Identity(), head=torch.nn.Identity())
        optimizers = make_optimizers(model, torch.optim.SGD, 0.1)
        by_parameter = {p: lr for optimizer, lr in optimizers for p in optimizer.param_groups[0]["params"]}
        return by_parameter[frontend.fast], by_parameter[frontend.slow]

    assert rates({}) == (0.1, 0.1)
    assert rates({"slow": 0.5}) == (0.1, 0.05)
    with pytest.raises(UserError, match=r"Scaled.lr_scales\(\) gives 'slaw': 0.5, expected names of parameters"):
        rates({"slaw": 0.5})
    with pytest.raises(UserError, match="'slow': -1, expected"):
        rates({"slow": -1})
