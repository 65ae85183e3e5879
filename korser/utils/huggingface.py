"""The Hugging Face libraries without their own messages."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging

__all__ = ["quiet_huggingface"]


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
