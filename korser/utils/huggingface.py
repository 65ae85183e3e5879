"""The Hugging Face libraries without their own messages, and without code from a hub; encoders without weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging

from korser.utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["described_at", "description_of", "quiet_huggingface", "require_no_kernel"]

_described: ContextVar[Mapping[str, Path]] = ContextVar("described", default=MappingProxyType({}))


@contextmanager
def described_at(folders: Mapping[str, Path]) -> Iterator[None]:
    """Build encoders from their configuration alone; whoever calls this loads their weights, in place of a checkpoint.

    For each source, such as a hub id, there is a folder with ``config.json`` and ``preprocessor_config.json``.
    """
    token = _described.set(folders)
    try:
        yield
    finally:
        _described.reset(token)


def description_of(source: str) -> Path | None:
    """Return the folder that :func:`described_at` has for a source, if any."""
    return _described.get().get(source)


@contextmanager
def quiet_huggingface() -> Iterator[None]:
    """Silence progress bars, retries and tables of unused tensors; korser reports what matters."""
    levels = [(log, log.get_verbosity()) for log in (transformers_logging, hub_logging)]
    bar = transformers_logging.is_progress_bar_enabled()
    for log, _ in levels:
        log.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def require_no_kernel(config: PreTrainedConfig, source: str) -> None:
    """Raise a UserError if a checkpoint's config names an attention kernel: code of a hub, which would run here."""
    kernel = config._attn_implementation
    if kernel and "/" in kernel:
        raise UserError(
            f"{source}/config.json: attn_implementation is '{kernel}', code that would be downloaded and run; remove "
            "the key"
        )
