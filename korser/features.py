"""The cache of the frozen prefix.

The leading frozen stages of a frontend are a pure function of the audio, so their output is computed once for each
utterance and read ever after. The folder ``features/<digest>`` is named by all that its content depends on but for the
audio: the stages' code, configuration and weights, the versions of the libraries they call, the precision in which it
is computed and the dtype in which it is kept; the digest of the audio is the key in it (:mod:`korser.store`). So
nothing is ever cleared by hand: what is stale is never found again.

All of it may be deleted at any time, to free space or because it is stale: what is needed is computed again. (Up to
version 0.1.0 each utterance had a file of its own, ``features/<digest>/<two digits>/<digest>.npy``: no longer read.)

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import inspect
import json
import logging
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from korser.contract import is_users
from korser.cost import gpu_is_full
from korser.errors import UserError
from korser.stages import SAMPLE_RATE, Chain, Stage
from korser.store import ArrayStore

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "torchaudio", "transformers")
HOUSES = ("korser", "plugins")  # korser's own packages
NOT_OF_A_CONFIG = ("_name_or_path", "transformers_version", "architectures")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PRECISIONS = ("fp32", "bf16")
distributions = functools.cache(packages_distributions)  # it reads the metadata of all that is installed
OTHER_DTYPE = "set cache_dtype to bfloat16 or float32 (float16 ends at 65504)"
SHARD_BYTES = 256 * 2**20  # what a kill can lose, at most
SHARD_ARRAYS = 2048
AHEAD = 2  # batches that are loaded while one is computed


class FrozenPrefix(Chain):
    """Frozen stages in a row, computed and rounded as the cache does it; float32 comes out.

    What was trained on cached features is to be used behind this.

    Parameters
    ----------
    *stages : korser.Stage
        At least one; all frozen.
    dtype : str
        ``float32``, ``float16`` or ``bfloat16``: what the output is rounded to.
    precision : str
        ``fp32``, or ``bf16`` for autocast.

    Raises
    ------
    UserError
        If there is no such dtype or precision.
    """

    def __init__(self, *stages, dtype="float32", precision="fp32"):
        if dtype not in DTYPES:
            raise UserError(f"cache_dtype: '{dtype}' is none of {', '.join(DTYPES)}")
        if precision not in PRECISIONS:
            raise UserError(f"extraction_precision: '{precision}' is none of {', '.join(PRECISIONS)}")
        super().__init__(*stages)
        self.dtype = DTYPES[dtype]
        self.precision = precision

    def forward(self, x, lengths):
        """See :meth:`korser.stages.Stage.forward`; a UserError if the output does not fit into the dtype."""
        x, lengths = self.rounded(x, lengths)
        if x.isinf().any():
            raise UserError(f"frozen features exceed {x.dtype}: {OTHER_DTYPE}, and train again")
        return x.float(), lengths

    def rounded(self, x, lengths):
        """As :meth:`forward`, in the dtype itself, and without the check, which would wait for a GPU."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            x, lengths = super().forward(x, lengths)
        return x.to(self.dtype), lengths


