"""A comparison as Markdown and as LaTeX."""

import re

import pandas as pd

NAMES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1", "qwk": "kappa", "ece": "ECE"}
NOT_COMPARED, SEARCHED, SAME, UNTESTED = "\N{DOUBLE DAGGER}", "\N{DAGGER}", "*", "?"
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


# -- numbers ----------------------------------------------------------------------------------------------------------
def number(value, *, sign=False):
    """Three decimals without the leading zero.

    Example
    -------
    >>> number(0.5421), number(-0.01, sign=True), number(1), number(-0.0004), number(None)
    ('.542', '-.010', '1.000', '.000', '')
    """
    if value is None or pd.isna(value):
        return ""
    text = f"{value:{'+' if sign else ''}.3f}"
    return ".000" if float(text) == 0 else re.sub(r"^([-+]?)0\.", r"\1.", text)


def p_value(value, name="p = "):
    """``p = .012``, or ``p < .001`` below that.

    Example
    -------
    >>> p_value(0.0117), p_value(0.0001), p_value(0.0001, name="")
    ('p = .012', 'p < .001', '< .001')
    """
    if pd.isna(value):
        return ""
    return f"{name.replace('= ', '')}< .001" if value < 0.0005 else f"{name}{number(value)}"


def quantity(value, unit=""):
    """A large number with three digits and a prefix.

    Example
    -------
    >>> quantity(94_371_712), quantity(6.9e9, "B"), quantity(None)
    ('94.4 M', '6.9 GB', '')
    """
    if value is None or pd.isna(value):
        return ""
    factor, prefix = next(((f, p) for f, p in UNITS if value >= f), (1, ""))
    return f"{value / factor:.3g} {prefix}{unit}".rstrip()


# -- what both say ----------------------------------------------------------------------------------------------------
def column_title(task, metric):
    """``emotion UAR``."""
    return f"{task} {NAMES[metric]}"


def name_mark(comparison, label):
    return SEARCHED * (label in comparison.searched) + NOT_COMPARED * (label in comparison.excluded)


def _cell(row, column):
    """Value, interval and mark of a metric."""
    interval = (
        "" if pd.isna(row[f"{column}_low"]) else f"[{number(row[f'{column}_low'])}, {number(row[f'{column}_high'])}]"
    )
    return number(row[column]), interval


def _costs(row, main):
    value, interval = _cell(row, f"{main}_ece")
    seconds = "" if row["train_seconds"] is None or pd.isna(row["train_seconds"]) else f"{row['train_seconds']:.0f} s"
    return [
        quantity(row["parameters"]),
        quantity(row["trainable_parameters"]),
        quantity(row["macs_per_second"]),
        seconds,
        quantity(row["peak_memory_bytes"], "B"),
        f"{value} {interval}".strip(),
    ]


TIME = (
    "Training time is that of a run's training epochs, without validation and without the frozen features, which come "
    "from a cache; mean of the runs, some of them side by side. Memory is the most that one needed."
)
ECE = "ECE is the expected calibration error, how far confidence is from accuracy, with its 95 % interval."
COST_TITLES = ["parameters", "trained", "MACs per audio second", "training time", "peak memory"]


def described(comparison):
    """Corpus, protocol and how much was tested."""
    table = comparison.table

    def span(column, name):
        low, high = table[column].min(), table[column].max()
        return f"{low}{'' if low == high else f' to {high}'} {name}{'' if high == 1 else 's'}"

    counts = [span("n_speakers", "speaker"), span("n_utterances", "utterance"), span("n_seeds", "seed")]
    return f"corpus {comparison.corpus}, protocol {comparison.protocol}: {', '.join(counts)}"


def interval_over(n_seeds):
    """What the intervals of some models are over, for a caption.

    Parameters
    ----------
    n_seeds : iterable of int
        How many seeds each has.

    Returns
    -------
    str

    Example
    -------
    >>> interval_over([3, 3]), interval_over([1, 1])
    ('over speakers and seeds', 'over speakers')
    >>> interval_over([3, 1])
    'over speakers and seeds, over speakers alone where there is one seed'
    """
    alone = {n == 1 for n in n_seeds}
    if alone == {True}:
        return "over speakers"
    return "over speakers and seeds" + ", over speakers alone where there is one seed" * (True in alone)


