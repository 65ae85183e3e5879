"""Baselines from stock libraries: what a script does without korser, as frontends that korser can train.

Backbone, optimizer, batches and evaluation are the same; only the frontend, the cache, the loading (:data:`SETTINGS`)
and the arithmetic of a GPU (:func:`arithmetic`) differ.

Shape legend: ``B`` utterances, ``T`` samples or frames, ``C`` channels.
"""

import contextlib
from unittest import mock

import torch
from speechbrain.lobes.features import Leaf
from transformers import AutoConfig, AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

import korser.training.datasets
import korser.training.train
from korser.data.audio import read_audio
from korser.frontend.base import SAMPLE_RATE, Frontend

# SpeechBrain's loader, its batches drawn from all lengths, and the frozen encoder computed in every step.
SETTINGS = {"use_cache": False, "resident": False, "memory_gb": 0, "n_buckets": 1}
FRONTENDS = {  # by the model's YAML; wav2vec -> LEAF keeps korser's, as SpeechBrain's takes audio only
    "leaf": {"frontend": "!new:stock.SpeechBrainLeaf"},
    "wav2vec_leaf": {
        "encoder": "!new:stock.TransformersWav2Vec {source: !ref <wav2vec_source>}",
        "leaf.implementation": "reference",
    },
}


class Files:
    """Replace korser's store of decoded audio: every file is decoded again in every epoch.

    Parameters
    ----------
    cache_folder : str or Path
        Not used.
    """

    def __init__(self, cache_folder):
        pass

    def fill(self, audio, progressbar=True):
        return 0

    def read(self, path, digest):
        return read_audio(path)

    waveform = read


@contextlib.contextmanager
def arithmetic(matmul):
    """Compute on a GPU with the defaults of the libraries, TF32 and any algorithm; a context and a decorator.

    Parameters
    ----------
    matmul : bool
        Whether products of matrices use TF32, which SpeechBrain enables when it is imported. For convolutions
        PyTorch itself has it on.
    """
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    products.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = matmul, True, False
    try:
        yield
    finally:
        products.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


def titled(title, device):
    """Return the title of a table with rows in :func:`arithmetic`."""
    return f"{title}, stock rows with TF32" if device == "cuda" else title


@contextlib.contextmanager
def training():
    """Train from plain files and with SpeechBrain's arithmetic; a context."""
    with (
        mock.patch.object(korser.training.datasets, "AudioStore", Files),
        mock.patch.object(korser.training.train, "set_arithmetic", lambda: None),
        mock.patch.object(
            korser.training.train, "quick_check", lambda *_: None
        ),  # it refuses frontends that ignore lengths
        arithmetic(matmul=True),
    ):
        yield


class SpeechBrainLeaf(Frontend):
    """SpeechBrain's ``Leaf`` with its defaults, ``(B, T)`` -> ``(B, T', 40)``; it ignores lengths."""

    def __init__(self):
        super().__init__(output_size=40, frame_rate=100)
        self.leaf = Leaf(out_channels=40, in_channels=1)

    def output_lengths(self, lengths):
        return (lengths + 159) // 160

    def forward(self, x, lengths):
        return self.leaf(x), self.output_lengths(lengths)


class TransformersWav2Vec(Frontend):
    """transformers' wav2vec 2.0, frozen, ``(B, T)`` -> ``(B, T', C)``: last hidden state, the group norm over padding.

    Parameters
    ----------
    source : str
        Folder returned by :func:`save_random_wav2vec`.
    """

    n_layers = 1

    def __init__(self, *, source):
        config = AutoConfig.from_pretrained(source)
        super().__init__(output_size=config.hidden_size, frame_rate=SAMPLE_RATE / 320, min_length=400)
        self.source, self.pretrained = source, False
        self.model = AutoModel.from_pretrained(source, dtype=torch.float32).requires_grad_(False).eval()

    def output_lengths(self, lengths):
        return self.model._get_feat_extract_output_lengths(lengths)

    @torch.no_grad()
    def forward(self, x, lengths):
        return self.model(x).last_hidden_state, self.output_lengths(lengths)


def save_random_wav2vec(folder, config=None):
    """Save a wav2vec 2.0 with random weights by transformers, and return the folder.

    Parameters
    ----------
    folder : pathlib.Path
    config : str or Path, optional
        A folder with ``config.json``; by default wav2vec2-base, 94 M parameters, 378 MB.
    """
    torch.manual_seed(0)
    Wav2Vec2Model(AutoConfig.from_pretrained(config) if config else Wav2Vec2Config()).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return str(folder)
