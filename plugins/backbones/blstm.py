"""A bidirectional LSTM with attentive statistics pooling.

Shape legend: ``B`` utterances, ``C`` feature channels, ``T`` frames, ``W`` units of each direction.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from korser.plugins.backbones.masked import AttentivePool, InputNorm

__all__ = ["BLSTM"]


class BLSTM(nn.Module):
    """Bidirectional LSTM over the valid frames, then attentive statistics pooling.

    Sequences are packed, so that the backward direction begins at the last valid frame of each utterance.

    Parameters
    ----------
    in_channels : int
        ``C``, the frontend's ``output_size``.
    width : int
        ``W``, units of each direction.
    n_layers : int
        Layers of the LSTM.
    input_norm : {"layer", "batch", "none"}
        Normalisation of the input: every frame over its channels, or every channel over the valid frames of the batch.
    dropout : float
        Dropout of the embedding.

    Attributes
    ----------
    output_size : int
        ``E``: four times ``width`` (mean and standard deviation of both directions).

    References
    ----------
    Mirsamadi, Barsoum and Zhang 2017, Automatic speech emotion recognition using recurrent neural networks with local
    attention, ICASSP; the pooling is that of :class:`korser.plugins.backbones.masked.AttentivePool`.

    Examples
    --------
    >>> net = BLSTM(in_channels=64)
    >>> net(torch.zeros(2, 300, 64), torch.tensor([300, 120])).shape
    torch.Size([2, 256])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int = 64,
        n_layers: int = 1,
        input_norm: Literal["layer", "batch", "none"] = "layer",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.input_norm = InputNorm(in_channels, input_norm)
        self.lstm = nn.LSTM(in_channels, width, n_layers, batch_first=True, bidirectional=True)
        self.pool = AttentivePool(2 * width)
        self.dropout = nn.Dropout(dropout)
        self.width = width
        self.output_size = 4 * width

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed a batch: ``(B, T, C)`` features and ``(B,)`` lengths in frames to ``(B, E)``."""
        packed = pack_padded_sequence(
            self.input_norm(x, lengths), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.dropout(self.pool(y, lengths))
