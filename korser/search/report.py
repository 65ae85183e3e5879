"""What a search leaves behind: a table of its trials, the best settings as a YAML file, winner against runner-up."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from korser.config.layers import SHIPPED
from korser.data.splits import speaker_independent
from korser.metrics.estimates import difference
from korser.metrics.evaluate import NAMES
from korser.metrics.scores import confusion_counts
from korser.runs.directory import SEARCH_FILE, RunDirectory
from korser.utils.files import write_csv, write_json, write_text

SHOWN = 12  # trials in the printed table; all are in trials.csv
RESULTS = ("valid_uar", "low", "high", "best_epoch")


def write_results(plan, cells, *, complete):
    """Write ``trials.csv``, ``search.json`` and ``<model>-best.yaml``, each whole or not at all.

    Parameters
    ----------
    plan : korser.search.plan.SearchPlan
    cells : list of korser.search.coordinator.Cell
        In the order of the table.
    complete : bool
        Whether every trial has been made.

    Returns
    -------
    dict
        What ``search.json`` holds.
    """
    write_csv(plan.folder / "trials.csv", trials_table(plan, cells))
    ranked = rank(cells)
    results = {
        "model": plan.model,
        "yaml": str(plan.yaml),
        **plan.corpus,
        "objective": f"validation UAR of {plan.main_task}",
        "overrides": plan.overrides,
        "space": [axis.name for axis in plan.axes],
        "best": ranked[0].values if ranked else {},
        "run_dir": f"runs/{ranked[0].run}" if ranked else None,
        **{name: ranked[0].result[name] if ranked else None for name in RESULTS},
        "runner_up": runner_up(plan, ranked),
        "n_complete": len(ranked),
        "n_trials": len(cells),
        "complete": complete,
    }
    if ranked:
        write_text(plan.folder / f"{plan.model}-best.yaml", best_yaml(plan, results))
    else:
        (plan.folder / f"{plan.model}-best.yaml").unlink(missing_ok=True)  # of another space or corpus
    write_json(plan.folder / SEARCH_FILE, results)
    return results


def rank(cells):
    """Complete cells, the best first; of equal ones the first in the table."""
    done = [cell for cell in cells if cell.state == "complete"]
    return sorted(done, key=lambda cell: (-cell.result["valid_uar"], cell.index))


def trials_table(plan, cells):
    """A row a trial, without anything that depends on when or by whom it was made, but for the last column.

    Parameters
    ----------
    plan : korser.search.plan.SearchPlan
    cells : list of korser.search.coordinator.Cell

    Returns
    -------
    pandas.DataFrame
        ``trial``, ``state``, a column for each searched setting, ``valid_uar`` with its interval over speakers ``low``
        and ``high``, ``best_epoch``, ``run_dir`` (in the search's folder), ``message``, ``seconds`` (of training).
    """
    names = [axis.name for axis in plan.axes]
    columns = ["trial", "state", *names, *RESULTS, "run_dir", "message", "seconds"]
    rows = [
        [
            cell.index,
            cell.state,
            *(cell.values[name] for name in names),
            *(cell.result.get(name) for name in RESULTS),
            f"runs/{cell.run}",
            cell.message,
            cell.result.get("seconds"),
        ]
        for cell in cells
    ]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    table["best_epoch"] = table["best_epoch"].astype("Int64")
    return table


def best_yaml(plan, results):
    """The best settings as a model's YAML file, for ``recipes/train.py``."""
    n = results["n_complete"]
    shared = {name: plan.fixed.get(name) for name in ("seed", *plan.overrides) if name not in results["best"]}
    lines = [
        f"# Found by recipes/search.py: the best of {n} settings of {plan.model} on {results['corpus']},",
        f"# {results['objective']} {results['valid_uar']:.4f} (optimistic, being the best of them)."
        f"{'' if results['complete'] else ' The search has not ended.'}",
        f"base: {_base(plan)}",
        "# the same for all trials",
        *(f"{name}: {_text(value)}" for name, value in shared.items()),
        "# searched",
        *(f"{name}: {_text(value)}" for name, value in results["best"].items()),
    ]
    return "\n".join(lines) + "\n"


def _base(plan):
    """How a file in the search's folder names the model's: korser's own by name, others by relative path."""
    if plan.yaml.resolve().parent == SHIPPED.resolve():
        return plan.yaml.name
    return Path(os.path.relpath(plan.yaml.resolve(), plan.folder.resolve())).as_posix()


def _text(value):
    """A value as an override gives it: text is YAML already."""
    if isinstance(value, str):
        return value
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=np.inf).removesuffix("...\n").strip()
    )


