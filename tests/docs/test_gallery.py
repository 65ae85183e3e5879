"""Every figure is in the gallery, with a picture that is drawn by its script."""

import importlib.util
import pkgutil
import re

from conftest import ROOT

import korser.reporting.figures

GALLERY = ROOT / "docs" / "gallery"
LARGEST = 70_000  # bytes
NO_FIGURES = {"draw", "fonts", "group", "style"}


def shown():
    return re.findall(r"!\[.+\]\(gallery/(\S+)\.png\)", (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8"))


def test_every_figure_is_shown():
    modules = {module.name for module in pkgutil.iter_modules(korser.reporting.figures.__path__)} - NO_FIGURES
    assert {name.partition("-")[0] for name in shown()} == modules


def test_every_picture_is_small_and_drawn_by_the_script():
    spec = importlib.util.spec_from_file_location("draw_gallery", GALLERY / "draw.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    pictures = {path.stem: path.stat().st_size for path in GALLERY.glob("*.png")}
    assert set(shown()) == set(script.PICTURES) == set(pictures)
    assert {name: size for name, size in pictures.items() if size > LARGEST} == {}
