"""The questions of a comparison and their answers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from korser.comparison.estimates import correct, pair_difference, seed_variance_of, uncompared_pair
from korser.comparison.subgroups import groups_of
from korser.comparison.verdict import Answer, Verdict
from korser.config.fields import show
from korser.metrics.scores import METRICS, TITLES
from korser.runs.pool import ModelPredictions
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean, interval_text, p_value, plural, sentence, signed

__all__ = ["QUESTION", "ask", "check_question", "default_questions"]

QUESTION = "{title: ..., pairs: [[a, b], ...]}"


def default_questions(labels: Iterable[str]) -> list[dict[str, Any]]:
    """Return the two default questions, from names of models ``<frontend>_<stl or mtl>``.

    Does ``<x>_<frontend>`` beat ``<frontend>``, and does multitask (mtl) beat single-task (stl)?

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
        for longer in frontends:
            pairs = [[f"{longer}_{head}", f"{frontend}_{head}"] for head in ("stl", "mtl")]
            pairs = [pair for pair in pairs if set(pair) <= set(labels)]
            if longer.endswith(f"_{frontend}") and pairs:
                questions.append({"title": f"Does {longer} beat {frontend}?", "pairs": pairs})
    pairs = [[f"{f}_mtl", f"{f}_stl"] for f in frontends if {f"{f}_mtl", f"{f}_stl"} <= set(labels)]
    if pairs:
        questions.append({"title": "Does multitask beat single-task?", "pairs": pairs})
    return questions


def ask(
    models: Mapping[str, ModelPredictions],
    excluded: Mapping[str, str],
    questions: Sequence[Mapping[str, Any]],
    main: str,
    metric: str,
    names: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, list[Answer]]:
    """Answer whether the first model of each pair is better than the second.

    ``excluded`` are models that are not compared, with the reason; ``names`` those of models that a question calls
    otherwise, such as by their YAML files.

    Returns
    -------
    planned : pandas.DataFrame
        See :attr:`korser.comparison.compare.Comparison.planned`.
    answers : list of Answer
    """
    variance = seed_variance_of({label: models[label] for label in models if label not in excluded}, main, metric)
    rows, titles = [], []
    for question in questions:
        try:
            check_question(question)
        except ValueError as error:
            raise UserError(f"questions: {error}") from None
        for a, b in ([(names or {}).get(each, each) for each in pair] for pair in question["pairs"]):
            titles.append(question["title"])
            reason = _why_not_compared(a, b, models, excluded)
            if reason is None:
                rows.append(pair_difference(models[a], models[b], main, metric, variance))
            else:
                rows.append(uncompared_pair(a, b, reason))
    planned = correct(rows)
    planned.insert(0, "question", titles)
    records = planned.to_dict("records")
    planned["verdict"] = [_verdict(row) for row in records]
    planned["lower_for"] = [_lower_groups(row, models, main, metric) for row in records]
    return planned, [_answer(row, f"{main} {TITLES[metric]}") for row in planned.to_dict("records")]


def check_question(question: Any, names: Collection[str] = ()) -> None:
    """Raise a ValueError if a question is invalid or names a model that is not in ``names`` (if any)."""
    is_mapping = isinstance(question, Mapping) and set(question) == {"title", "pairs"}
    if not is_mapping or not isinstance(question["pairs"], (list, tuple)):
        raise ValueError(f"expected {QUESTION}, got {show(question)}")
    for pair in question["pairs"]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise ValueError(f"expected a pair of models [a, b], got {show(pair)}")
        for name in pair:
            if names and name not in names:
                raise ValueError(f"'{name}' is not one of the models{did_you_mean(name, names)}")


def _why_not_compared(a: str, b: str, models: Mapping, excluded: Mapping[str, str]) -> str | None:
    missing = [f"there is no complete run of {name}" for name in (a, b) if name not in models]
    return next(iter(missing + [excluded[name] for name in (a, b) if name in excluded]), None)


def _verdict(row: Mapping[str, Any]) -> Verdict:
    if pd.isna(row["difference"]):
        return Verdict.NOT_COMPARED
    if not row["significant"]:
        return Verdict.INCONCLUSIVE
    return Verdict.YES if row["difference"] > 0 else Verdict.NO_WORSE


def _lower_groups(row: Mapping[str, Any], models: Mapping[str, ModelPredictions], task: str, metric: str) -> str:
    """Return the groups of utterances on which ``model_a`` is worse than ``model_b``."""
    if pd.isna(row["difference"]):
        return ""
    a, b = models[row["model_a"]], models[row["model_b"]]
    seeds = sorted(set(a.seeds) & set(b.seeds))
    order = {name: about.classes for model in (a, b) for name, about in model.tasks.items()}
    lower = []
    for attribute, group, rows in groups_of(a, order):
        if attribute == "speaker":
            continue
        value_a, value_b = (METRICS[metric](m.counts(task, rows=rows, seeds=seeds).sum(1)) for m in (a, b))
        change = (value_a - value_b).mean()
        if change < -1e-9:
            lower.append(f"{attribute} {group} ({signed(change)})")
    return ", ".join(lower)


# -- sentences --------------------------------------------------------------------------------------------------------
def _answer(row: Mapping[str, Any], metric_title: str) -> Answer:
    about = {name: row[name] for name in ("question", "model_a", "model_b", "verdict")}
    if row["verdict"] is Verdict.NOT_COMPARED:
        return Answer(**about, result=row["note"] or "undefined")
    details = [*_cautions(row), *_where_lower(row)]
    return Answer(**about, result=f"{metric_title} difference {_result(row)}", details=" ".join(details))


def _result(row: Mapping[str, Any]) -> str:
    interval = interval_text(row["low"], row["high"]) or f"(no interval: {row['note']})"
    seeds = plural(row["n_seeds"], "seed")
    text = f"{signed(row['difference'])} {interval}"
    if pd.isna(row["p"]):
        return f"{text}, not tested, {seeds}"
    how = "exact" if row["exact"] else "random swaps"
    holm = f"Holm {p_value(row['p_holm'])}"
    return f"{text}, {p_value(row['p'], 'p')} ({holm}; {how}, {plural(row['n_speakers'], 'speaker')}, {seeds})"


def _cautions(row: Mapping[str, Any]) -> list[str]:
    """Return sentences on what the result does not show."""
    if pd.isna(row["p"]):
        return []
    return [sentence(text) for text in (row["note"], row["reason"]) if text]


def _where_lower(row: Mapping[str, Any]) -> list[str]:
    if pd.isna(row["p"]) or pd.isna(row["speakers_lower"]) or row["speakers_lower"] == 0:
        return []
    worst = f"most for {row['lowest_speaker']} ({signed(row['lowest_difference'])})"
    text = f"It is lower for {row['speakers_lower']:.0f} of {plural(row['n_speakers'], 'speaker')}, {worst}"
    return [f"{text}, and for {row['lower_for']}." if row["lower_for"] else f"{text}."]
