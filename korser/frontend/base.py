"""The contract of a frontend: a stage, or stages in a row.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels. Lengths are absolute int64 counts.
"""

import torch
from torch import nn

SAMPLE_RATE = 16_000  # Hz; every waveform inside korser


class Frontend(nn.Module):
    """A part of a frontend: waveform or features in, features out.

    A subclass passes what it knows about itself to ``super().__init__`` and writes ``forward`` and, if the number of
    frames changes, ``output_lengths``. What a valid stage obeys is verified by :func:`korser.testing.check_frontend`,
    and roughly before every training by :func:`korser.testing.dry_run.dry_run`.

    Parameters
    ----------
    output_size : int
        Channels of the output, ``C'``.
    frame_rate : float
        Output frames per second.
    in_channels : int, optional
        Channels of the input features ``(B, T, C)``; None means waveform ``(B, T)`` at 16 kHz in [-1, 1].
    input_rate : float
        Input frames (samples) per second.
    min_length : int
        The shortest input that the stage admits, in samples or frames.
    lr : float, optional
        Learning rate of this stage's parameters, where it differs from that of the rest.
    """

    def __new__(cls, *args, **kwargs):
        """Remember the arguments: they are part of what frozen features depend on (:mod:`korser.data.fingerprint`)."""
        stage = super().__new__(cls)
        object.__setattr__(stage, "config", {"args": args, **kwargs})
        return stage

    def __init__(self, *, output_size, frame_rate, in_channels=None, input_rate=SAMPLE_RATE, min_length=1, lr=None):
        super().__init__()
        self.output_size = output_size
        self.frame_rate = frame_rate
        self.in_channels = in_channels
        self.input_rate = input_rate
        self.min_length = min_length
        self.lr = lr

    def forward(self, x, lengths):
        """Compute features.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` waveform or ``(B, T, C)`` features. What lies past ``lengths`` is arbitrary.
        lengths : torch.Tensor
            ``(B,)`` int64.

        Returns
        -------
        features : torch.Tensor
            ``(B, T', C')``, zero past their own lengths.
        lengths : torch.Tensor
            ``(B,)`` int64, ``output_lengths(lengths)``.
        """
        raise TypeError(f"{type(self).__name__} does not define forward(x, lengths)")

    def output_lengths(self, lengths):
        """Frames that come out for ``lengths`` samples or frames that go in; ``(B,)`` int64 both."""
        return lengths

    def interpretable_parameters(self):
        """What a reader may want to see of the parameters, in units that mean something; for figures.

        Returns
        -------
        dict of str to (str, torch.Tensor)
            ``{quantity: (unit, (N,) values)}``, such as ``{"centre frequency": ("Hz", ...)}``; the same names and sizes
            before and after training. Empty, the default, if there is nothing to show.
        """
        return {}

    def cuda_graph_key(self):
        """What a CUDA graph of ``forward`` and its backward pass holds beside shapes (:mod:`korser.training.cuda_graphs`).

        A class that defines this, if only by ``return ()``, says that in training its launches depend on nothing but
        shapes and the returned value, and that it draws random numbers on the device alone: no ``.item()``, no branch
        on a tensor's values, nothing copied from the host. It is asked before every step, since replaying a graph runs
        no code of the stage, and graphs are captured anew when the answer changes. It is not inherited. Backbones,
        heads and augmentations (with a ``draw`` as :class:`korser.FeatureAugment` has it) may define it too; if a part
        does not, the steps are launched one by one.

        Returns
        -------
        hashable or None
            None if the next step cannot be captured.
        """
        return None

    @property
    def frozen(self):
        """True if nothing in the stage is trained, so that its output is a pure function of its input."""
        return not any(p.requires_grad for p in self.parameters())

    def train(self, mode=True):
        """Set the training mode; a frozen stage stays in eval."""
        return super().train(mode and not self.frozen)


class Chain(Frontend):
    """Stages in a row, each fed by the one before it; itself a stage.

    Parameters
    ----------
    *stages : Frontend
        At least one; the sizes and rates of neighbours must agree.

    Raises
    ------
    ValueError
        If a stage does not accept what the one before it gives.
    """

    def __init__(self, *stages):
        for before, after in zip(stages, stages[1:]):
            if after.in_channels != before.output_size or abs(after.input_rate - before.frame_rate) > 1e-6:
                raise ValueError(
                    f"{type(before).__name__} gives {before.output_size} channels at {before.frame_rate:g} Hz but "
                    f"{type(after).__name__} takes {after.in_channels} at {after.input_rate:g} Hz: build it with "
                    "in_channels and input_rate of the stage before"
                )
        super().__init__(
            output_size=stages[-1].output_size,
            frame_rate=stages[-1].frame_rate,
            in_channels=stages[0].in_channels,
            input_rate=stages[0].input_rate,
        )
        self.stages = nn.ModuleList(stages)
        self.min_length = self._shortest_input()

    def forward(self, x, lengths):
        """See :meth:`Frontend.forward`."""
        for stage in self.stages:
            x, lengths = stage(x, lengths)
        return x, lengths

    def output_lengths(self, lengths):
        """See :meth:`Frontend.output_lengths`."""
        for stage in self.stages:
            lengths = stage.output_lengths(lengths)
        return lengths

    def train(self, mode=True):
        """Set the training mode; each frozen stage stays in eval."""
        nn.Module.train(self, mode and not self.frozen)
        for stage in self.stages:
            stage.train(mode)
        return self

    def _shortest_input(self):
        """The least length for which every stage gets at least its own ``min_length`` (lengths grow together)."""

        def admits(n):
            lengths = torch.tensor([n])
            for stage in self.stages:
                if lengths.item() < stage.min_length:
                    return False
                lengths = stage.output_lengths(lengths)
            return True

        low, high = 0, 1
        while not admits(high):
            if high > 2**40:
                names = " -> ".join(type(stage).__name__ for stage in self.stages)
                raise ValueError(f"no input is long enough for {names}: check their output_lengths and min_length")
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if admits(middle) else (middle, high)
        return high


def split_frozen(frontend):
    """Cut a frontend behind its leading frozen stages.

    Parameters
    ----------
    frontend : Frontend
        A stage or a chain.

    Returns
    -------
    prefix, rest : list of Frontend
        The leading frozen stages, whose output can be computed once per corpus, and those behind them. Either may be
        empty.
    """
    stages = []
    todo = [frontend]
    while todo:
        stage = todo.pop(0)
        if isinstance(stage, Chain):
            todo = list(stage.stages) + todo
        else:
            stages.append(stage)
    n = next((i for i, stage in enumerate(stages) if not stage.frozen), len(stages))
    return stages[:n], stages[n:]
