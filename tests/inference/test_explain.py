"""Explanations: attributions sum to the difference of outputs, find a planted cue, and do not depend on batches."""

import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from helpers import save_whisper
from torch import nn

from korser import Chain, Frontend, Parallel, Task, UserError
from korser.data.frozen_prefix import FrozenPrefix
from korser.inference import explain as module
from korser.inference.explain import BAND_EDGES, NotFinite, baseline_noises, explain, integrated_gradients
from korser.inference.predict import TrainedModel
from korser.nn.model import SpeechEmotionModel
from korser.plugins.backbones.convnet import ConvNet
from korser.plugins.frontends.encoder import LayerMix, PretrainedEncoder
from korser.plugins.frontends.leaf import Leaf
from korser.plugins.frontends.mel import Mel
from korser.plugins.heads.linear import LinearHeads
from korser.reporting.explanations import write_explanations
from korser.runs.directory import RunDirectory

EMOTION = Task("emotion", classes=("joy", "anger", "neutral"))
AGE = Task("age", kind="number", scaling=(40.0, 10.0))
RATE = 16000


def layers():
    encoder = PretrainedEncoder(source="nano-random", layer="all")
    mix = LayerMix(in_channels=encoder.output_size, n_layers=encoder.n_layers, input_rate=encoder.frame_rate)
    return Chain(encoder, mix)


def wav2vec_leaf():
    encoder = PretrainedEncoder(source="nano-random")
    return Chain(encoder, Leaf(in_channels=encoder.output_size, sample_rate=encoder.frame_rate))


class Undifferentiable(Frontend):
    """Energies that torch has no gradient of, as those of another library."""

    def __init__(self):
        super().__init__(output_size=1, frame_rate=100)

    def output_lengths(self, lengths):
        return lengths // 160

    def forward(self, x, lengths):
        return x.detach()[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160)).square().mean(2)[
            ..., None
        ], lengths // 160


class Mean(nn.Module):
    """The mean over time."""

    def __init__(self, in_channels):
        super().__init__()
        self.output_size = in_channels

    def forward(self, features, lengths):
        return features.mean(1)


class Cue(nn.Module):
    """Embedding that is the mean of one channel over some frames: all that the head sees."""

    output_size = 1

    def __init__(self, channel, frames):
        super().__init__()
        self.channel, self.frames = channel, frames

    def forward(self, features, lengths):
        return features[:, self.frames, self.channel].mean(1, keepdim=True)


def trained(tmp_path, frontend, backbone=None, tasks=(EMOTION, AGE), scale=3.0):
    torch.manual_seed(0)
    backbone = backbone or Mean(frontend.output_size)
    head = LinearHeads(in_features=backbone.output_size, tasks=tasks)
    with torch.no_grad():
        for layer in head.layers.values():
            layer.weight *= scale  # of random weights, so that the output changes
    model = SpeechEmotionModel(frontend=frontend, backbone=backbone, head=head)
    folder = RunDirectory(tmp_path)
    sizes = {"min_length": frontend.min_length, "piece_length": 30 * RATE}
    parts = {"frontend": frontend}
    return TrainedModel(model=model, tasks=list(tasks), directory=folder, info={}, warnings=[], parts=parts, **sizes)


def speech(seconds=0.4):
    """A glide with two harmonics and a pause, in noise."""
    t = torch.arange(int(seconds * RATE)) / RATE
    phase = 2 * torch.pi * (200 * t + 150 * t**2)
    voice = (torch.sin(phase) + 0.5 * torch.sin(2 * phase)) * (torch.sin(16 * t) > -0.3)
    return 0.1 * voice + 0.002 * torch.randn(len(t), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "build",
    [Mel, Leaf, layers, wav2vec_leaf, lambda: Parallel(Mel(), Leaf())],
    ids=["mel", "leaf", "w", "w-leaf", "both"],
)
def test_attributions_sum_to_the_difference_of_the_outputs(tmp_path, build):
    found = explain(trained(tmp_path, build()), speech(), label="anger")
    change = found.output - found.baseline
    assert abs(change) > 0.1 and found.error < 0.05 * np.abs(found.spectrum).sum()
    assert found.spectrum.shape == found.level.shape == (41, 40) and found.times[-1] == pytest.approx(0.4)
    assert (found.layers is None) == (build is not layers)
    assert (found.frequencies is None) == (build is not Leaf)
    assert (
        found.feature_times.shape == found.features.shape[:1] and 0 < found.feature_times[0] < found.feature_times[-1]
    )


