"""What the figures of one study are made from: its runs, put side by side."""

import logging
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from korser.comparison import compare
from korser.reporting.figures.style import look
from korser.runs.directory import SEARCH_FILE
from korser.runs.groups import studies
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_csv, read_json

logger = logging.getLogger(__name__)

NAMES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1", "qwk": "weighted kappa"}


@dataclass
class Drawing:
    """A figure in memory, with what is said beneath it."""

    name: str
    title: str
    caption: str
    figure: object
    models: tuple = ()  # labels of those that it shows; all of the study's if none is named


@dataclass
class ComparisonGroup:
    """Runs that may be compared, and their comparison.

    Attributes
    ----------
    name : str
        Corpus and protocol.
    comparison : korser.comparison.compare.Comparison
    runs : list of korser.runs.load.Run
    """

    name: str
    comparison: object
    runs: list

    @property
    def models(self):
        """``{label: korser.runs.pool.ModelPredictions}``."""
        return self.comparison.models

    @property
    def main(self):
        """Name of the main task."""
        return self.comparison.main

    @property
    def metric(self):
        """By which models are compared."""
        return self.comparison.metric

    @property
    def metric_name(self):
        """Of the main task, as an axis says it."""
        return f"{self.main} {NAMES[self.metric]}"

    def look(self, label):
        """How a model is drawn, in every figure alike."""
        return look(list(self.models).index(label))

    @cached_property
    def learned(self):
        """``{label: {(stage, quantity): (unit, [initial of each run], [trained])}}``, of ``interpretable_parameters.json``."""
        found = {}
        for label, model in self.models.items():
            for run in model.runs:
                for stage in run.directory.interpretable_parameters():
                    for quantity, values in stage["quantities"].items():
                        key = (stage["stage"], quantity)
                        entry = found.setdefault(label, {}).setdefault(key, (values["unit"], [], []))
                        entry[1].append(values["initial"])
                        entry[2].append(values["trained"])
        return found

    def runs_of(self, label):
        """``3 seeds, 6 folds``, for a caption."""
        model = self.models[label]
        return f"{_count(len(model.seeds), 'seed')}, {_count(len(model.folds), 'fold')}"

    @property
    def runs_of_all(self):
        """The same for all models, where they agree."""
        said = {self.runs_of(label) for label in self.models}
        return said.pop() if len(said) == 1 else "; ".join(f"{label}: {self.runs_of(label)}" for label in self.models)

    def notes(self, labels=()):
        """What must be said under a figure of these models: synthetic speech, a random split, random weights, ..."""
        models = {label: self.models[label] for label in labels or self.models}
        searched = [f"{label}: {note}" for label, note in self.comparison.searched.items() if label in models]
        apart = [note for label, note in self.comparison.excluded.items() if label in models]
        return compare.warnings_about(models) + searched + apart


def _count(n, what):
    return f"{n} {what}{'s' * (n != 1)}"


def gather(runs, metric=None, made=()):
    """Put runs into studies.

    Parameters
    ----------
    runs : list of korser.runs.load.Run
        Those without test predictions (a search's trials) are left out.
    metric : str, optional
        By which models are compared; see :func:`recorded_metric` if not given.
    made : list of dict
        The contents of ``comparison.json`` files. If there is one of the only study, its questions are asked.

    Returns
    -------
    list of Study
    """
    tested = [run for run in runs if run.directory.has_predictions()]
    groups = studies(tested)
    asked = made[0]["settings"]["questions"] if len(made) == len(groups) == 1 else None
    found = []
    for name, own in groups.items():
        options = {"metric": metric or recorded_metric(name, own, made), "questions": asked}
        found.append(ComparisonGroup(name, compare.compare(own, **options), own))
    return found


def recorded_metric(name, runs, made):
    """The metric by which comparisons of a study were made.

    Parameters
    ----------
    name : str
        Of the study, for the log.
    runs : list of korser.runs.load.Run
    made : list of dict
        The contents of ``comparison.json`` files, of other studies too.

    Returns
    -------
    str
        ``uar`` where there is no comparison, or several differ, which the log says.
    """
    names = {run.path.name for run in runs}
    study = (runs[0].info["corpus"], runs[0].info["protocol"])
    own = [each for each in made if names & {entry["run"] for entry in each["runs"]}]
    own = own or [each for each in made if (each.get("corpus"), each.get("protocol")) == study]  # of runs elsewhere
    metrics = sorted({each["settings"].get("metric", "uar") for each in own}) or ["uar"]
    if len(metrics) > 1:
        logger.warning("%s: compared by %s: taken is uar, unless --metric says another", name, " and by ".join(metrics))
        return "uar"
    return metrics[0]


def find_searches(folders):
    """Searches below some folders.

    Returns
    -------
    list of (dict, pandas.DataFrame)
        ``search.json``, and the complete trials of ``trials.csv``.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    found = []
    for path in find_below(folders, SEARCH_FILE):
        trials = read_csv(path.parent / "trials.csv")
        missing = {"state", "valid_uar"} - set(trials)
        if missing:
            raise UserError(f"{path.parent}/trials.csv has no column {missing.pop()}: search again")
        complete = trials[trials["state"] == "complete"].assign(valid_uar=lambda t: pd.to_numeric(t["valid_uar"]))
        search = read_json(path)
        axes = [axis for axis in search.get("space", []) if axis in complete]
        complete[axes] = complete[axes].astype(object).where(complete[axes].notna(), "null")  # written as an empty cell
        found.append((search, complete))
    return found
