"""The encoder of Whisper, of any size.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023, arXiv 2212.04356. The modules
are those of transformers.

Shape legend: ``B`` utterances, ``T`` samples, ``M`` mel bands, ``F`` frames of the spectrogram, ``T'`` of the encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, WhisperFeatureExtractor

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.lengths import length_mask, mask_padding
from korser.plugins.frontends.encoder.checkpoint import Checkpoint
from korser.plugins.frontends.encoder.families.base import EncoderFamily, apply_layers
from korser.plugins.frontends.encoder.families.log_mel import LogMel
from korser.utils.errors import UserError

__all__ = ["Whisper"]

PADDINGS = ("utterance", "30s")
STRIDE = 2  # of the second convolution, in frames of the spectrogram
PIECE = {"cpu": 1, "cuda": 16}  # utterances of 30 s that are encoded at once
ENCODER_KEYS = r"^(model\.)?encoder\."  # WhisperForConditionalGeneration has the first part, others have not


class Whisper(EncoderFamily):
    """Two convolutions over a log-mel spectrogram and a transformer; see :class:`EncoderFamily`.

    Parameters
    ----------
    implementation : str
        Without effect.
    padding : str
        "utterance": the spectrogram is cut to the utterance, and frames attend to those of the utterance. "30s": the
        utterance is followed by silence up to the 30 s of the checkpoint's training, to which frames attend, too; the
        output is cut to the utterance.
    """

    settings = ("padding",)

    def __init__(
        self, checkpoint: Checkpoint, *, n_layers: int, implementation: str, padding: str = "utterance"
    ) -> None:
        from transformers.models.whisper.modeling_whisper import WhisperEncoder  # 0.4 s, which others do not need

        if padding not in PADDINGS:
            raise UserError(f"padding={padding!r}: expected {' or '.join(map(repr, PADDINGS))}")
        config = checkpoint.config
        extractor = checkpoint.read_preprocessor(WhisperFeatureExtractor)
        checkpoint.require_fitting("feature_size", extractor.feature_size, "num_mel_bins")
        n_frames = extractor.nb_max_frames // STRIDE
        checkpoint.require_fitting("chunk_length (in frames)", n_frames, "max_source_positions")
        super().__init__(
            hidden_size=config.d_model,
            frame_rate=SAMPLE_RATE / (extractor.hop_length * STRIDE),
            min_length=extractor.n_fft,
            max_length=extractor.n_samples,
        )
        self.padding = padding
        self.log_mel = LogMel(extractor)
        depth, config.encoder_layers = config.encoder_layers, n_layers
        self.model = checkpoint.load_model(WhisperEncoder, key_mapping={ENCODER_KEYS: ""}, attn_implementation="sdpa")
        self.model.embed_positions.requires_grad_(False)  # fixed sinusoids
        if n_layers < depth:
            self.model.layer_norm = nn.Identity()  # belongs behind the top layer only

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.forward`."""
        mel, silence = self.log_mel(x)
        n_mel_frames = -(-lengths // self.log_mel.hop_length)
        exporting = torch.compiler.is_exporting()
        longest = -(-x.shape[1] // self.log_mel.hop_length) if exporting else int(n_mel_frames.max())
        if self.padding == "utterance":
            shorter = not exporting and bool((n_mel_frames < longest).any())
            return self._encode(mel[..., :longest], n_mel_frames if shorter else None, every_layer)
        fill = silence.expand(-1, mel.shape[1], self.max_length // self.log_mel.hop_length - mel.shape[2])
        pieces = torch.cat([mel, fill], dim=2).split(PIECE["cpu" if x.device.type == "cpu" else "cuda"])
        n_frames = -(-longest // STRIDE)
        states = ([state[:, :n_frames] for state in self._encode(piece, None, every_layer)] for piece in pieces)
        return [torch.cat(parts) for parts in zip(*states)]

    def _encode(self, mel: torch.Tensor, n_mel_frames: torch.Tensor | None, every_layer: bool) -> list[torch.Tensor]:
        """``(B, M, F)`` -> hidden states; ``n_mel_frames``: valid frames if utterances differ in length, else None."""
        model, mask = self.model, None
        h = cut(mel.to(model.conv1.weight.dtype), n_mel_frames)
        h = cut(F.gelu(model.conv1(h)), n_mel_frames)
        h = F.gelu(model.conv2(h)).mT  # (B, T', C)
        if n_mel_frames is not None:
            mask = length_mask(-(-n_mel_frames // STRIDE), h.shape[1])[:, None, None]  # (B, 1, 1, T')
        h = h + model.embed_positions.weight[: h.shape[1]]
        h = F.dropout(h, model.dropout, training=model.conv2.training)
        states = apply_layers(model.layers, h, every_layer, mask)
        return [*states[:-1], model.layer_norm(states[-1])]

    @staticmethod
    def divides(config: PreTrainedConfig, **settings: Any) -> bool:
        """See :meth:`EncoderFamily.divides`; with "30s" upper layers need the frames of the silence, too."""
        return settings.get("padding") != "30s"

    def keep_above(self, n: int) -> None:
        """See :meth:`EncoderFamily.keep_above`."""
        model = self.model
        model.conv1 = model.conv2 = model.embed_positions = nn.Identity()
        for i in range(n):
            model.layers[i] = nn.Identity()
        self._n_below = n

    def continue_from(self, h: torch.Tensor, frames: torch.Tensor) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.continue_from`."""
        h, mask = h.to(self.model.dtype), None
        if not torch.compiler.is_exporting() and bool((frames < h.shape[1]).any()):
            mask = length_mask(frames, h.shape[1])[:, None, None]  # (B, 1, 1, T')
        states = apply_layers(self.model.layers[self._n_below :], h, True, mask)[1:]
        return [*states[:-1], self.model.layer_norm(states[-1])]

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames: one for each begun 20 ms."""
        return -(-lengths // (self.log_mel.hop_length * STRIDE))

    def parts_to_freeze(self, freeze: str | int) -> list[nn.Module]:
        """See :meth:`EncoderFamily.parts_to_freeze`."""
        layers = [] if freeze == "feature_extractor" else self.model.layers[:freeze]
        return [self.model.conv1, self.model.conv2, *layers]


def cut(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Set ``(B, C, T)`` to zero beyond ``lengths``, if given."""
    return x if lengths is None else mask_padding(x.mT, lengths).mT
