"""The model: frontend -> backbone -> one head per task.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from korser.frontend.base import Frontend, split_frozen
from korser.frontend.lengths import mask_padding

__all__ = ["SpeechEmotionModel"]

FROZEN_PREFIX = "frozen_stages."  # of the names of frozen weights in the state dict


class SpeechEmotionModel(nn.Module):
    """A frontend, a backbone and a head.

    Parameters
    ----------
    frontend : korser.Frontend
        Its leading frozen stages become :attr:`frozen_stages`, whose output can be cached, the others
        :attr:`trainable_stages`.
    backbone : torch.nn.Module
        ``forward(features (B, T, C), lengths (B,)) -> (B, E)``.
    head : torch.nn.Module
        ``forward(embedding (B, E)) -> {task: (B, K)}`` and ``loss(logits, labels, mix)``.
    """

    def __init__(self, *, frontend: Frontend, backbone: nn.Module, head: nn.Module):
        super().__init__()
        frozen, trainable = split_frozen(frontend)
        self.frozen_stages = nn.ModuleList(frozen)
        self.trainable_stages = nn.ModuleList(trainable)
        self.backbone = backbone
        self.head = head

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, *, skip_frozen: bool = False, augment: Callable | None = None
    ) -> tuple[dict[str, torch.Tensor], tuple[torch.Tensor, torch.Tensor] | None]:
        """Compute the logits of every task.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` waveform, or the ``(B, T, C)`` output of the frozen stages if ``skip_frozen``.
        lengths : torch.Tensor
            ``(B,)`` int64, in samples or frames.
        skip_frozen : bool
            Whether the frozen stages have been applied already.
        augment : callable, optional
            ``(features, lengths) -> (features, lengths, mix)``, applied to the output of the frontend.

        Returns
        -------
        logits : dict of str to torch.Tensor
            ``(B, K)`` for each task.
        mix : tuple or None
            How ``augment`` mixed the labels, see :func:`korser.nn.losses.joint_loss`.
        """
        x, lengths = self.features(x, lengths, skip_frozen=skip_frozen)
        mix = None
        if augment is not None:
            x, lengths, mix = augment(x, lengths)
        return self.head(self.backbone(x, lengths)), mix

    def features(
        self, x: torch.Tensor, lengths: torch.Tensor, *, skip_frozen: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the output of the frontend, ``(B, T', C')``, and its lengths ``(B,)``."""
        x = mask_padding(x, lengths, look_first=True)
        if not skip_frozen:
            for stage in self.frozen_stages:
                x, lengths = stage(x, lengths)
        for stage in self.trainable_stages:
            x, lengths = stage(x, lengths)
        return x, lengths

    def train(self, mode: bool = True) -> SpeechEmotionModel:
        """Set the training mode; frozen stages stay in eval mode."""
        super().train(mode)
        for stage in (*self.frozen_stages, *self.trainable_stages):
            stage.train(mode)
        return self

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return the state without frozen stages and :meth:`korser.Frontend.frozen_weights`, which have a source.

        Weights of several names are copied, since safetensors saves none that share memory.
        """
        frozen = self._frozen_names()
        state = {k: v for k, v in self.state_dict().items() if k not in frozen}
        first = {v.data_ptr(): k for k, v in reversed(state.items()) if torch.is_tensor(v)}
        return {k: v.clone() if torch.is_tensor(v) and first[v.data_ptr()] != k else v for k, v in state.items()}

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """Load the output of :meth:`trained_state`.

        Raises
        ------
        RuntimeError
            If a name or a shape does not fit.
        """
        missing, unexpected = self.load_state_dict(state, strict=False)
        missing = sorted({*missing} - self._frozen_names())
        if missing or unexpected:
            raise RuntimeError(f"the saved weights do not fit the model: missing {missing}, unexpected {unexpected}")

    def _frozen_names(self) -> set[str]:
        """Return the names of what is not saved."""
        names = {name for name in self.state_dict() if name.startswith(FROZEN_PREFIX)}
        for prefix, module in self.named_modules(remove_duplicate=False):
            if isinstance(module, Frontend):
                names.update(f"{prefix}.{name}" for name in module.frozen_weights())
        return names

    def count_parameters(self) -> tuple[int, int]:
        """Return the number of all parameters and of the trained ones."""
        parameters = list(self.parameters())
        return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
