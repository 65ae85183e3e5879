"""Find speech in recordings with silero-vad, whose weights are part of its package."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from korser.corpora.segments import Segment
from korser.data.audio import read_blocks
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError

__all__ = ["find_speech", "require_silero"]

CHUNK = 512  # samples at 16 kHz that the model takes at once
BLOCK_SECONDS = 32  # a whole number of chunks


def require_silero() -> None:
    """Raise a UserError unless silero-vad is installed."""
    with _silero():
        pass


@contextlib.contextmanager
def _silero() -> Iterator[Any]:
    """Import silero-vad, which sets the number of threads of torch: as many as before remain afterwards."""
    threads = torch.get_num_threads()
    try:
        import silero_vad

        torch.set_num_threads(1)  # its operations are too small for more
        yield silero_vad
    except ImportError:
        raise UserError("--segments=vad needs silero-vad: pip install 'korser[vad]'") from None
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def find_speech(
    path: str, shortest: float, longest: float, on_block: Callable[[float], Any] = lambda seconds: None
) -> list[Segment]:
    """Return the segments of a recording that have speech.

    Settings other than the lengths are the defaults of silero-vad: threshold 0.5, pauses of at least 100 ms, 30 ms
    added on either side.

    Parameters
    ----------
    shortest, longest : float
        Seconds. Shorter segments are left out, longer ones are cut in their longest pause.
    on_block : callable
        Called with the seconds of each block that was searched.

    Raises
    ------
    UserError
        If silero-vad is not installed, or the recording cannot be used.

    References
    ----------
    Silero Team (2021), "Silero VAD: pre-trained enterprise-grade voice activity detector".
    """
    with _silero() as silero:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch.jit.load
            model = silero.load_silero_vad()  # TorchScript: its operations, no Python objects
        probabilities, n_samples = [], 0
        for block in read_blocks(path, BLOCK_SECONDS):
            audio, n = block.audio, len(block.audio)
            n_samples += n
            chunks = torch.nn.functional.pad(audio, (0, -n % CHUNK)).split(CHUNK)
            probabilities += [model(chunk, SAMPLE_RATE).item() for chunk in chunks]
            on_block(n / SAMPLE_RATE)
        found = silero.get_speech_timestamps_from_probs(
            probabilities,
            sampling_rate=SAMPLE_RATE,
            min_speech_duration_ms=max(250, 1000 * shortest),
            max_speech_duration_s=longest,
            audio_length_samples=n_samples,
        )
    segments = [Segment(path, speech["start"] / SAMPLE_RATE, speech["end"] / SAMPLE_RATE) for speech in found]
    return [segment for segment in segments if segment.end - segment.start >= shortest]  # what a cut may leave is not
