"""The checks of a backbone pass for what korser ships, and fail with the reason for broken ones."""

import re
import threading

import pytest
import torch
from conftest import HPARAMS
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import nn

import korser
from korser import UserError, masked_mean_std
from korser.frontend.lengths import length_mask
from korser.plugins.backbones.blstm import BLSTM
from korser.plugins.backbones.convnet import ConvNet
from korser.plugins.backbones.ecapa import Ecapa
from korser.plugins.backbones.linear_pool import LinearPool
from korser.plugins.backbones.temporal import TemporalNet
from korser.testing import quick_check_backbone

C = 12
SHIPPED = {
    "convnet": lambda: ConvNet(in_channels=C, maps=(4, 4, 8, 8), width=8),
    "temporal": lambda: TemporalNet(in_channels=C, width=8, input_norm="batch", input_dropout=0.1),
    "one layer": lambda: TemporalNet(in_channels=C, width=8, n_layers=1),
    "SUPERB": lambda: LinearPool(in_channels=C, width=8),
    "mean and std": lambda: LinearPool(in_channels=C, width=8, pooling="mean_std"),
    "attention": lambda: LinearPool(in_channels=C, width=8, pooling="attentive", input_norm="batch"),
    "ecapa": lambda: Ecapa(in_channels=C, width=8, embedding_size=6, bottleneck=4),
    "blstm": lambda: BLSTM(in_channels=C, width=4, n_layers=2, input_norm="none"),
}


def failed(factory, in_channels=C):
    found = {}
    for check in korser.check_backbone(factory, in_channels=in_channels):
        try:
            check()
        except AssertionError as error:
            found[check.name] = str(error)
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_backbones_pass(name):
    assert failed(SHIPPED[name]) == {}


class Good(nn.Module):
    """The broken ones below each break one line of it."""

    def __init__(self):
        super().__init__()
        self.linear, self.output_size = nn.Linear(C, 4), 8

    def frames(self, x, lengths):
        return self.linear(torch.nan_to_num(x)).tanh()

    def forward(self, x, lengths):
        return torch.cat(masked_mean_std(self.frames(x, lengths), lengths), 1)


class Attention(Good):
    """A transformer as it is written with torch, whose attention draws its dropout by the shape."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def frames(self, x, lengths):
        x = super().frames(korser.mask_padding(x, lengths), lengths)
        return self.encoder(x, src_key_padding_mask=torch.arange(x.shape[1])[None] >= lengths[:, None])


class Recurrent(Good):
    """Layers of which dropout is an argument."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)

    def frames(self, x, lengths):
        x = super().frames(korser.mask_padding(x, lengths), lengths)
        return nn.functional.dropout(self.rnn(x)[0], 0.1, self.training)


class MeanOverPadding(Good):
    def forward(self, x, lengths):
        return super().forward(x, torch.full_like(lengths, x.shape[1]))


class NormOverPadding(Good):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def frames(self, x, lengths):
        return self.norm(super().frames(x, lengths).mT).mT


class NormAfterAttention(Attention):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def frames(self, x, lengths):
        return self.norm(super().frames(x, lengths).mT).mT


class MultipliedByMask(Good):
    def forward(self, x, lengths):
        y = length_mask(lengths, x.shape[1])[..., None] * self.linear(x).tanh()
        return (y.sum(1) / lengths[:, None]).repeat(1, 2)


class NormOfEmbeddings(Good):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x, lengths):
        return self.norm(super().forward(x, lengths))


class RelativeToTheLoudest(Good):
    def frames(self, x, lengths):
        return super().frames(x / torch.nan_to_num(x[:, :40]).abs().amax(), lengths)


class Random(Good):
    def frames(self, x, lengths):
        return torch.nn.functional.dropout(super().frames(x, lengths))


class Unused(Good):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)


class Detached(Good):
    def frames(self, x, lengths):
        return super().frames(x.detach(), lengths)


class Unregistered(Good):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(C, 4)]

    def frames(self, x, lengths):
        return super().frames(x, lengths) * self.layers[0](torch.nan_to_num(x))


class InClosure(Good):
    def __init__(self):
        super().__init__()
        layer = nn.Linear(4, 4)
        self.mapped = lambda y: layer(y)

    def frames(self, x, lengths):
        return self.mapped(super().frames(x, lengths))


class Helper:
    def __init__(self):
        self.layer = nn.Linear(4, 4)


class InHelper(Good):
    def __init__(self):
        super().__init__()
        self.helper = Helper()

    def frames(self, x, lengths):
        return self.helper.layer(super().frames(x, lengths))


class InPlace(Good):
    def frames(self, x, lengths):
        return super().frames(x.mul_(2), lengths)


class Sequence(Good):
    def forward(self, x, lengths):
        return self.frames(x, lengths)


class NoSize(Good):
    def __init__(self):
        super().__init__()
        del self.output_size


