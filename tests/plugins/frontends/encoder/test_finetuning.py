"""Training parts of an encoder: the lowest layers frozen, adapters, decay of the learning rate, bf16."""

import builtins
import json

import pytest
import safetensors.torch
import torch
from conftest import ROOT
from helpers import failed_checks, run
from test_encoder import VARIANTS, distance, save_checkpoint, waveform

from korser.config.hparams import load_hparams
from korser.frontend.base import Chain
from korser.inference.load import load_trained_model
from korser.nn.model import SpeechEmotionModel
from korser.plugins.frontends.encoder import PretrainedEncoder
from korser.training.optimizers import make_optimizers
from korser.utils.errors import UserError
from korser.utils.files import read_csv

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM in transformers

KINDS = ["wav2vec2-group-post", "wav2vec2-layer-stable", "hubert-batch-norm", "wavlm-layer-stable", "data2vec-audio"]
SIZES = torch.tensor([4000, 2500, 719])


@pytest.fixture(scope="module")
def sources(tmp_path_factory, tiny_whisper):
    """Checkpoints of three layers by name."""
    root = tmp_path_factory.mktemp("sources")
    return {name: save_checkpoint(root / name, *VARIANTS[name]) for name in KINDS} | {"whisper": tiny_whisper}


@pytest.fixture(scope="module")
def some(sources):
    return sources["wav2vec2-layer-stable"]


def batch():
    return torch.stack([waveform(4000, seed=i) for i in range(3)])


def gradients(frontend):
    """Gradients by the names of transformers."""
    frontend.eval()
    features, lengths = frontend(batch(), SIZES)
    generator = torch.Generator().manual_seed(0)
    (features * torch.randn(features.shape, generator=generator)).sum().backward()
    found = {name.partition(".encoder.model.")[2]: p.grad for name, p in frontend.named_parameters()}
    return features, {name: gradient for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("kind", [*KINDS, "whisper"])
@pytest.mark.parametrize("freeze, layer", [(1, "last"), (2, "all"), (0, 2)])
def test_a_divided_encoder_equals_the_whole_one(sources, kind, freeze, layer):
    source = sources[kind]
    divided = PretrainedEncoder(source=source, freeze=freeze, layer=layer)
    assert [stage.frozen for stage in divided.stages] == [True, False]
    whole = PretrainedEncoder(source=source, freeze="none", layer=layer, implementation="reference")
    assert (divided.output_size, divided.min_length, divided.max_length, divided.n_layers) == (
        whole.output_size,
        whole.min_length,
        whole.max_length,
        whole.n_layers,
    )
    want, want_gradients = gradients(whole)
    got, got_gradients = gradients(divided)
    assert distance(got, want) < 1e-5
    largest = max(gradient.abs().max() for gradient in want_gradients.values())
    assert len(got_gradients) > 10
    for name, gradient in got_gradients.items():
        assert (gradient - want_gradients[name]).abs().max() < 1e-5 * largest, name


@pytest.mark.parametrize("kind", ["wav2vec2-group-post", "wavlm-layer-stable", "whisper"])
def test_contract_of_a_divided_encoder(sources, kind):
    assert failed_checks(lambda: PretrainedEncoder(source=sources[kind], freeze=1, layer="all")) == {}


def test_windows_are_divided_too(tiny_whisper):
    options = {"source": tiny_whisper, "windows": True}
    x, sizes = torch.stack([waveform(80000, seed=i) for i in range(2)]), torch.tensor([80000, 32399])
    divided = PretrainedEncoder(freeze=1, layer="all", **options)
    assert len(divided.stages) == 2 and divided.max_length is None
    got, lengths = divided(x, sizes)
    want, expected = PretrainedEncoder(layer="all", **options)(x, sizes)
    assert lengths.tolist() == expected.tolist()
    assert distance(got, want) < 1e-5


def test_what_cannot_be_divided_is_trained_undivided(tiny_whisper):
    frontend = PretrainedEncoder(source=tiny_whisper, padding="30s", freeze=1)
    (stage,) = frontend.stages
    assert not any(p.requires_grad for p in stage.encoder.model.layers[0].parameters())
    assert all(p.requires_grad for p in stage.encoder.model.layers[1].parameters())
    adapted = PretrainedEncoder(source=tiny_whisper, padding="30s", freeze=1, lora={})
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name and "layers.0" not in name for name in trained)