class FeatureCache:
    """What the frozen prefix gives for each utterance, on disk.

    Parameters
    ----------
    stages : list of korser.Stage
        The frozen prefix; at least one. Computed where their parameters are.
    folder : str or Path
        Root of the cache; shards lie in ``features/<digest of the stages, dtype and precision>``.
    read_audio : callable
        ``path -> (T,)`` waveform, float32; called by several threads.
    dtype, precision : str
        See :class:`FrozenPrefix`. With float16 a value beyond 65504 is an error.
    seconds : float, optional
        Of audio, padding included, in a batch; 32 by default, on a GPU 1200.
    """

    def __init__(self, stages, folder, read_audio, dtype="float32", precision="fp32", seconds=None):
        self.prefix = FrozenPrefix(*stages, dtype=dtype, precision=precision).eval()
        self.store = ArrayStore(Path(folder) / "features" / digest(stages, dtype, precision))
        self.read_audio = read_audio
        self.device = next((x.device for x in (*self.prefix.parameters(), *self.prefix.buffers())), torch.device("cpu"))
        self.seconds = seconds or (1200 if self.device.type == "cuda" else 32)

    def read(self, audio_path, audio_digest):
        """Features of one utterance, computed and stored if they are not there or damaged.

        Returns
        -------
        torch.Tensor
            ``(T', C')`` of the cache's dtype, to be treated as read-only.
        """
        try:
            return self.store.read(audio_digest)
        except KeyError:
            return self.compute(audio_path, audio_digest)

    def compute(self, audio_path, audio_digest):
        """Compute and store the features of one utterance; as :meth:`read`."""
        x = self.read_audio(audio_path)
        row = SimpleNamespace(audio_path=audio_path, digest=audio_digest)
        self._write([_Computed(self, [row], x[None], torch.tensor([len(x)]))])
        return self.store.read(audio_digest)

    def fill(self, audio, progressbar=True):
        """Compute what is missing; one process at a time, so that several that start together share the work's result.

        What is missing, from the longest utterance to the shortest, is cut into shards and each shard into batches, so
        that little is padded and memory runs out at once or never. Whole shards are stored, in this order: what is
        missing after an interruption is cut at the same places, and its features are the same bit by bit.

        Parameters
        ----------
        audio : pandas.DataFrame
            With ``audio_path``, ``digest`` and ``samples``.
        progressbar : bool

        Returns
        -------
        int
            How many utterances were computed.

        Raises
        ------
        UserError
            If the folder cannot be written in, the features are not finite in the cache's dtype, a file is no longer
            as long as it was, or the GPU's memory does not hold a single utterance.
        """
        if not self.store.missing(audio["digest"]):
            return 0
        with self.store.lock():
            columns = audio[["audio_path", "digest", "samples"]].drop_duplicates("digest")
            missing = columns[columns["digest"].isin(self.store.missing(columns["digest"]))]
            rows = list(missing.sort_values(["samples", "digest"], ascending=[False, True]).itertuples())
            with ExitStack() as stack:
                hidden = not (progressbar and rows)
                bar = tqdm(total=len(rows), desc="frozen features", disable=hidden, dynamic_ncols=True)
                stack.enter_context(bar)
                n_readers = min(8, os.cpu_count() or 1)
                readers, loaders, writer = (stack.enter_context(ThreadPoolExecutor(n)) for n in (n_readers, AHEAD, 1))
                computed, written = [], None
                for batch, last, x, lengths in self._loaded(self._batches(rows), readers, loaders):
                    computed += self._compute(batch, x, lengths)
                    bar.update(len(batch))
                    if last:
                        if written:  # so that at most two shards are in memory
                            written.result()
                        written, computed = writer.submit(self._write, computed), []
                if written:
                    written.result()
        return len(rows)

    def _batches(self, rows):
        """Cut rows into batches, each with whether it is the last of its shard."""
        for shard in self._shards(rows):
            start = 0
            while start < len(shard):
                n = max(1, int(self.seconds * SAMPLE_RATE / shard[start].samples))  # none is longer than the first
                start += n
                yield shard[start - n : start], start >= len(shard)

    def _shards(self, rows):
        """Cut rows into lists of at most ``SHARD_BYTES`` of features and ``SHARD_ARRAYS`` utterances."""
        frames = self.prefix.output_lengths(torch.tensor([row.samples for row in rows])).tolist() if rows else []
        shard, size = [], 0
        for row, n in zip(rows, frames):
            n *= self.prefix.output_size * self.prefix.dtype.itemsize
            if shard and (size + n > SHARD_BYTES or len(shard) == SHARD_ARRAYS):
                yield shard
                shard, size = [], 0
            shard.append(row)
            size += n
        if shard:
            yield shard

    def _loaded(self, batches, readers, loaders):
        """Batches with their waveforms ``(B, T)`` and lengths ``(B,)``; some are loaded while one is computed."""
        ahead = deque()
        for batch, last in batches:
            ahead.append((batch, last, loaders.submit(self._load, batch, readers)))
            if len(ahead) > AHEAD:
                batch, last, loaded = ahead.popleft()
                yield batch, last, *loaded.result()
        for batch, last, loaded in ahead:
            yield batch, last, *loaded.result()

    def _load(self, batch, readers):
        waveforms = list(readers.map(self.read_audio, [row.audio_path for row in batch]))
        for row, waveform in zip(batch, waveforms):
            if len(waveform) != row.samples:
                raise UserError(f"{row.audio_path} has changed since it was checked: start again")
        x, lengths = pad_sequence(waveforms, batch_first=True), torch.tensor([len(waveform) for waveform in waveforms])
        return (x.pin_memory(), lengths.pin_memory()) if self.device.type == "cuda" else (x, lengths)

    def _compute(self, batch, x, lengths):
        """List of computed batches, in this order: one, or more if the GPU's memory does not hold it."""
        try:
            return [_Computed(self, batch, x, lengths)]
        except RuntimeError as error:
            if not gpu_is_full(error):
                raise
            n, seconds = len(batch), x.shape[1] / SAMPLE_RATE
        # behind the except clause, which would keep what is in memory alive
        if n == 1:
            path = batch[0].audio_path
            raise UserError(f"{path}: {seconds:.0f} s do not fit into the GPU's memory: cut it, or take device=cpu")
        torch.cuda.empty_cache()
        half = n // 2
        if n * seconds <= self.seconds:  # and not a batch that was cut when more was allowed
            self.seconds = half * seconds
            logger.warning("GPU memory is short: frozen features in batches of %.0f s from here on", self.seconds)
        first = self._compute(batch[:half], x[:half], lengths[:half])
        return first + self._compute(batch[half:], x[half:, : lengths[half]], lengths[half:])

    def _write(self, computed):
        self.store.write(item for batch in computed for item in batch.items())


