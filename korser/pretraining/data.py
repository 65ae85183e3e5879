"""Speech to pretrain on: any folders and corpora, held in memory, drawn as batches of equally long crops."""

import hashlib
import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from speechbrain.utils.distributed import run_on_main
from torch.utils.data import Dataset

from korser.corpora import load_corpus
from korser.data.audio import FULL_SCALE
from korser.data.audio_cache import AudioStore
from korser.data.splits import assign_splits
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

ENDINGS = {f".{name.lower()}" for name in soundfile.available_formats()} | {".pcm", ".oga", ".opus", ".aif", ".aifc"}
GPU_SHARE = 0.5  # of its free memory, that audio may take
LARGEST = 0.1  # share of a source's audio that may be held out at the most, unless valid_share is above half of it


@dataclass(frozen=True)
class Source:
    """One place that speech comes from.

    Parameters
    ----------
    data_folder : str
        A folder, searched with all below it; or what the corpus adapter takes.
    corpus : str, optional
        A name in :mod:`korser.corpora` or the import path of an adapter, which tells the speakers.
    corpus_options : dict, optional
        What else the adapter takes.
    weight : float
        How often a second of this source is drawn, compared with one of a source of weight 1.
    split : dict, optional
        For a corpus that something is tested on later: what :func:`korser.data.splits.assign_splits` takes, ``protocol``,
        ``seed`` and ``valid`` being speaker_holdout, 0 and 0 (as in ``hparams/probe.yaml``) unless given. Of such a
        division the training part alone is read: neither speakers nor, with ``hold_out``, sentences of the test.
    """

    data_folder: str
    corpus: str = None
    corpus_options: dict = field(default_factory=dict)
    weight: float = 1.0
    split: dict = None


def read_sources(sources):
    """The files of all sources.

    Parameters
    ----------
    sources : list of dict
        What :class:`Source` takes.

    Returns
    -------
    table : pandas.DataFrame
        ``path``, ``speaker`` (None where unknown), ``source`` (its number), ``weight``.
    synthetic : list of bool
        Of each source, whether it is a corpus that is known to be synthetic.

    Raises
    ------
    UserError
        If a source is described wrongly, or holds no audio.
    """
    if not isinstance(sources, list) or not sources:
        raise UserError(f"sources is {sources!r}: list at least one, [{{data_folder: my/speech}}]")
    known = list(Source.__dataclass_fields__)
    tables, synthetic = [], []
    for i, given in enumerate(sources):
        where = f"sources[{i}]"
        folder = given.get("data_folder") if isinstance(given, dict) else None
        if not isinstance(folder, (str, Path)) or not str(folder):
            raise UserError(f"{where} is {given!r}: write {{data_folder: my/speech}}")
        for key in given:
            if key not in known:
                raise UserError(f"unknown setting '{where}.{key}'{did_you_mean(key, known)}")
        source = Source(**given)
        number = isinstance(source.weight, (int, float)) and not isinstance(source.weight, bool)
        if not number or not 0 < source.weight < np.inf:
            raise UserError(f"{where}.weight is {source.weight!r}: it must be a number above 0")
        table, made = _read_source(source, where)
        tables.append(table.assign(source=i, weight=float(source.weight)))
        synthetic.append(made)
    return pd.concat(tables, ignore_index=True), synthetic


def _read_source(source, where):
    if source.corpus is None:
        for key in ("split", "corpus_options"):
            if getattr(source, key):
                raise UserError(f"{where}.{key} needs a corpus: name it, {{corpus: csv}}")
        return pd.DataFrame({"path": find_audio(source.data_folder), "speaker": None}), False
    if not isinstance(source.corpus, str):
        raise UserError(f"{where}.corpus is {source.corpus!r}: write a name in korser/corpora or an import path")
    corpus = load_corpus(source.corpus, source.data_folder, corpus_options=source.corpus_options)
    table = corpus.data.reset_index(drop=True)
    if source.split is not None:
        accepted = list(inspect.signature(assign_splits).parameters)[1:]
        if not isinstance(source.split, dict):
            raise UserError(f"{where}.split is {source.split!r}: write a mapping of {', '.join(accepted)}")
        for key in source.split:
            if key not in accepted:
                raise UserError(f"unknown setting '{where}.split.{key}'{did_you_mean(key, accepted)}")
        table = assign_splits(table, **{"protocol": "speaker_holdout", "seed": 0, "valid": 0, **source.split})
        table = table[table["split"] == "train"]
        if not len(table):
            raise UserError(f"{where}: nothing of corpus '{corpus.name}' is left to train on: mend its split")
    return table[["path", "speaker"]], corpus.synthetic


