"""The Hugging Face libraries without their own messages, and without code from a hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging

from korser.utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["quiet_huggingface", "require_no_kernel"]


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
