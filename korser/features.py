"""The cache of the frozen prefix.

The leading frozen stages of a frontend are a pure function of the audio, so their output is computed once for each
utterance and read ever after. An entry's name says all that its content depends on: the stages' code, configuration,
weights and dtype, the versions of the libraries they call, and the audio. So nothing is ever cleared by hand: what is
stale is never found again.
"""

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
from importlib.metadata import version
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from korser.errors import UserError
from korser.rundir import atomic

LIBRARIES = ("torch", "torchaudio", "transformers")


class FeatureCache:
    """What the frozen prefix gives for each utterance, on disk.

    Parameters
    ----------
    stages : list of korser.Stage
        The frozen prefix; at least one.
    folder : str or Path
        Root of the cache; entries lie in ``features/<digest of the stages>/<digest of the audio>.npy``.
    read_audio : callable
        ``path -> (T,)`` waveform.
    """

    def __init__(self, stages, folder, read_audio):
        self.stages = nn.ModuleList(stages).eval()
        self.folder = Path(folder) / "features" / digest(stages)
        self.read_audio = read_audio

    def path(self, audio_digest):
        """Where the features of an utterance lie."""
        return self.folder / audio_digest[:2] / f"{audio_digest}.npy"

    def read(self, audio_path, audio_digest):
        """Features of one utterance, computed if they are not there or damaged.

        Returns
        -------
        torch.Tensor
            ``(T', C')`` float32.
        """
        try:
            return torch.from_numpy(np.load(self.path(audio_digest), allow_pickle=False))
        except (OSError, ValueError, EOFError):
            return self.compute(audio_path, audio_digest)

    @torch.no_grad()
    def compute(self, audio_path, audio_digest):
        """Compute and store the features of one utterance; as :meth:`read`.

        Utterances are computed one at a time: so an entry's bits depend on its own audio alone, and not on what
        happened to be in the same batch or on where an extraction was interrupted.
        """
        device = next((p.device for p in self.stages.parameters()), torch.device("cpu"))
        x = self.read_audio(audio_path)[None].to(device)
        lengths = torch.tensor([x.shape[1]], device=device)
        for stage in self.stages:
            x, lengths = stage(x, lengths)
        features = x[0, : lengths.item()].float().cpu()
        with atomic(self.path(audio_digest)) as temporary, open(temporary, "wb") as file:
            np.save(file, features.numpy())
        return features

    def fill(self, audio, progressbar=True):
        """Compute what is missing; one process at a time, so that several that start together share the work's result.

        Parameters
        ----------
        audio : pandas.DataFrame
            With ``audio_path`` and ``digest``.

        Returns
        -------
        int
            How many utterances were computed.
        """
        if all(self.path(digest).exists() for digest in audio["digest"]):
            return 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock")
            lock.acquire()
        except OSError as error:
            raise UserError(f"cannot write in the cache {self.folder}: {error.strerror}; choose another folder") from error
        try:
            missing = [row for row in audio.itertuples() if not self.path(row.digest).exists()]
            for row in tqdm(missing, desc="frozen features", disable=not (progressbar and missing), dynamic_ncols=True):
                self.compute(row.audio_path, row.digest)
        finally:
            lock.release()
        return len(missing)


def digest(stages):
    """Digest of all that the output of frozen stages depends on, but for the audio.

    Parameters
    ----------
    stages : list of korser.Stage

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    described = [
        {
            "class": f"{type(stage).__module__}.{type(stage).__qualname__}",
            "code": code_digest(type(stage)),
            "config": _plain(stage.config),
            "weights": weights_digest(stage),
        }
        for stage in stages
    ]
    described.append({name: version(name) for name in LIBRARIES})
    described.append("float32")
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(module):
    """Digest of a module's parameters and buffers, names included; sixteen hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted({**dict(module.named_parameters()), **dict(module.named_buffers())}.items()):
        tensor = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def code_digest(cls, korser=True):
    """Digest of the source of a class and of all that it imports from its own package or folder and from korser.

    Follows the import statements, so a helper beside the stage counts, and an edit anywhere in that closure makes the
    cache stale; libraries count by their version.

    Parameters
    ----------
    cls : type
    korser : bool
        Whether korser's own modules count.

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    own, house = cls.__module__.partition(".")[0], __name__.partition(".")[0]
    home = Path(getattr(sys.modules[cls.__module__], "__file__", None) or ".").parent
    sources, todo = {}, [base.__module__ for base in cls.__mro__]
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        if name in sources or module is None:
            continue
        package = name.partition(".")[0]
        beside = Path(getattr(module, "__file__", None) or "/").parent == home
        if not (package in (own, house) or beside) or (package == house and not korser):
            continue
        try:
            sources[name] = _source(module)
        except (OSError, TypeError):  # an interactive session has no source
            sources[name] = ""
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = importlib.util.resolve_name("." * node.level + (node.module or ""), module.__package__)
                todo += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return hashlib.sha256("\0".join(sources[name] for name in sorted(sources)).encode()).hexdigest()[:16]


@functools.cache  # what this process runs, not what an editor has made of the file since
def _source(module):
    return inspect.getsource(module)


def _plain(value):
    """A constructor's arguments as JSON. What has no plain form stands by its type: its state is in the weights."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, nn.Module):
        return f"{type(value).__module__}.{type(value).__qualname__}"
    return repr(value)  # with an address in it the entry is never found again: slow, but never stale
