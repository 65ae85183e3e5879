"""The page and its server, made with gradio.

Nothing leaves the machine: gradio's telemetry, its look for a newer version, its fonts and its history of calls in the
browser are off. Recordings lie in a folder of this process, which is deleted when it ends, each for at most an hour.
"""

from __future__ import annotations

import contextlib
import functools
import html
import importlib
import os
import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from korser.demo.analysis import LONGEST, STYLE, Analysis, analyse, read
from korser.inference.load import load_trained_model
from korser.inference.predict import TrainedModel
from korser.inference.recordings import Division
from korser.nn.tasks import Task
from korser.reporting.embedding import embed_drawn
from korser.runs.directory import run_notes
from korser.utils.errors import UserError
from korser.utils.signals import cleanup_at_sigterm

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["build_app", "load_models", "open_socket", "require_gradio", "serve"]

GRADIO_SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
KEPT_SECONDS = 3600
LARGEST_UPLOAD = "256mb"  # of a recording of LONGEST seconds with 24 bit, stereo, at 48 kHz, and some more
FONTS = ["system-ui", "sans-serif"]  # without a download
REMARKS = {"silent": "; what is predicted below says nothing about a voice"}  # by the code of a note
KINDS = {"ordinal": "ordered classes", "number": "a number", "distribution": "share of raters"}  # what is not obvious
DPI = 200
COLUMN_PIXELS = 420  # below which columns are one below the other
CSS = """
.error { color: #b91c1c; font-weight: 600 }
.warning { color: #b45309 }
.dark .error { color: #f87171 }
.dark .warning { color: #fbbf24 }
.figure { display: inline-block; width: min(100%, 580px) }
"""


def require_gradio() -> ModuleType:
    """Import gradio with all requests to other machines switched off; raise a UserError if it is not installed."""
    os.environ.update(GRADIO_SETTINGS)
    try:
        return importlib.import_module("gradio")
    except ImportError:
        raise UserError("korser demo needs gradio: pip install 'korser[demo]'") from None


def load_models(run_dirs: Sequence[str], *, trust: bool = False) -> dict[str, TrainedModel]:
    """Load run directories, or exported folders, under names that differ.

    Raises
    ------
    UserError
        See :func:`korser.inference.load.load_trained_model`; or if one is named twice.
    """
    paths = [os.path.normpath(run_dir) for run_dir in run_dirs]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise UserError(f"{twice} is given {paths.count(twice)} times: name each run once")
    names = [os.path.basename(os.path.abspath(path)) for path in paths]
    names = [path if names.count(name) > 1 else name for path, name in zip(paths, names)]
    return {name: load_trained_model(path, trust=trust) for name, path in zip(names, paths)}


def open_socket(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 is any free one. Raise a UserError if that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise UserError(
            f"--host={host} --port={port}: {reason}; choose another address or port, or --port=0 for any free one"
        ) from error


def serve(models: Mapping[str, TrainedModel], listening: socket.socket) -> None:
    """Answer requests until the process is interrupted or terminated."""
    require_gradio()
    uvicorn = importlib.import_module("uvicorn")
    with (
        contextlib.suppress(KeyboardInterrupt),
        cleanup_at_sigterm(),
        tempfile.TemporaryDirectory(prefix="korser-demo-", ignore_cleanup_errors=True) as folder,
    ):
        app = build_app(models, folder)
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)  # open pages do not hold it up
        uvicorn.Server(config).run(sockets=[listening])  # which raises a signal again when it has shut down


def build_app(models: Mapping[str, TrainedModel], folder: str) -> FastAPI:
    """Return the web application for models by the names that the page shows; recordings lie in ``folder``."""
    gradio, fastapi = require_gradio(), importlib.import_module("fastapi")
    os.environ["GRADIO_TEMP_DIR"] = folder
    # read on import; in that of the system another user may have made a folder of this name
    importlib.import_module("gradio.routes").DEFAULT_TEMP_DIR = folder
    return gradio.mount_gradio_app(
        fastapi.FastAPI(),
        _build_page(gradio, models),
        path="/",
        footer_links=[],
        max_file_size=LARGEST_UPLOAD,
        theme=gradio.themes.Default(font=FONTS, font_mono=["monospace"]),
        css=CSS,
    )


def _build_page(gradio: ModuleType, models: Mapping[str, TrainedModel]) -> Any:
    with gradio.Blocks(title="korser demo", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        with gradio.Row():
            recording = gradio.Audio(
                label=f"recording (at most {LONGEST} s)", sources=["upload", "microphone"], type="filepath", buttons=[]
            )
            with gradio.Column():
                window = gradio.Slider(0.2, 30, 2, step=0.1, label="window", info="seconds that are predicted at once")
                hop = gradio.Slider(0.1, 30, 0.5, step=0.1, label="hop", info="seconds from one window to the next")
                button = gradio.Button("Predict", variant="primary")
        message = gradio.HTML(_paragraph("Record or upload speech."), elem_id="message")
        outputs = [message]
        with gradio.Row():
            for name, trained in models.items():
                with gradio.Column(min_width=COLUMN_PIXELS, elem_classes="run"):
                    notes = [*trained.warnings, *run_notes(trained.info)]
                    gradio.HTML(f"<h2>{html.escape(name)}</h2>{_paragraphs(notes, 'warning')}")
                    outputs += [gradio.Label(label=_describe(task)) for task in trained.tasks]
                    outputs.append(gradio.HTML())

        answer = functools.partial(_answer, models)
        gradio.on([recording.change, button.click], answer, [recording, window, hop], outputs, api_name="predict")
    return page


def _answer(models: Mapping[str, TrainedModel], path: str | None, window: float, hop: float) -> list[Any]:
    """Return the values of the message, and of each run the predictions of all tasks and the figures."""
    nothing = [value for trained in models.values() for value in (*[None] * len(trained.tasks), "")]
    if path is None:
        return [_paragraph("Record or upload speech."), *nothing]
    try:
        recording = read(path, models)
        analyses = [analyse(trained, path, recording, Division(window, hop)) for trained in models.values()]
    except UserError as error:
        text = str(error).replace(os.path.join(os.path.dirname(path), ""), "")  # the file as its owner knows it
        return [_paragraphs(text.splitlines(), "error"), *nothing]
    notes = [f"{note.label}: {note.text}{REMARKS.get(note.code, '')}" for note in recording.notes]
    values = [value for a in analyses for value in (*map(_label, a.predictions.values()), _figures(a))]
    return [_paragraphs([os.path.basename(path)], "") + _paragraphs(notes, "warning"), *values]


def _label(prediction: dict[str, float] | float) -> dict[str, float] | str:
    return prediction if isinstance(prediction, dict) else f"{prediction:.3f}"


def _describe(task: Task) -> str:
    return f"{task.name} ({KINDS[task.kind]})" if task.kind in KINDS else task.name


def _figures(analysis: Analysis) -> str:
    return _image(analysis.along, "predictions along time") + _image(analysis.features, "log-mel spectrogram, features")


def _image(figure: Figure, text: str) -> str:
    return f'<img class="figure" alt="{text}" src="{embed_drawn(figure, STYLE, DPI)["png"]}">'


def _paragraphs(lines: Iterable[object], kind: str) -> str:
    return "".join(_paragraph(line, kind) for line in lines)


def _paragraph(line: object, kind: str = "") -> str:
    role = "alert" if kind == "error" else "status"
    return f'<p class="{kind}" role="{role}">{html.escape(str(line))}</p>'