def test_more_steps_are_more_exact(tmp_path):
    model, x = trained(tmp_path, Mel()), speech()
    few, many = (explain(model, x, label="anger", steps=steps) for steps in (4, 256))
    assert many.error < 1e-3 < few.error and few.inaccurate and not many.inaccurate
    assert not replace(few, unit=100 * few.error).inaccurate  # a number whose labels differ by as much


def test_whisper_is_explained(tmp_path):
    frontend = PretrainedEncoder(source=save_whisper(tmp_path / "whisper"))
    found = explain(trained(tmp_path, frontend), speech(), steps=32)
    assert np.abs(found.spectrum).sum() > 0 and found.error < 0.1 * max(1, abs(found.output - found.baseline))


@pytest.mark.parametrize("build", [Mel, Leaf])
def test_a_planted_cue_is_found_and_a_random_model_does_not_show_it(tmp_path, build):
    x, t = speech(0.8), torch.arange(int(0.8 * RATE)) / RATE
    tone = 0.05 * torch.sin(2 * torch.pi * 1000 * t)
    frontend = build()
    channel = int(frontend(tone[None], torch.tensor([len(t)]))[0][0].mean(0).argmax())
    x = x + tone * ((t >= 0.3) & (t < 0.5))
    model = trained(tmp_path, frontend, Cue(channel, slice(30, 50)), tasks=(EMOTION,))
    low = int(np.searchsorted(BAND_EDGES, 1000)) - 1

    def share(found):
        mass = np.abs(found.spectrum)
        return mass[28:53, low - 1 : low + 2].sum() / mass.sum(), np.abs(found.features[30:50, channel]).sum()

    found = explain(model, x)
    within, features = share(found)
    assert within > 0.8 and features == pytest.approx(np.abs(found.features).sum())
    assert (
        share(explain(trained(tmp_path, frontend, ConvNet(in_channels=frontend.output_size), tasks=(EMOTION,)), x))[0]
        < 0.3
    )


def test_what_is_attributed_most_changes_the_output_most_when_it_is_replaced_by_noise(tmp_path):
    model, x = trained(tmp_path, Mel()), speech()
    found = explain(model, x, label="joy")
    window = torch.hann_window(512)
    original, noise = (
        torch.stft(each, 512, 160, window=window, pad_mode="constant", return_complex=True)
        for each in (x, baseline_noises(x)[0])
    )
    band = np.clip(np.searchsorted(BAND_EDGES, np.arange(257) * 31.25, side="right") - 1, 0, 39)

    def drop(cells):
        spectrum = original.where(torch.from_numpy(~cells[:, band].T), noise)
        waveform = torch.istft(spectrum, 512, 160, window=window, length=len(x))
        return found.output - explain(model, waveform, label="joy", steps=4).output

    most = found.spectrum >= np.quantile(found.spectrum, 0.9)
    others = np.random.default_rng(0).permutation(most.ravel()).reshape(most.shape)
    assert drop(most) > 0.5 and drop(most) > 2 * abs(drop(others))


