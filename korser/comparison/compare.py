"""Models side by side: which is better, by how much, and whether that can be told.

From run directories alone. A model's runs are pooled over folds; its metrics are means over seeds with intervals over
speakers and seeds, and models are compared in pairs on the same utterances (:mod:`korser.metrics.significance`).
"""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from korser.comparison import tables
from korser.comparison.estimates import cell_text, corrected, estimate_of, estimates_of, pair_difference
from korser.comparison.questions import ask, default_questions
from korser.comparison.subgroups import calibration_table, subgroups_table
from korser.data.split_checks import LEXICAL_LEAKAGE
from korser.runs.groups import label_runs, made_by_other_code, other_recordings, studies
from korser.runs.pool import pool_runs, require_same_utterances
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_text
from korser.utils.text import shorten

COSTS = {  # column: how a model's runs are put together
    "parameters": "max",
    "trainable_parameters": "max",
    "macs_per_second": "max",
    "train_seconds": "mean",
    "peak_memory_bytes": "max",
}


@dataclass
class Comparison:
    """Models of one study, compared.

    Attributes
    ----------
    corpus, protocol, metric, main : str
        ``metric`` of the task ``main`` is what models are compared by.
    models : dict
        ``{label: korser.runs.pool.ModelPredictions}`` in the order of the rows.
    table : pandas.DataFrame
        One row a model. ``model``; ``n_seeds, n_folds, n_speakers, n_utterances``; for each of :attr:`columns`
        ``<task>_<metric>``, ``..._low``, ``..._high``; ``<main>_ece`` likewise; ``parameters, trainable_parameters,
        macs_per_second`` (multiply-accumulates per second of audio), ``train_seconds`` (mean of its runs),
        ``peak_memory_bytes``, ``peak_memory_of``, ``device``, empty where ``cost.json`` is missing; ``worst_speaker``
        and ``worst_speaker_<metric>``; ``note``.
    columns : dict
        ``{"emotion_uar": ("emotion", "uar")}``: the compared columns with their tasks and metrics.
    tests : dict
        ``{"emotion_uar": pandas.DataFrame}``, for each compared column all pairs of models: ``model_a, model_b,
        difference`` (of a from b), ``low, high, p, p_holm`` (over all pairs of this column), ``exact, n_speakers,
        n_seeds, smallest_p, can_reach`` (whether .05 can be reached at all after correction), ``significant`` (p_holm
        <= .05 and an interval without 0: see :func:`korser.metrics.significance.permutation_test`), ``speakers_lower`` (on how
        many a is worse), ``lowest_speaker`` and ``lowest_difference``, ``note``.
    marks : dict
        ``{"emotion_uar": {label: "best", "same", "untested" or ""}}``; ``same``: not significantly worse than the best.
    planned : pandas.DataFrame
        Pairs of the planned questions, as ``tests`` with ``question``, ``verdict`` and ``lower_for`` (groups on which
        a is worse); a family of their own for Holm's correction.
    answers : list of str
        One sentence a planned pair.
    subgroups : pandas.DataFrame
        ``model, attribute, group, n_utterances, n_speakers, n_seeds``, accuracy and UAR of the main task with
        intervals, ``worst`` (that model's worst speaker), ``note`` (classes that the group lacks; why there is no
        interval).
    calibration : pandas.DataFrame
        Reliability diagram of the main task: ``model, low, high, count, confidence, accuracy`` per bin of confidence,
        over all seeds.
    warnings, notes : list of str
        What every table has to say (synthetic speech, random split, encoder not pretrained, other recordings); what was
        left out.
    searched, excluded : dict
        ``{label: note}`` of models whose settings were searched on speakers whom they are tested on, and of those that
        were not tested on all utterances; marked in every table.
    """

    corpus: str
    protocol: str
    metric: str
    main: str
    models: dict
    table: pd.DataFrame
    columns: dict
    tests: dict
    marks: dict
    planned: pd.DataFrame
    answers: list
    subgroups: pd.DataFrame
    calibration: pd.DataFrame
    warnings: list
    notes: list
    searched: dict
    excluded: dict

    @property
    def pairs(self):
        """All pairs of models by the metric that was asked for."""
        return self.tests[f"{self.main}_{self.metric}"]

    def to_csv(self, folder):
        """Write ``models.csv``, ``pairs.csv``, ``questions.csv``, ``subgroups.csv`` and ``calibration.csv``."""
        folder = Path(folder)
        pairs = [table.assign(column=column) for column, table in self.tests.items()]
        about = {"corpus": self.corpus, "protocol": self.protocol, "warnings": "; ".join(self.all_warnings)}
        write_csv(folder / "models.csv", self.table.assign(**about))
        write_csv(folder / "pairs.csv", pd.concat(pairs, ignore_index=True).assign(**about))
        write_csv(folder / "questions.csv", self.planned.assign(**about))
        write_csv(folder / "subgroups.csv", self.subgroups.assign(**about))
        write_csv(folder / "calibration.csv", self.calibration.assign(**about))

    @property
    def all_warnings(self):
        """What must stand beside every figure of this comparison."""
        return [*self.warnings, *(f"{label}: {note}" for label, note in self.searched.items()), *self.excluded.values()]

    def to_markdown(self):
        """Tables, answers and notes as Markdown."""
        return tables.markdown(self)

    def to_latex(self):
        """Two tables (results; costs) for ``\\usepackage{booktabs}``."""
        return tables.latex(self)

    def write(self, folder):
        """Write everything: the CSV files, ``comparison.md`` and ``comparison.tex``."""
        self.to_csv(folder)
        write_text(Path(folder) / "comparison.md", self.to_markdown())
        write_text(Path(folder) / "comparison.tex", self.to_latex())


