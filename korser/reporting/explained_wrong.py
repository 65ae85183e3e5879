"""Pictures for the report: what speaks for the classes that models predict wrongly, from the numbers in their runs."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import torch

from korser.comparison.compare import Comparison
from korser.inference.explain import BAND_EDGES, band_level
from korser.reporting.embedding import embed_drawn
from korser.reporting.figures.explained import Map, draw_maps
from korser.reporting.figures.style import Style, finished
from korser.reporting.wrong import WrongUtterance
from korser.runs.explained import read_explained

__all__ = ["add_pictures"]

STYLE, DPI, SCALE = Style("springer"), 130, 1.15  # narrow enough to leave the audio beside it in sight
Spectra = dict[tuple[str, str, str], list[np.ndarray]]  # {(model, id, class): [(K, F) of each run]}


def add_pictures(utterances: list[WrongUtterance], comparison: Comparison) -> list[WrongUtterance]:
    """Draw the utterances that runs explain (:attr:`WrongUtterance.explained`); return all of them.

    A panel is the mean over the runs of a model. The energy of the utterance is drawn if its audio is embedded.
    """
    spectra = _spectra(comparison, {utterance.row["id"] for utterance in utterances})
    for utterance in utterances:
        maps = []
        for p in utterance.predictions:
            own = spectra.get((p.model, utterance.row["id"], p.predicted), [])
            if own and all(each.shape == own[0].shape for each in own):
                maps.append(Map(f"{p.predicted}, {p.model}", np.mean(own, axis=0)))
        if maps:
            level = None if utterance.samples is None else band_level(torch.from_numpy(utterance.samples))
            draw = functools.partial(draw_maps, level, maps)
            figure = finished(draw, STYLE, notes=(), texts=[each.title for each in maps])
            utterance.explained = SimpleNamespace(**embed_drawn(figure, STYLE, DPI, SCALE))
    return utterances


def _spectra(comparison: Comparison, ids: set[str]) -> Spectra:
    found: Spectra = {}
    for label, model in comparison.models.items():
        for run in model.runs if ids else ():
            explained = read_explained(run.directory, len(BAND_EDGES) - 1)
            if explained is None or explained.task != comparison.main:
                continue
            for name, predicted, spectrum in zip(explained.table["id"], explained.table["label"], explained.spectra):
                if name in ids and len(spectrum):
                    found.setdefault((label, name, predicted), []).append(spectrum)
    return found