# -- winner and runner-up ----------------------------------------------------------------------------------------------
def runner_up(plan, ranked):
    """The second best, and by how much it is worse, with a 95 % interval over the validation speakers.

    Paired: what makes a speaker hard for both does not widen the interval (:func:`korser.metrics.estimates.difference`). Seeds
    are not in it: each setting was trained once.

    Returns
    -------
    dict or None
        ``settings``, ``valid_uar``, ``run_dir``, ``difference`` (winner less runner-up), ``low``, ``high``,
        ``n_speakers``, ``note`` where there is no interval; None with fewer than two complete trials.
    """
    if len(ranked) < 2:
        return None
    tables = [
        RunDirectory(plan.folder / "runs" / cell.run).predictions("valid", [plan.main_task]) for cell in ranked[:2]
    ]
    entry = difference(*(speaker_counts(table, tables[0], plan.main_task) for table in tables), "uar")
    value = ranked[0].result["valid_uar"] - ranked[1].result["valid_uar"]
    return {
        "settings": ranked[1].values,
        "valid_uar": ranked[1].result["valid_uar"],
        "run_dir": f"runs/{ranked[1].run}",
        "difference": value,
        **{name: entry[name] for name in ("low", "high", "n_speakers")},
        "note": "" if entry["low"] is not None else entry["note"],
    }


def speaker_counts(table, reference, task):
    """Confusion counts of each speaker.

    Parameters
    ----------
    table, reference : pandas.DataFrame
        Predictions of the same utterances; the reference gives the order of speakers and classes.
    task : str

    Returns
    -------
    np.ndarray
        ``(1, n, K, K)``: one seed, the ``n`` speakers with a labelled utterance (none if a speaker is not known).
    """
    prefix = f"{task}_prob_"
    classes = [column.removeprefix(prefix) for column in reference if column.startswith(prefix)]
    table, reference = (each[each[task].notna()] for each in (table, reference))
    truth, predicted = (table[column].map(classes.index).to_numpy() for column in (task, f"{task}_pred"))
    speakers = [] if table["speaker"].isna().any() else sorted(reference["speaker"].unique())
    groups = [(table["speaker"] == speaker).to_numpy() for speaker in speakers]
    counts = [confusion_counts(truth[g], predicted[g], len(classes)) for g in groups]
    return np.array(counts, dtype=int).reshape(1, len(groups), len(classes), len(classes))


def verdict(results):
    """In words, whether the winner can be told from the runner-up.

    Parameters
    ----------
    results : dict
        What ``search.json`` holds.

    Returns
    -------
    list of str
    """
    if not results["best"]:
        return ["No trial is complete: see the messages in trials.csv."]
    second = results["runner_up"]
    tied = " (the first of those with this score)" if second and not second["difference"] else ""
    lines = [f"Best: {_written(results['best'])}, {results['objective']} {results['valid_uar']:.3f}{tied}"]
    if second is not None:
        low, high, n = second["low"], second["high"], second["n_speakers"]
        line = f"Runner-up: {_written(second['settings'])}, {second['valid_uar']:.3f}"
        line += f"; difference {second['difference']:+.3f}, "
        if low is None:
            line += f"no interval: {second['note']}"
        else:
            apart = "more than" if low > 0 or high < 0 else "not to be told apart from"
            line += f"95 % interval over the {n} validation speakers [{low:+.3f}, {high:+.3f}]: {apart} noise"
        lines += [
            f"{line}.",
            f"The winner's score is optimistic, being the best of {results['n_complete']}: what it is worth is seen",
            "on the test part, which no trial has read.",
        ]
    return lines


def summary(plan, cells, results, storage):
    """What is printed at the end: the best trials, the verdict, and where everything is.

    Parameters
    ----------
    plan : korser.search.plan.SearchPlan
    cells : iterable of korser.search.coordinator.Cell
    results : dict
        From :func:`write_results`.
    storage : str
        Its URL, without a password.

    Returns
    -------
    str
    """
    cells = sorted(cells, key=lambda cell: cell.index)
    failed = [cell for cell in cells if cell.state not in ("complete", "pruned")]
    table = trials_table(plan, rank(cells)[:SHOWN])
    protocol = results["data"]["split"]["protocol"]
    corpus = f"{results['corpus']}{' (SYNTHETIC speech)' if results['synthetic'] else ''}"
    lines = [
        f"{plan.model} on {corpus}: {results['objective']}, {results['n_complete']} of {len(cells)} trials complete",
        *(["!!! RANDOM SPLIT: training and validation share speakers"] if not speaker_independent(protocol) else []),
        *(["!!! pretrained: false -- the encoder's weights are random"] if results["pretrained"] is False else []),
        "",
    ]
    if len(table):
        shown = table[["trial", *(axis.name for axis in plan.axes), *RESULTS]].rename(
            columns={"valid_uar": NAMES["uar"]}
        )
        lines.append(
            shown.to_string(index=False, float_format=_short, formatters=dict.fromkeys(["low", "high"], _short))
        )
        if results["n_complete"] > len(table):
            lines.append(f"({results['n_complete'] - len(table)} more in trials.csv)")
        lines.append("")
    lines += verdict(results)
    if failed:
        counts = pd.Series([cell.state for cell in failed]).value_counts()
        said = ", ".join(f"{n} {state}" for state, n in counts.items())
        lines.append(f"Without a result: {said} (trials.csv says why); the same command tries them again.")
    if results["best"]:
        lines += ["", f"Train it:   python recipes/train.py {plan.folder / f'{plan.model}-best.yaml'}"]
    lines += [f"Look at it: optuna-dashboard {storage}", f"Everything is in {plan.folder}"]
    return "\n".join(lines)


def _short(value):
    return "-" if value is None else f"{value:.4g}"


def _written(values):
    return ", ".join(f"{name}={value}" for name, value in values.items())
