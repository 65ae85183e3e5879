"""Complete run directories, and which of them may be laid side by side.

Runs of a *model* differ in the seed and in the fold alone; they are pooled. Runs of a *study* have the corpus, the
protocol and the classes in common, so that models can be compared; nothing is ever pooled across studies.
"""

from korser.config.schema import SAME_MODEL

SHOWN = 3


def mark_searched(runs, comparisons):
    """Give runs the speakers on whom a comparison says that their settings were searched.

    Parameters
    ----------
    runs : list of Run
    comparisons : list of dict
        The contents of ``comparison.json`` files (:mod:`korser.comparison.run`).
    """
    for made in comparisons:
        for entry in made["runs"]:
            for run in runs:
                if run.path.name == entry["run"]:
                    run.searched_on = sorted({*run.searched_on, *entry["searched_on_tested_speakers"]})


def studies(runs):
    """Divide runs into those that may be compared: same corpus, protocol, split and classes of the main task.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    dict
        ``{name: list of Run}`` in the order of first appearance. A name is corpus and protocol, and what else tells
        two studies apart.
    """
    groups = {}
    for run in runs:
        groups.setdefault(tuple(_study(run).items()), []).append(run)
    keys = [dict(key) for key in groups]
    differing = [k for k in dict.fromkeys(k for key in keys for k in key) if len({key.get(k) for key in keys}) > 1]
    names = {}
    for key, members in zip(keys, groups.values()):
        same = [other for other in keys if all(other[k] == key[k] for k in ("corpus", "protocol"))]
        more = [k for k in differing if len({other.get(k) for other in same}) > 1]
        details = "".join(f", {k.removeprefix('split.')} {key.get(k, 'not given')}" for k in more)
        names[f"{key['corpus']}, {key['protocol']}{details}"] = members
    return names


def _study(run):
    main, task = next(iter(run.tasks.items()))
    return {
        "corpus": run.info["corpus"],
        "protocol": run.info["protocol"],
        **{k: v for k, v in run.split.items() if k not in ("split", "split.protocol")},
        **({"data_folder": run.settings["data_folder"]} if run.info["identified_by_folder"] else {}),
        "classes": f"{main}: {', '.join(task['classes'])}",
    }


def label_runs(runs):
    """Name the model of every run; what differs beside seed and fold makes another model, and is in the name.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    dict
        ``{label: list of Run}``: ``mel_stl``, or ``mel_stl (lr 0.003)`` beside ``mel_stl (lr 0.01)``.
    """
    by_name = {}
    for run in runs:
        if run.label is None:
            by_name.setdefault(run.model, []).append(run)
    labels = {}
    for name, members in by_name.items():
        settings = [{k: v for k, v in run.settings.items() if k.split(".")[0] not in SAME_MODEL} for run in members]
        details = _differences(settings)
        all_details = _differences([{**own, **_code_and_weights(run)} for own, run in zip(settings, members)])
        if len(set(all_details)) > len(set(details)):  # settings alone do not tell the models apart
            details = all_details
        for run, text in zip(members, details):
            labels[run.path] = f"{name} ({text})" if text else name
    grouped = {}
    for run in runs:
        grouped.setdefault(run.label if run.label is not None else labels[run.path], []).append(run)
    return grouped


def _differences(described):
    """Of each mapping what not all have, in words."""
    columns = {}  # values over the runs: the setting whose name comes first; 'n_epochs', not 'epoch_counter.limit'
    for key in sorted(dict.fromkeys(k for each in described for k in each), key=lambda k: (k.count("."), len(k))):
        values = tuple(each.get(key, "none") for each in described)
        if len(set(values)) > 1:
            columns.setdefault(values, key)
    return [", ".join(f"{key} {values[i]}" for values, key in columns.items()) for i in range(len(described))]


def made_by_other_code(runs):
    """What to say of runs that not the same code, or not the same version of korser and its libraries, has made.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    list of str
    """
    codes, versions = {}, {}
    for run in runs:
        for part, code in run.info.get("code", {}).items():
            codes.setdefault(run.model, {}).setdefault(part, set()).add(code)
        environment = run.info.get("environment", {})
        for name, version in {**environment.get("versions", {}), "korser": environment.get("korser_source")}.items():
            versions.setdefault(name, {}).setdefault(str(version), []).append(run.path.name)
    changed = {model: [part for part, seen in parts.items() if len(seen) > 1] for model, parts in codes.items()}
    notes = [
        f"{model}: not all runs are by the same code of {', '.join(parts)}" for model, parts in changed.items() if parts
    ]
    several = {name: seen for name, seen in versions.items() if len(seen) > 1}
    if several:
        told = [
            f"{len(seen)} states of korser's code" if name == "korser" else f"{name} {', '.join(seen)}"
            for name, seen in several.items()
        ]
        notes.append(f"the runs were made by {'; '.join(told)}: whether their figures depend on it is not known")
    return notes


def other_recordings(models):
    """What to say of runs that were not given the same speech under the same names.

    Parameters
    ----------
    models : dict of str to ModelPredictions

    Returns
    -------
    list of str
        Of other recordings, and of other training parts of the same fold.
    """
    runs = [run for model in models.values() for run in model.runs if run.recordings is not None]
    said, trained = [], {}
    for run in runs:
        a, b = runs[0].recordings["digest"].align(run.recordings["digest"], join="inner")
        if (a != b).any():
            where = f"{(a != b).sum()} utterances (first: {a.index[a != b][0]})"
            said.append(f"DIFFERENT AUDIO: {run.path.name} has other recordings of {where} than {runs[0].path.name}")
        own = run.recordings.index[run.recordings["split"] != "test"]
        first, expected = trained.setdefault(run.fold, (run, own))
        if set(own) != set(expected):
            said.append(
                f"DIFFERENT TRAINING PARTS: {len(own)} utterances in {run.path.name}, {len(expected)} in {first.path.name}"
            )
    return said[:SHOWN] + [f"DIFFERENT AUDIO or training parts in {len(said) - SHOWN} more runs"] * (len(said) > SHOWN)


def _code_and_weights(run):
    code = {f"code.{name}": digest for name, digest in run.info.get("code", {}).items()}
    frozen = {f"frozen.{i}": stage["weights"] for i, stage in enumerate(run.info.get("frozen", []))}
    return {**code, **frozen}
