"""Frozen or fine-tuned pretrained encoders, and a learnt weighted sum of their layers."""

from korser.plugins.frontends.encoder.encoder import PretrainedEncoder
from korser.plugins.frontends.encoder.layer_mix import LayerMix

__all__ = ["LayerMix", "PretrainedEncoder"]