def test_an_explanation_does_not_depend_on_how_many_points_are_computed_at_once(tmp_path, monkeypatch):
    model, x = trained(tmp_path, layers()), speech(0.3)
    one = explain(model, x, steps=8)
    monkeypatch.setattr(module, "SECONDS_AT_ONCE", 0.1)
    other = explain(model, x, steps=8)
    scale = np.abs(one.spectrum).max()
    np.testing.assert_allclose(one.spectrum, other.spectrum, atol=1e-4 * scale)
    np.testing.assert_allclose(one.layers, other.layers, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("build", [Mel, Leaf, layers])
def test_a_gpu_gives_the_explanation_of_a_cpu(tmp_path, build):
    x, model = speech(0.3), trained(tmp_path, build())
    expected = explain(model, x, label="joy", steps=8)
    model.model, model.device = model.model.cuda(), "cuda"
    found = explain(model, x, label="joy", steps=8)
    np.testing.assert_allclose(found.spectrum, expected.spectrum, atol=1e-2 * np.abs(expected.spectrum).max())


def test_a_linear_function_is_explained_exactly():
    weights, x, baseline = torch.randn(3, 4, 5)
    (slope,) = integrated_gradients(lambda points: (points * weights).sum((1, 2)), x, [baseline], 1, 1)
    torch.testing.assert_close(slope, weights)


def test_a_frontend_without_gradient_is_explained_by_its_features(tmp_path):
    found = explain(trained(tmp_path, Undifferentiable(), scale=1000.0), speech(), task="age", steps=4)
    assert found.spectrum is None and found.label is None
    assert found.features.sum() == pytest.approx(found.output - found.baseline, rel=1e-3) and found.error < 1e-2


@pytest.mark.parametrize("n", [100, 0.5 * RATE])
def test_silent_and_short_recordings(tmp_path, n):
    found = explain(trained(tmp_path, Mel()), torch.zeros(int(n)), steps=4)
    assert not found.spectrum.any() and found.output == found.baseline and (found.level < -99).all()


class Root(Undifferentiable):
    """The square root of energies, whose gradient at 0 is infinite."""

    def forward(self, x, lengths):
        frames = x[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        return frames.square().mean(2).sqrt()[..., None], self.output_lengths(lengths)


def test_infinite_gradients_are_refused(tmp_path):
    model = trained(tmp_path, Root())
    assert explain(model, speech(), steps=4).finite
    with pytest.raises(NotFinite, match="its gradient is not finite"):
        explain(model, torch.zeros(8000), steps=4)
    files = []
    for name in ("a", "a-features"):
        files.append(tmp_path / f"{name}.wav")
        soundfile.write(files[-1], torch.zeros(8000), RATE)
    with pytest.raises(UserError, match=r"a.wav: its gradient is not finite.*: leave it out"):
        list(write_explanations(model, files[:1], tmp_path / "out"))
    with pytest.raises(UserError, match=r"a.wav and .*a-features.wav would both write .*a-features.csv"):
        list(write_explanations(model, files, tmp_path / "out"))


def test_rounded_features_have_exact_gradients():
    x = torch.randn(1, 4000, requires_grad=True)
    lengths = torch.tensor([4000])
    prefix = FrozenPrefix(Mel(), dtype="float16").eval()
    (exact,) = torch.autograd.grad(Mel()(x, lengths)[0].square().sum(), x)
    rounded = prefix(x, lengths)[0]
    (gradient,) = torch.autograd.grad(rounded.square().sum(), x)
    torch.testing.assert_close(gradient, exact, rtol=1e-2, atol=1e-3 * float(exact.abs().max()))
    torch.testing.assert_close(rounded, prefix(x.detach(), lengths)[0])


def test_a_file_and_mistakes(tmp_path):
    model, file = trained(tmp_path, Mel()), tmp_path / "a.wav"
    soundfile.write(file, speech(), RATE)
    found = model.explain(file, "emotion", steps=4)
    assert found.label == model.predict_files(file)["emotion_pred"][0] and found.task == "emotion"
    mistakes = {
        ("mood", None, 4): "task mood: expected emotion or age",
        (None, "angr", 4): "label angr: expected one of joy, anger, neutral, did you mean 'anger'?",
        ("age", "joy", 4): "label joy: age is a number and has no labels",
        (None, None, 3): "steps=3: expected an integer >= 4",
    }
    for arguments, said in mistakes.items():
        with pytest.raises(UserError, match=re.escape(said.partition(", did")[0])):
            model.explain(file, *arguments)
    model.piece_length = 3200
    with pytest.raises(UserError, match="a recording: 0.4 s are predicted in pieces of at most 0.2 s"):
        model.explain(file)
    with pytest.raises(UserError, match="expected one audio file"):
        model.explain([file])
