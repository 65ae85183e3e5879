"""Questions that a comparison answers."""

import re

import pandas as pd

from korser.comparison import tables
from korser.comparison.estimates import corrected, pair_difference, pair_row
from korser.comparison.subgroups import groups_of
from korser.metrics import estimates
from korser.utils.errors import UserError


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


def ask(models, excluded, questions, main, metric):
    rows, titles = [], []
    for question in questions:
        if not isinstance(question, dict) or set(question) != {"title", "pairs"}:
            raise UserError(f"questions: {question!r} is not understood: write {{title: ..., pairs: [[a, b], ...]}}")
        for pair in question["pairs"]:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise UserError(f"questions: {pair!r} is no pair of models: write [a, b]")
            titles.append(question["title"])
            missing = [name for name in pair if name not in models]
            partial = [name for name in pair if name in excluded]
            if missing:
                why = f"there is no complete run of {missing[0]}"
                rows.append({**pair_row(*pair), "smallest_p": 1.0, "note": why})
            elif partial:
                rows.append({**pair_row(*pair), "smallest_p": 1.0, "note": excluded[partial[0]]})
            else:
                rows.append(pair_difference(models[pair[0]], models[pair[1]], main, metric))
    planned = corrected(rows)
    planned.insert(0, "question", titles)
    planned["verdict"] = [_verdict(row) for row in planned.to_dict("records")]
    planned["lower_for"] = [
        "" if pd.isna(row["difference"]) else lower_limits(models[row["model_a"]], models[row["model_b"]], main, metric)
        for row in planned.to_dict("records")
    ]
    tested = int(planned["p"].notna().sum())
    return planned, [_sentence(row, main, metric, tested) for row in planned.to_dict("records")]


def _verdict(row):
    if not row["significant"]:
        return "cannot be told"
    return ("yes" if row["difference"] > 0 else "no, it is worse") + ", for one seed" * (row["n_seeds"] == 1)


def lower_limits(a, b, task, metric):
    """Groups of utterances on which ``a`` is worse than ``b``."""
    seeds = sorted(set(a.seeds) & set(b.seeds))
    order = {name: task["classes"] for model in (a, b) for name, task in model.tasks.items()}
    lower = []
    for attribute, group, rows in groups_of(a, order):
        if attribute == "speaker":
            continue
        one, other = (m.counts(task, rows=rows, seeds=seeds).sum(1) for m in (a, b))
        change = (estimates.METRICS[metric](one) - estimates.METRICS[metric](other)).mean()
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
    elif row["p_holm"] <= estimates.ALPHA and not pd.isna(row["low"]) and not row["significant"]:
        text += " These trained models differ, but with other seeds it might be otherwise: the interval holds 0."
    if row["p_holm"] <= estimates.ALPHA and pd.isna(row["low"]):
        text += " Without an interval nothing is known of other seeds and speakers: p alone does not tell."
    if not row["can_reach"]:
        smallest, corrected = row["smallest_p"], min(1.0, tested * row["smallest_p"])
        text += f" With {n} the smallest p is {tables.number(smallest)}"
        if smallest <= estimates.ALPHA:
            text += f", after Holm's correction for {tested} tests {tables.number(corrected)}"
        text += ": no difference, however large, could reach .05."
    if row["speakers_lower"] > 0:
        worst = tables.number(row["lowest_difference"], sign=True)
        text += f" It is lower for {row['speakers_lower']:.0f} of {n}, most for {row['lowest_speaker']} ({worst})"
        text += f", and for {row['lower_for']}." if row["lower_for"] else "."
    return text