def compare(runs, *, metric="uar", questions=None, searched_on=None, part="test"):
    """Compare the models of some runs.

    Parameters
    ----------
    runs : list of Run
        From :func:`korser.runs.load.load_runs`, of one study (:func:`korser.runs.groups.studies`). Those without predictions of
        ``part`` (a search's trials) are left out. Models are in the order in which they first appear. A model that was
        not tested on all utterances has a row, and is not compared.
    metric : str
        By which models are compared: ``accuracy``, ``uar``, ``macro_f1``, or ``qwk`` where the main task is ordinal.
    questions : list of dict, optional
        ``[{"title": str, "pairs": [[a, b], ...]}]``: is a better than b? By default, from names like ``leaf_stl``:
        does ``<x>_<frontend>`` beat ``<frontend>``, does multitask (mtl) beat single-task (stl)?
    searched_on : dict, optional
        ``{model: note}`` of models whose settings were searched on speakers whom they are tested on; marked in every
        table. Runs with :attr:`korser.runs.load.Run.searched_on` are marked by themselves.
    part : str
        Which predictions: ``test``, or another table of the run directories.

    Returns
    -------
    Comparison

    Raises
    ------
    UserError
        If runs are of different studies, disagree on labels, or there is nothing to compare by.
    """
    used = [run for run in runs if (run.path / f"{part}.csv").exists()]
    notes = []
    if len(used) < len(runs):
        n = len(runs) - len(used)
        notes.append(f"runs without predictions of the {part} part (trials of a search) are left out: {n}")
    if not used:
        raise UserError(f"no run has predictions of the {part} part: train with evaluate_test: true")
    groups = studies(used)
    if len(groups) > 1:
        raise UserError(f"runs of different studies cannot be compared ({'; '.join(groups)}): name the folders of one")
    models = {label: pool_runs(label, own, split=part) for label, own in label_runs(used).items()}
    first = next(iter(models.values()))
    main = next(iter(first.tasks))
    columns = _columns(models, main)
    if f"{main}_{metric}" not in columns:
        known = [m for task, m in columns.values() if task == main]
        raise UserError(f"metric '{metric}' is none of {', '.join(known)}: choose one of these")
    unlabelled = next((label for label, model in models.items() if not model.counts(main).size), None)
    if unlabelled:
        raise UserError(
            f"{unlabelled}: no utterance of the {part} part has a label of {main}: there is nothing to compare by"
        )
    excluded = _excluded(models)
    if questions is None:
        split = sorted({m.runs[0].model for label, m in models.items() if label != m.runs[0].model})
        notes += [f"{name} was trained with different settings: the default questions leave it out" for name in split]
    searched = _searched(models, searched_on or {})
    notes += [str(note) for model in models.values() for note in model.notes] + list(excluded.values())
    notes += map(str, made_by_other_code(used))

    comparable = {label: model for label, model in models.items() if label not in excluded}
    entries = {column: estimates_of(models, *of) for column, of in columns.items()}
    ece = {label: estimate_of(model, model.bins(main), "ece") for label, model in models.items()}
    tests = {column: _all_pairs(comparable, *of) for column, of in columns.items()}
    subgroups = subgroups_table(models, main, metric)
    planned, answers = ask(
        models, excluded, default_questions(models) if questions is None else questions, main, metric
    )
    return Comparison(
        corpus=first.runs[0].info["corpus"],
        protocol=first.runs[0].info["protocol"],
        metric=metric,
        main=main,
        models=models,
        table=_table(models, main, metric, {**entries, f"{main}_ece": ece}, subgroups, {**excluded, **searched}),
        columns=columns,
        tests=tests,
        marks={column: significance_marks(comparable, entries[column], tests[column]) for column in columns},
        planned=planned,
        answers=answers,
        subgroups=subgroups,
        calibration=calibration_table(models, main),
        warnings=warnings_about(models) + list(map(str, other_recordings(models))),
        notes=notes,
        searched=searched,
        excluded=excluded,
    )


def _columns(models, main):
    """Main task: accuracy, UAR, macro-F1; others: kappa if ordinal, else accuracy."""
    columns = {}
    for task, about in {t: a for model in models.values() for t, a in model.tasks.items()}.items():
        ordinal = ["qwk"] if about["ordinal"] else []
        for metric in ["accuracy", "uar", "macro_f1", *ordinal] if task == main else ordinal or ["accuracy"]:
            columns[f"{task}_{metric}"] = (task, metric)
    return columns


