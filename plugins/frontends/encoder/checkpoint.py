"""Read checkpoints of Hugging Face encoders: configuration, preprocessor and weights."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModel, FeatureExtractionMixin, PreTrainedConfig, PreTrainedModel

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.huggingface import description_of, quiet_huggingface, require_no_kernel
from korser.utils.text import first_line, shorten

__all__ = ["NANO", "NANO_FOLDER", "NANO_RANDOM", "Checkpoint"]

logger = logging.getLogger(__name__)

NANO = "nano"
NANO_RANDOM = "nano-random"
NANO_FOLDER = Path(__file__).parent / "nano"
NANO_SEED = 2006_11477  # arXiv number of the wav2vec 2.0 paper
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")  # the latter since transformers 5
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
UNUSED = "masked_spec_embed"  # of SpecAugment, which is off

Extractor = TypeVar("Extractor", bound=FeatureExtractionMixin)


class Checkpoint:
    """A checkpoint whose configuration has been read.

    Parameters
    ----------
    source : str
        Hub id, local folder, ``nano`` or ``nano-random``.
    revision : str, optional
        Branch, tag or commit on the hub.
    model_types : collection of str
        Supported values of ``model_type`` in ``config.json``.

    Attributes
    ----------
    config : transformers.PreTrainedConfig

    Raises
    ------
    UserError
        If there is no such checkpoint or it is of another type.
    """

    def __init__(self, source: str, revision: str | None, model_types: Collection[str]) -> None:
        self.source = source
        self.revision = revision
        described = description_of(source)
        self._folder = described or _local_folder(source)
        self._has_weights = described is None and source != NANO_RANDOM
        self.config = self._read_config(model_types)
        require_no_kernel(self.config, source)

    @quiet_huggingface()
    def _read_config(self, supported: Collection[str]) -> PreTrainedConfig:
        source, folder = self.source, self._folder
        if folder is not None and not (folder / "config.json").is_file():
            raise UserError(f"{source}: the folder has no config.json; expected a folder written by save_pretrained")
        try:
            values, _ = PreTrainedConfig.get_config_dict(folder or source, revision=self.revision)
            self._require_supported(values, supported)
            return AutoConfig.from_pretrained(folder or source, revision=self.revision, trust_remote_code=False)
        except UserError:
            raise
        except Exception as error:  # transformers, the hub client and the JSON reader raise various types
            if folder is not None:
                raise UserError(
                    f"{source}/config.json: transformers cannot read it ({first_line(error)}); download it again, or "
                    f"take a checkpoint whose model_type is one of {', '.join(supported)}"
                ) from error
            raise UserError(
                f"{source}: not a local folder, and not available from the Hugging Face hub ({first_line(error)}); "
                f"check the name and the network, or give the folder of a downloaded checkpoint, or {NANO!r}"
            ) from error

    def _require_supported(self, values: dict[str, Any], supported: Collection[str]) -> None:
        """Raise a UserError if ``config.json`` is that of another kind of model, such as one with code of its own."""
        kind = values.get("model_type")
        if kind not in supported:
            code = ", a model whose code comes with the checkpoint" if "auto_map" in values else ""
            raise UserError(
                f"{self.source}: model_type of config.json is {kind!r}{code}; expected one of {', '.join(supported)}; "
                "wrap any other encoder in a frontend of your own (korser.OneAtATime, docs/extending/frontend.md)"
            )

    @quiet_huggingface()
    def read_preprocessor(self, kind: type[Extractor], *, required: bool = True, fix: str = "") -> Extractor | None:
        """Read ``preprocessor_config.json`` as a feature extractor of transformers.

        Parameters
        ----------
        required : bool
            If false, return None for a missing or unreadable file.
        fix : str
            What the user may do besides adding the file, for the error.

        Raises
        ------
        UserError
            If the file cannot be read, or the checkpoint was trained at another rate than 16 kHz.
        """
        try:
            if self._folder is not None and not any((self._folder / name).is_file() for name in PREPROCESSOR_FILES):
                raise FileNotFoundError("not in the folder")
            extractor = kind.from_pretrained(self._folder or self.source, revision=self.revision)
        except Exception as error:  # transformers, the hub client and the JSON reader raise various types
            if not required:
                return None
            raise UserError(
                f"{self.source}: cannot read preprocessor_config.json ({first_line(error)}); add the file{fix}"
            ) from error
        if extractor.sampling_rate != SAMPLE_RATE:
            raise UserError(
                f"{self.source}: sampling_rate of preprocessor_config.json is {extractor.sampling_rate}, expected "
                f"{SAMPLE_RATE}"
            )
        return extractor

    def require_fitting(self, name: str, value: int, key: str) -> None:
        """Raise a UserError unless ``value`` of the preprocessor, called ``name``, is that of a key of the config."""
        expected = getattr(self.config, key)
        if value != expected:
            raise UserError(
                f"{self.source}: {name} of preprocessor_config.json is {value}, but {key} of config.json is "
                f"{expected}: download the checkpoint again"
            )

    @quiet_huggingface()
    def load_model(self, kind: Any = AutoModel, **options: Any) -> PreTrainedModel:
        """Load a model as :attr:`config` describes it, in float32, without changing the global random state.

        Safetensors are preferred; ``pytorch_model.bin`` is read with ``weights_only=True``, so that no pickled code
        runs, and a warning is logged. ``kind`` is a model class of transformers; further arguments are those of its
        ``from_pretrained``, such as ``key_mapping``.

        Raises
        ------
        UserError
            If there are no weights or they do not fit the config.
        """
        with torch.random.fork_rng(devices=[]):
            if self._has_weights:
                return self._load_weights(kind, options)
            torch.default_generator.manual_seed(NANO_SEED)  # torch.manual_seed would seed the GPUs too
            options = {key: value for key, value in options.items() if key == "attn_implementation"}
            build = kind.from_config if hasattr(kind, "from_config") else kind._from_config
            return build(self.config, dtype=torch.float32, **options)

    def _load_weights(self, kind: Any, options: dict[str, Any]) -> PreTrainedModel:
        source, folder = self.source, self._folder
        if folder is not None and not any((folder / name).is_file() for name in WEIGHT_FILES):
            raise UserError(f"{source}: the folder has no weights; expected {' or '.join(WEIGHT_FILES[::2])}")
        options = {
            "config": self.config,
            "revision": self.revision,
            "dtype": torch.float32,
            "weights_only": True,
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,  # reported below
            **options,
        }
        try:
            try:
                model, info = kind.from_pretrained(folder or source, use_safetensors=True, **options)
            except OSError:
                model, info = kind.from_pretrained(folder or source, use_safetensors=False, **options)
                logger.warning("%s: no safetensors; reading pytorch_model.bin with weights_only=True", source)
        except Exception as error:  # transformers, safetensors, torch and the hub client raise various types
            raise UserError(
                f"{source}: the weights cannot be loaded ({first_line(error)}); download the checkpoint again"
            ) from error
        missing = sorted(key for key in info["missing_keys"] if key != UNUSED)
        if missing:
            raise UserError(
                f"{source}: the weights lack {shorten(missing)}, which config.json requires; download the checkpoint "
                "again"
            )
        wrong = [f"{key} {tuple(found)}, not {tuple(size)}" for key, found, size in sorted(info["mismatched_keys"])]
        if wrong:
            raise UserError(
                f"{source}: the weights have other sizes than config.json requires: {shorten(wrong, 1)}; download the "
                "checkpoint again"
            )
        return model


def _local_folder(source: str) -> Path | None:
    """Return the folder that ``source`` names, or None for a hub id; raise a UserError if a path does not exist."""
    if source in (NANO, NANO_RANDOM):
        return NANO_FOLDER
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{source}: is a file; expected the folder with config.json and the weights")
    if path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2:
        raise UserError(f"{source}: no such folder; expected a checkpoint's folder, a hub id, or {NANO!r}")
    return None