class _Computed:
    """Features on their way from the device: computing goes on while they are copied."""

    @torch.no_grad()
    def __init__(self, cache, batch, x, lengths):
        prefix, device = cache.prefix, cache.device
        self.batch = batch
        # the frames as the stages declare them: to ask the device would be to wait for it
        self.frames = prefix.output_lengths(lengths).tolist()
        x, _ = prefix.rounded(x.to(device, non_blocking=True), lengths.to(device, non_blocking=True))
        x = torch.cat([utterance[:n] for utterance, n in zip(x, self.frames)])  # (all T', C')
        self.finite = x.isfinite().all().to("cpu", non_blocking=True)
        self.features = x.to("cpu", non_blocking=True)  # into pinned memory
        # of this device, which need not be the current one
        self.copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def items(self):
        """Digests and ``(T', C')`` in order, when all has arrived; a UserError if a value is not finite."""
        if self.copied:
            self.copied.synchronize()
        items = [(row.digest, x) for row, x in zip(self.batch, self.features.split(self.frames))]
        if not self.finite:
            path, x = next((row.audio_path, x) for row, (_, x) in zip(self.batch, items) if not x.isfinite().all())
            if x.isnan().any():
                raise UserError(f"{path}: its frozen features are no numbers (NaN): check the frontend's frozen stages")
            raise UserError(f"{path}: its frozen features exceed {x.dtype}: {OTHER_DTYPE}")
        return items


