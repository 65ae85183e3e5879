"""Wrap modules of other libraries as frontends.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

from __future__ import annotations

from bisect import bisect_left

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from korser.frontend.base import Frontend
from korser.frontend.validation import ContractError

__all__ = ["OneAtATime", "register_tensors"]


class OneAtATime(Frontend):
    """Base class of frontends that compute one utterance at a time.

    For modules whose output for an utterance depends on the padding or on the other utterances of a batch, and for code
    that takes a single signal, such as NumPy or openSMILE. It is slower than a batch, which matters little for a frozen
    frontend, whose features are cached. A subclass passes its sizes to ``super().__init__`` as for
    :class:`korser.Frontend` and defines :meth:`one` and, unless ``frame_rate`` is None, ``output_lengths``.

    Examples
    --------
    >>> class Energy(OneAtATime):
    ...     def __init__(self):
    ...         super().__init__(output_size=1, frame_rate=100, min_length=160)
    ...     def output_lengths(self, lengths):
    ...         return lengths // 160
    ...     def one(self, x):
    ...         frames = x[: len(x) // 160 * 160].unflatten(0, (-1, 160))
    ...         return (frames / x.abs().amax().clamp_min(1e-6)).square().mean(-1, keepdim=True)
    >>> features, lengths = Energy()(torch.randn(2, 1600), torch.tensor([1600, 800]))
    >>> features.shape, lengths
    (torch.Size([2, 10, 1]), tensor([10,  5]))
    """

    def one(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the features ``(T', C')`` of one utterance, ``(T,)`` or ``(T, C)`` without padding.

        If ``frame_rate`` is None they are ``(C',)``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define one(x)")

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return ones if ``frame_rate`` is None; otherwise a subclass has to define it."""
        if self.frame_rate is None:
            return torch.ones_like(lengths)
        raise ContractError(
            f"{type(self).__name__} does not define output_lengths(self, lengths), the number of frames of each input; "
            f"as measured it is: return {self._measured_lengths()}"
        )

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute each utterance by :meth:`one`; see :meth:`korser.Frontend.forward`."""
        rows = [self.one(row[:n]) for row, n in zip(x, lengths.tolist())]
        if self.frame_rate is None:
            rows = [row.view(1, -1) for row in rows]
        frames = torch.tensor([len(row) for row in rows], device=lengths.device)
        return pad_sequence(rows, batch_first=True).to(x), frames

    @torch.no_grad()
    def _measured_lengths(self) -> str:
        """Return an expression for the number of frames, from the shortest input with one more than half a second."""

        def frames(n: int) -> int:
            return len(self.one(noise[:n]))

        shape = () if self.in_channels is None else (self.in_channels,)
        n = max(self.min_length, round(self.input_rate / 2))
        hop = round(self.input_rate / self.frame_rate)
        noise = 0.1 * torch.randn(n + 2 * hop, *shape, generator=torch.Generator().manual_seed(0))
        before = frames(n)
        edge = n + bisect_left(range(n, n + 2 * hop + 1), before + 1, key=frames)  # the first with another frame
        offset = edge - (before + 1) * hop
        return f"(lengths {'-' if offset > 0 else '+'} {abs(offset)}) // {hop}".replace("(lengths + 0)", "lengths")


def register_tensors(module: nn.Module) -> None:
    """Turn the plain tensor attributes of a module into buffers, so that they follow ``.to()``.

    Libraries often keep constants, such as windows, as plain attributes, which stay behind on the CPU and in float32
    when the module moves. The buffers are not part of the state dict, in which such constants were not either.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place, with all modules in it. Tensors in lists and dicts are left as they are.

    Examples
    --------
    >>> module = nn.Module()
    >>> module.window = torch.hann_window(4)
    >>> register_tensors(module)
    >>> [name for name, _ in module.named_buffers()]
    ['window']
    """
    for part in module.modules():
        plain = {name: value for name, value in vars(part).items() if isinstance(value, torch.Tensor)}
        for name, value in plain.items():
            delattr(part, name)
            part.register_buffer(name, value, persistent=False)
