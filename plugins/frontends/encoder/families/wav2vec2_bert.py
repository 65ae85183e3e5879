"""w2v-BERT 2.0.

Seamless Communication, "Seamless: Multilingual Expressive and Streaming Speech Translation", 2023, arXiv 2312.05187,
section 3.2.1; w2v-BERT: Chung et al. 2021, arXiv 2108.06209. The modules are those of transformers.

Shape legend: ``B`` utterances, ``T`` samples, ``M`` mel bands, ``F`` frames of the filterbank, ``T'`` of the encoder.
"""

from __future__ import annotations

import torch
from transformers import SeamlessM4TFeatureExtractor

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.lengths import length_mask, masked_mean_std
from korser.plugins.frontends.encoder.checkpoint import Checkpoint
from korser.plugins.frontends.encoder.families.base import EncoderFamily, call_model, disable_augmentation
from korser.plugins.frontends.encoder.families.conformer_positions import positions_not_kept
from korser.plugins.frontends.encoder.families.kaldi import KaldiFilterbank

__all__ = ["Wav2Vec2Bert"]


class Wav2Vec2Bert(EncoderFamily):
    """Conformer layers over a normalised filterbank; see :class:`EncoderFamily`. ``implementation`` has no effect."""

    def __init__(self, checkpoint: Checkpoint, *, n_layers: int, implementation: str) -> None:
        config = checkpoint.config
        extractor = checkpoint.read_preprocessor(SeamlessM4TFeatureExtractor)
        checkpoint.require_fitting(
            "num_mel_bins * stride", extractor.num_mel_bins * extractor.stride, "feature_projection_input_dim"
        )
        bank = KaldiFilterbank(
            torch.from_numpy(extractor.mel_filters),
            torch.from_numpy(extractor.window),
            scale=2.0**15,  # of 16-bit integers, as in Kaldi
            dtype=torch.float64,
        )
        super().__init__(
            hidden_size=config.hidden_size,
            frame_rate=SAMPLE_RATE / (bank.hop * extractor.stride),
            min_length=bank.size + bank.hop * (max(extractor.stride, 2) - 1),  # two frames have a variance
        )
        self.stride = extractor.stride
        self.filterbank = bank
        disable_augmentation(config)
        config.use_intermediate_ffn_before_adapter = False  # part of the adapter
        config.num_hidden_layers = n_layers
        self.model = checkpoint.load_model()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.forward`."""
        y = self.extract(x, lengths)
        mask = length_mask(self.output_lengths(lengths), y.shape[1])
        with positions_not_kept(self.model.encoder):
            return call_model(self.model, y.to(self.model.dtype), mask, every_layer)

    def extract(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Compute the filterbank with zero mean and unit variance of each band, ``stride`` frames joined to one.

        It is ``(B, T', stride * M)`` float32 for waveforms ``(B, T)``, and arbitrary beyond an utterance.
        """
        y = self.filterbank(x).double()
        frames = self.filterbank.output_lengths(lengths)
        mean, std = masked_mean_std(y, frames, eps=0.0)
        n = frames[:, None]
        std = (std.square() * n / (n - 1) + 1e-7).sqrt()  # of the sample, eps as in SeamlessM4TFeatureExtractor
        y = (y - mean[:, None]) / std[:, None]
        return y[:, : y.shape[1] // self.stride * self.stride].unflatten(1, (-1, self.stride)).flatten(2).float()

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames."""
        return self.filterbank.output_lengths(lengths) // self.stride

    def parts_to_freeze(self, freeze: str | int) -> list[torch.nn.Module]:
        """See :meth:`EncoderFamily.parts_to_freeze`."""
        parts = [self.model.feature_projection]
        return parts if freeze == "feature_extractor" else [*parts, *self.model.encoder.layers[:freeze]]