def test_all_layers_frozen_is_all_frozen(some):
    frontend = PretrainedEncoder(source=some, freeze=3)
    assert frontend.frozen and len(frontend.stages) == 1


@pytest.mark.parametrize("kind", ["wav2vec2-layer-stable", "whisper"])
@pytest.mark.parametrize("freeze", ["all", 1])
def test_adapters(sources, kind, freeze):
    source = sources[kind]
    lora = {"rank": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"], "dropout": 0.1}
    frontend = PretrainedEncoder(source=source, freeze=freeze, lora=lora)
    features, got = gradients(frontend)
    with torch.no_grad():
        assert distance(features, PretrainedEncoder(source=source)(batch(), SIZES)[0]) < 1e-5  # B starts at zero
    n_layers = 3 if freeze == "all" else 2
    assert len(got) == n_layers * 2 * 2 and all("lora_" in name for name in got)
    assert sum(p.numel() for p in frontend.parameters() if p.requires_grad) == n_layers * 2 * 2 * 2 * 32
    assert [stage.frozen for stage in frontend.stages] == [True, False]


def test_contract_of_adapters(sources):
    assert failed_checks(lambda: PretrainedEncoder(source=sources["whisper"], lora={})) == {}


def test_adapters_that_have_no_effect_are_refused(sources, some, monkeypatch):
    def error(**options):
        with pytest.raises(UserError) as info:
            PretrainedEncoder(**{"source": some} | options)
        assert "\n" not in str(info.value)
        return str(info.value)

    assert "lora: 'r': expected rank, alpha, target_modules, dropout" in error(lora={"r": 4})
    assert "lora: True: expected rank" in error(lora=True)
    assert "lora.rank=0: expected an integer above 0" in error(lora={"rank": 0})
    assert "lora.dropout=1.5: expected" in error(lora={"dropout": 1.5})
    assert "lora.alpha='x': expected" in error(lora={"alpha": "x"})
    assert "lora.target_modules='q_proj': expected names" in error(lora={"target_modules": "q_proj"})
    assert "freeze='none' with lora" in error(lora={}, freeze="none")
    assert "freeze=3 with lora" in error(lora={}, freeze=3)
    wrong = error(lora={"target_modules": ["query"]})
    assert "lora.target_modules: 'query': expected linear layers" in wrong and "q_proj" in wrong
    wavlm = error(source=sources["wavlm-layer-stable"], lora={})
    assert "'q_proj'" in wavlm and wavlm.endswith("intermediate_dense, output_dense")
    assert "layer_decay=1.5: expected" in error(layer_decay=1.5, freeze="none")
    assert "layer_decay=0.9 has no effect" in error(layer_decay=0.9)

    original = builtins.__import__

    def without_peft(name, *args, **kwargs):
        if name == "peft":
            raise ImportError
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    assert error(lora={}) == "lora needs the package peft: pip install 'korser[lora]'"


@pytest.mark.parametrize("kind, freeze", [("wav2vec2-group-post", "none"), ("whisper", 1)])
def test_learning_rates_decay_towards_the_input(sources, kind, freeze):
    frontend = PretrainedEncoder(source=sources[kind], freeze=freeze, lr=1e-3, layer_decay=0.5)
    model = SpeechEmotionModel(frontend=Chain(frontend), backbone=torch.nn.Linear(2, 2), head=torch.nn.Identity())
    rates = {
        parameter: lr
        for optimizer, lr in make_optimizers(model, torch.optim.SGD, 0.1)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {rates[p] for p in model.backbone.parameters()} == {0.1}
    by_layer = {}
    for name, p in frontend.named_parameters():
        if p.requires_grad:
            name = name.partition(".layers.")[2] if "pos_conv" not in name else ""
            by_layer.setdefault(name.partition(".")[0] or name, set()).add(rates[p])
    assert by_layer["2"] == {1e-3} and by_layer["1"] == {0.5e-3}
    if freeze == "none":
        assert by_layer["0"] == {0.25e-3} and by_layer[""] == {0.125e-3}


def test_the_positional_convolution_is_not_computed_in_bf16():
    x, sizes = torch.stack([waveform(8000, seed=i) for i in range(2)]), torch.tensor([8000, 5000])
    for freeze in "none", 5:
        frontend = PretrainedEncoder(source="nano", freeze=freeze, implementation="reference").eval()
        dtypes = []
        embed = frontend.stages[0].encoder.model.encoder.pos_conv_embed
        embed.conv.register_forward_hook(lambda module, args, out, dtypes=dtypes: dtypes.append(out.dtype))
        want = frontend(x, sizes)[0]
        with torch.autocast("cpu", torch.bfloat16):
            got = frontend(x, sizes)[0]
        assert dtypes == 2 * [torch.float32]
        assert (got - want).norm() / want.norm() < 0.05


def test_the_yaml_of_the_docs(tiny_whisper, tmp_path):
    page = (ROOT / "docs/frontends/encoder.md").read_text(encoding="utf-8")
    deeper, adapted = (block.split("```")[0] for block in page.split("```yaml\n")[1:3])
    (tmp_path / "model.yaml").write_text(deeper)
    encoder = load_hparams(tmp_path / "model.yaml")["encoder"]
    assert [stage.frozen for stage in encoder.stages] == [True, False] and encoder.stages[1].layer_decay == 0.9
    (tmp_path / "model.yaml").write_text(adapted)
    encoder = load_hparams(tmp_path / "model.yaml", {"whisper_source": str(tiny_whisper)})["encoder"]
    assert any("lora_" in name for name, p in encoder.named_parameters() if p.requires_grad)


def encoder(**options):
    """The text of a YAML node."""
    return "!new:korser.plugins.frontends.encoder.PretrainedEncoder " + json.dumps(options)


def trained_names(run_dir):
    return set(safetensors.torch.load_file(run_dir / "model.safetensors"))


def assert_predicts_as_in_training(run_dir):
    table = read_csv(run_dir / "test.csv").set_index("id")
    trained = load_trained_model(run_dir)
    rows = table.head(3)
    predicted = trained.predict_files(list(rows["path"]))
    columns = [name for name in table if name.startswith("emotion_prob_")]
    assert columns and (predicted[columns].to_numpy() == pytest.approx(rows[columns].to_numpy(), abs=1e-4))


def test_a_run_with_the_lowest_layers_frozen(tiny, some, tmp_path):
    settings = {**tiny, "n_epochs": "1", "encoder": encoder(source=str(some), freeze=2, layer="all", layer_decay=0.9)}
    run_dir = run(settings, model="wav2vec_stl")
    assert list((tmp_path / "cache" / "features").iterdir())
    names = [name for name in trained_names(run_dir) if ".encoder.model." in name]
    assert names and all(".encoder.layers.2." in name or ".encoder.layer_norm." in name for name in names)
    info = json.loads((run_dir / "run.json").read_text())
    (frozen,) = info["frozen"]
    assert frozen["source"] == str(some) and len(info["checkpoints"]) == 1
    assert_predicts_as_in_training(run_dir)


@pytest.mark.parametrize("kind", ["wav2vec2-layer-stable", "whisper"])
def test_a_run_with_adapters(tiny, sources, kind, tmp_path):
    source = sources[kind]
    settings = {**tiny, "n_epochs": "1", "encoder": encoder(source=str(source), layer="all", lora={"rank": 2})}
    run_dir = run(settings, model="wav2vec_stl")
    assert list((tmp_path / "cache" / "features").iterdir())
    names = [name for name in trained_names(run_dir) if ".encoder.model." in name]
    assert len(names) == 3 * 2 * 2 and all("lora_" in name for name in names)
    trained = json.loads((run_dir / "cost.json").read_text())["trainable_parameters"]
    assert (run_dir / "model.safetensors").stat().st_size < 4 * trained + 40_000  # the encoder has four times as much
    info = json.loads((run_dir / "run.json").read_text())
    assert [part["source"] for part in info["frozen"]] == [str(source)] * 2  # below, and what has adapters
    assert_predicts_as_in_training(run_dir)
