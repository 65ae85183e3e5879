"""Frozen or fine-tuned encoders of the wav2vec 2.0 family, and a learnt weighted sum of their layers."""

from korser.plugins.frontends.encoder.encoder import LayerMix, PretrainedEncoder

__all__ = ["LayerMix", "PretrainedEncoder"]
