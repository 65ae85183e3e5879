"""Models side by side: which is better, by how much, and whether that can be told.

From run directories alone. A model's runs are pooled over folds; its metrics are means over seeds with intervals over
speakers and seeds, and models are compared in pairs on the same utterances (:mod:`korser.statistics`).
"""

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from korser import statistics, tables
from korser.errors import UserError
from korser.metrics import BINS
from korser.rundir import write_csv, write_text
from korser.runs import label_runs, made_by_other_code, other_recordings, pool, require_same_utterances, some, studies
from korser.splits import ATTRIBUTES, WORDS_TELL

AGE_BANDS = {"<30": (0, 30), "30-39": (30, 40), "40-49": (40, 50), "50+": (50, np.inf)}
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
        ``{label: korser.runs.Pooled}`` in the order of the rows.
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
        <= .05 and an interval without 0: see :func:`korser.statistics.permutation_test`), ``speakers_lower`` (on how
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
    searched, apart : dict
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
    apart: dict

    @property
    def pairs(self):
        """All pairs of models by the metric that was asked for."""
        return self.tests[f"{self.main}_{self.metric}"]

    def to_csv(self, folder):
        """Write ``models.csv``, ``pairs.csv``, ``questions.csv``, ``subgroups.csv`` and ``calibration.csv``."""
        folder = Path(folder)
        pairs = [table.assign(column=column) for column, table in self.tests.items()]
        about = {"corpus": self.corpus, "protocol": self.protocol, "warnings": "; ".join(self.said_aloud)}
        write_csv(folder / "models.csv", self.table.assign(**about))
        write_csv(folder / "pairs.csv", pd.concat(pairs, ignore_index=True).assign(**about))
        write_csv(folder / "questions.csv", self.planned.assign(**about))
        write_csv(folder / "subgroups.csv", self.subgroups.assign(**about))
        write_csv(folder / "calibration.csv", self.calibration.assign(**about))

    @property
    def said_aloud(self):
        """What must stand beside every figure of this comparison."""
        return [*self.warnings, *(f"{label}: {note}" for label, note in self.searched.items()), *self.apart.values()]

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
        From :func:`korser.runs.load_runs`, of one study (:func:`korser.runs.studies`). Those without predictions of
        ``part`` (a search's trials) are left out. Models are in the order in which they first appear. A model that was
        not tested on all utterances has a row, and is not compared.
    metric : str
        By which models are compared: ``accuracy``, ``uar``, ``macro_f1``, or ``qwk`` where the main task is ordinal.
    questions : list of dict, optional
        ``[{"title": str, "pairs": [[a, b], ...]}]``: is a better than b? By default, from names like ``leaf_stl``:
        does ``<x>_<frontend>`` beat ``<frontend>``, does multitask (mtl) beat single-task (stl)?
    searched_on : dict, optional
        ``{model: note}`` of models whose settings were searched on speakers whom they are tested on; marked in every
        table. Runs with :attr:`korser.runs.Run.searched_on` are marked by themselves.
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
    models = {label: pool(label, own, part=part) for label, own in label_runs(used).items()}
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
    apart = _apart(models)
    if questions is None:
        split = sorted({m.runs[0].model for label, m in models.items() if label != m.runs[0].model})
        notes += [f"{name} was trained with different settings: the default questions leave it out" for name in split]
    searched = _searched(models, searched_on or {})
    notes += [note for model in models.values() for note in model.notes] + list(apart.values())
    notes += made_by_other_code(used)

    comparable = {label: model for label, model in models.items() if label not in apart}
    entries = {column: _estimates(models, *of) for column, of in columns.items()}
    ece = {label: _estimate(model, model.bins(main), "ece") for label, model in models.items()}
    tests = {column: _all_pairs(comparable, *of) for column, of in columns.items()}
    subgroups = _subgroups(models, main, metric)
    planned, answers = _ask(models, apart, default_questions(models) if questions is None else questions, main, metric)
    return Comparison(
        corpus=first.runs[0].info["corpus"],
        protocol=first.runs[0].info["protocol"],
        metric=metric,
        main=main,
        models=models,
        table=_table(models, main, metric, {**entries, f"{main}_ece": ece}, subgroups, {**apart, **searched}),
        columns=columns,
        tests=tests,
        marks={column: _marks(comparable, entries[column], tests[column]) for column in columns},
        planned=planned,
        answers=answers,
        subgroups=subgroups,
        calibration=_calibration(models, main),
        warnings=warnings_about(models) + other_recordings(models),
        notes=notes,
        searched=searched,
        apart=apart,
    )


# -- what is compared -------------------------------------------------------------------------------------------------
def _columns(models, main):
    """Main task: accuracy, UAR, macro-F1; others: kappa if ordinal, else accuracy."""
    columns = {}
    for task, about in {t: a for model in models.values() for t, a in model.tasks.items()}.items():
        ordinal = ["qwk"] if about["ordinal"] else []
        for metric in ["accuracy", "uar", "macro_f1", *ordinal] if task == main else ordinal or ["accuracy"]:
            columns[f"{task}_{metric}"] = (task, metric)
    return columns


def _apart(models):
    """Models that were not tested on every utterance that others were, with the reason."""
    fullest = max(models.values(), key=lambda model: len(model.table))
    apart = {}
    for label, model in models.items():
        if model is fullest:
            continue
        missing = len(set(fullest.table["id"]) - set(model.table["id"]))
        if missing and set(model.table["id"]) < set(fullest.table["id"]):
            apart[label] = (
                f"{label} was tested on {len(model.table)} of {len(fullest.table)} utterances (folds "
                f"{some(model.folds)}) and is not compared with the others"
            )
        else:
            require_same_utterances(fullest, model)
    return apart


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
            searched[label] = f"settings searched on speakers whom it is tested on ({some(shared)})"
    return searched


def warnings_about(models):
    """What must be said beside any figure for these models.

    Parameters
    ----------
    models : dict of str to korser.runs.Pooled

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
    if any(run.info.get("words_tell") for run in runs):
        found.append(WORDS_TELL)
    unchecked = [label for label, m in models.items() if any(run.info.get("dry_run") is False for run in m.runs)]
    if unchecked:
        names = ", ".join(unchecked)
        found.append(f"NOT CHECKED: whether the frontend of {names} obeys the contract; figures may depend on padding")
    random = [label for label, m in models.items() if any(run.info["pretrained"] is False for run in m.runs)]
    if random:
        names = ", ".join(random)
        found.append(f"NOT PRETRAINED: the encoder's weights are random in {names}; this is no result for it")
    return found


# -- one row a model --------------------------------------------------------------------------------------------------
def _estimate(model, counts, metric):
    entry = statistics.estimate(counts, metric)
    if entry["value"] is not None and not model.speakers:
        entry["note"] = "the speaker of some utterances is not known"
    return entry


def _said(entry):
    """What there is to say of an entry's value and interval."""
    if not entry.get("note"):
        return []
    if entry["value"] is None:
        return [f"no value: {entry['note']}"]
    return [entry["note"] if entry["low"] is not None else f"no interval: {entry['note']}"]


def _estimates(models, task, metric):
    return {label: _estimate(m, m.counts(task), metric) for label, m in models.items() if task in m.tasks}


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
            said += [text for text in _said(entry) if text not in said]
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


# -- pairs ------------------------------------------------------------------------------------------------------------
def _all_pairs(models, task, metric):
    having = [model for model in models.values() if task in model.tasks]
    rows = [_pair(a, b, task, metric) for a, b in combinations(having, 2)]
    return _corrected(rows)


def _corrected(rows):
    adjusted = statistics.holm([row["p"] for row in rows])
    tested = sum(p is not None for p in adjusted)
    table = pd.DataFrame(rows, columns=list(_pair_row("", "")))
    table["p_holm"] = pd.Series(adjusted, dtype=float)
    table["can_reach"] = [tested * row["smallest_p"] <= statistics.ALPHA for row in rows]
    without_zero = (table["low"].astype(float) > 0) | (table["high"].astype(float) < 0)  # never without an interval
    table["significant"] = (table["p_holm"] <= statistics.ALPHA) & without_zero
    return table


def _pair_row(a, b):
    names = ("difference", "low", "high", "p", "p_holm", "exact", "n_speakers", "n_seeds", "smallest_p", "can_reach")
    more = ("significant", "speakers_lower", "lowest_speaker", "lowest_difference", "note")
    return {"model_a": a, "model_b": b, **dict.fromkeys((*names, *more))}


def _pair(a, b, task, metric):
    """Difference of two models, over the seeds that both have."""
    row = {**_pair_row(a.label, b.label), "smallest_p": 1.0}
    seeds = sorted(set(a.seeds) & set(b.seeds))
    if not seeds:
        return {**row, "n_seeds": 0, "note": "they have no seed in common"}
    one, other = a.counts(task, seeds=seeds), b.counts(task, seeds=seeds)
    entry = statistics.difference(one, other, metric)
    row |= {"difference": entry["value"], "n_seeds": len(seeds), "n_speakers": len(a.speakers)}
    if not a.speakers:
        return {**row, "note": "the speaker of some utterances is not known"}
    test = statistics.permutation_test(one, other, metric)
    row |= {"low": entry["low"], "high": entry["high"], "note": entry.get("note"), "n_speakers": one.shape[1]}
    row |= {"p": test["p"], "exact": test["exact"], "smallest_p": test["smallest"]}
    by_speaker = statistics.per_speaker(one, metric) - statistics.per_speaker(other, metric)
    if np.isfinite(by_speaker).any():
        lowest = int(np.nanargmin(by_speaker))
        row["speakers_lower"] = int((by_speaker < -1e-9).sum())
        row["lowest_speaker"] = a.speakers_with(task)[lowest]
        row["lowest_difference"] = float(by_speaker[lowest])
    return row


def _marks(models, entries, tests):
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


# -- questions --------------------------------------------------------------------------------------------------------
def default_questions(labels):
    """The paper's two questions, from models' names ``<frontend>_<stl or mtl>``.

    Example
    -------
    >>> for question in default_questions(["leaf_stl", "leaf_mtl", "wav2vec_leaf_stl"]):
    ...     print(question)
    {'title': 'Does wav2vec_leaf beat leaf?', 'pairs': [['wav2vec_leaf_stl', 'leaf_stl']]}
    {'title': 'Does multitask beat single-task?', 'pairs': [['leaf_mtl', 'leaf_stl']]}
    """
    labels = list(labels)
    named = [match.groups() for label in labels if (match := re.fullmatch(r"(\w+)_(stl|mtl)", label))]
    frontends = list(dict.fromkeys(frontend for frontend, _ in named))
    questions = []
    for frontend in frontends:
        for upper in frontends:
            pairs = [[f"{upper}_{head}", f"{frontend}_{head}"] for head in ("stl", "mtl")]
            pairs = [pair for pair in pairs if set(pair) <= set(labels)]
            if upper.endswith(f"_{frontend}") and pairs:
                questions.append({"title": f"Does {upper} beat {frontend}?", "pairs": pairs})
    pairs = [[f"{f}_mtl", f"{f}_stl"] for f in frontends if {f"{f}_mtl", f"{f}_stl"} <= set(labels)]
    return questions + ([{"title": "Does multitask beat single-task?", "pairs": pairs}] if pairs else [])


def _ask(models, apart, questions, main, metric):
    rows, titles = [], []
    for question in questions:
        if not isinstance(question, dict) or set(question) != {"title", "pairs"}:
            raise UserError(f"questions: {question!r} is not understood: write {{title: ..., pairs: [[a, b], ...]}}")
        for pair in question["pairs"]:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise UserError(f"questions: {pair!r} is no pair of models: write [a, b]")
            titles.append(question["title"])
            missing = [name for name in pair if name not in models]
            partial = [name for name in pair if name in apart]
            if missing:
                why = f"there is no complete run of {missing[0]}"
                rows.append({**_pair_row(*pair), "smallest_p": 1.0, "note": why})
            elif partial:
                rows.append({**_pair_row(*pair), "smallest_p": 1.0, "note": apart[partial[0]]})
            else:
                rows.append(_pair(models[pair[0]], models[pair[1]], main, metric))
    planned = _corrected(rows)
    planned.insert(0, "question", titles)
    planned["verdict"] = [_verdict(row) for row in planned.to_dict("records")]
    planned["lower_for"] = [
        "" if pd.isna(row["difference"]) else _lower_for(models[row["model_a"]], models[row["model_b"]], main, metric)
        for row in planned.to_dict("records")
    ]
    tested = int(planned["p"].notna().sum())
    return planned, [_sentence(row, main, metric, tested) for row in planned.to_dict("records")]


def _verdict(row):
    if not row["significant"]:
        return "cannot be told"
    return ("yes" if row["difference"] > 0 else "no, it is worse") + ", for one seed" * (row["n_seeds"] == 1)


def _lower_for(a, b, task, metric):
    """Groups of utterances on which ``a`` is worse than ``b``."""
    seeds = sorted(set(a.seeds) & set(b.seeds))
    order = {name: task["classes"] for model in (a, b) for name, task in model.tasks.items()}
    lower = []
    for attribute, group, rows in groups_of(a, order):
        if attribute == "speaker":
            continue
        one, other = (m.counts(task, rows=rows, seeds=seeds).sum(1) for m in (a, b))
        change = (statistics.METRICS[metric](one) - statistics.METRICS[metric](other)).mean()
        if change < -1e-9:
            lower.append(f"{attribute} {group} ({tables.number(change, sign=True)})")
    return ", ".join(lower)


def _sentence(row, main, metric, tested):
    start = f"{row['question']} {row['model_a']} against {row['model_b']}: {row['verdict']}"
    if pd.isna(row["difference"]):
        return f"{start}: {row['note']}."
    text = f"{start}: difference in {main} {tables.NAMES[metric]} {tables.number(row['difference'], sign=True)}"
    if pd.isna(row["low"]):
        text += f" (no interval: {row['note']})"
    else:
        text += f" [{tables.number(row['low'])}, {tables.number(row['high'])}]"
    seeds = f"{row['n_seeds']:.0f} seed{'s' * (row['n_seeds'] != 1)}"
    if pd.isna(row["p"]):
        return f"{text}, not tested, {seeds}."
    n = f"{row['n_speakers']:.0f} speakers"
    text += f", {tables.p_value(row['p'])} (Holm {tables.p_value(row['p_holm'], name='')}), "
    text += f"{'exact' if row['exact'] else 'by random swaps'} over {n}, {seeds}."
    if row["n_seeds"] == 1:
        text += " One seed says nothing of the variation between trainings."
    elif row["p_holm"] <= statistics.ALPHA and not pd.isna(row["low"]) and not row["significant"]:
        text += " These trained models differ, but with other seeds it might be otherwise: the interval holds 0."
    if row["p_holm"] <= statistics.ALPHA and pd.isna(row["low"]):
        text += " Without an interval nothing is known of other seeds and speakers: p alone does not tell."
    if not row["can_reach"]:
        smallest, corrected = row["smallest_p"], min(1.0, tested * row["smallest_p"])
        text += f" With {n} the smallest p is {tables.number(smallest)}"
        if smallest <= statistics.ALPHA:
            text += f", after Holm's correction for {tested} tests {tables.number(corrected)}"
        text += ": no difference, however large, could reach .05."
    if row["speakers_lower"] > 0:
        worst = tables.number(row["lowest_difference"], sign=True)
        text += f" It is lower for {row['speakers_lower']:.0f} of {n}, most for {row['lowest_speaker']} ({worst})"
        text += f", and for {row['lower_for']}." if row["lower_for"] else "."
    return text


# -- subgroups and calibration ----------------------------------------------------------------------------------------
def groups_of(model, order=None):
    """Subgroups of a model's utterances.

    Parameters
    ----------
    model : korser.runs.Pooled
    order : dict of str to sequence of str, optional
        ``{attribute: classes}`` in their order, such as that of intensity; what is not listed comes behind.

    Yields
    ------
    attribute, group : str
        ``gender``, ``age`` (in bands where it is a number), ``intensity`` and ``speaker``, as far as known.
    rows : np.ndarray
        ``(N,)`` bool.
    """
    for attribute in ATTRIBUTES:
        if attribute not in model.table:
            continue
        values = model.table[attribute]
        numbers = pd.to_numeric(values, errors="coerce") if attribute == "age" else None
        if numbers is not None and numbers.notna().equals(values.notna()):
            groups = {band: (numbers >= low) & (numbers < high) for band, (low, high) in AGE_BANDS.items()}
        else:
            known = {name: i for i, name in enumerate((order or {}).get(attribute, ()))}
            names = sorted(values.dropna().unique(), key=lambda value: (known.get(str(value), len(known)), str(value)))
            groups = {str(value): values == value for value in names}
        yield from ((attribute, name, rows.to_numpy()) for name, rows in groups.items() if rows.any())
    for speaker in model.speakers:
        yield "speaker", speaker, (model.table["speaker"] == speaker).to_numpy()


def _subgroups(models, main, metric):
    order = {name: task["classes"] for model in models.values() for name, task in model.tasks.items()}
    parts = []
    for label, model in models.items():
        classes = np.array(model.tasks[main]["classes"])
        everything = model.counts(main).sum((0, 1, 3)) > 0  # classes that occur at all
        rows = []
        for attribute, group, mask in groups_of(model, order):
            counts = model.counts(main, rows=mask)
            if not counts.size:
                continue
            total = counts.sum(1)
            row = {"model": label, "attribute": attribute, "group": group, "n_utterances": int(total[0].sum())}
            row |= {"n_speakers": counts.shape[1] if model.speakers else 0, "n_seeds": len(model.seeds)}
            lacking = classes[everything & (total[0].sum(1) == 0)]
            notes = [f"no {', '.join(lacking)}"] if len(lacking) else []
            for name in dict.fromkeys(("accuracy", "uar", metric)):
                entry = _estimate(model, counts, name)
                row |= {name: entry["value"], f"{name}_low": entry["low"], f"{name}_high": entry["high"]}
                notes += [text for text in _said(entry) if text not in notes]
            rows.append({**row, "worst": False, "note": "; ".join(notes)})
        table = pd.DataFrame(rows)
        if len(table) and (table["attribute"] == "speaker").any():
            of_speakers = table.loc[table["attribute"] == "speaker", metric].astype(float).dropna()
            table.loc[of_speakers.index[of_speakers == of_speakers.min()][:1], "worst"] = True
        parts.append(table)
    columns = ["model", "attribute", "group", "n_utterances", "n_speakers", "n_seeds", "worst", "note", metric]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _calibration(models, main):
    edges = np.arange(BINS + 1) / BINS
    parts = []
    for label, model in models.items():
        n, confidence, right = model.bins(main).sum((0, 1))
        n_or_nan = np.where(n > 0, n, np.nan)
        columns = {"model": label, "low": edges[:-1], "high": edges[1:], "count": n.astype(int)}
        parts.append(pd.DataFrame({**columns, "confidence": confidence / n_or_nan, "accuracy": right / n_or_nan}))
    return pd.concat(parts, ignore_index=True)
