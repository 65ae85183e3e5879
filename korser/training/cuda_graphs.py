"""Training steps as CUDA graphs: forward pass, losses, backward pass and clipping replayed by one launch.

A step of these small models is hundreds of kernels of some microseconds each, and Python takes several times longer to
launch them than a GPU to compute them. A graph holds the launches; replaying it costs the host next to nothing. It also
holds every address and every number that came from the host, hence what this module takes care of:

- inputs lie in tensors of the graph's own, into which each batch is copied; the draws of augmentation, which come from
  the CPU's generator, are inputs too. Dropout draws on the device, and its seed is read anew at each replay;
- a graph has one shape. The time is padded up to a coarse grid, which changes nothing in models whose results do not
  depend on padding, and a shape is captured only when it has come for the third time;
- what else a part of the model depends on, it says itself (:meth:`korser.frontend.base.Frontend.cuda_graph_key`);
- optimizers and schedules stay outside.

The numbers are those of steps launched one by one, from the same draws; the padding may change their rounding.
"""

import contextlib
import gc
import logging
import math
from collections import Counter

import torch
from speechbrain.dataio.batch import PaddedData

from korser.data.resident import Batch
from korser.nn.model import SpeechEmotionModel
from korser.utils.gpu import gpu_is_full

logger = logging.getLogger(__name__)

GRID = 12  # padded lengths per octave: 3 % of padding on average
EAGER = 2  # times that a shape is launched one by one before: libraries load, plan and allocate what a graph cannot
BROKEN = []  # graphs whose capture failed: torch's allocator may go on asking them
MOST = 32  # graphs at a time; each has inputs, gradients and some megabytes of the driver's own
SHARE = 0.1  # of the GPU's memory, that the inputs of all graphs may take


def on_grid(time):
    """The least length of the grid that is not shorter.

    Parameters
    ----------
    time : int

    Returns
    -------
    int

    Example
    -------
    >>> [on_grid(n) for n in (1, 100, 225, 256, 64000)]
    [1, 102, 229, 256, 65536]
    """
    k = math.floor(GRID * math.log2(time))  # the logarithm is rounded: begin one below
    return next(n for n in (math.ceil(2 ** ((k + i) / GRID)) for i in range(-1, 3)) if n >= time)


