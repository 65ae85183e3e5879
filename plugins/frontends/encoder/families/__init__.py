"""The families of encoders, by the ``model_type`` of a checkpoint's ``config.json``."""

from korser.plugins.frontends.encoder.families.base import EncoderFamily
from korser.plugins.frontends.encoder.families.waveform.family import Waveform
from korser.plugins.frontends.encoder.families.whisper import Whisper

__all__ = ["FAMILIES"]

FAMILIES: dict[str, type[EncoderFamily]] = {
    "wav2vec2": Waveform,
    "hubert": Waveform,
    "wavlm": Waveform,
    "data2vec-audio": Waveform,
    "whisper": Whisper,
}