def find_audio(folder):
    """Audio files in a folder and all below it, sorted; hidden ones are left out.

    Raises
    ------
    UserError
        If there is no such folder, or no audio in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"data_folder {folder} is no folder: give one with audio files, or name its corpus")
    paths = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = (name for name in sorted(files) if not name.startswith("."))
        paths += [os.path.join(parent, name) for name in names if os.path.splitext(name)[1].lower() in ENDINGS]
    strange = next((path for path in paths if path.encode(errors="ignore").decode() != path), None)
    if strange:
        raise UserError(f"{strange!r}: the name of this file is no UTF-8: rename it")
    if not paths:
        raise UserError(f"data_folder {folder} holds no audio files (such as .wav, .flac, .ogg, .mp3): give another")
    return paths


def hold_out(table, share):
    """Choose what is validated on: whole speakers where they are known and none is too large, else files, by source.

    The choice hangs on the names of the speakers, or on the files' audio, alone. So runs with other seeds are validated
    on the same speech, and so is a run that goes on from a checkpoint of another: on speakers that neither has heard.

    Parameters
    ----------
    table : pandas.DataFrame
        ``source``, ``speaker``, ``digest`` (of the audio), ``samples``.
    share : float
        Of the speakers or files of each source, about; at least one of them.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` bool. Nothing of a source that is a single file.
    """
    held = np.zeros(len(table), dtype=bool)
    if not share:
        return held
    for _, part in table.groupby("source"):
        limit = max(LARGEST, 2 * share) * part["samples"].sum()
        by_speaker, by_file = (part.groupby(key)["samples"].sum() for key in ("speaker", "digest"))
        key, amounts = "speaker", by_speaker[by_speaker <= limit]
        if len(by_speaker) < 2 or not len(amounts):
            key, amounts = "digest", by_file[by_file <= max(limit, by_file.min())]
        if len(by_file) > 1:
            amounts = amounts[sorted(amounts.index, key=_place)]
            places = np.array([_place(name) for name in amounts.index])
            n = max(1, ((places < share) & (amounts.cumsum() <= limit)).sum())
            held[table.index.get_indexer(part.index[part[key].isin(amounts.index[:n])])] = True
    return held


def _place(name):
    """A number from 0 to 1 for a speaker or a file, as good as random and always the same."""
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:8], "big") / 2**64


class AudioPool:
    """All audio end to end in one tensor of 16-bit samples: in the GPU's memory, or else in the host's, where it fits.

    Parameters
    ----------
    table : pandas.DataFrame
        ``path``, ``digest`` and ``samples`` of each utterance.
    device : str or torch.device
        Where crops go.
    max_bytes : int
        Of host memory. What does not fit is read from the store on disk.
    cache_folder : str or Path
    """

    def __init__(self, table, device, max_bytes, cache_folder):
        self.device = torch.device(device)
        self.samples = torch.tensor(table["samples"].tolist())
        self.starts = self.samples.cumsum(0) - self.samples
        self.paths, self.digests = table["path"].tolist(), table["digest"].tolist()
        self.threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self.store = AudioStore(cache_folder)
        self.audio = None
        n_bytes = 2 * int(self.samples.sum())
        if n_bytes <= max_bytes:
            self.audio = torch.empty(n_bytes // 2, dtype=torch.int16)
            list(self.threads.map(self._pack, range(len(self.paths)), self.starts.tolist()))
            if self.device.type == "cuda" and n_bytes < GPU_SHARE * torch.cuda.mem_get_info(self.device)[0]:
                self.audio = self.audio.to(self.device)
        else:
            run_on_main(self.store.fill, args=[table])

    def crops(self, utterances, offsets, samples):
        """Parts of utterances.

        Parameters
        ----------
        utterances, offsets : torch.Tensor
            ``(B,)`` int64, rows of the table and where in them the crops begin.
        samples : int
            ``S``

        Returns
        -------
        torch.Tensor
            ``(B, S)`` float32 in [-1, 1], on the device.
        """
        if self.audio is None:
            x = torch.stack(list(self.threads.map(self._read, utterances.tolist(), offsets.tolist(), repeat(samples))))
        else:
            first = (self.starts[utterances] + offsets).to(self.audio.device)
            x = self.audio[first[:, None] + torch.arange(samples, device=self.audio.device)]
        return x.to(self.device).float() / FULL_SCALE

    def _pack(self, utterance, start):
        x = self._read(utterance)
        self.audio[start : start + len(x)] = x

    def _read(self, utterance, offset=0, samples=None):
        x = self.store.read(self.paths[utterance], self.digests[utterance])
        x = x if samples is None else x[offset : offset + samples]
        return x if x.dtype == torch.int16 else to_int16(x)


def to_int16(x):
    """``(T,)`` float32 in [-1, 1] as 16-bit samples, rounded."""
    return (x * FULL_SCALE).round().clamp(max=FULL_SCALE - 1).to(torch.int16)


class CropPlan(Dataset):
    """Which crops each step trains on.

    Utterances are grouped by length into ``n_groups`` of equal amounts of audio. A step draws one group and from it as
    many utterances as fill ``batch_samples``, all cropped at random to the length of the group's shortest: no batch has
    padding, as in fairseq's wav2vec 2.0. Every second of audio is drawn equally often, times its weight. The draw of a
    step depends on (seed, step, rank) alone.

    Parameters
    ----------
    samples : numpy.ndarray
        ``(N,)`` lengths of the utterances.
    weights : numpy.ndarray
        ``(N,)``
    batch_samples : int
        Audio in a batch.
    max_samples : int
        The longest crop.
    n_groups : int
    seed : int
    rank : int
        Of this process among those that train together.
    """

    def __init__(self, samples, weights, *, batch_samples, max_samples, n_groups, seed, rank=0):
        order = np.argsort(samples, kind="stable")
        mass = np.cumsum((samples * weights)[order])
        self.samples, self.order, self.mass = samples, order, mass / mass[-1]
        self.n_groups, self.seed, self.rank = n_groups, seed, rank
        shortest = samples[order[self._find(np.arange(n_groups) / n_groups)]]
        self.lengths = np.minimum(shortest, max_samples)
        self.counts = np.maximum(batch_samples // self.lengths, 1)

    def _find(self, at):
        return np.minimum(np.searchsorted(self.mass, at, side="right"), len(self.mass) - 1)

    def __getitem__(self, step):
        """``(utterances, offsets, length)`` of a step."""
        rng = np.random.default_rng([self.seed, step, self.rank])
        group = rng.integers(self.n_groups)
        length, n = int(self.lengths[group]), int(self.counts[group])
        utterances = self.order[self._find((group + rng.random(n)) / self.n_groups)]
        offsets = rng.integers(self.samples[utterances] - length + 1)
        return torch.from_numpy(utterances), torch.from_numpy(offsets), length


def validation_batches(samples, batch_samples, max_samples):
    """Fixed batches of crops from the middle of each utterance, sorted by length.

    Returns
    -------
    list of tuple
        ``(utterances, offsets, length)`` each.
    """
    order = np.argsort(samples, kind="stable")
    batches = []
    while len(order):
        length = int(min(samples[order[0]], max_samples))
        utterances, order = np.split(order, [max(batch_samples // length, 1)])
        offsets = (samples[utterances] - length) // 2
        batches.append((torch.from_numpy(utterances), torch.from_numpy(offsets), length))
    return batches
