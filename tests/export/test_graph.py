"""The ONNX graph: the plain ways that models take while they are exported, and onnxruntime against torch."""

import numpy as np
import pytest
import torch
from conftest import tiny_overrides
from helpers import run
from torch import nn

from korser import PCEN, Chain, Frontend, Task, UserError
from korser.export.graph import NotExportable, check_graph, link_weights, require, to_onnx
from korser.inference.predict import TrainedModel
from korser.nn.model import SpeechEmotionModel
from korser.plugins.backbones.linear_pool import LinearPool
from korser.plugins.frontends.encoder import LayerMix, PretrainedEncoder
from korser.plugins.frontends.leaf import Leaf
from korser.plugins.frontends.mel import Mel
from korser.plugins.heads.linear import LinearHeads
from korser.runs.directory import RunDirectory

TASKS = [Task("emotion", classes=("joy", "anger")), Task("valence", kind="number", scaling=(3.0, 0.5))]
MODELS = ["mel_mtl", "mfcc_stl", "leaf_stl", "sincnet_stl", "wav2vec_stl", "wav2vec_leaf_stl"]
MODELS += ["whisper_stl", "whisper_leaf_stl"]


class Frames(Frontend):
    """Samples in frames of ten; ``-(-T // 10)`` is one of the divisions that ONNX rounds in another way."""

    def __init__(self):
        super().__init__(output_size=10, frame_rate=1600.0)
        self.scale = nn.Parameter(torch.ones(10))

    def output_lengths(self, lengths):
        return -(-lengths // 10)

    def forward(self, x, lengths):
        frames = -(-x.shape[1] // 10)
        x = nn.functional.pad(x, (0, 10 * frames - x.shape[1])).view(1, frames, 10)
        return x * self.scale, self.output_lengths(lengths)


class Sorted(Frames):
    def forward(self, x, lengths):
        x, lengths = super().forward(x, lengths)
        return torch.from_numpy(np.sort(x.numpy())), lengths


def model_of(frontend, tmp_path):
    torch.manual_seed(0)
    backbone = LinearPool(in_channels=frontend.output_size, width=4)
    head = LinearHeads(in_features=backbone.output_size, tasks=TASKS)
    return TrainedModel(
        model=SpeechEmotionModel(frontend=frontend, backbone=backbone, head=head),
        tasks=TASKS,
        min_length=frontend.min_length,
        piece_length=30 * 16000,
        directory=RunDirectory(tmp_path),
        info={"model": "made"},
        warnings=[],
        parts={"frontend": frontend},
    )


def layers():
    encoder = PretrainedEncoder(source="nano-random", layer="all")
    return Chain(
        encoder,
        LayerMix(in_channels=encoder.output_size, n_layers=encoder.n_layers, input_rate=encoder.frame_rate),
    )


@pytest.mark.parametrize("build", [Mel, Leaf, layers, "whisper"])
def test_an_exported_frontend_gives_the_same_features(build, tiny_whisper, monkeypatch):
    frontend = PretrainedEncoder(source=tiny_whisper) if build == "whisper" else build()
    x, lengths = 0.1 * torch.randn(1, 9001), torch.tensor([9001])
    with torch.no_grad():
        expected = frontend.eval()(x, lengths)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        given = frontend(x, lengths)
    torch.testing.assert_close(given[0], expected[0], rtol=1e-3, atol=1e-4)
    assert given[1].equal(expected[1])


@pytest.mark.parametrize("frames", [1, 32, 33, 1500])
def test_pcen_of_fixed_depth_is_the_same(frames, monkeypatch):
    pcen, x = PCEN(n_channels=3), torch.rand(1, frames, 3)
    expected = pcen(x)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(pcen(x), expected)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    trained = model_of(Frames(), folder)
    return trained, to_onnx(trained), folder


def test_onnxruntime_and_torch_agree_on_any_length(exported):
    trained, graph, folder = exported
    onnx_ir = pytest.importorskip("onnx_ir")
    onnx_ir.save(graph, folder / "model.onnx")
    assert check_graph(folder / "model.onnx", trained) < 1e-6
    assert [value.name for value in graph.graph.outputs] == ["emotion", "valence"]
    with torch.no_grad():
        next(trained.model.head.parameters()).mul_(2)
    try:
        with pytest.raises(NotExportable, match="emotion of 1 samples of noise differs by .* onnxruntime"):
            check_graph(folder / "model.onnx", trained)
    finally:
        with torch.no_grad():
            next(trained.model.head.parameters()).div_(2)


def test_weights_may_stay_in_a_safetensors_file(exported, tmp_path, monkeypatch):
    import onnx_ir
    import safetensors.torch

    trained, graph, _ = exported
    monkeypatch.setattr("korser.export.graph.LINKED", 16)
    safetensors.torch.save_file(trained.model.trained_state(frozen=True), tmp_path / "model.safetensors")
    link_weights(graph, tmp_path / "model.safetensors")
    linked = [v.name for v in graph.graph.initializers.values() if isinstance(v.const_value, onnx_ir.ExternalTensor)]
    assert any("head" in name for name in linked)
    onnx_ir.save(graph, tmp_path / "model.onnx")
    assert check_graph(tmp_path / "model.onnx", trained) < 1e-6


def test_what_cannot_be_exported_is_named(tmp_path):
    with pytest.raises(NotExportable, match=r"^Sorted: torch.export cannot trace it \(.*numpy"):
        to_onnx(model_of(Sorted(), tmp_path))


def test_a_missing_library_is_named():
    with pytest.raises(UserError, match=r"nonesuch is not installed.*pip install 'korser\[export\]'"):
        require("nonesuch.part")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_shipped_frontend_is_exported(model, tiny_corpus, tiny_whisper, tmp_path, call):
    overrides = tiny_overrides(tiny_corpus, tmp_path) | {"n_epochs": "1", "check_contract": "false"}
    if "whisper" in model:
        overrides["whisper_source"] = str(tiny_whisper)
    run_dir = run(overrides, model)
    code, out, err = call("export", run_dir, "--out", tmp_path / "out", "--onnx")
    assert code == 0, err
    assert float(out.split()[-1]) < 1e-4
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.onnx"]