def why_not(brain):
    """What keeps a brain's steps from being captured, or None.

    Parameters
    ----------
    brain : korser.training.brain.EmotionBrain

    Returns
    -------
    str or None
    """
    model, settings = brain.modules.model, brain.settings
    reasons = {
        "cuda_graphs is false": not settings["cuda_graphs"],
        "there is no GPU": torch.device(brain.device).type != "cuda",
        "training is distributed": brain.distributed_launch or type(model) is not SpeechEmotionModel,
        "gradients are accumulated": brain.grad_accumulation_factor != 1,
        "fp16 scales its losses": brain.scaler.is_enabled(),
        "wav_augment draws on the host": settings["wav_augment"] is not None,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is None:
        unknown = [type(part).__name__ for part in _parts(brain) if not _declares(part)]
        reason = f"{unknown[0]} does not say that it can be captured" if unknown else None
    return reason


def _parts(brain):
    """What runs in a training step."""
    model = brain.raw_model
    prefix = [] if brain.skip_frozen else model.frozen_stages
    augment = [] if brain.settings["augment"] is None else [brain.settings["augment"]]
    return [*prefix, *model.trainable_stages, model.backbone, model.head, *augment]


def _declares(part):
    """Whether the class says of itself that it can be captured; a subclass may do otherwise and must say it, too."""
    return "cuda_graph_key" in vars(type(part))


class StepGraphs:
    """The steps of a brain, replayed from CUDA graphs where they have been captured.

    Parameters
    ----------
    brain : korser.training.brain.EmotionBrain
        One of which :func:`why_not` says nothing.

    Attributes
    ----------
    graphs : dict
        By key: padded shape and dtype of a batch.
    """

    def __init__(self, brain):
        self.brain = brain
        self.parts = _parts(brain)
        self.parameters = [p for p in brain.raw_model.parameters() if p.requires_grad]
        self.graphs, self.seen = {}, Counter()
        self.state = None  # what the parts said at the last step
        self.failed = False
        self.stream = self.pool = None

    def __call__(self, batch):
        """One step but for the optimizers'.

        Parameters
        ----------
        batch : korser.data.resident.Batch or speechbrain.dataio.batch.PaddedBatch

        Returns
        -------
        torch.Tensor
            On the device, as :meth:`korser.training.brain.EmotionBrain.gradients` gives them; every parameter has its gradient.
            The next step may write over both.
        """
        if not self.failed:
            try:
                return self._step(batch)
            except RuntimeError as error:
                if not (gpu_is_full(error) and self.graphs):
                    raise
            # behind the except clause, which would keep what is in memory alive
            logger.warning(
                "GPU memory is short: training goes on without CUDA graphs, which keep theirs for themselves "
                "(cuda_graphs: false is cleaner)"
            )
            self._give_up()
            torch.cuda.empty_cache()
            # The step once more, from the same draws. Running statistics of batch norm that it had reached before
            # memory ran out have moved twice.
            self.brain.seed_step()
        return self.brain.gradients(batch)

    def _step(self, batch):
        batch = batch.to(self.brain.device)
        x = batch.x.data
        key = (len(x), on_grid(x.shape[1]), *x.shape[2:], x.dtype)
        augment = self.brain.settings["augment"]
        draws = () if augment is None else augment.draw(len(x))
        state = tuple(part.cuda_graph_key() for part in self.parts)
        if state != self.state:  # what was captured and warmed up before is of no use any more
            self.forget()
            self.state = state
        captured = self.graphs.get(key)
        inputs = self._inputs(batch, key[1], draws) if captured is None else captured.inputs
        self._fill(inputs, batch, draws)
        if captured is None and self._is_due(key, inputs.x.data.nbytes):
            captured = self._try(inputs)
            if captured is not None:
                self.graphs[key] = captured
        return self._run(inputs) if captured is None else captured()

    def forget(self):
        """Drop all graphs, and their memory with them."""
        self.graphs.clear()
        self.seen.clear()
        self.pool = None  # a pool without a graph cannot be used again

    def _is_due(self, key, nbytes):
        if None in self.state:
            return False
        self.seen[key] += 1
        taken = nbytes + sum(graph.inputs.x.data.nbytes for graph in self.graphs.values())
        return self.seen[key] > EAGER and len(self.graphs) < MOST and taken <= self._room()

    def _room(self):
        return SHARE * torch.cuda.mem_get_info(self.brain.device)[1]

    def _inputs(self, batch, time, draws):
        """A batch of these sizes. What no batch has written is zero, since not every bit pattern is a number."""
        x, device = batch.x.data, self.brain.device
        padded = PaddedData(x.new_zeros(len(x), time, *x.shape[2:]), None)
        labels = {task.name: torch.zeros_like(batch[task.name], device=device) for task in self.brain.tasks}
        draws = tuple(torch.zeros_like(draw, device=device) for draw in draws)
        return Batch(batch.id, padded, torch.zeros_like(batch.frames, device=device), labels, draws=draws)

    def _fill(self, inputs, batch, draws):
        """Copy a batch and draws there. What lies past a batch's end is left, as the model does not look at it."""
        inputs.x.data[:, : batch.x.data.shape[1]].copy_(batch.x.data)
        inputs.frames.copy_(batch.frames)
        for name, label in inputs.labels.items():
            label.copy_(batch[name])
        for to, draw in zip(inputs.draws, draws):
            to.copy_(draw, non_blocking=True)

    def _run(self, inputs):
        """The step launched one by one, on the stream of the captures, where it warms up what they use."""
        here, side = torch.cuda.current_stream(), self._side()
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):
                return self.brain.gradients(inputs)
        finally:
            here.wait_stream(side)  # so all that is freed here later has been read

    def _side(self):
        self.stream = self.stream or torch.cuda.Stream()
        return self.stream

    def _try(self, inputs):
        """Capture; None, with a warning, if that cannot be done, and then nothing is captured any more."""
        self._zero_grad()  # so that the graph has gradients of its own to write to
        try:
            return self._capture(inputs)
        except RuntimeError as error:
            cause = " ".join(str(error.__context__ or error).split())[:200]  # not that the capture is found broken
            logger.warning("training goes on without CUDA graphs (cuda_graphs: false is cleaner): %s", cause)
        self._give_up()
        return None

    def _give_up(self):
        """Do without graphs from here on, and drop their memory and that of the step that was not finished."""
        self.failed = True
        self.brain.batch_losses = {}  # they hold its activations
        self._zero_grad()
        self.forget()

    def _capture(self, inputs):
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        enabled = gc.isenabled()
        gc.disable()  # freeing what belongs to other graphs could break the capture
        try:
            # thread_local: other threads, a loader's say, may go on using the GPU
            with torch.cuda.graph(graph, pool=self.pool, stream=self._side(), capture_error_mode="thread_local"):
                values = self.brain.gradients(inputs)
        except RuntimeError:  # behind which torch leaves the capture's stream current and its generator mid-capture
            BROKEN.append(graph)
            torch.cuda.set_stream(here)
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            with contextlib.suppress(RuntimeError):
                graph.reset()
            # Before its PR 180395 (2.11 included) torch leaves the allocator mid-capture, too: the next
            # torch.cuda.empty_cache() would fail. Where it does not, the first of these raises.
            with contextlib.suppress(RuntimeError, AttributeError):  # old versions have other names for them
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self.pool)
                torch._C._cuda_releasePool(torch.cuda.current_device(), self.pool)
            raise
        finally:
            if enabled:
                gc.enable()
        return Captured(graph, inputs, values, [(p, p.grad) for p in self.parameters if p.grad is not None])

    def _zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None


class Captured:
    """A step in a graph; called, it is replayed on what lies in its inputs.

    Parameters
    ----------
    graph : torch.cuda.CUDAGraph
    inputs : korser.data.resident.Batch
    values : torch.Tensor
        What the step gives.
    gradients : list of (torch.nn.Parameter, torch.Tensor)
    """

    def __init__(self, graph, inputs, values, gradients):
        self.graph = graph
        self.inputs = inputs
        self.values = values
        self.gradients = gradients

    def __call__(self):
        """Replay; the parameters' gradients are the graph's."""
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.values
