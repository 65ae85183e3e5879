"""All families of encoders but the first four and Whisper, on small checkpoints that transformers itself saves."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from helpers import failed_checks, run
from test_encoder import alone, check_batch_invariance, damage, distance, waveform

from korser.data.audio_cache import scan_audio
from korser.data.fingerprint import stages_digest
from korser.frontend.base import Chain
from korser.plugins.frontends.encoder import LayerMix, PretrainedEncoder
from korser.plugins.frontends.encoder.families.base import EncoderFamily
from korser.probing.encoders import Encoder
from korser.probing.features import pooled_statistics
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "layerdrop": 0.5,
}
WAVEFORM = SMALL | {
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.5,
    "mask_time_length": 2,
}
SEW = WAVEFORM | {
    "conv_dim": (8, 8, 8, 16, 16, 16, 16, 16, 16),
    "conv_kernel": (10, 3, 1, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 1, 2, 2, 2, 2, 2, 1),
}
CHECKPOINTS = {
    "unispeech": ("unispeech", WAVEFORM),
    "unispeech-sat-stable": ("unispeech-sat", WAVEFORM | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}),
    "sew": ("sew", SEW),
    "sew-d": ("sew-d", SEW | {"max_position_embeddings": 16, "position_buckets": 8}),
    "conformer-relative": ("wav2vec2-conformer", WAVEFORM | {"max_source_positions": 8}),
    "conformer-rotary": ("wav2vec2-conformer", WAVEFORM | {"position_embeddings_type": "rotary"}),
    "wav2vec2-bert": ("wav2vec2-bert", SMALL | {"feature_projection_input_dim": 160, "mask_time_prob": 0.5}),
    "wav2vec2-bert-rotary": (
        "wav2vec2-bert",
        SMALL | {"feature_projection_input_dim": 160, "position_embeddings_type": "rotary"},
    ),
    "ast": ("audio-spectrogram-transformer", SMALL | {"num_mel_bins": 40, "max_length": 200, "time_stride": 5}),
}
LONGEST = 32000  # of the AST


def extractor_of(family, config):
    if family == "wav2vec2-bert":
        return transformers.SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80)
    if family == "audio-spectrogram-transformer":
        return transformers.ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=True)


def randomise(model):
    """Leave no weight at a neutral 0 or 1."""
    torch.manual_seed(1)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data += 0.1 * torch.rand_like(tensor)
    return model


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    for name, (family, options) in CHECKPOINTS.items():
        config = transformers.AutoConfig.for_model(family, **options)
        randomise(transformers.AutoModel.from_config(config)).save_pretrained(root / name)
        extractor_of(family, config).save_pretrained(root / name)
    return root


@pytest.fixture(params=CHECKPOINTS)
def checkpoint(request, checkpoints):
    return checkpoints / request.param


def reference(folder, x):
    """transformers' own states of one utterance."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        out = model(**extractor(x.numpy(), sampling_rate=16000, return_tensors="pt"), output_hidden_states=True)
    states = [*out.hidden_states[:-1], out.last_hidden_state]
    if model.config.model_type == "audio-spectrogram-transformer":
        states = [state[:, 2:].unflatten(1, (-1, 37)).mean(1) for state in states]
    if model.config.model_type in ("sew", "sew-d"):
        states[:-1] = [state.repeat_interleave(2, dim=1) for state in states[:-1]]
    return states


def test_layers_equal_transformers_hidden_states(checkpoint):
    x = waveform(6000)
    want = reference(checkpoint, x)
    for layer in (0, 1, 2, "last", "all"):
        frontend = PretrainedEncoder(source=checkpoint, layer=layer)
        got, lengths = alone(frontend, x)
        assert got.shape == (1, lengths[0], frontend.output_size)
        states = {"last": want[-1:], "all": want}.get(layer) or [want[layer]]
        for a, b in zip(got.split(32, dim=-1), states, strict=True):
            assert b.shape[1] - lengths[0] in (0, 1) or checkpoint.name == "ast"
            assert distance(a, b[:, : lengths[0]]) < 1e-5


def test_batch_invariance(checkpoint):
    for options in [{}, {"padding": "utterance"}][: 1 + (checkpoint.name == "ast")]:
        check_batch_invariance(PretrainedEncoder(source=checkpoint, layer="all", **options))


def test_contract(checkpoint):
    assert failed_checks(lambda: PretrainedEncoder(source=checkpoint, freeze=1, layer="all")) == {}


