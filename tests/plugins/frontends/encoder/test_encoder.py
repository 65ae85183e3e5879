"""The wav2vec frontend, on small checkpoints that transformers itself saves."""

import json
import logging
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from conftest import HPARAMS
from helpers import run

from korser.config.hparams import resolve_hparams
from korser.data.fingerprint import weights_digest
from korser.frontend.base import Chain
from korser.inference.load import load_trained_model
from korser.plugins.frontends.encoder import LayerMix, PretrainedEncoder
from korser.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM in transformers

SMALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, conv_dim=(16,) * 7)
MASKED = dict(mask_time_prob=0.5, mask_time_length=2, layerdrop=0.5)  # what must not act here
POSITION = dict(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
FAMILIES = {"wav2vec2": {}, "hubert": {}, "wavlm": dict(num_buckets=32, max_bucket_distance=80)}

VARIANTS = {
    f"{family}-{norm}-{'stable' if stable else 'post'}": (
        family,
        SMALL
        | MASKED
        | POSITION
        | extra
        | dict(feat_extract_norm=norm, conv_bias=norm == "layer", do_stable_layer_norm=stable),
    )
    for family, extra in FAMILIES.items()
    for norm in ("group", "layer")
    for stable in (False, True)
}
VARIANTS["hubert-batch-norm"] = (
    "hubert",
    SMALL | MASKED | POSITION | dict(conv_pos_batch_norm=True, feat_proj_layer_norm=False),
)
VARIANTS["data2vec-audio"] = (
    "data2vec-audio",
    SMALL | MASKED | dict(num_conv_pos_embeddings=3, conv_pos_kernel_size=7, num_conv_pos_embedding_groups=4),
)
STABLE = [name for name in VARIANTS if name.endswith("stable")]
FEW = ["wav2vec2-group-post", "hubert-batch-norm", "wavlm-layer-stable", "data2vec-audio"]


def save_checkpoint(folder, family, options, do_normalize=True, dtype=torch.float32):
    """A checkpoint with random weights, none of which is left at a neutral 0 or 1."""
    config = transformers.AutoConfig.for_model(family, **options)
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(config)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data += 0.05 * torch.rand_like(tensor)
    model.to(dtype).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: save_checkpoint(root / name, *variant) for name, variant in VARIANTS.items()}


@pytest.fixture(params=VARIANTS)
def variant(request, checkpoints):
    return checkpoints[request.param]


@pytest.fixture(params=FEW)
def few(request, checkpoints):
    return checkpoints[request.param]


@pytest.fixture
def some(checkpoints):
    """One checkpoint, for what does not depend on the variant; with biases, so that the input's level matters."""
    return checkpoints["wav2vec2-layer-post"]


@pytest.fixture
def copy(some, tmp_path):
    """A checkpoint that a test may damage."""
    return shutil.copytree(some, tmp_path / "copy")


def damage(path, **changes):
    """Change keys of a JSON file; None removes one."""
    new = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in new.items() if value is not None}))


