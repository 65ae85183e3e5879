"""The model: frontend -> backbone -> one head per task.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.frontend.lengths import mask_padding
from korser.frontend.tree import separate, split_frozen, together
from korser.nn.backbone import count_trained

__all__ = ["SpeechEmotionModel"]


class SpeechEmotionModel(nn.Module):
    """A frontend, a backbone and a head.

    Parameters
    ----------
    frontend : korser.Frontend
        What of it is frozen and sees only audio, or the output of such parts, becomes :attr:`frozen_stages`, whose
        output can be cached; see :func:`korser.frontend.tree.split_frozen`.
    backbone : torch.nn.Module
        ``forward(features (B, T, C), lengths (B,)) -> (B, E)``.
    head : torch.nn.Module
        ``forward(embedding (B, E)) -> {task: (B, K)}`` and ``loss(logits, labels, mix)``.

    Attributes
    ----------
    frozen_stages, trainable_stages : torch.nn.ModuleList
    inputs : list of tuple of int
        For each input of the part that is trained, the indices of the frozen stages that compute it from the audio.
        There are several only with a :class:`korser.Parallel`.
    remainder : korser.frontend.tree.Remainder
        Computes the output of the frontend from the inputs.
    max_length : int or None
        The longest accepted waveform, in samples.
    """

    def __init__(self, *, frontend: Frontend, backbone: nn.Module, head: nn.Module):
        super().__init__()
        split = split_frozen(frontend)
        self.frozen_stages = nn.ModuleList(split.frozen)
        self.trainable_stages = nn.ModuleList(split.trainable)
        self.inputs = split.inputs
        self.remainder = split.remainder
        self.max_length = frontend.max_length
        self.backbone = backbone
        self.head = head

    @property
    def accepts_half(self) -> bool:
        """Whether the only trainable stage that takes cached features converts them, see :class:`korser.Frontend`."""
        return len(self.inputs) == 1 and len(self.trainable_stages) > 0 and self.trainable_stages[0].accepts_half

    def forward(
        self, x: Any, lengths: Any, *, skip_frozen: bool = False, augment: Callable | None = None
    ) -> tuple[dict[str, torch.Tensor], tuple[torch.Tensor, torch.Tensor] | None]:
        """Compute the logits of every task.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` waveform, or the ``(B, T, C)`` output of :meth:`frozen_outputs` if ``skip_frozen``; a tuple if
            there are several inputs.
        lengths : torch.Tensor
            ``(B,)`` int64, in samples or frames; a tuple if there are several inputs.
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

    def features(self, x: Any, lengths: Any, *, skip_frozen: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the output of the frontend, ``(B, T', C')``, and its lengths ``(B,)``."""
        if not skip_frozen:
            x, lengths = self.frozen_outputs(mask_padding(x, lengths, look_first=True), lengths)
            return self.remainder(separate(x, lengths))
        return self.remainder([(mask_padding(y, n, look_first=True), n) for y, n in separate(x, lengths)])

    def frozen_outputs(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[Any, Any]:
        """Compute the inputs of the part that is trained from waveforms ``(B, T)``, and their lengths ``(B,)`` int64.

        An input is ``(B, T', C')``, or ``(B, T)`` if it is the audio itself; several inputs and their lengths are
        tuples.
        """
        known = {(): (x, lengths)}  # by the frozen stages that are applied; inputs may begin with the same ones
        for row in self.inputs:
            for n in range(1, len(row) + 1):
                if row[:n] not in known:
                    known[row[:n]] = self.frozen_stages[row[n - 1]](*known[row[: n - 1]])
        return together([known[row] for row in self.inputs])

    def train(self, mode: bool = True) -> SpeechEmotionModel:
        """Set the training mode; frozen stages stay in eval mode."""
        super().train(mode)
        for stage in (*self.frozen_stages, *self.trainable_stages):
            stage.train(mode)
        return self

    def trained_state(self, *, frozen: bool = False) -> dict[str, torch.Tensor]:
        """Return the state without frozen stages and :meth:`korser.Frontend.frozen_weights`, which have a source.

        Weights of several names are copied, since safetensors saves none that share memory. With ``frozen``, the frozen
        ones are included, each once.
        """
        frozen_names = self._frozen_names()
        state = {k: v for k, v in self.state_dict().items() if frozen or k not in frozen_names}
        first = {v.data_ptr(): k for k, v in reversed(state.items()) if torch.is_tensor(v)}
        shared = {k for k, v in state.items() if torch.is_tensor(v) and v.numel() and first[v.data_ptr()] != k}
        return {k: v.clone() if k in shared else v for k, v in state.items() if k not in shared & frozen_names}

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """Load the output of :meth:`trained_state`, with or without frozen weights.

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
        """Return the names of what is not saved; a stage within a branch has several names."""
        frozen = {stage for part in self.frozen_stages for stage in part.modules() if isinstance(stage, Frontend)}
        names = set()
        for prefix, module in self.named_modules(remove_duplicate=False):
            if isinstance(module, Frontend):
                names.update(
                    f"{prefix}.{name}"
                    for name in (module.state_dict() if module in frozen else module.frozen_weights())
                )
        return names

    def count_parameters(self) -> tuple[int, int]:
        """Return the number of all parameters and of the trained ones."""
        return sum(p.numel() for p in self.parameters()), count_trained(self)