def legend_of(comparison, bold):
    """What the figures and marks mean, sentence by sentence."""
    seeds = comparison.table["n_seeds"]
    means = "Means over seeds" if seeds.max() > 1 else "One seed"
    lines = [f"{means}, with 95 % intervals {interval_over(seeds)}."]
    missing = [note for row in comparison.table["note"] for note in row.split("; ") if note.startswith("no interval")]
    if missing:
        lines.append(f"{'; '.join(dict.fromkeys(missing)).capitalize()}.")
    made = pd.concat(comparison.tests.values())
    made = made[made["p"].notna()]
    if len(made):
        exact = "exact" if made["exact"].all() else "exact where that can be computed, else 100,000 random swaps"
        speakers, seeds = (_list(sorted({int(n) for n in made[name]})) for name in ("n_speakers", "n_seeds"))
        hopeless = {
            column_title(*comparison.columns[column]): tests[tests["p"].notna()]
            for column, tests in comparison.tests.items()
            if tests["p"].notna().any() and not tests["can_reach"].any()
        }
        lines.append(
            f"{bold}: best; {SAME}: not significantly worse than the best, by a paired permutation test that swaps two "
            f"models' predictions speaker by speaker (two-sided, {exact}, {speakers} speakers, the {seeds} "
            f"seed{'s' * (seeds != '1')} that both have, p > .05 after Holm's correction for all pairs of a column) or by "
            "the interval of their difference, which holds 0 or cannot be given."
        )
        if any(mark == "untested" for marks in comparison.marks.values() for mark in marks.values()):
            lines.append(f"{UNTESTED}: could not be tested against the best.")
        if hopeless:
            tests = pd.concat(hopeless.values())
            lines.append(
                f"With {_list(sorted(tests['n_speakers'].astype(int).unique()))} speakers the smallest p is "
                f"{number(tests['smallest_p'].min())}; after correction for all pairs no difference in "
                f"{', '.join(hopeless)} could be significant: {SAME} says nothing there."
            )
    elif len(comparison.table) > 1:
        lines.append(f"{bold}: best; differences could not be tested.")
    if "qwk" in {metric for _, metric in comparison.columns.values()}:
        lines.append("Kappa is quadratic-weighted.")
    return lines + explained(comparison)


def explained(comparison):
    """What the daggers behind models' names mean."""
    lines = [f"{SEARCHED}: {note}." for note in dict.fromkeys(comparison.searched.values())]
    return lines + [f"{NOT_COMPARED}: {note}." for note in comparison.excluded.values()]


def family(comparison):
    """For how many tests the answers' p values are corrected; empty where there are none to correct for."""
    tested = int(comparison.planned["p"].notna().sum())
    return f"Holm's correction is for the {tested} tests of these questions." if tested > 1 else ""


def _list(values):
    return " or ".join(map(str, values))


# -- Markdown ---------------------------------------------------------------------------------------------------------
def markdown(comparison):
    """All tables of a comparison, with the answers and notes.

    Parameters
    ----------
    comparison : korser.comparison.compare.Comparison

    Returns
    -------
    str
    """
    rows = comparison.table.to_dict("records")
    titles = ["model", *(column_title(*of) for of in comparison.columns.values()), "seeds", "folds"]
    results, costs = [], []
    for row in rows:
        label = row["model"]
        name = escape_markdown(label) + name_mark(comparison, label)
        cells = []
        for column in comparison.columns:
            value, interval = _cell(row, column)
            mark = comparison.marks[column].get(label, "")
            value = f"**{value}**" if mark == "best" else value + {"same": "\\*", "untested": UNTESTED}.get(mark, "")
            cells.append(f"{value} {interval}".strip())
        results.append([name, *cells, str(row["n_seeds"]), str(row["n_folds"])])
        worst = row[f"worst_speaker_{comparison.main}_{comparison.metric}"]
        worst = f"{escape_markdown(row['worst_speaker'])} ({number(worst)})" if number(worst) else ""
        costs.append([name, *_costs(row, comparison.main), worst])
    cost_titles = ["model", *COST_TITLES, column_title(comparison.main, "ece")]
    worst_title = f"worst speaker ({column_title(comparison.main, comparison.metric)})"
    lines = [f"# {escape_markdown(described(comparison))}", ""]
    lines += [f"**!!! {escape_markdown(warning)}**\n" for warning in comparison.warnings]
    lines += [*_table(titles, results), "", *(escape_markdown(line) for line in legend_of(comparison, "Bold")), ""]
    lines += [*_table([*cost_titles, worst_title], costs), "", f"{TIME} {ECE}", ""]
    if comparison.answers:
        lines += ["## Answers", "", *(f"- {escape_markdown(answer)}" for answer in comparison.answers), ""]
        lines += [family(comparison), ""] * bool(family(comparison))
    if len(comparison.pairs):
        lines += [
            f"## All pairs, {column_title(comparison.main, comparison.metric)}",
            "",
            *_pairs(comparison.pairs),
            "",
        ]
    if comparison.notes:
        lines += ["## Notes", "", *(f"- {escape_markdown(note)}" for note in comparison.notes), ""]
    return "\n".join(lines)


