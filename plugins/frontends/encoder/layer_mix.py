"""Learnt weighted sum of the layers of an encoder.

Shape legend: ``B`` utterances, ``T`` time, ``C`` channels, ``L`` layers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from korser.frontend.base import Frontend
from korser.frontend.lengths import mask_padding
from korser.utils.errors import UserError

__all__ = ["LayerMix"]


class LayerMix(Frontend):
    """Learnt softmax-weighted sum of an encoder's layers, behind ``PretrainedEncoder(layer="all")``.

    ``y = sum_l softmax(w)_l h_l`` with ``w = 0`` at the start: ELMo (Peters et al. 2018, arXiv 1802.05365, eq. 1,
    without its scale) as in SUPERB (Yang et al. 2021, arXiv 2105.01051).

    Parameters
    ----------
    in_channels : int
        Channels of all layers together, ``L * C``: the encoder's ``output_size``.
    n_layers : int
        ``L``: the encoder's ``n_layers``.
    input_rate : float
        Frames per second: the encoder's ``frame_rate``.
    normalize : bool
        Apply a layer norm without parameters to each layer first, as S3PRL's ``Featurizer`` does.
    lr : float, optional
        Learning rate of the weights, if it differs from that of the other parameters.

    Raises
    ------
    UserError
        If the channels do not divide into ``n_layers`` equal parts.

    Examples
    --------
    >>> mix = LayerMix(in_channels=8 * 192, n_layers=8, input_rate=50)
    >>> features, lengths = mix(torch.randn(2, 49, 8 * 192), torch.tensor([49, 24]))
    >>> features.shape
    torch.Size([2, 49, 192])
    """

    def __init__(
        self, *, in_channels: int, n_layers: int, input_rate: float, normalize: bool = False, lr: float | None = None
    ) -> None:
        if in_channels % n_layers:
            raise UserError(
                f"LayerMix: in_channels={in_channels}: expected a multiple of n_layers={n_layers}, such as output_size "
                'and n_layers of a PretrainedEncoder with layer="all"'
            )
        super().__init__(
            output_size=in_channels // n_layers,
            frame_rate=input_rate,
            in_channels=in_channels,
            input_rate=input_rate,
            lr=lr,
        )
        self.normalize = normalize
        self.weights = nn.Parameter(torch.zeros(n_layers))

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return the weight of each layer."""
        return {"layer weight": ("", self.weights.softmax(0))}

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix the layers; see :meth:`korser.frontend.base.Frontend.forward`.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T, L * C)``.
        lengths : torch.Tensor
            ``(B,)`` int64.

        Returns
        -------
        features : torch.Tensor
            ``(B, T, C)``, zero beyond the returned lengths.
        lengths : torch.Tensor
            As given.
        """
        x = mask_padding(x, lengths, look_first=True)
        layers = x.unflatten(-1, (len(self.weights), self.output_size))  # (B, T, L, C)
        if self.normalize:
            layers = F.layer_norm(layers, (self.output_size,))
        frames = layers.flatten(0, 1)  # (B T, L, C), not copied, as an einsum over l would
        mixed = torch.bmm(self.weights.softmax(0).to(x.dtype).expand(len(frames), 1, -1), frames)
        return mixed.view(*x.shape[:2], -1), lengths
