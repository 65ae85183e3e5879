"""Frozen or fine-tuned encoders of the wav2vec 2.0 family, and a learnt weighted sum of their layers."""

from korser.plugins.frontends.wav2vec.wav2vec import LayerMix, Wav2Vec

__all__ = ["LayerMix", "Wav2Vec"]
