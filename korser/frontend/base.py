"""The contract of a frontend.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels. Lengths are absolute int64 counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["SAMPLE_RATE", "Chain", "Frontend"]

SAMPLE_RATE = 16_000  # Hz, of all waveforms


class Frontend(nn.Module):
    """Base class of frontends: waveforms or features in, features out.

    A subclass passes its sizes to ``super().__init__`` and defines ``forward`` and, if the number of frames changes,
    ``output_lengths``. The features of an utterance must not depend on the other utterances of the batch.
    ``korser check`` verifies the contract (:mod:`korser.testing`).

    Parameters
    ----------
    output_size : int
        Channels of the output.
    frame_rate : float or None
        Output frames per second; None if every utterance gives a single frame, as functionals of openSMILE do.
    in_channels : int, optional
        Channels of the input features ``(B, T, C)``; None for waveforms ``(B, T)`` at 16 kHz in [-1, 1].
    input_rate : float
        Input samples or frames per second.
    min_length : int
        The shortest accepted input, in samples or frames.
    max_length : int, optional
        The longest accepted input, in samples or frames, such as the 30 s of Whisper; None if there is no limit.
    frequency_axis : bool
        Whether the output channels are bands ordered by frequency, as those of a filterbank are, so that a backbone may
        convolve over them. False for hidden states of an encoder.
    lr : float, optional
        Learning rate of this frontend, if it differs from that of the other parameters.

    Attributes
    ----------
    source : str or None
        Checkpoint or folder of its weights, named in ``run.json``, tables and errors. Set it if there is one;
        parameters that are not trained are then taken from it again instead of being saved.
    pretrained : bool or None
        Set False for an encoder with random weights: tables say so. None: there is nothing to pretrain.
    do_normalize : bool or None
        Whether its checkpoint expects waveforms of zero mean and unit variance; recorded with its configuration.
    accepts_half : bool
        Whether ``forward`` takes cached features as they are stored, in float16 or bfloat16, on a CPU. Otherwise they
        are converted to float32 before.
    """

    source: str | None = None
    pretrained: bool | None = None
    do_normalize: bool | None = None
    accepts_half: bool = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Frontend:
        """Keep the arguments, which are part of the key of cached features (:mod:`korser.data.fingerprint`)."""
        frontend = super().__new__(cls)
        object.__setattr__(frontend, "config", {"args": args, **kwargs})
        return frontend

    def __init__(
        self,
        *,
        output_size: int,
        frame_rate: float | None,
        in_channels: int | None = None,
        input_rate: float = SAMPLE_RATE,
        min_length: int = 1,
        max_length: int | None = None,
        frequency_axis: bool = False,
        lr: float | None = None,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.frame_rate = frame_rate
        self.in_channels = in_channels
        self.input_rate = input_rate
        self.min_length = min_length
        self.max_length = max_length
        self.frequency_axis = frequency_axis
        self.lr = lr

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` waveforms or ``(B, T, C)`` features; values beyond ``lengths`` are arbitrary.
        lengths : torch.Tensor
            ``(B,)`` int64.

        Returns
        -------
        features : torch.Tensor
            ``(B, T', C')``, zero beyond the returned lengths.
        lengths : torch.Tensor
            ``(B,)`` int64, equal to ``output_lengths(lengths)``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x, lengths)")

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of output frames for each number of input samples or frames, ``(B,)`` int64."""
        return lengths

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return parameters in physical units, which are saved before and after training and drawn in figures.

        Returns
        -------
        dict of str to (str, torch.Tensor)
            ``{quantity: (unit, (N,) values)}``, such as ``{"centre frequency": ("Hz", ...)}``, with the same names and
            sizes before and after training.
        """
        return {}

    def lr_scales(self) -> dict[str, float]:
        """Return factors of the learning rate, such as those of a layer-wise decay.

        Returns
        -------
        dict of str to float
            By names of trained parameters, as ``named_parameters()`` gives them; others have the factor 1.
        """
        return {}

    def frozen_weights(self) -> dict[str, torch.Tensor]:
        """Return the parameters that come from :attr:`source` and are not trained, by name.

        They are not saved with a model: ``run.json`` has the source and a digest of them. A frontend without a source
        has none.
        """
        if self.source is None:
            return {}
        return {name: p for name, p in self.named_parameters() if not p.requires_grad}

    @property
    def frozen(self) -> bool:
        """Whether no parameter is trained, so that the output is a pure function of the input."""
        return not any(p.requires_grad for p in self.parameters())

    def train(self, mode: bool = True) -> Frontend:
        """Set the training mode; a frozen frontend stays in eval mode."""
        return super().train(mode and not self.frozen)


class Chain(Frontend):
    """Frontends in a row; each takes the output of the one before it.

    Parameters
    ----------
    *stages : Frontend
        At least one.

    Raises
    ------
    ValueError
        If the output size or frame rate of a stage does not match the input of the next one.
    """

    def __init__(self, *stages: Frontend) -> None:
        for before, after in zip(stages, stages[1:]):
            if before.frame_rate is None:
                raise ValueError(
                    f"{type(before).__name__} gives one frame per utterance: it can only be the last stage"
                )
            if after.in_channels != before.output_size or abs(after.input_rate - before.frame_rate) > 1e-6:
                raise ValueError(
                    f"{type(before).__name__} gives {before.output_size} channels at {before.frame_rate:g} Hz, but "
                    f"{type(after).__name__} takes {after.in_channels} at {after.input_rate:g} Hz: set in_channels and "
                    "input_rate (Leaf: sample_rate) to those of the stage before"
                )
        super().__init__(
            output_size=stages[-1].output_size,
            frame_rate=stages[-1].frame_rate,
            in_channels=stages[0].in_channels,
            input_rate=stages[0].input_rate,
            frequency_axis=stages[-1].frequency_axis,
        )
        self.stages = nn.ModuleList(stages)
        self.min_length = self._first_length(self._long_enough)
        if any(stage.max_length is not None for stage in stages):
            self.max_length = self._first_length(self._too_long) - 1

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`Frontend.forward`."""
        for stage in self.stages:
            x, lengths = stage(x, lengths)
        return x, lengths

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """See :meth:`Frontend.output_lengths`."""
        for stage in self.stages:
            lengths = stage.output_lengths(lengths)
        return lengths

    def _long_enough(self, n: int) -> bool:
        """Whether every stage gets at least its own ``min_length`` of an input of length ``n``."""
        return all(before >= stage.min_length for stage, before in self._lengths_before_stages(n))

    def _too_long(self, n: int) -> bool:
        """Whether a stage gets more than its own ``max_length`` of an input of length ``n``."""
        return any(
            stage.max_length is not None and before > stage.max_length
            for stage, before in self._lengths_before_stages(n)
        )

    def _lengths_before_stages(self, n: int) -> Iterator[tuple[Frontend, int]]:
        """Yield each stage and the length of its input, for an input of length ``n`` of the chain."""
        lengths = torch.tensor([n])
        for stage in self.stages:
            yield stage, int(lengths)
            lengths = stage.output_lengths(lengths)

    def _first_length(self, accepts: Callable[[int], bool]) -> int:
        """Return the smallest length for which a condition holds that holds for all longer ones, too."""
        low, high = 0, 1
        while not accepts(high):
            if high > 2**40:
                names = " -> ".join(type(stage).__name__ for stage in self.stages)
                raise ValueError(
                    f"no input is long enough for {names}: check output_lengths, min_length and max_length"
                )
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if accepts(middle) else (middle, high)
        return high