BROKEN = {
    MeanOverPadding: ("same_alone_as_in_a_batch", "embeddings of an utterance of 1 frames differ alone and in a batch"),
    NormOverPadding: (
        "training_ignores_the_padding",
        "is it backbone.norm (BatchNorm1d)? Use korser.plugins.backbones.masked",
    ),
    NormAfterAttention: ("training_ignores_the_padding", "is it backbone.norm (BatchNorm1d)? Use korser"),
    MultipliedByMask: (
        "nan_in_the_padding_ignored",
        "set the padding to zero first, x = korser.mask_padding(",
    ),
    NormOfEmbeddings: ("trains_on_a_batch_of_one", "a batch of one utterance fails, since batch normalisation has a"),
    RelativeToTheLoudest: ("same_beside_a_louder_utterance", "depends on the level of another one 60 dB away from it"),
    Random: ("deterministic_in_eval", "forward draws random numbers in eval mode"),
    Unused: ("gradients_reach_every_parameter", "no gradient reaches backbone.unused.weight, backbone.unused.bias"),
    Detached: ("gradients_reach_the_input", "no gradient reaches the input"),
    Unregistered: ("parameters_registered", "backbone.layers[0].weight"),
    InClosure: ("parameters_registered", "backbone.mapped.layer.weight, backbone.mapped.layer.bias are not reg"),
    InHelper: ("parameters_registered", "backbone.helper.layer.weight, backbone.helper.layer.bias are not reg"),
    InPlace: ("input_not_modified", "forward changes its input in place"),
    Sequence: (
        "embeddings_as_declared",
        "instead of (3, 8), for 3 utterances and output_size=8; expected forward(f",
    ),
    NoSize: ("embeddings_as_declared", "output_size is None, expected the size E of the embeddings"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_backbones_fail_by_name_and_reason(broken):
    name, reason = BROKEN[broken]
    assert reason in failed(broken)[name]


@pytest.mark.parametrize("backbone", [Attention, Recurrent])
def test_dropout_inside_a_layer_is_not_taken_for_padding(backbone):
    assert failed(backbone) == {}


def test_a_good_backbone_passes():
    assert failed(Good) == {}


class TrialEcapa(nn.Module):
    """SpeechBrain's ECAPA-TDNN as a user would wrap it."""

    def __init__(self, *, in_channels, channels=16, size=8):
        super().__init__()
        sizes = {"attention_channels": 8, "se_channels": 8}
        self.net = ECAPA_TDNN(in_channels, lin_neurons=size, channels=[channels] * 4 + [3 * channels], **sizes)
        self.output_size = size

    def forward(self, x, lengths):
        return self.net(x, lengths / x.shape[1])[:, 0]


def test_the_ecapa_of_speechbrain_is_refused_in_one_line():
    with pytest.raises(UserError) as error:
        quick_check_backbone(TrialEcapa(in_channels=C), C, "ecapa.yaml")
    said = str(error.value)
    assert re.match(r"backbone: \S+TrialEcapa: embeddings of an utterance of 91 frames differ alone and in a ba", said)
    assert said.endswith("for all checks: korser check ecapa.yaml") and "\n" not in said
    reasons = failed(lambda: TrialEcapa(in_channels=C))
    assert "batch normalisation has a single value per channel" in reasons["trains_on_a_batch_of_one"]


def test_the_check_before_training_leaves_the_backbone_and_generators_as_they_are(monkeypatch):
    net = SHIPPED["convnet"]()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    quick_check_backbone(net, C)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in net.parameters())


class Locked(MeanOverPadding):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_one_that_cannot_be_copied_is_built_anew(monkeypatch):
    quick_check_backbone(Locked(), C)
    with pytest.raises(UserError, match="backbone: \\S+Locked: embeddings of an utterance of .* differ alone"):
        quick_check_backbone(Locked(), C, "mine.yaml", Locked)


def test_training_stops_before_the_data_are_read(tiny, tmp_path, monkeypatch, call):
    source = "import torch\nfrom torch import nn\nclass Mean(nn.Module):\n"
    source += "    def __init__(self, *, in_channels):\n        super().__init__()\n"
    source += "        self.linear, self.output_size = nn.Linear(in_channels, 4), 4\n"
    source += "    def forward(self, x, lengths): return self.linear(x).mean(1)\n"
    (tmp_path / "padded_mean.py").write_text(source)
    backbone = "backbone: !new:padded_mean.Mean {in_channels: !ref <frontend.output_size>}\n"
    (tmp_path / "mean.yaml").write_text(f"base: {HPARAMS / 'mel_stl.yaml'}\n{backbone}")
    monkeypatch.chdir(tmp_path)
    arguments = [f"--{key}={value}" for key, value in {**tiny, "data_folder": "missing"}.items()]
    code, out, err = call("train", "mean.yaml", *arguments)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and "backbone: padded_mean.Mean: embeddings of an utterance of 91 frames differ alone" in line
    code, out, err = call("check", "mean.yaml")
    assert code == 1 and re.search(r"FAIL  same_alone_as_in_a_batch: embeddings of an utt", out)