@pytest.mark.parametrize("freeze, layer", [("none", 0), ("feature_extractor", "last"), (1, "all")])
def test_gradients_reach_what_is_trained(checkpoint, freeze, layer):
    frontend = PretrainedEncoder(source=checkpoint, freeze=freeze, layer=layer).train()
    x = torch.stack([waveform(6000, 1), waveform(6000, 2)])
    frontend(x, torch.tensor([6000, 5000]))[0].square().sum().backward()
    for name, p in frontend.named_parameters():
        assert p.requires_grad == (p.grad is not None), name


@pytest.mark.parametrize("name", ["wav2vec2-bert", "ast"])
def test_filterbank_equals_the_extractor(checkpoints, name):
    folder = checkpoints / name
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    encoder = PretrainedEncoder(source=folder).encoder
    sizes = torch.tensor([3000, 6543, LONGEST, 8000])
    x = torch.zeros(len(sizes), LONGEST)
    for i, n in enumerate(sizes):
        x[i, :n] = waveform(n, seed=i) * 10**-i  # quiet ones, too
    with torch.autocast("cpu", torch.bfloat16):  # which has no effect
        got = encoder.extract(x, sizes)
    for i, n in enumerate(sizes):
        want = extractor(x[i, :n].numpy(), sampling_rate=16000, return_tensors="pt")
        frames = len(got[i]) if name == "ast" else encoder.output_lengths(n)
        assert (got[i, :frames] - next(iter(want.values()))[0, :frames]).abs().max() < 1e-5


def test_ast_cut_to_the_utterance(checkpoints):
    """Equal to an encoder of that length, whose positional embeddings are the first of each band."""
    x = waveform(400 + 160 * 30)  # 31 frames, 4 columns
    model = transformers.ASTModel.from_pretrained(checkpoints / "ast").eval()
    weights = model.state_dict()
    tokens, grid = weights["embeddings.position_embeddings"][0].split([2, 3 * 37])
    weights["embeddings.position_embeddings"] = torch.cat([tokens, grid.view(3, 37, 32)[:, :4].flatten(0, 1)])[None]
    model.config.max_length = 31
    short = transformers.ASTModel(model.config).eval()
    short.load_state_dict(weights)
    values = extractor_of(model.config.model_type, model.config)(x.numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        want = short(**values).last_hidden_state[:, 2:].view(1, 3, 4, 32).mean(1)
    got, lengths = alone(PretrainedEncoder(source=checkpoints / "ast", padding="utterance"), x)
    assert lengths.tolist() == [4] and distance(got, want) < 1e-5


HEADS = {  # and the family of CHECKPOINTS whose configuration is used
    "Wav2Vec2ForCTC": ("wav2vec2", WAVEFORM),
    "Wav2Vec2ForSequenceClassification": ("wav2vec2", WAVEFORM | {"use_weighted_layer_sum": True}),
    "Wav2Vec2ForPreTraining": ("wav2vec2", WAVEFORM),
    "HubertForCTC": ("hubert", WAVEFORM),
    "WavLMForXVector": ("wavlm", WAVEFORM | {"tdnn_dim": (16,) * 5}),
    "UniSpeechSatForSequenceClassification": ("unispeech-sat", WAVEFORM),
    "SEWDForCTC": CHECKPOINTS["sew-d"],
    "Wav2Vec2ConformerForCTC": CHECKPOINTS["conformer-rotary"],
    "Wav2Vec2BertForCTC": (
        "wav2vec2-bert",
        CHECKPOINTS["wav2vec2-bert"][1] | {"add_adapter": True, "use_intermediate_ffn_before_adapter": True},
    ),
    "ASTForAudioClassification": CHECKPOINTS["ast"],
}


@pytest.mark.parametrize("head", HEADS)
def test_checkpoints_with_a_head_load_their_encoder(tmp_path, head):
    family, options = HEADS[head]
    config = transformers.AutoConfig.for_model(family, **options, vocab_size=20)
    model = randomise(getattr(transformers, head)(config))
    model.save_pretrained(tmp_path)
    extractor_of(family, config).save_pretrained(tmp_path)
    frontend = PretrainedEncoder(source=tmp_path)
    saved = model.base_model.state_dict()
    for name, tensor in frontend.encoder.model.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    assert frontend.encoder.model.state_dict().keys() <= saved.keys()

    file = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    key = next(name for name in sorted(weights) if "layers.1." in name or "layer.1." in name)
    bare = r".*layers?\.1\..*"  # the names of AST in the file differ from those of its modules
    tensor = weights.pop(key)
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"the weights lack {bare}, which config.json requires"):
        PretrainedEncoder(source=tmp_path)
    weights[key] = torch.cat([tensor, tensor])
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"other sizes than config.json requires: {bare} "):
        PretrainedEncoder(source=tmp_path)
    PretrainedEncoder(source=tmp_path, layer=1)  # does not need it


