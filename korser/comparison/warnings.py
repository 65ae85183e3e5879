"""Warnings about the models of a comparison, and which of them cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from korser.data.split_checks import LEXICAL_LEAKAGE
from korser.runs.load import Run
from korser.runs.pool import ModelPredictions, require_same_utterances
from korser.utils.errors import UserError
from korser.utils.notes import NOT_PRETRAINED, Note, caveats
from korser.utils.text import shorten

__all__ = ["excluded_models", "searched_models", "warnings_about"]

Models = Mapping[str, ModelPredictions]


def warnings_about(models: Models) -> list[Note]:
    """Return the warnings that every table and figure of these models must show."""
    runs = [run for model in models.values() for run in model.runs]
    found = caveats(
        synthetic=any(run.info["synthetic"] for run in runs),
        random_split=not all(run.info["speaker_independent"] for run in runs),
    )
    if any(run.info.get("lexical_leakage") for run in runs):
        found.append(LEXICAL_LEAKAGE)
    unchecked = _labels(models, lambda run: run.info.get("check_contract") is False)
    if unchecked:
        text = f"NOT CHECKED: the frontend of {unchecked} was not checked; results may depend on padding"
        found.append(Note("not_checked", text))
    random = _labels(models, lambda run: run.info["pretrained"] is False)
    if random:
        found.append(replace(NOT_PRETRAINED, text=f"{NOT_PRETRAINED.text} in {random}"))
    return found


def _labels(models: Models, condition: Callable[[Run], bool]) -> str:
    return ", ".join(label for label, model in models.items() if any(map(condition, model.runs)))


def excluded_models(models: Models) -> dict[str, str]:
    """Return the models that were not tested on every utterance that others were, with the reason.

    Raises
    ------
    UserError
        If models were tested on different utterances, or on different labels.
    """
    largest = max(models.values(), key=lambda model: len(model.table))
    all_ids = set(largest.table["id"])
    excluded = {}
    for label, model in models.items():
        if model is largest:
            continue
        if set(model.table["id"]) < all_ids:
            n = f"{len(model.table)} of {len(all_ids)} utterances (folds {shorten(model.folds)})"
            excluded[label] = f"{label} was tested on {n} and is not compared with the others"
        else:
            require_same_utterances(largest, model)
    return excluded


def searched_models(models: Models, given: Mapping[str, str]) -> dict[str, str]:
    """Return the models whose settings were searched on speakers on whom they are tested, with a note.

    Parameters
    ----------
    models : dict of str to ModelPredictions
    given : dict of str to str
        Notes for models, by label or by name; other models are marked by :attr:`korser.runs.load.Run.searched_on`.
    """
    names = {name for label, model in models.items() for name in (label, model.runs[0].model)}
    for name in given:
        if name not in names:
            raise UserError(f"searched_on: '{name}' is not one of the models {', '.join(models)}")
    searched = {}
    for label, model in models.items():
        shared = sorted({speaker for run in model.runs for speaker in run.searched_on} & set(model.speakers))
        for name in (label, model.runs[0].model):
            if name in given:
                searched.setdefault(label, given[name])
        if shared:
            searched.setdefault(label, f"settings searched on speakers on whom it is tested ({shorten(shared)})")
    return searched
