"""Audio Spectrogram Transformer (AST).

Gong et al., "AST: Audio Spectrogram Transformer", Interspeech 2021, arXiv 2104.01778. The modules are those of
transformers.

Shape legend: ``B`` utterances, ``T`` samples, ``M`` mel bands, ``F`` frames of the filterbank; patches of ``P`` rows
(frequency) and ``T'`` columns (time), ``C`` channels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchaudio.compliance.kaldi import get_mel_banks
from transformers import ASTFeatureExtractor

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.lengths import length_mask
from korser.plugins.frontends.encoder.checkpoint import Checkpoint
from korser.plugins.frontends.encoder.families.base import EncoderFamily, apply_layers
from korser.plugins.frontends.encoder.families.kaldi import KaldiFilterbank
from korser.utils.errors import UserError

__all__ = ["SpectrogramTransformer"]

PADDINGS = ("full", "utterance")
N_FFT = 512
N_TOKENS = 2  # of the whole input, before the patches


class SpectrogramTransformer(EncoderFamily):
    """A transformer over patches of a filterbank, averaged over frequency; see :class:`EncoderFamily`.

    The hidden states of the patches of one time step, which differ in frequency, are averaged, so that frames follow
    time. Only patches that lie within the utterance give frames. ``implementation`` has no effect.

    Parameters
    ----------
    padding : str
        "full": the spectrogram is padded to the length of the checkpoint's training (10.24 s for AudioSet), as its
        feature extractor does, and patches attend to all; the output is cut to the utterance. "utterance": the
        spectrogram and the positional embeddings are cut to the utterance, and patches attend to those of the
        utterance, as the paper adapts the model to shorter inputs before fine-tuning.
    """

    settings = ("padding",)

    def __init__(self, checkpoint: Checkpoint, *, n_layers: int, implementation: str, padding: str = "full") -> None:
        if padding not in PADDINGS:
            raise UserError(f"padding={padding!r}: expected {' or '.join(map(repr, PADDINGS))}")
        config = checkpoint.config
        extractor = checkpoint.read_preprocessor(ASTFeatureExtractor)
        for key in ("num_mel_bins", "max_length"):
            checkpoint.require_fitting(key, getattr(extractor, key), key)
        bands, _ = get_mel_banks(extractor.num_mel_bins, N_FFT, SAMPLE_RATE, 20.0, 0.0, 100.0, -500.0, 1.0)
        window = torch.hann_window(400, periodic=False)
        bank = KaldiFilterbank(F.pad(bands, (0, 1)).T, window, scale=1.0, dtype=torch.float32)
        super().__init__(
            hidden_size=config.hidden_size,
            frame_rate=SAMPLE_RATE / (bank.hop * config.time_stride),
            min_length=bank.size + bank.hop * (config.patch_size - 1),
            max_length=bank.hop * config.max_length,
        )
        self.padding = padding
        self.filterbank = bank
        self.mean, self.scale = (extractor.mean, 2 * extractor.std) if extractor.do_normalize else (0.0, 1.0)
        depth, config.num_hidden_layers = config.num_hidden_layers, n_layers
        self.model = checkpoint.load_model(attn_implementation="sdpa")
        if n_layers < depth:
            self.model.layernorm = nn.Identity()  # belongs behind the top layer only
        if n_layers == 0:  # no patch sees them
            self.model.embeddings.cls_token.requires_grad_(False)
            self.model.embeddings.distillation_token.requires_grad_(False)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.forward`."""
        y = self.extract(x, lengths)
        frames = self.output_lengths(lengths)
        h, n_columns = self._embed(y.to(self.model.dtype))
        mask = None
        if self.padding == "utterance" and bool((frames < n_columns).any()):
            patches = length_mask(frames, n_columns).repeat(1, (h.shape[1] - N_TOKENS) // n_columns)
            mask = F.pad(patches, (N_TOKENS, 0), value=True)[:, None, None]  # (B, 1, 1, 2 + P * T')
        states = apply_layers(self.model.layers, h, every_layer, mask)
        states[-1] = self.model.layernorm(states[-1])
        longest = int(self.output_lengths(torch.tensor(x.shape[1])))
        return [state[:, N_TOKENS:].unflatten(1, (-1, n_columns)).mean(1)[:, :longest] for state in states]

    def extract(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Compute the scaled filterbank ``(B, F, M)`` of waveforms ``(B, T)`` in float32.

        With ``padding="full"`` it is that of the checkpoint's feature extractor, with an energy of one beyond an
        utterance.
        """
        y = self.filterbank(x[:, : self.max_length])
        if self.padding == "full":
            y = F.pad(y, (0, 0, 0, self.model.config.max_length - y.shape[1]))
            y = y.masked_fill(~length_mask(self.filterbank.output_lengths(lengths), y.shape[1])[..., None], 0.0)
        return (y - self.mean) / self.scale

    def _embed(self, y: torch.Tensor) -> tuple[torch.Tensor, int]:
        """``(B, F, M)`` -> the embeddings ``(B, 2 + P * T', C)`` and ``T'``."""
        embeddings = self.model.embeddings
        patches = embeddings.patch_embeddings.projection(y.mT[:, None])  # (B, C, P, T')
        positions = embeddings.position_embeddings[0]
        grid = positions[N_TOKENS:].unflatten(0, (patches.shape[2], -1))  # (P, all T', C)
        h = patches.permute(0, 2, 3, 1) + grid[:, : patches.shape[3]]
        first = torch.cat([embeddings.cls_token, embeddings.distillation_token], dim=1) + positions[:N_TOKENS]
        return embeddings.dropout(torch.cat([first.expand(len(h), -1, -1), h.flatten(1, 2)], dim=1)), patches.shape[3]

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of columns of patches that lie within the utterance."""
        config = self.model.config
        return (self.filterbank.output_lengths(lengths) - config.patch_size) // config.time_stride + 1

    def parts_to_freeze(self, freeze: str | int) -> list[nn.Module]:
        """See :meth:`EncoderFamily.parts_to_freeze`."""
        embeddings = self.model.embeddings
        if freeze == "feature_extractor":
            return [embeddings.patch_embeddings]
        return [embeddings, *self.model.layers[:freeze]]
