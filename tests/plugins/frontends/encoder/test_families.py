"""All families of encoders but the first four and Whisper, on small checkpoints that transformers itself saves."""

import pytest
import torch
import transformers
from helpers import failed_checks
from test_encoder import alone, check_batch_invariance, distance, waveform

from korser.plugins.frontends.encoder import PretrainedEncoder

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "layerdrop": 0.5,
}
WAVEFORM = SMALL | {
    "conv_dim": (16,) * 7,
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
    options = {"padding": "full"} if checkpoint.name == "ast" else {}
    for layer in (0, 1, 2, "last", "all"):
        frontend = PretrainedEncoder(source=checkpoint, layer=layer, **options)
        got, lengths = alone(frontend, x)
        assert got.shape == (1, lengths[0], frontend.output_size)
        states = {"last": want[-1:], "all": want}.get(layer) or [want[layer]]
        for a, b in zip(got.split(32, dim=-1), states, strict=True):
            assert b.shape[1] - lengths[0] in (0, 1) or options
            assert distance(a, b[:, : lengths[0]]) < 1e-5


def test_batch_invariance(checkpoint):
    check_batch_invariance(PretrainedEncoder(source=checkpoint, layer="all"))


def test_contract(checkpoint):
    assert failed_checks(lambda: PretrainedEncoder(source=checkpoint, freeze=1, layer="all")) == {}


@pytest.mark.parametrize("freeze, layer", [("none", 0), ("feature_extractor", "last"), (1, "all")])
def test_gradients_reach_what_is_trained(checkpoint, freeze, layer):
    frontend = PretrainedEncoder(source=checkpoint, freeze=freeze, layer=layer).train()
    x = torch.stack([waveform(6000, 1), waveform(6000, 2)])
    frontend(x, torch.tensor([6000, 5000]))[0].square().sum().backward()
    for name, p in frontend.named_parameters():
        assert p.requires_grad == (p.grad is not None), name


@pytest.mark.parametrize("name, options", [("wav2vec2-bert", {}), ("ast", {"padding": "full"})])
def test_filterbank_equals_the_extractor(checkpoints, name, options):
    folder = checkpoints / name
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    encoder = PretrainedEncoder(source=folder, **options).encoder
    sizes = torch.tensor([3000, 6543, LONGEST, 8000])
    x = torch.zeros(len(sizes), LONGEST)
    for i, n in enumerate(sizes):
        x[i, :n] = waveform(n, seed=i) * 10**-i  # quiet ones, too
    with torch.autocast("cpu", torch.bfloat16):  # which has no effect
        got = encoder.extract(x, sizes)
    for i, n in enumerate(sizes):
        want = extractor(x[i, :n].numpy(), sampling_rate=16000, return_tensors="pt")
        frames = len(got[i]) if options else encoder.output_lengths(n)
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
    got, lengths = alone(PretrainedEncoder(source=checkpoints / "ast"), x)
    assert lengths.tolist() == [4] and distance(got, want) < 1e-5
