"""Training steps as CUDA graphs: forward pass, losses, backward pass and clipping replayed by one launch.

Optional: :class:`korser.training.brain.EmotionBrain` imports this module only if ``cuda_graphs`` is true and training
runs on a GPU. A step of these small models is hundreds of kernels of some microseconds each, and Python takes several
times longer to launch them than a GPU to compute them. A graph holds the launches; replaying it costs the host next to
nothing. It also holds every address and every number that came from the host, so

- inputs are in tensors of the graph's own, into which each batch is copied; the draws of augmentation, which come from
  the CPU's generator, are inputs too. Dropout draws on the device, and its seed is read anew at each replay;
- a graph has one shape. The time is padded to a coarse grid, which changes nothing in models whose results do not
  depend on padding, and a shape is captured only at its third occurrence;
- optimizers and schedules stay outside.

Results are those of steps launched one by one, from the same draws; the padding may change their rounding.

**Making a part of a model capturable.** Steps are captured only if the class of every part that runs in them (trainable
stages, backbone, head, augmentation) defines ``cuda_graph_key(self)``. By this the class declares that in training its
launches depend only on shapes and on the returned value, and that it draws random numbers on the device: no
``.item()``, no branch on the values of a tensor, nothing copied from the host. ::

    def cuda_graph_key(self):
        return ()  # a hashable value; None: the next step cannot be captured

It is called before every step, since replaying a graph runs no code of the part, and graphs are captured again when the
value changes. It is not inherited: a subclass may behave differently and must define it itself. An augmentation needs a
method ``draw`` too, as :class:`korser.FeatureAugment` has it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from torch import nn

from korser.data.resident import Batch
from korser.nn.model import SpeechEmotionModel
from korser.utils.memory import gpu_is_full
from korser.utils.text import one_line

if TYPE_CHECKING:
    from korser.training.brain import EmotionBrain

__all__ = ["StepGraphs", "accelerate"]

logger = logging.getLogger(__name__)

LENGTHS_PER_OCTAVE = 12  # padded lengths: 3 % of padding on average
WARMUP_STEPS = 2  # of each shape, launched one by one: libraries load, plan and allocate what a graph cannot
FAILED_GRAPHS = []  # graphs whose capture failed are kept alive: torch's allocator may still refer to them
MAX_GRAPHS = 32  # each has inputs, gradients and some megabytes of the driver's own
MEMORY_FRACTION = 0.1  # of the GPU's memory, for the inputs of all graphs


def accelerate(brain: EmotionBrain) -> Callable[[Batch | PaddedBatch], torch.Tensor]:
    """Return a function that computes the gradients of a batch, from CUDA graphs where they can be used.

    Without them it is :meth:`EmotionBrain.gradients`, and the log gives the reason.
    """
    reason = why_not(brain)
    logger.info("CUDA graphs: %s", f"not used: {reason}" if reason else "used")
    return brain.gradients if reason else StepGraphs(brain)


def why_not(brain: EmotionBrain) -> str | None:
    """Return the reason why the steps of a brain cannot be captured, or None if they can."""
    reasons = {
        "training is distributed": brain.distributed_launch or type(brain.modules.model) is not SpeechEmotionModel,
        "gradients are accumulated": brain.grad_accumulation_factor != 1,
        "fp16 scales its losses": brain.scaler.is_enabled(),
        "wav_augment draws on the host": brain.hparams.wav_augment is not None,
    }
    for part in _parts_of_a_step(brain):  # the class itself, since the method is not inherited
        reasons[f"{type(part).__name__} does not define cuda_graph_key"] = "cuda_graph_key" not in vars(type(part))
    return next((reason for reason, applies in reasons.items() if applies), None)


def _parts_of_a_step(brain: EmotionBrain) -> list[nn.Module]:
    model = brain.raw_model
    frozen = [] if brain.skip_frozen else model.frozen_stages
    augment = [] if brain.augment is None else [brain.augment]
    return [*frozen, *model.trainable_stages, model.backbone, model.head, *augment]


def padded_length(time: int) -> int:
    """Return the smallest length of the grid that is not shorter.

    Example
    -------
    >>> [padded_length(n) for n in (1, 100, 225, 256, 64000)]
    [1, 102, 229, 256, 65536]
    """
    k = math.floor(LENGTHS_PER_OCTAVE * math.log2(time)) - 1  # the logarithm is rounded: begin one below
    while math.ceil(2 ** (k / LENGTHS_PER_OCTAVE)) < time:
        k += 1
    return math.ceil(2 ** (k / LENGTHS_PER_OCTAVE))


class StepInputs(NamedTuple):
    """The tensors that a graph reads."""

    batch: Batch
    draws: tuple[torch.Tensor, ...]  # for the augmentation


class StepGraphs:
    """The steps of a brain, replayed from CUDA graphs where they have been captured.

    :func:`why_not` has to return None for the brain.
    """

    def __init__(self, brain: EmotionBrain):
        self.brain = brain
        self.parts = _parts_of_a_step(brain)
        self.parameters = [p for p in brain.raw_model.parameters() if p.requires_grad]
        self.graphs: dict[tuple, CapturedStep] = {}  # by padded shape and dtype of a batch
        self.seen = Counter()
        self.state = None  # cuda_graph_key of all parts at the last step
        self.failed = False
        self.stream = self.pool = None

    def __call__(self, batch: Batch | PaddedBatch) -> torch.Tensor:
        """Compute the gradients of a batch.

        Returns
        -------
        torch.Tensor
            As :meth:`EmotionBrain.gradients`; every parameter has its gradient. The next step may overwrite both.
        """
        if not self.failed:
            try:
                return self._step(batch)
            except RuntimeError as error:
                if not (gpu_is_full(error) and self.graphs):
                    raise
            # outside the except clause, which would keep tensors alive
            logger.warning(
                "GPU memory is short: training continues without CUDA graphs, which reserve memory of their own "
                "(set cuda_graphs: false)"
            )
            self._give_up()
            torch.cuda.empty_cache()
            # Repeat the step from the same draws. Running statistics of batch norm that it had reached before memory
            # ran out have moved twice.
            self.brain.seed_step()
        return self.brain.gradients(batch)

    def _step(self, batch: Batch | PaddedBatch) -> torch.Tensor:
        batch = batch.to(self.brain.device)
        x = batch.x.data
        key = (len(x), padded_length(x.shape[1]), *x.shape[2:], x.dtype)
        draws = () if self.brain.augment is None else self.brain.augment.draw(len(x))
        state = tuple(part.cuda_graph_key() for part in self.parts)
        if state != self.state:  # earlier captures and warm-ups are no longer valid
            self.forget()
            self.state = state
        captured = self.graphs.get(key)
        inputs = self._inputs(batch, key[1], draws) if captured is None else captured.inputs
        self._fill(inputs, batch, draws)
        if captured is None and self._is_due(key, inputs.batch.x.data.nbytes):
            captured = self._try(inputs)
            if captured is not None:
                self.graphs[key] = captured
        return self._run(inputs) if captured is None else captured()

    def _gradients(self, inputs: StepInputs) -> torch.Tensor:
        """Call :meth:`EmotionBrain.gradients` with an augmentation that takes its draws from the inputs."""
        with self._fixed_draws(inputs.draws):
            return self.brain.gradients(inputs.batch)

    @contextlib.contextmanager
    def _fixed_draws(self, draws: tuple[torch.Tensor, ...]) -> Iterator[None]:
        augment = self.brain.augment
        if augment is not None:
            self.brain.augment = lambda x, lengths: augment(x, lengths, draws=draws)
        try:
            yield
        finally:
            self.brain.augment = augment

    def forget(self) -> None:
        """Drop all graphs and free their memory."""
        self.graphs.clear()
        self.seen.clear()
        self.pool = None  # a pool without a graph cannot be used again

    def _is_due(self, key: tuple, nbytes: int) -> bool:
        if None in self.state:
            return False
        self.seen[key] += 1
        used = nbytes + sum(graph.inputs.batch.x.data.nbytes for graph in self.graphs.values())
        return self.seen[key] > WARMUP_STEPS and len(self.graphs) < MAX_GRAPHS and used <= self._max_bytes()

    def _max_bytes(self) -> float:
        return MEMORY_FRACTION * torch.cuda.mem_get_info(self.brain.device)[1]

    def _inputs(self, batch: Batch | PaddedBatch, time: int, draws: tuple[torch.Tensor, ...]) -> StepInputs:
        """Allocate inputs of these sizes; they begin as zeros since padding must not be NaN."""
        x, device = batch.x.data, self.brain.device
        padded = PaddedData(x.new_zeros(len(x), time, *x.shape[2:]), None)
        labels = {task.name: torch.zeros_like(batch[task.name].data, device=device) for task in self.brain.tasks}
        own = Batch(batch.id, padded, torch.zeros_like(batch.frames, device=device), labels)
        return StepInputs(own, tuple(torch.zeros_like(draw, device=device) for draw in draws))

    def _fill(self, inputs: StepInputs, batch: Batch | PaddedBatch, draws: tuple[torch.Tensor, ...]) -> None:
        """Copy a batch and draws; values beyond the batch's end stay, since the model ignores padding."""
        inputs.batch.x.data[:, : batch.x.data.shape[1]].copy_(batch.x.data)
        inputs.batch.frames.copy_(batch.frames)
        for name, label in inputs.batch.labels.items():
            label.copy_(batch[name].data)
        for to, draw in zip(inputs.draws, draws):
            to.copy_(draw, non_blocking=True)

    def _run(self, inputs: StepInputs) -> torch.Tensor:
        """Launch the step on the stream of the captures, which warms up what they use."""
        here, side = torch.cuda.current_stream(), self._side_stream()
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):
                return self._gradients(inputs)
        finally:
            here.wait_stream(side)  # memory that is freed here later has been read by then

    def _side_stream(self) -> torch.cuda.Stream:
        self.stream = self.stream or torch.cuda.Stream()
        return self.stream

    def _try(self, inputs: StepInputs) -> CapturedStep | None:
        """Capture the step; if that fails, warn, return None and capture nothing from then on."""
        self._zero_grad()  # so that the graph allocates gradients of its own
        try:
            return self._capture(inputs)
        except RuntimeError as error:
            cause = one_line(error.__context__ or error, 200)  # the context names the operation at fault
            logger.warning("training continues without CUDA graphs (set cuda_graphs: false): %s", cause)
        self._give_up()
        return None

    def _give_up(self) -> None:
        """Stop using graphs, and free their memory and that of the unfinished step."""
        self.failed = True
        self.brain.batch_losses = {}  # they hold its activations
        self._zero_grad()
        self.forget()

    def _capture(self, inputs: StepInputs) -> CapturedStep:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        enabled = gc.isenabled()
        gc.disable()  # freeing tensors of other graphs could break the capture
        try:
            # thread_local: other threads, such as a loader's, may continue to use the GPU
            with torch.cuda.graph(graph, pool=self.pool, stream=self._side_stream(), capture_error_mode="thread_local"):
                values = self._gradients(inputs)
        except RuntimeError:  # torch leaves the capture's stream current and its generator in mid-capture
            FAILED_GRAPHS.append(graph)
            torch.cuda.set_stream(here)
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            with contextlib.suppress(RuntimeError):
                graph.reset()
            # Before its PR 180395 (2.11 included) torch leaves the allocator in mid-capture, too: the next
            # torch.cuda.empty_cache() would fail. In later versions the first of these raises.
            with contextlib.suppress(RuntimeError, AttributeError):  # old versions have other names for them
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self.pool)
                torch._C._cuda_releasePool(torch.cuda.current_device(), self.pool)
            raise
        finally:
            if enabled:
                gc.enable()
        return CapturedStep(graph, inputs, values, [(p, p.grad) for p in self.parameters if p.grad is not None])

    def _zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


@dataclass
class CapturedStep:
    """A step in a graph; calling it replays the graph on the present content of its inputs."""

    graph: torch.cuda.CUDAGraph
    inputs: StepInputs
    values: torch.Tensor  # what the step returns
    gradients: list[tuple[nn.Parameter, torch.Tensor]]

    def __call__(self) -> torch.Tensor:
        """Replay the graph; the parameters' gradients become the graph's."""
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.values