def _pairs(pairs):
    rows = []
    for pair in pairs.to_dict("records"):
        interval = "" if pd.isna(pair["low"]) else f" [{number(pair['low'])}, {number(pair['high'])}]"
        rows.append(
            [
                f"{escape_markdown(pair['model_a'])} - {escape_markdown(pair['model_b'])}",
                number(pair["difference"], sign=True) + interval,
                p_value(pair["p"], name="").replace("<", "&lt;"),
                p_value(pair["p_holm"], name="").replace("<", "&lt;"),
                "" if pd.isna(pair["p"]) else "yes" if pair["exact"] else "no",
                "" if pd.isna(pair["n_seeds"]) else f"{pair['n_seeds']:.0f}",
                escape_markdown(pair["note"]) if isinstance(pair["note"], str) and pd.isna(pair["low"]) else "",
            ]
        )
    return _table(["pair", "difference", "p", "p (Holm)", "exact", "seeds", "note"], rows)


def _table(titles, rows):
    return [f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *rows]]


def escape_markdown(text):
    """Text with Markdown's own characters escaped."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", str(text))


# -- LaTeX ------------------------------------------------------------------------------------------------------------
ESCAPES = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    SEARCHED: r"\dag{}",
    NOT_COMPARED: r"\ddag{}",
}


def escape(text):
    """Text with LaTeX's own characters escaped.

    Example
    -------
    >>> escape("mel_stl (50 %)")
    'mel\\\\_stl (50 \\\\%)'
    """
    return "".join(ESCAPES.get(c, c) for c in str(text))


def latex(comparison):
    """Two tables: results, and what they cost.

    Parameters
    ----------
    comparison : korser.comparison.compare.Comparison

    Returns
    -------
    str
        For a preamble with ``\\usepackage{booktabs}``; a name in another script than Latin needs XeLaTeX or LuaLaTeX
        and a font that has it.
    """
    rows = comparison.table.to_dict("records")
    results, costs = [], []
    for row in rows:
        label = row["model"]
        name = escape(label + name_mark(comparison, label))
        cells = []
        for column in comparison.columns:
            value, interval = _cell(row, column)
            mark = comparison.marks[column].get(label, "")
            value = (
                rf"\textbf{{{value}}}"
                if mark == "best"
                else value + {"same": r"\rlap{*}", "untested": r"\rlap{?}"}.get(mark, "")
            )
            cells.append(f"{value} {{\\scriptsize {interval}}}" if interval else value)
        results.append([name, *cells])
        costs.append([name, *(escape(cell) for cell in _costs(row, comparison.main))])
    what = escape(f"{described(comparison)}.")
    loud = "".join(rf"\textbf{{{escape(warning)}.}} " for warning in comparison.warnings)
    legend = escape(" ".join(legend_of(comparison, "Bold")))
    titles = ["model", *(column_title(*of) for of in comparison.columns.values())]
    cost_titles = ["model", *COST_TITLES, column_title(comparison.main, "ece")]
    head = ["% needs \\usepackage{booktabs}"]
    if not "".join(row["model"] for row in rows).isascii():
        head.append("% and XeLaTeX or LuaLaTeX with a font for the models' names")
    return "\n".join(
        head
        + _latex_table(f"{loud}Results; {what} {legend}", "tab:comparison", titles, results)
        + [""]
        + _latex_table(
            f"{loud}Size, cost and calibration; {what} {escape(' '.join([TIME, ECE, *explained(comparison)]))}",
            "tab:costs",
            cost_titles,
            costs,
        )
        + [""]
    )


def _latex_table(caption, name, titles, rows):
    return [
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{{name}}}",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{@{{}}l{'c' * (len(titles) - 1)}@{{}}}}",
        r"\toprule",
        " & ".join(map(escape, titles)) + r" \\",
        r"\midrule",
        *(" & ".join(cells) + r" \\" for cells in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