def waveform(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(n, generator=generator) + 0.05  # an offset, so that normalisation matters


def alone(frontend, x):
    with torch.no_grad():
        return frontend(x[None], torch.tensor([len(x)]))


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def reference(folder, x, **options):
    """transformers' own output for one utterance."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, **options).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    values = extractor(x.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        return model(values, output_hidden_states=True)


def test_layers_equal_transformers_hidden_states(variant):
    x = waveform(6000)
    want = reference(variant, x)
    states = [*want.hidden_states[:-1], want.last_hidden_state]
    for layer, state in {0: states[0], 2: states[2], 3: states[3], "last": states[3]}.items():
        frontend = PretrainedEncoder(source=variant, layer=layer)
        assert len(frontend.encoder.model.encoder.layers) == (3 if layer == "last" else layer)
        got, lengths = alone(frontend, x)
        assert distance(got, state) < 1e-5
        assert lengths.tolist() == [state.shape[1]]
    frontend = PretrainedEncoder(source=variant, layer="all")
    assert (frontend.n_layers, frontend.output_size) == (4, 4 * 32)
    got = alone(frontend, x)[0].split(32, dim=-1)
    assert len(got) == 4
    for a, b in zip(got, states):
        assert distance(a, b) < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_batch_invariance(checkpoints, name, implementation):
    layers = ("all", 1) if name in FEW and implementation == "auto" else ("all",)
    for layer in layers:
        check_batch_invariance(
            PretrainedEncoder(source=checkpoints[name], layer=layer, implementation=implementation).eval()
        )


def check_batch_invariance(frontend):
    sizes = torch.tensor([frontend.min_length, 3000, max(719, frontend.min_length), 6543])
    x = 100 * waveform(4 * 9001).view(4, 9001)
    x[::2] = torch.nan  # garbage in the padding: noise in half of the rows, NaN in the others
    for i, n in enumerate(sizes):
        x[i, :n] = waveform(n, seed=i)
    with torch.no_grad():
        got, lengths = frontend(x, sizes)
    for i, n in enumerate(sizes):
        want, frames = alone(frontend, x[i, :n])
        assert lengths[i] == frames[0] == want.shape[1]
        assert distance(got[i, : frames[0]], want[0]) < 1e-5
        assert (got[i, frames[0] :] == 0).all()


def test_shortest_utterance_gives_one_frame(few):
    frontend = PretrainedEncoder(source=few)
    assert frontend.min_length == 400
    features, lengths = alone(frontend, waveform(400))
    assert features.shape == (1, 1, 32) and lengths.tolist() == [1]
    assert frontend.output_lengths(torch.tensor([399, 400, 719, 720])).tolist() == [0, 1, 1, 2]
    assert frontend.frame_rate == 50


@pytest.mark.parametrize("signal", ["silence", "click", "dc"])
def test_finite_for_degenerate_signals(few, signal):
    x = torch.zeros(4000)
    if signal == "click":
        x[2000] = 1
    elif signal == "dc":
        x += 0.3
    assert alone(PretrainedEncoder(source=few), x)[0].isfinite().all()


@pytest.mark.parametrize(
    "layer, freeze",
    [("last", 1), (0, "none"), (1, "feature_extractor"), ("all", "none"), ("all", 0)],
)
def test_gradients_reach_what_is_trained(few, layer, freeze):
    frontend = PretrainedEncoder(source=few, layer=layer, freeze=freeze).train()
    x = torch.stack([waveform(4000, 1), waveform(4000, 2)])
    features, lengths = frontend(x, torch.tensor([4000, 3000]))
    features.square().sum().backward()
    for name, p in frontend.named_parameters():
        assert p.requires_grad == (p.grad is not None), name
        assert p.grad is None or p.grad.isfinite().all(), name
    frozen = {"none": (), "feature_extractor": ("feature_extractor",)}.get(freeze)
    if frozen is None:
        frozen = ("feature_extractor", "feature_projection", "encoder.pos_conv") + ("encoder.layers.0",) * freeze
        stable = getattr(frontend.encoder.model.config, "do_stable_layer_norm", False)
        frozen += () if stable else ("encoder.layer_norm",)
    for name, p in frontend.named_parameters():
        name = name.partition(".encoder.model.")[2]
        of_the_lowest = freeze == 1 and "rel_attn_embed" in name  # of WavLM, used by all layers
        assert p.requires_grad != (name.startswith(frozen) or of_the_lowest), name


def test_frozen_as_a_whole(few):
    frontend = PretrainedEncoder(source=few).train()
    assert frontend.frozen and not any(m.training for m in frontend.modules())
    x, lengths = waveform(4000)[None], torch.tensor([4000])
    assert not frontend(x, lengths)[0].requires_grad
    assert torch.equal(frontend(x, lengths)[0], frontend.eval()(x, lengths)[0])


def test_frozen_parts_stay_in_eval(some):
    frontend = PretrainedEncoder(source=some, freeze=2).train()
    assert frontend.training and not frontend.frozen
    below, above = frontend.stages
    assert not any(m.training for m in below.modules())
    assert above.encoder.model.encoder.layers[2].dropout.training
    assert not any(m.training for m in frontend.eval().modules())
    frontend = PretrainedEncoder(source=some, freeze="feature_extractor").train()
    assert not any(m.training for m in frontend.encoder.model.feature_extractor.modules())
    assert frontend.encoder.model.encoder.dropout.training


def test_a_stage_before_a_frozen_encoder_can_be_trained(some):
    x = waveform(2000)[None].requires_grad_()
    PretrainedEncoder(source=some)(x, torch.tensor([2000]))[0].sum().backward()
    assert x.grad.abs().sum() > 0


def test_training_draws_neither_layerdrop_nor_specaugment(some):
    frontend = PretrainedEncoder(source=some, freeze="none").train()
    for module in frontend.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in frontend.encoder.model.encoder.layers:
        layer.attention.dropout = 0.0
    assert not any("masked_spec_embed" in name for name in frontend.state_dict())
    x, lengths = waveform(6000)[None], torch.tensor([6000])
    outputs = [frontend(x, lengths)[0] for _ in range(8)]
    assert all(torch.equal(y, outputs[0]) for y in outputs)


def test_state_dict_round_trip(few):
    a = PretrainedEncoder(source=few, layer="all")
    b = PretrainedEncoder(source=few, layer="all")
    for p in b.parameters():
        p.data.zero_()
    assert weights_digest(a) != weights_digest(b)
    b.load_state_dict(a.state_dict())
    assert weights_digest(a) == weights_digest(b)
    x = waveform(3000)
    assert torch.equal(alone(a, x)[0], alone(b, x)[0])


def test_state_dict_keys_are_those_of_transformers(variant):
    plain = transformers.AutoModel.from_pretrained(variant).state_dict()
    plain.pop("masked_spec_embed")
    assert set(PretrainedEncoder(source=variant).encoder.model.state_dict()) == set(plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_moves_dtype(few, dtype):
    frontend = PretrainedEncoder(source=few)
    x = waveform(3000)
    want = alone(frontend, x)[0]
    got = alone(frontend.to(dtype), x.to(dtype))[0]
    assert got.dtype == dtype
    assert distance(got.float(), want) < {torch.float64: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_bf16_autocast(few, freeze):
    frontend = PretrainedEncoder(source=few, freeze=freeze).eval()
    x = torch.stack([waveform(4000, 1), waveform(4000, 2)])
    lengths = torch.tensor([4000, 2500])
    want = frontend(x, lengths)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = frontend(x, lengths)[0]
    assert distance(got.float(), want) < 0.1
    if freeze == "none":
        got.float().sum().backward()
        assert all(p.grad.isfinite().all() for p in frontend.parameters())


def test_fp16_checkpoint_is_loaded_as_fp32(tmp_path):
    folder = save_checkpoint(tmp_path / "half", *VARIANTS["hubert-layer-stable"], dtype=torch.float16)
    assert {p.dtype for p in PretrainedEncoder(source=folder).parameters()} == {torch.float32}


def test_pretraining_checkpoint_is_loaded(tmp_path):
    config = transformers.Wav2Vec2Config(**VARIANTS["wav2vec2-group-post"][1])
    model = transformers.Wav2Vec2ForPreTraining(config)
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    frontend = PretrainedEncoder(source=tmp_path)
    for name, tensor in frontend.encoder.model.state_dict().items():
        assert torch.equal(tensor, model.wav2vec2.state_dict()[name]), name


def test_bin_checkpoint_is_loaded_without_unpickling_code(copy, some, caplog):
    (copy / "model.safetensors").unlink()
    weights = transformers.AutoModel.from_pretrained(some).state_dict()
    torch.save(weights, copy / "pytorch_model.bin")
    with caplog.at_level(logging.WARNING):
        assert weights_digest(PretrainedEncoder(source=copy)) == weights_digest(PretrainedEncoder(source=some))
    assert "weights_only" in caplog.text

    torch.save({"weights": subprocess.Popen}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="copy: the weights cannot be loaded"):
        PretrainedEncoder(source=copy)


def test_input_normalisation_follows_the_preprocessor(copy, some):
    x = waveform(4000)
    normalised = alone(PretrainedEncoder(source=some), x)[0]
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(copy)
    plain = PretrainedEncoder(source=copy)
    assert plain.do_normalize is False
    assert distance(alone(plain, x)[0], reference(copy, x).last_hidden_state) < 1e-5
    assert distance(alone(plain, x)[0], normalised) > 1e-2
    assert torch.equal(alone(PretrainedEncoder(source=copy, do_normalize=True), x)[0], normalised)

    config = copy / "preprocessor_config.json"
    damage(config, do_normalize=None)  # the key left out
    assert torch.equal(alone(PretrainedEncoder(source=copy), x)[0], normalised)
    config.unlink()
    with pytest.raises(UserError, match="preprocessor_config.json .not in the folder.*set do_normalize"):
        PretrainedEncoder(source=copy)
    assert torch.equal(alone(PretrainedEncoder(source=copy, do_normalize=True), x)[0], normalised)


def test_loading_leaves_the_random_state(some):
    for source in (some, "nano-random"):
        before = torch.get_rng_state()
        PretrainedEncoder(source=source)
        assert torch.equal(torch.get_rng_state(), before)


def test_loading_is_quiet(some, capfd):
    PretrainedEncoder(source=some, layer=1)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_nano_random(caplog):
    with caplog.at_level(logging.WARNING):
        a = PretrainedEncoder(source="nano-random", layer="all")
    assert [r.message for r in caplog.records if "NOT pretrained" in r.message]
    torch.manual_seed(7)
    b = PretrainedEncoder(source="nano-random", layer="all")
    assert weights_digest(a) == weights_digest(b)
    assert a.pretrained is False and a.frozen and a.source == "nano-random"
    assert (a.n_layers, a.output_size) == (8, 8 * 192)
    assert 3.4e6 < sum(p.numel() for p in a.parameters()) < 3.7e6


def test_pretrained_is_recorded(some):
    frontend = PretrainedEncoder(source=some, lr=1e-5)
    assert frontend.pretrained is True and frontend.source == str(some) and frontend.lr == 1e-5


def test_errors_are_one_line_that_names_the_fix(copy, tmp_path):
    def error(**options):
        with pytest.raises(UserError) as info:
            PretrainedEncoder(**{"source": copy} | options)
        assert "\n" not in str(info.value)
        return str(info.value)

    assert "no such folder" in error(source=tmp_path / "absent")
    assert "is a file" in error(source=copy / "config.json")
    assert "not available from the Hugging Face hub" in error(source="no-such-lab/no-such-model")
    assert "no config.json" in error(source=tmp_path)
    assert "layer=4: expected" in error(layer=4)
    assert "layer='first': expected" in error(layer="first")
    assert "layer=True: expected" in error(layer=True)
    assert "freeze=2: expected" in error(layer=1, freeze=2)
    assert "freeze=None: expected" in error(freeze=None)

    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(copy)
    assert "sampling_rate of preprocessor_config.json is 8000, expected 16000" in error()
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(copy)

    damage(copy / "config.json", num_hidden_layers=5)
    assert "lack" in error() and "encoder.layers.3" in error()
    damage(copy / "config.json", num_hidden_layers=3, hidden_size=48)
    assert "other sizes than config.json requires: encoder.layer_norm.bias (32,), not (48,) and" in error()
    damage(copy / "config.json", model_type="bert")
    assert "model_type of config.json is 'bert'; expected one of wav2vec2, hubert, wavlm, " in error()
    assert "docs/extending/frontend.md" in error()
    damage(copy / "config.json", model_type="mert_model", auto_map={"AutoModel": "modeling_MERT.MERTModel"})
    assert "'mert_model', a model whose code comes with the checkpoint; expected one of wav2vec2, " in error()
    (copy / "config.json").write_text("{")
    assert "config.json" in error()


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_checkpoint_runs_no_code(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (copy / "evil.py").write_text("open('executed', 'w')\nclass Evil: pass\n")
    damage(copy / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}, trust_remote_code=True)
    PretrainedEncoder(source=str(copy))
    damage(copy / "config.json", attn_implementation="someone/kernel")
    with pytest.raises(UserError, match="attn_implementation is 'someone/kernel', code that would be downloaded"):
        PretrainedEncoder(source=str(copy))
    damage(copy / "config.json", attn_implementation=None)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload()}))
    with pytest.raises(UserError, match="the weights cannot be loaded"):
        PretrainedEncoder(source=str(copy))
    assert not Path("executed").exists()


def test_damaged_weights(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="the weights cannot be loaded .*download"):
        PretrainedEncoder(source=copy)
    weights.unlink()
    with pytest.raises(UserError, match="the folder has no weights"):
        PretrainedEncoder(source=copy)


@pytest.mark.parametrize("name", STABLE)
def test_final_layer_norm_belongs_to_the_top_layer_only(checkpoints, name):
    assert any(
        k.startswith("stages.0.encoder.model.encoder.layer_norm")
        for k in PretrainedEncoder(source=checkpoints[name]).state_dict()
    )
    below = PretrainedEncoder(source=checkpoints[name], layer=2, freeze="none")
    assert not any(k.startswith("stages.0.encoder.model.encoder.layer_norm") for k in below.state_dict())


@pytest.mark.parametrize("normalize", [False, True])
def test_layer_mix(some, normalize):
    encoder = PretrainedEncoder(source=some, layer="all")
    mix = LayerMix(
        in_channels=encoder.output_size,
        n_layers=encoder.n_layers,
        input_rate=encoder.frame_rate,
        normalize=normalize,
    )
    chain = Chain(encoder, mix).train()
    assert (chain.output_size, chain.frame_rate, chain.min_length) == (32, 50, 400)
    assert not chain.frozen and not encoder.training

    x, sizes = torch.stack([waveform(4000, 1), waveform(4000, 2)]), torch.tensor([4000, 2000])
    states = encoder(x, sizes)[0].unflatten(-1, (4, 32))
    if normalize:
        states = (states - states.mean(-1, keepdim=True)) / (states.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    mix.weights.data = torch.tensor([0.0, 1.0, 2.0, 3.0])
    w = mix.weights.detach().exp() / mix.weights.detach().exp().sum()
    y, lengths = chain(x, sizes)
    assert distance(y, sum(w[i] * states[:, :, i] for i in range(4))) < 1e-5
    assert lengths.tolist() == [12, 6] and (y[1, 6:] == 0).all()
    y.square().sum().backward()
    assert mix.weights.grad.abs().min() > 0
    assert all(p.grad is None for p in encoder.parameters())


def test_layer_mix_starts_as_the_mean_and_checks_its_channels():
    mix = LayerMix(in_channels=6, n_layers=3, input_rate=50)
    y, _ = mix(torch.arange(6.0).view(1, 1, 6), torch.tensor([1]))
    assert torch.allclose(y, torch.tensor([[[2.0, 3.0]]]))
    with pytest.raises(UserError, match="in_channels=7: expected a multiple of n_layers=3"):
        LayerMix(in_channels=7, n_layers=3, input_rate=50)


@pytest.mark.parametrize("normalize", [False, True])
def test_layer_mix_of_cached_layers(normalize):
    """In float16, without a gradient, with anything in the padding, longer than a piece: as by autograd in float32."""
    torch.manual_seed(0)
    mix = LayerMix(in_channels=12, n_layers=3, input_rate=50, normalize=normalize)
    mix.weights.data.normal_()
    x, lengths = torch.randn(2, 300, 12).half(), torch.tensor([300, 7])
    x[1, 7:] = torch.nan
    weights = torch.randn(2, 300, 4)

    def outputs_and_gradient(x):
        mix.zero_grad()
        y, _ = mix(x, lengths)
        (y * weights).sum().backward()
        return y.detach(), mix.weights.grad

    y, gradient = outputs_and_gradient(x)
    expected, exact = outputs_and_gradient(x.float().requires_grad_())
    assert y.dtype == torch.float32 and (y[1, 7:] == 0).all()
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, exact, rtol=1e-5, atol=1e-5)
    x = x.float()
    assert mix.accepts_half and outputs_and_gradient(x)[0].equal(y) and outputs_and_gradient(x)[1].equal(gradient)


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_a_changed_checkpoint_is_noticed(tiny, tmp_path, freeze):
    source = save_checkpoint(tmp_path / "source", *VARIANTS["wav2vec2-layer-stable"])
    overrides = {**tiny, "n_epochs": "1", "wav2vec_source": str(source), "encoder.freeze": freeze}
    run_dir = run(overrides, model="wav2vec_stl")
    yaml = HPARAMS / "wav2vec_stl.yaml"
    assert resolve_hparams(yaml, overrides).run_name == run_dir.name
    preprocessor, weights = source / "preprocessor_config.json", source / "model.safetensors"
    said = preprocessor.read_text()
    preprocessor.write_text(said.replace('"do_normalize": true', '"do_normalize": false'))
    assert resolve_hparams(yaml, overrides).run_name != run_dir.name, "a new run"
    with pytest.raises(UserError, match="preprocessor_config.json of .* has changed since"):
        load_trained_model(run_dir)
    preprocessor.write_text(said)
    load_trained_model(run_dir)
    tensors = safetensors.torch.load_file(weights)
    safetensors.torch.save_file({k: v * 1.01 for k, v in tensors.items()}, weights, metadata={"format": "pt"})
    assert resolve_hparams(yaml, overrides).run_name != run_dir.name, "a new run"
