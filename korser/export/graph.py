"""The ONNX graph of a trained model: a waveform in, the predictions of every task out, checked against torch.

Shape legend: ``T`` samples, ``K`` outputs of a task (its classes, or 1).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import operator
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from korser.inference.predict import TrainedModel
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task
from korser.utils.errors import UserError
from korser.utils.text import one_line

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["INPUT", "OPSET", "TOLERANCE", "NotExportable", "check_graph", "link_weights", "require", "to_onnx"]

INPUT = "waveform"
OPSET = 20  # the first whose DFT takes its axis as an input
TOLERANCE = 1e-4  # of probabilities, and of numbers relative to their standard deviation
FOLDED = 2**17  # numbers in the inputs of what is computed at export; larger weights stay as they are
LINKED = 1024  # bytes of the smallest tensor that a graph takes from another file


class NotExportable(UserError):
    """A part of a model cannot be written as ONNX."""


class _Predictions(nn.Module):
    """Probabilities, or numbers, of one waveform ``(1, T)``: ``(1, K)`` for each task."""

    def __init__(self, model: SpeechEmotionModel, tasks: list[Task]) -> None:
        super().__init__()
        self.model = model
        self.strategies = [task.strategy for task in tasks]
        self.names = [task.name for task in tasks]

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lengths = torch.full((1,), waveform.shape[1], dtype=torch.int64)
        logits, _ = self.model(waveform, lengths)
        return tuple(kind.predictions(logits[name]) for kind, name in zip(self.strategies, self.names))


def to_onnx(trained: TrainedModel) -> onnx_ir.Model:
    """Convert a trained model, on a CPU.

    The graph takes ``waveform`` ``(1, T)`` float32 at 16 kHz in [-1, 1], ``T`` from ``min_length`` to ``piece_length``
    samples, and returns for each task, under its name, probabilities or a number ``(1, K)``. Within the model
    ``torch.compiler.is_exporting()`` is true (:mod:`korser.frontend.lengths`).

    Raises
    ------
    NotExportable
        If the model has an operation that cannot be exported.
    UserError
        If onnxscript is not installed.
    """
    optimizer = require("onnxscript.optimizer")
    model = _Predictions(trained.model, trained.tasks).eval()
    example = torch.zeros(1, trained.piece_length)  # sizes of 1 within a short one would be kept
    shapes = ({1: torch.export.Dim.AUTO},)  # a range is refused where a branch of torch depends on the length
    with torch.no_grad(), _quiet():
        try:
            program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # whatever the parts of the model and the tracer raise
            raise NotExportable(f"{_where(error, trained)}: torch.export cannot trace it ({_reason(error)})") from error
        try:
            exported = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=[task.name for task in trained.tasks],
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                custom_translation_table={operator.floordiv: _floor_division},
            ).model
            # not optimizer.optimize, which removes the addition of a number as small as the floor of an energy
            optimizer.inline(exported)
            optimizer.fold_constants(
                exported, input_size_limit=FOLDED, output_size_limit=2 * FOLDED, should_fold=_should_fold
            )
            optimizer.remove_unused_nodes(exported)
        except Exception as error:  # whatever the exporter raises
            raise NotExportable(f"{trained.info.get('model', 'the model')}: {_reason(error)}") from error
    return exported


def check_graph(file: Path, trained: TrainedModel) -> float:
    """Compare the predictions of onnxruntime and torch; return the largest difference.

    The signals are noise of four lengths, from the shortest to the longest input, faint noise, and digital silence,
    whose energy is nothing but the floors that the model adds.

    Raises
    ------
    NotExportable
        If they differ by more than :data:`TOLERANCE`, or onnxruntime cannot compute one.
    UserError
        If onnxruntime is not installed.
    """
    session = require("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names, worst = [task.name for task in trained.tasks], 0.0
    for name, waveform in _signals(trained.min_length, trained.piece_length):
        expected = trained.probabilities(torch.from_numpy(waveform))
        try:
            outputs = session.run(names, {INPUT: waveform[None]})
        except Exception as error:  # onnxruntime has its own types, below Exception
            raise NotExportable(f"onnxruntime cannot run the graph on {name} ({one_line(error, 200)})") from error
        for task, given in zip(trained.tasks, outputs):
            difference = float(np.abs(given[0] - expected[task.name]).max()) / (task.scaling or (0.0, 1.0))[1]
            if not difference <= TOLERANCE:  # NaN, too
                raise NotExportable(
                    f"{task.name} of {name} differs by {difference:.1e} between torch and onnxruntime, expected at "
                    f"most {TOLERANCE:g}"
                )
            worst = max(worst, difference)
    return worst


def _signals(shortest: int, longest: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield descriptions and waveforms ``(T,)``."""
    rng = np.random.default_rng(0)
    lengths = np.geomspace(shortest, longest, 4).round().astype(int).tolist()
    for n in lengths:
        level = 0.1 * np.abs(np.sin(np.arange(n) / 3000)) + 0.001
        yield f"{n} samples of noise", (level * rng.standard_normal(n)).astype(np.float32)
    yield "faint noise", (1e-4 * rng.standard_normal(lengths[2])).astype(np.float32)
    yield "silence", np.zeros(lengths[2], np.float32)


def link_weights(model: onnx_ir.Model, weights: Path) -> None:
    """Let a graph take its constants from a safetensors file in its folder, where the file has the same bytes."""
    import onnx_ir

    with weights.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        places = {}
        for name, entry in header.items():
            if name != "__metadata__":
                first, end = entry["data_offsets"]
                file.seek(start + first)
                places[hashlib.sha256(file.read(end - first)).digest()] = start + first
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor.nbytes < LINKED:
            continue
        place = places.get(hashlib.sha256(tensor.tobytes()).digest())
        if place is not None:
            about = {"shape": tensor.shape, "name": tensor.name, "base_dir": weights.parent}
            value.const_value = onnx_ir.ExternalTensor(weights.name, place, tensor.nbytes, tensor.dtype, **about)


def require(name: str) -> ModuleType:
    """Import a module of the extra ``export``; raise a UserError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        raise UserError(f"{package} is not installed, which the export needs: pip install 'korser[export]'") from error


def _floor_division(a: Any, b: Any) -> Any:
    """Divide as Python does; ``Div`` of ONNX, which the exporter takes, rounds ``-(-n // k)`` towards zero."""
    from onnxscript import opset20 as op

    return op.Div(op.Sub(a, op.Mod(a, b)), b)


def _should_fold(node: onnx_ir.Node) -> bool | None:
    """Keep weights as the model has them, for :func:`link_weights`; None is the default."""
    return False if node.op_type == "Transpose" else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, whose messages are for its developers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _reason(error: Exception) -> str:
    """Return what is wrong in a line: the operation that ONNX lacks, if the exporter names one."""
    text = str(error.__cause__ or error)
    missing = re.search(r"No (?:ONNX function|decompositions?|Onnx function) .*?for .*?([a-z_]+[:.]+[\w.:]+)", text)
    return f"no operation of ONNX for {missing[1]}" if missing else one_line(text, 200)


def _where(error: BaseException, trained: TrainedModel) -> str:
    """Name the innermost module of the model in which an exception was raised."""
    found, traceback = trained.info.get("model", "the model"), error.__traceback__
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and not isinstance(owner, _Predictions):
            found = type(owner).__name__
        traceback = traceback.tb_next
    return found
