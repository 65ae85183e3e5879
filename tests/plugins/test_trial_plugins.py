"""Frontends that wrap modules of other libraries, as their users write them, and the mistakes that are found."""

import pytest
import torch
from conftest import ROOT
from helpers import failed_checks
from speechbrain.nnet.CNN import SincConv
from torch import nn
from torch.nn import functional as F
from torchaudio.transforms import MFCC

from korser import Frontend, OneAtATime, UserError, mask_padding, register_tensors
from korser.plugins.backbones.convnet import MaskedBatchNorm
from korser.testing import quick_check


class SpeechBrainSinc(Frontend):
    def __init__(self, *, register=True):
        super().__init__(output_size=16, frame_rate=100)
        self.conv = SincConv(16, 401, in_channels=1, stride=160, padding_mode="constant")
        if register:
            register_tensors(self.conv)

    def output_lengths(self, lengths):
        return (lengths - 1) // 160 + 1

    def forward(self, x, lengths):
        y = self.conv(mask_padding(x, lengths)[..., None])
        lengths = self.output_lengths(lengths)
        return mask_padding(y.abs().log1p(), lengths), lengths


def fbank_of_the_docs(remove=""):
    """The example of wrapping a module of another library, without a line of it."""
    page = (ROOT / "docs/extending/frontend.md").read_text(encoding="utf-8")
    code = page.split("# my_fbank.py\n")[1].split("```")[0]
    assert remove in code
    namespace = {"__name__": "my_fbank"}
    exec(code.replace(remove, ""), namespace)
    return namespace["DeltaFbank"]()


class TorchaudioMFCC(Frontend):
    def __init__(self, **settings):
        super().__init__(output_size=40, frame_rate=100)
        mel = {"n_fft": 400, "hop_length": 160, "n_mels": 64, "pad_mode": "constant"}
        self.mfcc = MFCC(16000, 40, melkwargs=mel, **settings)

    def output_lengths(self, lengths):
        return lengths // 160 + 1

    def forward(self, x, lengths):
        y = self.mfcc(mask_padding(x, lengths)).transpose(1, 2)
        lengths = self.output_lengths(lengths)
        return mask_padding(y, lengths), lengths


class TextbookM5(Frontend):
    """Raw-waveform CNN (Dai et al. 2017)."""

    def __init__(self, *, width=8):
        super().__init__(output_size=width * 2, frame_rate=16000 / 4**4, min_length=2048)
        sizes = [(1, width, 79, 4), (width, width, 3, 1), (width, width * 2, 3, 1)]
        blocks = [
            (nn.Conv1d(i, o, k, s, padding=k // 2), nn.BatchNorm1d(o), nn.ReLU(), nn.MaxPool1d(4))
            for i, o, k, s in sizes
        ]
        self.net = nn.Sequential(*(layer for block in blocks for layer in block))

    def output_lengths(self, lengths):
        return ((lengths - 1) // 4 + 1) // 64

    def forward(self, x, lengths):
        y = self.net(mask_padding(x, lengths)[:, None]).transpose(1, 2)
        lengths = self.output_lengths(lengths)
        return mask_padding(y, lengths), lengths


class M5(Frontend):
    """As :class:`TextbookM5`, with batch norms that see valid samples only."""

    def __init__(self, *, width=8):
        super().__init__(output_size=width * 2, frame_rate=16000 / 4**4, min_length=2048)
        sizes = [(1, width, 79, 4), (width, width, 3, 1), (width, width * 2, 3, 1)]
        self.convs = nn.ModuleList(nn.Conv1d(i, o, k, s, padding=k // 2, bias=False) for i, o, k, s in sizes)
        self.norms = nn.ModuleList(MaskedBatchNorm(o, F.relu) for _, o, _, _ in sizes)

    def output_lengths(self, lengths):
        return ((lengths - 1) // 4 + 1) // 64

    def forward(self, x, lengths):
        x = mask_padding(x, lengths)[:, None]
        for conv, norm in zip(self.convs, self.norms):
            x, lengths = conv(x), (lengths - 1) // conv.stride[0] + 1
            x, lengths = F.max_pool1d(norm(x[..., None], lengths)[..., 0], 4), lengths // 4
            x = mask_padding(x.mT, lengths).mT
        return x.mT, lengths


@pytest.mark.parametrize(
    "factory",
    [SpeechBrainSinc, fbank_of_the_docs, lambda: TorchaudioMFCC(log_mels=True), M5],
    ids=["SincConv", "Fbank", "MFCC", "M5"],
)
def test_wrapped_modules_pass(factory):
    quick_check(factory())
    assert failed_checks(factory) == {}


def test_tensors_of_other_libraries_are_named_with_the_remedy():
    frontends = {
        "conv.window_, conv.n_": lambda: SpeechBrainSinc(register=False),
        "fbank.compute_STFT.window": lambda: fbank_of_the_docs(remove="        register_tensors(self.fbank)\n"),
    }
    for names, factory in frontends.items():
        reason = failed_checks(factory, ["tensors_registered"])["tensors_registered"]
        assert names in reason and "korser.register_tensors(module) behind its constructor" in reason


def test_mfcc_that_clips_by_the_loudest_of_the_batch_is_refused():
    reason = r"beside one that is 60 dB louder .*is it mfcc, mfcc.amplitude_to_DB\?.* MFCC\(log_mels=True\)"
    with pytest.raises(UserError, match=reason):
        quick_check(TorchaudioMFCC())


def test_batch_norm_over_padding_is_refused():
    reason = r"is it net.1 \(BatchNorm1d\), net.5 \(BatchNorm1d\).*Use korser.plugins.backbones.masked.MaskedBatchNorm"
    with pytest.raises(UserError, match=reason):
        quick_check(TextbookM5())


def test_a_frontend_without_output_lengths_is_told_what_to_write():
    class Fewer(OneAtATime):
        def __init__(self):
            super().__init__(output_size=1, frame_rate=100, min_length=400)

        def one(self, x):
            return x.unfold(0, 400, 160).mean(1, keepdim=True)

    with pytest.raises(UserError, match=r"as measured it is: return \(lengths - 240\) // 160"):
        quick_check(Fewer())

    class Whole(Fewer):
        def output_lengths(self, lengths):
            return (lengths - 240) // 160

    assert failed_checks(Whole) == {}


def test_registered_tensors_follow_the_module_and_leave_its_state_dict():
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].scale = torch.ones(2)
    state = list(module.state_dict())
    register_tensors(module)
    assert module.double()[0].scale.dtype == torch.float64 and list(module.state_dict()) == state
