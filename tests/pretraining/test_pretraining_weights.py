"""Checkpoints that pretraining reads and writes."""

import json

import pytest
import torch
from helpers import TINY_WAV2VEC
from transformers import Wav2Vec2ForPreTraining, Wav2Vec2Model

from korser.pretraining.weights import build_model, export
from korser.utils.errors import UserError


def test_an_exported_folder_is_loaded_by_transformers_as_float32(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=True, encoder_only=False, card="# card\n")
    loaded = Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "out")
    for (name, a), b in zip(loaded.state_dict().items(), model.state_dict().values()):
        assert a.dtype == torch.float32, name
        torch.testing.assert_close(a, b.half().float())
    assert (tmp_path / "out" / "README.md").read_text() == "# card\n"
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["do_normalize"] is True


@pytest.mark.parametrize("encoder_only", [False, True])
def test_the_frontend_loads_it(tmp_path, encoder_only):
    from korser.plugins.frontends.encoder.encoder import PretrainedEncoder

    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    for _ in range(2):  # the second takes the place of the first
        export(model, preprocessor, tmp_path / "out", half=False, encoder_only=encoder_only, card="")
    frontend = PretrainedEncoder(source=str(tmp_path / "out"))
    assert frontend.pretrained
    x = torch.randn(1, 8000)
    normalized = (x - x.mean()) / x.std(correction=0)
    expected = model.eval().wav2vec2(normalized).last_hidden_state
    torch.testing.assert_close(frontend(x, torch.tensor([8000]))[0], expected, rtol=1e-4, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_checkpoint_is_gone_on_from_with_its_quantizer(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=False, encoder_only=False, card="")
    again, _ = build_model(str(tmp_path / "out"), TINY_WAV2VEC, {"mask_time_prob": 0.3})
    assert again.config.mask_time_prob == 0.3 and again.config.num_negatives == 5
    for a, b in zip(again.state_dict().values(), model.state_dict().values()):
        assert a.equal(b)


def test_a_checkpoint_without_quantizer_gets_a_new_one_and_says_so(tmp_path, caplog):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=False, encoder_only=True, card="")
    again, _ = build_model(str(tmp_path / "out"), {}, {})
    assert "has no quantizer: a new one" in caplog.text
    assert all(a.equal(b) for a, b in zip(again.wav2vec2.state_dict().values(), model.wav2vec2.state_dict().values()))


def test_what_is_no_wav2vec2_checkpoint_is_refused(tmp_path):
    from transformers import HubertConfig

    with pytest.raises(UserError, match="is not a folder"):
        build_model("./nowhere", {}, {})
    with pytest.raises(UserError, match="cannot read the config of"):
        build_model("nobody/nothing", {}, {})
    HubertConfig().save_pretrained(tmp_path / "hubert")
    with pytest.raises(UserError, match="expected a wav2vec 2.0"):
        build_model(str(tmp_path / "hubert"), {}, {})
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    del model.wav2vec2.encoder.layers[1]
    export(model, preprocessor, tmp_path / "short", half=False, encoder_only=False, card="")
    with pytest.raises(UserError, match="lacks .* tensors"):
        build_model(str(tmp_path / "short"), {}, {})
    with pytest.raises(UserError, match="other sizes than its config updated with {'hidden_size': 32"):
        build_model(str(tmp_path / "short"), {}, {"hidden_size": 32, "num_hidden_layers": 1})
    config = tmp_path / "short" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "attn_implementation": "someone/kernel"}))
    with pytest.raises(UserError, match="code that would be downloaded and run"):
        build_model(str(tmp_path / "short"), {}, {})


def test_a_checkpoint_of_old_names_is_read(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "new", half=False, encoder_only=False, card="")
    state = {}
    for name, tensor in model.state_dict().items():  # as torch spelled weight norm before 2.0, pickled
        for i, old in enumerate(("weight_g", "weight_v")):
            name = name.replace(f"parametrizations.weight.original{i}", old)
        state[name] = tensor
    (tmp_path / "new" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "new" / "pytorch_model.bin")
    again, _ = build_model(str(tmp_path / "new"), {}, {})
    assert all(a.equal(b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"hiden_size": 3}, "did you mean 'hidden_size'"),
        ({"mask_time_prob": 0.0}, "config.mask_time_prob=0.0: expected a number >= 0.001"),
        ({"mask_time_length": "x"}, "expected int, got str"),
        ({"num_negatives": 0}, "config.num_negatives=0: expected"),
        ({"conv_dim": [8, 8]}, "transformers cannot build"),
        ([1], "expected a mapping"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        build_model(None, {}, config)


def test_weights_are_those_of_a_plain_encoder_too(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=True, encoder_only=True, card="")
    loaded = Wav2Vec2Model.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float32
