"""The encoder that ships with korser."""

import json

import torch
from transformers import Wav2Vec2ForPreTraining

from korser.config.layers import merge_layers
from korser.data.fingerprint import weights_digest
from korser.plugins.frontends.encoder.checkpoint import NANO_FOLDER
from korser.plugins.frontends.encoder.encoder import PretrainedEncoder

HPARAMS = NANO_FOLDER.parents[3] / "hparams"


def test_it_ships_small_and_pretrained():
    nano, untrained = (
        PretrainedEncoder(source="nano", layer="all"),
        PretrainedEncoder(source="nano-random", layer="all"),
    )
    assert nano.pretrained and nano.frozen and nano.source == "nano"
    assert sum(path.stat().st_size for path in NANO_FOLDER.iterdir()) <= 8e6
    assert nano.state_dict().keys() == untrained.state_dict().keys()
    assert weights_digest(nano) != weights_digest(untrained)
    assert nano.output_size == untrained.output_size == 8 * 192


def test_it_is_the_default_of_every_model_with_an_encoder():
    paths = list(HPARAMS.glob("wav2vec_*.yaml"))
    assert paths
    for path in paths:
        assert "wav2vec_source: nano" in merge_layers(path, None).text


def test_pretraining_can_go_on_from_it():
    model, info = Wav2Vec2ForPreTraining.from_pretrained(
        NANO_FOLDER, output_loading_info=True, dtype=torch.float32, local_files_only=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.quantizer.codevectors.abs().sum() > 0


def test_its_card_says_how_it_was_made():
    card = (NANO_FOLDER / "README.md").read_text(encoding="utf-8")
    for word in (
        "license: apache-2.0",
        "eSpeak NG",
        "python recipes/pretrain.py hparams/pretrain_nano.yaml",
        "log-mel",
    ):
        assert word in card
    assert json.loads((NANO_FOLDER / "config.json").read_text())["model_type"] == "wav2vec2"
