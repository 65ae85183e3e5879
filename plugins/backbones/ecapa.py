"""ECAPA-TDNN, of SpeechBrain's layers, with embeddings that do not depend on padding.

Shape legend: ``B`` utterances, ``C`` feature channels, ``T`` frames, ``M`` channels.
"""

from __future__ import annotations

import torch
from speechbrain.lobes.models import ECAPA_TDNN as lobes
from torch import nn

from korser.frontend.lengths import length_mask, mask_padding
from korser.plugins.backbones.masked import MaskedBatchNorm
from korser.utils.errors import UserError

__all__ = ["Ecapa"]

SCALE = 8  # groups of a Res2Net block, as in the paper
KERNELS, DILATIONS = (5, 3, 3, 3, 1), (1, 2, 3, 4, 1)  # the paper's


class Ecapa(nn.Module):
    """ECAPA-TDNN: dilated Res2Net blocks with squeeze and excitation, aggregated, and attentive statistics pooling.

    Layers and names of the weights are those of :class:`speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN`. In that
    module, the embedding of an utterance depends on its batch: convolutions reflect the padding into the last frames,
    batch norms average over it, and a batch of one cannot be normalised. Here convolutions are padded with zeros, and
    every statistic is one of valid frames.

    Parameters
    ----------
    in_channels : int
        ``C``, the frontend's ``output_size``.
    width : int
        ``M``, channels of the blocks, a multiple of 8; 512 or 1024 in the paper. The aggregation has three times as
        many.
    embedding_size : int
        ``E``; 192 in the paper.
    bottleneck : int
        Channels of the attention and of squeeze and excitation; 128 in the paper.
    dropout : float
        Dropout of the embedding.

    Attributes
    ----------
    output_size : int
        ``E``.

    Raises
    ------
    UserError
        If ``width`` is not a multiple of 8.

    References
    ----------
    Desplanques, Thienpondt and Demuynck 2020, ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in
    TDNN Based Speaker Verification, arXiv 2005.07143.

    Examples
    --------
    >>> net = Ecapa(in_channels=80)
    >>> net(torch.zeros(2, 300, 80), torch.tensor([300, 120])).shape
    torch.Size([2, 96])
    """

    width_step = SCALE  # `width` is a multiple of it (korser.plugins.backbones.select)

    def __init__(
        self,
        *,
        in_channels: int,
        width: int = 64,
        embedding_size: int = 96,
        bottleneck: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width < 1 or width % SCALE:
            raise UserError(f"Ecapa: width={width}: expected a multiple of {SCALE}")
        self.net = lobes.ECAPA_TDNN(
            in_channels,
            lin_neurons=embedding_size,
            channels=[*[width] * 4, 3 * width],
            kernel_sizes=list(KERNELS),
            dilations=list(DILATIONS),
            attention_channels=bottleneck,
            se_channels=bottleneck,
            res2net_scale=SCALE,
        )
        for module in list(self.net.modules()):
            if isinstance(module, lobes.Conv1d):
                module.padding_mode = "constant"
            elif isinstance(module, lobes.TDNNBlock):
                module.norm.norm = MaskedBatchNorm(module.norm.norm.num_features)
        self.net.asp_bn.norm = MaskedBatchNorm(6 * width)
        self.dropout = nn.Dropout(dropout)
        self.width, self.output_size = width, embedding_size

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed a batch: ``(B, T, C)`` features and ``(B,)`` lengths in frames to ``(B, E)``."""
        first, *blocks = self.net.blocks
        x = _tdnn(first, mask_padding(x, lengths).mT, lengths)
        outputs = []
        for block in blocks:
            y = _res2net(block.res2net_block, _tdnn(block.tdnn1, x, lengths), lengths)
            x = x + _squeeze_excite(block.se_block, _tdnn(block.tdnn2, y, lengths), lengths)
            outputs.append(x)
        x = _tdnn(self.net.mfa, torch.cat(outputs, 1), lengths)
        pooled = _normalise(self.net.asp_bn, _pool(self.net.asp, x, lengths)[..., None], torch.ones_like(lengths))
        return self.dropout(self.net.fc(pooled)[..., 0])


def _normalise(norm: lobes.BatchNorm1d, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Normalise ``(B, M, T)`` over valid frames; the padding comes out as zero."""
    return norm.norm(x[..., None], lengths)[..., 0]


def _tdnn(block: lobes.TDNNBlock, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Convolve ``(B, M, T)``, which is zero beyond ``lengths``."""
    return _normalise(block.norm, block.activation(block.conv(x)), lengths)


def _res2net(block: lobes.Res2NetBlock, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    first, second, *others = x.chunk(block.scale, 1)
    outputs = [first, _tdnn(block.blocks[0], second, lengths)]
    for part, tdnn in zip(others, block.blocks[1:]):
        outputs.append(_tdnn(tdnn, part + outputs[-1], lengths))
    return torch.cat(outputs, 1)


def _squeeze_excite(block: lobes.SEBlock, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    mean = x.sum(2, keepdim=True) / lengths[:, None, None]  # of valid frames, since the others are zero
    return block.sigmoid(block.conv2(block.relu(block.conv1(mean)))) * x


def _pool(block: lobes.AttentiveStatisticsPooling, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Pool ``(B, M, T)`` to ``(B, 2 M)``: paper, eqs. 1 to 4, with the context of the whole utterance."""
    mask = length_mask(lengths, x.shape[2])[:, None]
    context = [statistic[..., None].expand_as(x) for statistic in _statistics(x, mask / lengths[:, None, None])]
    score = block.conv(block.tanh(_tdnn(block.tdnn, torch.cat([x, *context], 1), lengths)))
    score = score.to(torch.promote_types(score.dtype, torch.float32))
    return torch.cat(_statistics(x, score.masked_fill(~mask, float("-inf")).softmax(2)), 1)


def _statistics(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weighted mean and standard deviation over time, ``(B, M)`` each, in float32 or more."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = (weight * x).sum(2)
    return mean, ((weight * (x - mean[..., None]).square()).sum(2) + 1e-5).sqrt()