def _excluded(models):
    """Models that were not tested on every utterance that others were, with the reason."""
    fullest = max(models.values(), key=lambda model: len(model.table))
    excluded = {}
    for label, model in models.items():
        if model is fullest:
            continue
        missing = len(set(fullest.table["id"]) - set(model.table["id"]))
        if missing and set(model.table["id"]) < set(fullest.table["id"]):
            excluded[label] = (
                f"{label} was tested on {len(model.table)} of {len(fullest.table)} utterances (folds "
                f"{shorten(model.folds)}) and is not compared with the others"
            )
        else:
            require_same_utterances(fullest, model)
    return excluded


def _searched(models, given):
    unknown = [name for name in given if not any(name in (m.label, m.runs[0].model) for m in models.values())]
    if unknown:
        raise UserError(f"searched_on names '{unknown[0]}', which is no model here: {', '.join(models)}")
    searched = {}
    for label, model in models.items():
        shared = sorted({s for run in model.runs for s in run.searched_on} & set(model.speakers))
        if label in given or model.runs[0].model in given:
            searched[label] = given.get(label, given.get(model.runs[0].model))
        elif shared:
            searched[label] = f"settings searched on speakers whom it is tested on ({shorten(shared)})"
    return searched


def warnings_about(models):
    """What must be said beside any figure for these models.

    Parameters
    ----------
    models : dict of str to korser.runs.pool.ModelPredictions

    Returns
    -------
    list of str
        Of synthetic speech, of a random split, of sentences that tell the label, of frontends that were not checked, of
        encoders with random weights.
    """
    runs = [run for model in models.values() for run in model.runs]
    found = []
    if any(run.info["synthetic"] for run in runs):
        found.append("SYNTHETIC speech: these are no results for human speech")
    if any(not run.info["speaker_independent"] for run in runs):
        found.append("RANDOM SPLIT: training and test share speakers; these are no figures for unseen speakers")
    if any(run.info.get("lexical_leakage") for run in runs):
        found.append(LEXICAL_LEAKAGE)
    unchecked = [label for label, m in models.items() if any(run.info.get("dry_run") is False for run in m.runs)]
    if unchecked:
        names = ", ".join(unchecked)
        found.append(f"NOT CHECKED: whether the frontend of {names} obeys the contract; figures may depend on padding")
    random = [label for label, m in models.items() if any(run.info["pretrained"] is False for run in m.runs)]
    if random:
        names = ", ".join(random)
        found.append(f"NOT PRETRAINED: the encoder's weights are random in {names}; this is no result for it")
    return found


def _table(models, main, metric, entries, subgroups, notes):
    rows = []
    for label, model in models.items():
        row = {
            "model": label,
            "n_seeds": len(model.seeds),
            "n_folds": len(model.folds),
            "n_speakers": len(model.speakers),
            "n_utterances": len(model.table),
        }
        said = [notes[label]] if label in notes else []
        for column, own in entries.items():
            entry = own.get(label, {})
            row |= {column: entry.get("value"), f"{column}_low": entry.get("low"), f"{column}_high": entry.get("high")}
            said += [text for text in cell_text(entry) if text not in said]
        row |= _cost(model.runs)
        worst = subgroups[(subgroups["model"] == label) & subgroups["worst"]]
        row["worst_speaker"] = worst["group"].iloc[0] if len(worst) else None
        row[f"worst_speaker_{main}_{metric}"] = worst[metric].iloc[0] if len(worst) else None
        rows.append({**row, "note": "; ".join(said)})
    return pd.DataFrame(rows)


def _cost(runs):
    costs = pd.DataFrame([run.cost for run in runs])
    row = {name: pd.to_numeric(costs[name]).agg(how) if name in costs else None for name, how in COSTS.items()}
    for name in ("peak_memory_of", "device"):
        row[name] = ", ".join(sorted(set(costs[name].dropna()))) if name in costs else None
    return row


def _all_pairs(models, task, metric):
    having = [model for model in models.values() if task in model.tasks]
    rows = [pair_difference(a, b, task, metric) for a, b in combinations(having, 2)]
    return corrected(rows)


def significance_marks(models, entries, tests):
    """The best model, and those that were tested against it and are not significantly worse.

    A model with more seeds than the best is compared with it by those that both have, by which it may be the better one.
    """
    values = {label: entries[label]["value"] for label in models if label in entries}
    values = {label: value for label, value in values.items() if value is not None}
    marks = dict.fromkeys(models, "")
    if not values:
        return marks
    best = max(values, key=values.get)
    for label, value in values.items():
        pair = tests[tests["model_a"].isin([best, label]) & tests["model_b"].isin([best, label])]
        if value == values[best]:
            marks[label] = "best"
        elif len(pair):
            [pair] = pair.to_dict("records")
            worse = pair["significant"] and (pair["difference"] > 0) == (pair["model_a"] == best)
            marks[label] = "untested" if pd.isna(pair["p"]) else "" if worse else "same"
    return marks
