"""Whisper encoders, on small checkpoints with windows of two seconds."""

from pathlib import Path

import pytest
import torch
import transformers
from conftest import HPARAMS
from helpers import TINY_WHISPER, failed_checks, run, save_whisper
from test_encoder import alone, check_batch_invariance, damage, distance, waveform
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from korser import load_hparams
from korser.plugins.frontends.encoder import PretrainedEncoder
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError

LONGEST = 32000


@pytest.fixture(scope="module")
def plain(tiny_whisper):
    """The encoder of transformers."""
    return transformers.WhisperModel.from_pretrained(tiny_whisper).encoder.eval()


def extract(tiny_whisper, x):
    """The spectrogram of the checkpoint's extractor, padded to two seconds."""
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tiny_whisper)
    return extractor(x.numpy(), sampling_rate=16000, return_tensors="pt").input_features


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_equals_the_extractor(tmp_path, n_mels):
    folder = save_whisper(tmp_path, num_mel_bins=n_mels, encoder_layers=1)
    encoder = PretrainedEncoder(source=folder).encoder
    sizes = [400, 6543, 31999, LONGEST, 8000]
    x = torch.zeros(len(sizes), LONGEST + 7)
    for i, n in enumerate(sizes):
        x[i, :n] = waveform(n, seed=i) * 10**-i  # quiet ones, too
    x[4] = 0  # digital silence
    with torch.autocast("cpu", torch.bfloat16):  # which has no effect
        mel, silence = encoder.log_mel(x)
    for i, n in enumerate(sizes):
        want = extract(folder, x[i, :n])[0]
        assert distance(mel[i], want[:, : mel.shape[2]]) < 1e-5
        assert n > LONGEST - 400 or distance(silence[i, 0], want[0, -1:]) < 1e-5
        short, _ = encoder.log_mel(x[i : i + 1, :n])
        assert distance(short[0], want[:, : short.shape[2]]) < 1e-5


