"""wav2vec 2.0 with its pretraining objective.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", NeurIPS 2020, arXiv
2006.11477.

Shape legend: ``B`` utterances, ``S`` samples, ``T`` frames, ``M`` masked frames, ``K`` negatives, ``G`` codebooks,
``V`` their entries, ``D`` dimensions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

from korser.pretraining.masking import masked_frames
from korser.pretraining.reconstruction import Reconstruction

__all__ = ["PretrainingModel", "PretrainingOutput", "perplexity", "take"]


class PretrainingOutput(NamedTuple):
    """Losses and counts of a batch; sums are over masked frames, so that they add up over batches."""

    contrastive: torch.Tensor  # sum of the contrastive losses, with gradient
    diversity: torch.Tensor  # the diversity loss, with gradient
    frames: torch.Tensor  # number of masked frames
    correct: torch.Tensor  # number of frames distinguished from all their negatives
    usage: torch.Tensor  # (G, V) sums of the probabilities of the codebooks' entries
    reconstruction: torch.Tensor  # the auxiliary loss, with gradient; 0 if there is none

    def perplexity(self) -> torch.Tensor:
        """Return the number of entries in use, from ``G`` to ``G * V``."""
        return perplexity(self.usage / self.frames)


class ChannelsLastEncoder(Wav2Vec2FeatureEncoder):
    """The convolutions with layer norms, computed with the channels last in memory.

    transformers transposes before and after each layer norm, which causes copies. Two-dimensional convolutions in
    torch's channels-last layout compute the same numbers without a copy.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, S)`` to ``(B, C, T)``."""
        y = x[:, None, None].contiguous(memory_format=torch.channels_last)  # (B, C, 1, T) from here on
        for layer in self.conv_layers:
            weight = layer.conv.weight[:, :, None].contiguous(memory_format=torch.channels_last)
            y = F.conv2d(y, weight, layer.conv.bias, stride=(1, *layer.conv.stride))
            y = layer.activation(layer.layer_norm(y.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return y[:, :, 0]


class PretrainingModel(nn.Module):
    """The objective of wav2vec 2.0 on transformers' ``Wav2Vec2ForPreTraining``.

    The losses are those of its ``forward`` for the same masks and negatives, computed faster: only masked frames are
    quantised, by a matrix product, and compared with each other once, since the negatives are among them. transformers
    quantises all frames and compares each with copies of its ``K`` negatives.

    Parameters
    ----------
    reconstruction : Reconstruction, optional
        The auxiliary task.
    """

    def __init__(self, model: Wav2Vec2ForPreTraining, reconstruction: Reconstruction | None = None):
        super().__init__()
        self.model = model
        self.reconstruction = reconstruction
        if model.config.feat_extract_norm == "layer":
            model.wav2vec2.feature_extractor.__class__ = ChannelsLastEncoder  # keeps parameters and their names

    def forward(self, x: torch.Tensor, mask: torch.Tensor, negatives: torch.Tensor) -> PretrainingOutput:
        """Compute the losses of equations 3 and 4.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, S)`` output of the checkpoint's preprocessor. All utterances have the same length.
        mask : torch.Tensor
            ``(B, T)`` bool, at least two frames of each utterance.
        negatives : torch.Tensor
            ``(B, M, K)`` int64, from :func:`korser.pretraining.masking.draw_negatives`.
        """
        model, config = self.model, self.model.config
        index, valid = masked_frames(mask)
        out = model.wav2vec2(x, mask_time_indices=mask)
        context = model.project_hid(take(out.last_hidden_state, index))  # (B, M, D)
        latent = model.dropout_features(take(out.extract_features, index))
        quantized, codes, usage = self.quantize(latent, valid)
        with torch.autocast(x.device.type, enabled=False):  # similarities are divided by 0.1: bf16 is too coarse
            context = F.normalize(context.float(), dim=-1)
            target = F.normalize(quantized.float(), dim=-1)
            similarity = context @ target.transpose(1, 2)  # (B, M, M) cosine of each context with each target
            positive = similarity.diagonal(dim1=1, dim2=2)[..., None]
            negative = similarity.gather(2, negatives)
            same = (codes[:, :, None] == codes[:, None]).all(-1).gather(2, negatives)  # a negative equal to the target
            negative = negative.masked_fill(same, -math.inf)
            logits = torch.cat([positive, negative], dim=-1) / config.contrastive_logits_temperature
            losses = -logits.log_softmax(-1)[..., 0]  # equation 3
            contrastive = losses.masked_fill(~valid, 0).sum()
            frames = valid.sum()
            n_entries = usage.numel()
            diversity = 1 - perplexity(usage / frames) / n_entries  # equation 4, as transformers and fairseq write it
        correct = (positive > negative).all(-1) & ~same.all(-1)  # none if the codebook has collapsed
        auxiliary = contrastive.new_zeros(())
        if self.reconstruction is not None:
            auxiliary = self.reconstruction(x, out.extract_features, out.last_hidden_state, mask)
        return PretrainingOutput(contrastive, diversity, frames, (correct & valid).sum(), usage, auxiliary)

    def quantize(self, latent: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantise ``(B, M, C)`` by straight-through Gumbel softmax (section 2; Jang et al. 2017).

        The frames that count for the usage are ``valid``, ``(B, M)`` bool.

        Returns
        -------
        quantized : torch.Tensor
            ``(B, M, D)``
        codes : torch.Tensor
            ``(B, M, G)`` the entries chosen.
        usage : torch.Tensor
            ``(G, V)``: in training sums of probabilities, else counts.
        """
        quantizer = self.model.quantizer
        scores = quantizer.weight_proj(latent).float().unflatten(-1, (quantizer.num_groups, quantizer.num_vars))
        if self.training:
            chosen = F.gumbel_softmax(scores, tau=quantizer.temperature, hard=True)  # (B, M, G, V)
            soft = scores.softmax(-1)
        else:
            chosen = soft = F.one_hot(scores.argmax(-1), quantizer.num_vars).to(scores.dtype)
        usage = soft.masked_fill(~valid[..., None, None], 0).sum((0, 1))
        entries = quantizer.codevectors.view(quantizer.num_groups, quantizer.num_vars, -1)
        with torch.autocast(latent.device.type, enabled=False):
            quantized = torch.einsum("bmgv,gvd->bmgd", chosen, entries.float()).flatten(2)
        return self.model.project_q(quantized.to(self.model.project_q.weight.dtype)), chosen.argmax(-1), usage

    def frames(self, samples: int) -> int:
        """Return the number of frames ``T`` of ``S`` samples."""
        return int(self.model._get_feat_extract_output_lengths(samples))

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return the state, see :class:`korser.training.checkpoints.TrainedState`."""
        return self.state_dict()

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """Load the state, see :class:`korser.training.checkpoints.TrainedState`."""
        self.load_state_dict(state)


def take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the frames ``index`` ``(B, M)`` of ``(B, T, C)``."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def perplexity(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the number of entries in use: the perplexity of ``(G, V)`` mean probabilities, summed over codebooks."""
    logarithms = probabilities.clamp(min=1e-12).log()  # at 0 the gradient would be NaN
    return torch.exp(-(probabilities * logarithms).sum(-1)).sum()
