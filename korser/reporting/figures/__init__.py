"""Figures for papers, drawn from run directories.

To add a figure, write a module in this package with a function ``draw(group, style)`` and list the module in
:data:`korser.reporting.figures.draw.FIGURES`. The function receives

``group``
    a :class:`~korser.reporting.figures.group.ComparisonGroup`: the models with their runs (``group.models``), the
    comparison with its tables (``group.comparison``), and how each model is drawn (``group.model_style(label)``);
``style``
    a :class:`~korser.reporting.figures.style.Style`: the width of the figure. Create the figure by
    :func:`~korser.reporting.figures.style.new_figure` or :func:`~korser.reporting.figures.style.grid`;

and yields a :class:`~korser.reporting.figures.group.Drawing` (file name, title, caption, figure) for each figure. It
raises :class:`~korser.reporting.figures.style.NothingToDraw` if its data is missing. Notes on synthetic speech, random
splits and random weights are added to every figure; ``losses.py`` is a short example.

==================  ======================================================================
``draw``            the list of figures; draws all of them and writes the files
``group``           the data of figures
``style``           widths, fonts, colours; helpers for panels, legends and heat maps
``search, probe``   figures of searches and probes, which are read from their own files
``recording``       predictions along a recording; ``explained``: what in it speaks for a class
``cross_corpus``    figures of runs on several corpora, over several groups of comparable runs
the other modules   one figure each
==================  ======================================================================
"""

from korser.reporting.figures.draw import Figure, draw_all
from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import NothingToDraw, Style

__all__ = ["ComparisonGroup", "Drawing", "Figure", "NothingToDraw", "Style", "draw_all"]
