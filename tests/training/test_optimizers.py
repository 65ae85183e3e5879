"""Learning rates and weight decay."""

import pytest
from conftest import HPARAMS
from helpers import run

from korser import load_hparams, train
from korser.training.brain import EmotionBrain
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
