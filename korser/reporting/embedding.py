"""Pages that need no other file: their templates, and pictures as ``data:`` URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import PIL.Image
from matplotlib.figure import Figure

from korser.reporting.figures.style import Style
from korser.utils.errors import UserError
from korser.utils.files import read_bytes
from korser.utils.text import one_line

__all__ = ["embed_drawn", "embed_figure", "page_template"]

SCREEN_DPI = 96
FIGURE_SCALE = 1.4  # figures are drawn for a printed column; on a screen they are enlarged


def page_template(name: str) -> jinja2.Template:
    """Return a template of this package; values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def embed_figure(out: Path, figure: Mapping[str, Any]) -> SimpleNamespace:
    """Return a figure of ``figures.json`` in a folder, with its picture as a ``data:`` URL and its size on the screen.

    Raises
    ------
    UserError
        If the picture cannot be read.
    """
    path = out / Path(figure["png"]).name  # pictures from elsewhere are not embedded
    try:
        return SimpleNamespace(**{**figure, **_embed(read_bytes(path), FIGURE_SCALE)})
    except (OSError, PIL.UnidentifiedImageError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); draw the figures again") from error


def embed_drawn(figure: Figure, style: Style, dpi: float, scale: float = 1.0) -> dict[str, Any]:
    """Return a figure as a ``data:`` URL, ``png``, and its ``width`` and ``height`` on the screen, enlarged."""
    file = io.BytesIO()
    with style.context():  # on which the places of ticks depend
        figure.savefig(file, format="png", dpi=dpi)
    return _embed(file.getvalue(), scale)


def _embed(data: bytes, scale: float) -> dict[str, Any]:
    with PIL.Image.open(io.BytesIO(data)) as picture:
        scale *= SCREEN_DPI / picture.info.get("dpi", (SCREEN_DPI, SCREEN_DPI))[0]
        width, height = (round(pixels * scale) for pixels in picture.size)
    return {"png": f"data:image/png;base64,{base64.b64encode(data).decode()}", "width": width, "height": height}