@pytest.mark.parametrize("n", [400, 6543, LONGEST])
def test_30s_equals_transformers(tiny_whisper, plain, n):
    x = waveform(n)
    with torch.no_grad():
        want = plain(extract(tiny_whisper, x), output_hidden_states=True)
    states = [*want.hidden_states[:-1], want.last_hidden_state]
    frontend = PretrainedEncoder(source=tiny_whisper, layer="all", padding="30s")
    got, lengths = alone(frontend, x)
    assert lengths.tolist() == [-(-n // 320)] and got.shape == (1, -(-n // 320), 4 * 32)
    for a, b in zip(got.split(32, dim=-1), states, strict=True):
        assert distance(a, b[:, : lengths[0]]) < 1e-5
    for layer, state in {0: states[0], 2: states[2], 3: states[3], "last": states[3]}.items():
        frontend = PretrainedEncoder(source=tiny_whisper, layer=layer, padding="30s")
        assert len(frontend.encoder.model.layers) == (3 if layer == "last" else layer)
        assert distance(alone(frontend, x)[0], state[:, : lengths[0]]) < 1e-5


def test_utterance_equals_an_encoder_of_that_length(tiny_whisper, plain):
    x = waveform(6400)  # 40 frames of the spectrogram, 20 of the encoder
    config = transformers.WhisperConfig(**TINY_WHISPER | {"max_source_positions": 20})
    short = WhisperEncoder(config).eval()
    weights = plain.state_dict()
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:20]
    short.load_state_dict(weights)
    with torch.no_grad():
        want = short(extract(tiny_whisper, x)[..., :40], output_hidden_states=True)
    got = alone(PretrainedEncoder(source=tiny_whisper, layer="all"), x)[0].split(32, dim=-1)
    for a, b in zip(got, [*want.hidden_states[:-1], want.last_hidden_state], strict=True):
        assert distance(a, b) < 1e-5


@pytest.mark.parametrize("padding", ["utterance", "30s"])
def test_contract(tiny_whisper, padding):
    def build():
        return PretrainedEncoder(source=tiny_whisper, padding=padding)

    assert failed_checks(build) == {}
    frontend = build()
    assert (frontend.min_length, frontend.max_length, frontend.frame_rate) == (400, LONGEST, 50)
    assert frontend.frozen and frontend.pretrained and not frontend.frequency_axis
    check_batch_invariance(PretrainedEncoder(source=tiny_whisper, padding=padding, layer="all"))


@pytest.mark.parametrize(
    "kind, options",
    [
        (transformers.WhisperForConditionalGeneration, {}),
        (transformers.WhisperForAudioClassification, {}),
        (transformers.WhisperModel, {"decoder_layers": 0}),
    ],
)
def test_the_encoder_of_any_checkpoint(tiny_whisper, tmp_path, kind, options):
    folder = save_whisper(tmp_path, kind, **options)
    x = waveform(3000)
    assert torch.equal(
        alone(PretrainedEncoder(source=folder), x)[0], alone(PretrainedEncoder(source=tiny_whisper), x)[0]
    )


def test_fp16_checkpoint_is_loaded_as_fp32(tmp_path):
    frontend = PretrainedEncoder(source=save_whisper(tmp_path, dtype=torch.float16, encoder_layers=1))
    assert {p.dtype for p in frontend.parameters()} == {torch.float32}


@pytest.mark.parametrize("freeze, layer", [("none", "last"), ("feature_extractor", 1), (1, "all"), (2, "last")])
def test_gradients_reach_what_is_trained(tiny_whisper, freeze, layer):
    frontend = PretrainedEncoder(source=tiny_whisper, freeze=freeze, layer=layer).train()
    x = torch.stack([waveform(4000, 1), waveform(4000, 2)])
    frontend(x, torch.tensor([4000, 3000]))[0].square().sum().backward()
    frozen = {"none": (), "feature_extractor": ("conv",), 1: ("conv", "layers.0")}.get(
        freeze, ("conv", "layers.0", "layers.1")
    )
    for name, p in frontend.named_parameters():
        name = name.partition(".encoder.model.")[2]
        assert p.requires_grad == (p.grad is not None) == (not name.startswith(("embed_positions", *frozen))), name


def test_windows(tiny_whisper):
    frontend = PretrainedEncoder(source=tiny_whisper, windows=True)
    assert frontend.max_length is None
    sizes = torch.tensor([400, LONGEST, LONGEST + 399, LONGEST + 400, 3 * LONGEST, 2 * LONGEST + 5000])
    assert frontend.output_lengths(sizes).tolist() == [2, 100, 100, 102, 300, 216]
    x = torch.stack([waveform(3 * LONGEST + 9, seed=i) for i in range(len(sizes))])
    got, lengths = frontend(x, sizes)
    assert lengths.tolist() == frontend.output_lengths(sizes).tolist()
    one = PretrainedEncoder(source=tiny_whisper)
    for i, n in enumerate(sizes):
        parts = [part for part in x[i, :n].split(LONGEST) if len(part) >= 400]
        want = torch.cat([alone(one, part)[0][0] for part in parts])
        assert distance(got[i, : lengths[i]], want) < 1e-5
        assert (got[i, lengths[i] :] == 0).all()
        assert distance(alone(frontend, x[i, :n])[0][0], want) < 1e-5
    assert failed_checks(lambda: PretrainedEncoder(source=tiny_whisper, windows=True, freeze=1)) == {}


def test_windows_have_no_effect_on_encoders_without_a_longest_input():
    assert PretrainedEncoder(source="nano", windows=True).state_dict().keys() == (
        PretrainedEncoder(source="nano").state_dict().keys()
    )


def test_errors_are_one_line_that_names_the_fix(tmp_path):
    def error(**options):
        with pytest.raises(UserError) as info:
            PretrainedEncoder(**{"source": tmp_path} | options)
        assert "\n" not in str(info.value)
        return str(info.value)

    save_whisper(tmp_path, encoder_layers=1)
    assert "padding='long': expected 'utterance' or '30s'" in error(padding="long")
    assert "is a whisper encoder, which has no such setting" in error(do_normalize=True)
    assert "is a wav2vec2 encoder, which has no such setting" in error(source="nano", padding="30s")
    assert "implementation='compiled'" in error(implementation="compiled")
    damage(tmp_path / "preprocessor_config.json", feature_size=128)
    assert "feature_size of preprocessor_config.json is 128, but num_mel_bins of config.json is 80" in error()
    (tmp_path / "preprocessor_config.json").unlink()
    assert "cannot read preprocessor_config.json (not in the folder); add the file" in error()
    transformers.WhisperFeatureExtractor(chunk_length=2).save_pretrained(tmp_path)
    damage(tmp_path / "config.json", encoder_layers=2)
    assert "the weights lack layers.1.fc1.bias" in error()
    (tmp_path / "model.safetensors").unlink()
    assert "the folder has no weights" in error()
    damage(tmp_path / "config.json", model_type="bert")
    assert "model_type of config.json is 'bert'; expected one of wav2vec2, " in error()


def test_a_run_with_cached_layers(tiny, tiny_whisper):
    run_dir = run({**tiny, "n_epochs": "1", "whisper_source": str(tiny_whisper)}, model="whisper_stl")
    assert list(Path(tiny["cache_folder"], "features").iterdir())
    (learnt,) = RunDirectory(run_dir).interpretable_parameters()
    assert len(learnt["quantities"]["layer weight"]["trained"]) == 4


@pytest.mark.parametrize("setting", ["whisper_source", "wav2vec_source", "encoder.source"])
def test_the_yaml_takes_any_encoder(setting):
    hparams = load_hparams(HPARAMS / "whisper_leaf_mtl.yaml", {setting: "nano"})
    assert hparams["encoder"].source == "nano"
