"""The families of encoders, by the ``model_type`` of a checkpoint's ``config.json``."""

from korser.plugins.frontends.encoder.families.base import EncoderFamily
from korser.plugins.frontends.encoder.families.spectrogram_transformer import SpectrogramTransformer
from korser.plugins.frontends.encoder.families.wav2vec2_bert import Wav2Vec2Bert
from korser.plugins.frontends.encoder.families.waveform.conformer import Conformer
from korser.plugins.frontends.encoder.families.waveform.family import Waveform
from korser.plugins.frontends.encoder.families.waveform.squeezed import Squeezed
from korser.plugins.frontends.encoder.families.whisper import Whisper

__all__ = ["FAMILIES"]

FAMILIES: dict[str, type[EncoderFamily]] = {
    "wav2vec2": Waveform,
    "hubert": Waveform,
    "wavlm": Waveform,
    "data2vec-audio": Waveform,
    "unispeech": Waveform,
    "unispeech-sat": Waveform,
    "sew": Squeezed,
    "sew-d": Squeezed,
    "wav2vec2-conformer": Conformer,
    "whisper": Whisper,
    "wav2vec2-bert": Wav2Vec2Bert,
    "audio-spectrogram-transformer": SpectrogramTransformer,
}