def test_a_fast_implementation_where_there_is_one(checkpoint):
    if checkpoint.name.startswith("unispeech"):
        fast, slow = (
            PretrainedEncoder(source=checkpoint, layer="all", implementation=name) for name in ("auto", "reference")
        )
        x, sizes = torch.stack([waveform(6000, 1), waveform(6000, 2)]), torch.tensor([6000, 5000])
        assert fast.encoder._fast is not None and slow.encoder._fast is None
        assert distance(fast(x, sizes)[0], slow(x, sizes)[0]) < 1e-5
    else:
        with pytest.raises(UserError, match="implementation='compiled'.*no such implementation: use 'auto'"):
            PretrainedEncoder(source=checkpoint, implementation="compiled")


def test_the_key_of_cached_features_covers_the_settings_of_a_family(checkpoints):
    def digest(name, **options):
        return stages_digest([PretrainedEncoder(source=checkpoints / name, **options)])

    assert digest("ast") == digest("ast") != digest("ast", padding="utterance")
    assert digest("sew") != digest("sew", do_normalize=False)


def test_probe_and_layer_mix(checkpoint, tiny_corpus, tmp_path):
    frontend = PretrainedEncoder(source=checkpoint, layer="all")
    audio = scan_audio(sorted(map(str, tiny_corpus.glob("s0_*.wav")))[:4], tmp_path).reset_index(drop=True)
    encoder = Encoder(checkpoint.name, frontend.eval(), stages_digest([frontend]))
    assert encoder.layers == ["0", "1", "2"]
    statistics = pooled_statistics(encoder, audio, tmp_path / "cache")
    assert statistics.shape == (len(audio), 3, 2 * 32) and np.isfinite(statistics).all()
    mix = LayerMix(in_channels=frontend.output_size, n_layers=frontend.n_layers, input_rate=frontend.frame_rate)
    features, lengths = alone(Chain(frontend, mix), waveform(6000))
    assert features.shape == (1, lengths[0], 32)


def test_ast_in_windows(checkpoints):
    """Windows overlap by what the last patch covers beyond the next one's start, so that the frame rate is kept."""
    frontend = PretrainedEncoder(source=checkpoints / "ast", windows=True)
    one = PretrainedEncoder(source=checkpoints / "ast")
    assert (one.max_length, one.frame_rate, one.min_length) == (LONGEST, 20, 2800)
    step = 37 * 800
    x = waveform(2 * step + 5000)
    got, lengths = alone(frontend, x)
    parts = [x[start : start + LONGEST] for start in (0, step, 2 * step)]
    want = torch.cat([alone(one, part)[0][0] for part in parts])
    assert lengths.tolist() == [len(want)] and distance(got[0], want) < 1e-5
    sizes = torch.tensor([LONGEST, step + 2799, step + 2800])
    assert frontend.output_lengths(sizes).tolist() == [37, 37, 38]
    assert failed_checks(lambda: PretrainedEncoder(source=checkpoints / "ast", windows=True)) == {}


def test_errors_of_settings(checkpoints, tmp_path):
    with pytest.raises(UserError, match="padding='30s': expected 'full' or 'utterance'"):
        PretrainedEncoder(source=checkpoints / "ast", padding="30s")
    for name, key, value in (
        ("ast", "num_mel_bins", 64),
        ("ast", "max_length", 1024),
        ("wav2vec2-bert", "num_mel_bins", 40),
    ):
        folder = shutil.copytree(checkpoints / name, tmp_path / name, dirs_exist_ok=True)
        damage(folder / "preprocessor_config.json", **{key: value})
        with pytest.raises(UserError, match=rf"{key}.* of preprocessor_config.json is \d+, but .* of config.json is"):
            PretrainedEncoder(source=folder)


@pytest.mark.parametrize("name", ["sew-d", "wav2vec2-bert", "ast"])
def test_a_run_with_cached_layers(tiny, checkpoints, name):
    run_dir = run({**tiny, "n_epochs": "1", "whisper_source": str(checkpoints / name)}, model="whisper_stl")
    assert list(Path(tiny["cache_folder"], "features").iterdir())
    (learnt,) = RunDirectory(run_dir).interpretable_parameters()
    assert len(learnt["quantities"]["layer weight"]["trained"]) == 3


def test_what_a_family_has_to_define_is_named_with_the_class():
    class Own(EncoderFamily):
        pass

    own = Own(hidden_size=1, frame_rate=50, min_length=400)
    for method, arguments in ("forward", (None, None, True)), ("output_lengths", (None,)), ("parts_to_freeze", (1,)):
        with pytest.raises(NotImplementedError, match=f"^Own does not define {method}"):
            getattr(own, method)(*arguments)
