"""The data that figures are drawn from: comparable runs with their comparison."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from korser.comparison.compare import compare
from korser.comparison.warnings import warnings_about
from korser.metrics.scores import TITLES, chance
from korser.reporting.figures.style import ModelStyle, model_style
from korser.runs.groups import studies
from korser.utils.text import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from korser.comparison.compare import Comparison
    from korser.runs.load import Run
    from korser.runs.pool import ModelPredictions

__all__ = [
    "ComparisonGroup",
    "Drawing",
    "ParameterValues",
    "chance_note",
    "gather",
    "recorded_choices",
]

logger = logging.getLogger(__name__)


@dataclass
class Drawing:
    """A figure in memory.

    Attributes
    ----------
    name : str
        Name of its files, without extension.
    title, caption : str
        Plain text.
    models : tuple of str
        Labels of the models that it shows; empty for all models of the group.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParameterValues:
    """Values of one interpretable quantity of a frontend, over all runs of a model: ``(n_runs, n_values)`` each."""

    unit: str
    initial: np.ndarray
    trained: np.ndarray


@dataclass
class ComparisonGroup:
    """Runs on the same corpus and split protocol, with their comparison.

    Attributes
    ----------
    name : str
        Corpus and protocol.
    """

    name: str
    comparison: Comparison

    @property
    def models(self) -> dict[str, ModelPredictions]:
        """Return the models by label."""
        return self.comparison.models

    @property
    def main(self) -> str:
        """Return the name of the main task."""
        return self.comparison.main

    @property
    def metric(self) -> str:
        """Return the metric by which models are compared."""
        return self.comparison.metric

    @property
    def metric_name(self) -> str:
        """Return the metric of the main task as an axis label, ``emotion UAR``."""
        return f"{self.main} {TITLES[self.metric]}"

    @property
    def metric_title(self) -> str:
        """Return the same as the beginning of a sentence, ``Emotion UAR``."""
        return self.metric_name[0].upper() + self.metric_name[1:]

    def model_style(self, label: str) -> ModelStyle:
        """Return how a model is drawn, the same in every figure."""
        return model_style(list(self.models).index(label))

    @cached_property
    def parameters(self) -> dict[str, dict[tuple[str, str], ParameterValues]]:
        """Return ``{label: {(frontend, quantity): values}}`` from ``interpretable_parameters.json`` of all runs."""
        found = {}
        for label, model in self.models.items():
            values = {}
            for run in model.runs:
                for key, unit, initial, trained in _read_parameters(run):
                    entry = values.setdefault(key, (unit, [], []))
                    entry[1].append(initial)
                    entry[2].append(trained)
            if values:
                found[label] = {
                    key: ParameterValues(unit, np.asarray(initial, float), np.asarray(trained, float))
                    for key, (unit, initial, trained) in values.items()
                }
        return found

    def chance(self, task: str, metric: str) -> float | None:
        """Return the chance level of a metric on the test utterances, see :func:`korser.metrics.scores.chance`."""
        return chance(metric, next(model.counts(task) for model in self.models.values() if task in model.tasks))

    def runs_of(self, label: str) -> str:
        """Return ``3 seeds, 6 folds``, for a caption."""
        model = self.models[label]
        folds = [plural(len(model.folds), "fold")] if model.folds != [None] else []
        return ", ".join([plural(len(model.seeds), "seed"), *folds])

    @property
    def runs_of_all(self) -> str:
        """Return the same for all models, once if they agree."""
        counts = {label: self.runs_of(label) for label in self.models}
        if len(set(counts.values())) == 1:
            return next(iter(counts.values()))
        return "; ".join(f"{label}: {text}" for label, text in counts.items())

    def notes(self, labels: Iterable[str] = ()) -> list[str]:
        """Return what a figure of some models, or all, must state: synthetic speech, a random split, ..."""
        models = {label: self.models[label] for label in labels or self.models}
        searched = [f"{label}: {note}" for label, note in self.comparison.searched.items() if label in models]
        excluded = [note for label, note in self.comparison.excluded.items() if label in models]
        return [str(note) for note in warnings_about(models)] + searched + excluded


def chance_note(group: ComparisonGroup, task: str, *metrics: str) -> str:
    """Return what the dotted lines of a caption are; empty if none of the metrics has a chance level."""
    known = [metric for metric in metrics if group.chance(task, metric) is not None]
    how = " (of accuracy: always the most frequent class)" if "accuracy" in known else ""
    return f" Dotted: chance level{how}." if known else ""


def _read_parameters(run: Run) -> Iterator[tuple[tuple[str, str], str, list, list]]:
    for frontend in run.directory.interpretable_parameters():
        for quantity, values in frontend["quantities"].items():
            yield (frontend["stage"], quantity), values["unit"], values["initial"], values["trained"]


def gather(runs: Sequence[Run], metric: str | None = None, made: Sequence[dict] = ()) -> list[ComparisonGroup]:
    """Group runs by corpus and protocol, and compare the models of each group.

    Parameters
    ----------
    runs : list of korser.runs.load.Run
        Runs without test predictions (the trials of a search) are ignored.
    metric : str, optional
        By which models are compared; default: that of the comparison they come from.
    made : list of dict
        The contents of ``comparison.json`` files. If there is one group and one file, its questions are used.
    """
    tested = [run for run in runs if run.directory.has_predictions()]
    groups = studies(tested)
    questions = made[0]["settings"]["questions"] if len(made) == len(groups) == 1 else None
    found = []
    for name, own in groups.items():
        recorded = recorded_choices(name, own, made)
        order = {model: i for i, model in enumerate(recorded["names"])}  # that of the comparison
        own.sort(key=lambda run: order.get(run.model, len(order)))
        choices = {**recorded, "metric": metric or recorded["metric"], "questions": questions}
        found.append(ComparisonGroup(name, compare(own, **choices)))
    return found


def recorded_choices(name: str, runs: Sequence[Run], made: Sequence[dict]) -> dict[str, Any]:
    """Return ``metric`` and ``names`` of the comparisons that a group of runs comes from.

    The metric is None if it is that of the main task, or (with a warning) if there are several.
    """
    folders = {run.path.name for run in runs}
    group = (runs[0].info["corpus"], runs[0].protocol)
    own = [each for each in made if folders & {entry["run"] for entry in each["runs"]}]
    if not own:  # the compared runs may be in another folder
        own = [each for each in made if (each.get("corpus"), each.get("protocol")) == group]
    names = {label: name for each in own for label, name in each.get("names", {}).items()}
    metrics = sorted({metric for each in own if (metric := each["settings"].get("metric"))})
    if len(metrics) > 1:
        logger.warning(
            "%s: comparisons use different metrics (%s): using that of the main task; choose one by --metric",
            name,
            ", ".join(metrics),
        )
    return {"metric": metrics[0] if len(metrics) == 1 else None, "names": names}