def digest(stages, dtype="float32", precision="fp32"):
    """Digest of all that the output of frozen stages depends on, but for the audio.

    Parameters
    ----------
    stages : list of korser.Stage
    dtype, precision : str
        See :class:`FrozenPrefix`.

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    described = [{**_described(stage), "weights": weights_digest(stage)} for stage in stages]
    called = set().union(*(_closure(part)[1] for stage in stages for part in {type(stage), *own_classes(stage)}))
    described.append({name: version(name) for name in sorted(called.union(LIBRARIES))})
    described.append([dtype, precision])
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _described(stage):
    return {
        "class": f"{type(stage).__module__}.{type(stage).__qualname__}",
        "code": code_digest(type(stage)),
        "config": _plain(stage.config),
        "state": _state(stage),
    }


def _state(module):
    """What the output of a module may depend on beside arguments and tensors: the plain attributes of all its parts."""
    own = own_classes(module)
    return {
        name: {
            "class": f"{type(part).__module__}.{type(part).__qualname__}",
            "code": code_digest(type(part)) if type(part) in own else None,
            "attributes": {
                key: _plain(value)
                for key, value in vars(part).items()
                if not (key.startswith("_") or key in ("training", "name_or_path")) and _is_plain(value)
            },
        }
        for name, part in module.named_modules()
    } | {"configs": encoder_configs(module)}


def encoder_configs(module):
    """The transformers configurations of a module and its parts, without what tells only where they come from.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict
        ``{name of the part: {key: value}}``, as JSON.
    """
    configs = {name: getattr(part, "config", None) for name, part in module.named_modules()}
    return {
        name: {k: v for k, v in _plain(config.to_diff_dict()).items() if k not in NOT_OF_A_CONFIG}
        for name, config in configs.items()
        if hasattr(config, "to_diff_dict")
    }


def own_classes(module):
    """The classes of a module's parts that the user wrote.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    set of type
    """

    def file(cls):
        return getattr(sys.modules.get(cls.__module__), "__file__", None)

    classes = {type(part) for part in module.modules()}
    return {c for c in classes if c.__module__.partition(".")[0] not in HOUSES and file(c) and is_users(file(c))}


def weights_digest(module):
    """Digest of a module's parameters and buffers, names included; sixteen hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted({**dict(module.named_parameters()), **dict(module.named_buffers())}.items()):
        tensor = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()[:16]


def code_digest(cls, korser=True):
    """Digest of the source of a class and of all that it imports, from korser too, except from installed libraries.

    Follows the import statements, so a helper beside the stage counts, and an edit anywhere in that closure makes the
    cache stale; :func:`digest` counts libraries by their version. What is imported by need counts whether it has been
    needed or not.

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
    sources, _ = _closure(cls, korser)
    return hashlib.sha256("\0".join(sources[name] for name in sorted(sources)).encode()).hexdigest()[:16]


@functools.cache  # as the sources are
def _closure(cls, korser=True):
    """Sources of the modules that a class needs, and the distributions that those which are not korser's import."""
    own = cls.__module__.partition(".")[0]
    sources, called, todo = {}, set(), [(base.__module__, own) for base in cls.__mro__]
    while todo:
        name, by = todo.pop()
        spec = None if name in sources else _find(name)
        if spec is None:
            continue
        package = name.partition(".")[0]
        is_own = package == own or (package not in HOUSES and is_users(spec.origin or "/"))
        if not (korser if package == "korser" else is_own or (korser and package in HOUSES)):
            if by not in HOUSES and package not in HOUSES:
                called.update(distributions().get(package, ()))
            continue
        sources[name] = _source(name, sys.modules.get(name))
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Import):
                todo += [(alias.name, package) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = importlib.util.resolve_name("." * node.level + (node.module or ""), spec.parent)
                todo += [(n, package) for n in (origin, *(f"{origin}.{alias.name}" for alias in node.names))]
    return sources, called


def _find(name):
    """Where a module comes from, imported or not; None where there is none of this name. Nothing is imported."""
    module = sys.modules.get(name)
    if module is not None:
        spec = importlib.machinery.ModuleSpec(name, None, origin=getattr(module, "__file__", None))
        spec.submodule_search_locations = getattr(module, "__path__", None)  # so that it knows its parent
        return spec
    parent = name.rpartition(".")[0]
    if parent and not hasattr(sys.modules.get(parent), "__path__"):
        return None  # a name in a module; or nobody has needed the package
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


@functools.cache  # what this process runs, not what an editor has made of the file since
def _source(name, module):
    try:
        if module is not None:
            return inspect.getsource(module)
        return importlib.util.find_spec(name).loader.get_source(name) or ""
    except (OSError, TypeError, AttributeError):  # an interactive session has no source, nor has what is compiled
        return ""


def _is_plain(value):
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))


def _plain(value):
    """A constructor's arguments as JSON; the tensors of a module among them are in the weights."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Stage):
        return _described(value)
    if isinstance(value, nn.Module):
        return _state(value)
    return repr(value)  # with an address in it the entry is never found again: slow, but never stale
