"""Warnings about the models of a comparison, and which of them cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from korser.runs.directory import recorded_warnings
from korser.runs.load import Run
from korser.runs.pool import ModelPredictions, require_same_utterances
from korser.utils.errors import UserError
from korser.utils.notes import NOT_PRETRAINED, Note, caveats, searched_on_tested
from korser.utils.text import shorten

__all__ = ["excluded_models", "searched_models", "warnings_about"]

Models = Mapping[str, ModelPredictions]


def warnings_about(models: Models) -> list[Note]:
    """Return the warnings that every table and figure of these models must show."""
    runs = [run for model in models.values() for run in model.runs]
    found = caveats(
        synthetic=any(run.info["synthetic"] for run in runs),
        random_split=not all(run.info["speaker_independent"] for run in runs),
        protocol=next((run.info["protocol"] for run in runs), ""),  # that of all
    )
    found += _recorded(models)
    unchecked = _labels(models, lambda run: run.info.get("check_contract") is False)
    if unchecked:
        text = f"NOT CHECKED: the frontend of {unchecked} was not checked; results may depend on padding"
        found.append(Note("not_checked", text))
    random = _labels(models, lambda run: run.info["pretrained"] is False)
    if random:
        found.append(replace(NOT_PRETRAINED, text=f"{NOT_PRETRAINED.text} in {random}"))
    return found


def _recorded(models: Models) -> list[Note]:
    """Return what the runs recorded about their data and encoders, one note per kind with the models it is about."""
    texts: dict[str, dict[str, list[str]]] = {}  # code: {text: models}
    for label, model in models.items():
        for note in [note for run in model.runs for note in recorded_warnings(run.info)]:
            labels = texts.setdefault(note.code, {}).setdefault(note.text, [])
            if label not in labels:
                labels.append(label)
    found = []
    for code, by_text in texts.items():
        text = next(iter(by_text))
        text += f"; and {len(by_text) - 1} more like this in other runs" if len(by_text) > 1 else ""
        concerned = dict.fromkeys(label for labels in by_text.values() for label in labels)
        found.append(Note(code, text if len(concerned) == len(models) else f"{text} (in {', '.join(concerned)})"))
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

    ``given`` are notes by label or by name; other models are marked by :attr:`korser.runs.load.Run.searched_on`.
    """
    names = {name for label, model in models.items() for name in (label, model.runs[0].model)}
    for name in given:
        if name not in names:
            raise UserError(f"searched_on: '{name}' is not one of the models {', '.join(models)}")
    searched = {}
    for label, model in models.items():
        tested = {*model.table["speaker"].dropna(), *model.table["id"]}
        shared = sorted({heard for run in model.runs for heard in run.searched_on} & tested)
        for name in (label, model.runs[0].model):
            if name in given:
                searched.setdefault(label, given[name])
        for note in searched_on_tested(shared):
            searched.setdefault(label, note.text)
    return searched
