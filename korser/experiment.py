"""A whole experiment: models x seeds x folds, trained where they are not yet, and laid side by side.

A plan is made and checked first, whole; then runs are made by workers; then tables are made of the run directories
alone (:mod:`korser.comparison`), into ``<output_folder>/compare``:

=======================  ================================================================================
models.csv               one row a model: metrics with intervals, cost
pairs.csv                every pair of models: difference with interval, permutation test
questions.csv            the pairs of the questions that were asked
answers.md               their answers in words
subgroups.csv            by gender, age band, intensity and speaker
calibration.csv          reliability diagram
robustness.csv, .md      on degraded audio, where asked for
comparison.md, .tex      all tables for reading and for a paper
comparison.json          settings, runs, searched settings, what failed
=======================  ================================================================================

Nothing in them depends on when or how often the command was started, but for the columns that are measured on the way:
``train_seconds`` and ``peak_memory_bytes``, as each run's ``cost.json`` has them.
"""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from korser import degradations, tables
from korser.comparison import compare
from korser.corpora import load_corpus
from korser.errors import UserError
from korser.hparams import SHIPPED, is_plain, load_hparams, load_recipe, nearest
from korser.robustness import measure, robustness_markdown, robustness_table
from korser.rundir import find_below, read_json, run_folder, write_csv, write_json, write_text
from korser.runs import load_runs, mark_searched, some
from korser.statistics import METRICS
from korser.training import made_by, require_same, searched_speakers
from korser.workers import Job, run_jobs

logger = logging.getLogger(__name__)

FREE = "overrides"  # a mapping whose keys are the models', not the comparison's
OWN = {  # what the comparison says about every run itself, and where
    "seed": "list the seeds in 'seeds'",
    "output_folder": "set output_folder of the comparison",
    "cache_folder": "set cache_folder of the comparison",
    "evaluate_test": "models are compared by their test part",
}
FOLD = ("split.protocol", "split.n_folds", "split.fold")  # what 'folds' sets


@dataclass(frozen=True)
class CompareSettings:
    """Checked settings of a comparison; ``hparams/compare.yaml`` says what each means.

    Parameters
    ----------
    models : list of Path
    seeds : list of int
    folds : int or None
    overrides : dict
    search : str or None
    allow_searched_speakers : bool
    runs : list of str
    metric : str
    questions : list or None
    robustness : str, list or None
    output_folder, cache_folder : str
    """

    models: list
    seeds: list
    folds: int | None
    overrides: dict
    search: str | None
    allow_searched_speakers: bool
    runs: list
    metric: str
    questions: list | None
    robustness: str | list | None
    output_folder: str
    cache_folder: str


@dataclass(frozen=True)
class Planned:
    """One run of the plan.

    Parameters
    ----------
    job : korser.workers.Job
    model : str
    seed : int
    fold : int or None
    complete : bool
        Whether it was there already.
    searched : dict
        The settings that a search found for it.
    searched_on : list of str
        Speakers of its test part on whom they were searched.
    """

    job: Job
    model: str
    seed: int
    fold: int | None
    complete: bool
    searched: dict = field(default_factory=dict)
    searched_on: list = field(default_factory=list)


# -- settings --------------------------------------------------------------------------------------------------------
def load_settings(path, overrides=None):
    """Read a comparison's YAML file, with overrides over it.

    Parameters
    ----------
    path : str or Path
        Such as ``hparams/compare.yaml``, or a file with ``base: compare.yaml``.
    overrides : dict of str to str, optional
        From the command line; ``overrides.NAME`` sets what all runs share.

    Returns
    -------
    CompareSettings

    Raises
    ------
    UserError
        If a key is unknown or missing, or a value cannot be.

    Example
    -------
    >>> settings = load_settings(SHIPPED / "compare.yaml", {"seeds": "[1]", "overrides.n_epochs": "3"})
    >>> len(settings.models), settings.seeds, settings.overrides
    (8, [1], {'n_epochs': '3'})
    """
    path, overrides = Path(path), dict(overrides or {})
    known = list(CompareSettings.__dataclass_fields__)
    shared = {key[len(FREE) + 1 :]: overrides.pop(key) for key in list(overrides) if key.startswith(f"{FREE}.")}
    for key in overrides:
        if key not in known:
            raise UserError(
                f"unknown setting '{key}' of the comparison{nearest(key, known)}; one of the models' is set by "
                f"--overrides.{key}=..."
            )
    hint = f"name it in the 'models' of a comparison, --models='[{path}]'"
    values = load_recipe(path, overrides, known, base="compare.yaml", hint=hint)
    settings = dict(values)
    if not isinstance(settings[FREE], dict):
        raise UserError(f"overrides is {settings[FREE]!r}: write a mapping, {{NAME: value}}")
    settings[FREE] = {**settings[FREE], **shared}
    for key, value in settings[FREE].items():
        if not is_plain(value):  # runs, which are made in other processes, build their own from the text
            raise UserError(f'overrides.{key} holds an object: write it in quotes, as in "!name:torch.optim.SGD"')
    settings["models"] = _find_models(settings["models"], path.parent)
    _check(settings)
    return CompareSettings(**settings)


def _find_models(models, folder):
    """Paths of the models' YAML files: beside the comparison's, from here, or among korser's own."""
    if not isinstance(models, list) or not all(isinstance(model, str) and model for model in models):
        raise UserError(f"models is {models!r}: list the models' YAML files")
    found = []
    for model in models:
        path = next((p for p in (folder / model, Path(model), SHIPPED / model) if p.is_file()), None)
        if path is None:
            names = [file.name for file in sorted(folder.glob("*.yaml"))]
            raise UserError(f"models: there is no file {model}{nearest(model, names)}")
        found.append(path)
    twice = _twice([path.stem for path in found])
    if twice:
        raise UserError(f"models: two files are called {twice}, and a model is known by its file's name: rename one")
    return found


def _check(settings):
    def require(key, right, should):
        if not right:
            raise UserError(f"{key} is {settings[key]!r}: {should}")

    def whole(value, least):
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    seeds, folds, robustness = settings["seeds"], settings["folds"], settings["robustness"]
    require("seeds", isinstance(seeds, list) and all(whole(s, 0) for s in seeds), "list whole numbers, [1, 2, 3]")
    require("seeds", _twice(seeds) is None, "name each seed once")
    require("folds", folds is None or whole(folds, 3), "write null, or a whole number of at least 3")
    require("allow_searched_speakers", isinstance(settings["allow_searched_speakers"], bool), "write true or false")
    for key in ("output_folder", "cache_folder"):
        require(key, isinstance(settings[key], str) and settings[key], "name a folder")
    require("search", settings["search"] is None or isinstance(settings["search"], str), "name a folder, or write null")
    runs = settings["runs"]
    require("runs", isinstance(runs, list) and all(isinstance(r, str) for r in runs), "list folders, [] for none")
    if not runs and not (settings["models"] and seeds):
        raise UserError("there is nothing to compare: list 'models' and 'seeds', or folders in 'runs'")
    metric = settings["metric"]
    if not isinstance(metric, str) or metric not in METRICS:
        raise UserError(f"metric is {metric!r}: write one of {', '.join(METRICS)}{nearest(metric, METRICS)}")
    for key in settings[FREE]:
        if key in OWN:
            raise UserError(f"overrides.{key}: {OWN[key]}")
        if folds is not None and key in FOLD:
            raise UserError(f"overrides.{key} is set by folds: {folds}: take it out, or write folds: null")
    if robustness is not None:
        degradations.conditions(robustness)
    _check_questions(settings)


def _check_questions(settings):
    questions = settings["questions"]
    if questions is None:
        return
    if not isinstance(questions, list):
        raise UserError(f"questions is {questions!r}: write null or a list of {{title: ..., pairs: [[a, b], ...]}}")
    names = [path.stem for path in settings["models"]]
    for question in questions:
        named = isinstance(question, dict) and set(question) == {"title", "pairs"}
        if not named or not isinstance(question["pairs"], list):
            raise UserError(f"questions: {question!r} is not understood: write {{title: ..., pairs: [[a, b], ...]}}")
        for pair in question["pairs"]:
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
                raise UserError(f"questions: {pair!r} is no pair of models: write [a, b]")
            unknown = [name for name in pair if name not in names]
            if unknown and not settings["runs"]:
                raise UserError(f"questions: '{unknown[0]}' is none of the models{nearest(unknown[0], names)}")


def _twice(names):
    return next((name for name in names if names.count(name) > 1), None)


# -- plan ------------------------------------------------------------------------------------------------------------
def make_plan(settings):
    """Every run that the comparison needs, all settings checked; nothing is trained.

    Parameters
    ----------
    settings : CompareSettings

    Returns
    -------
    list of Planned
        Model by model.

    Raises
    ------
    UserError
        If a setting of a model, its data or its split is at fault, a search is not there or not complete, or was made
        on speakers whom a fold tests.
    """
    corpora, plan = {}, []
    for path in settings.models:
        search = _read_search(settings, path.stem)
        best = search["best"] if search else {}
        if search is None and (path.parent / "search.json").exists():  # the file that a search left
            search = read_json(path.parent / "search.json")
        now = None
        for fold in [None] if settings.folds is None else range(settings.folds):
            for seed in settings.seeds:
                overrides = _overrides(settings, best, fold, seed)
                hparams = load_hparams(path, overrides)
                run_dir = run_folder(hparams)  # checks the settings, too
                if settings.metric == "qwk" and not hparams["tasks"][0].ordinal:
                    main = hparams["tasks"][0].name
                    raise UserError(f"metric is qwk, and {path.stem}'s main task, {main}, is not ordinal: write uar")
                searched_on = _searched_on(hparams, search, corpora)
                if searched_on and not settings.allow_searched_speakers:
                    tests = "the test part has" if fold is None else f"fold {fold} tests"
                    raise UserError(
                        f"the settings of {path.stem} were searched on speakers whom {tests} ({some(searched_on)}): "
                        "search without them (--overrides.split.exclude_speakers), or insist by "
                        "allow_searched_speakers: true, and every table says so"
                    )
                complete = (run_dir / "metrics.json").exists()
                if complete:
                    now = now or made_by(hparams)  # the same for all seeds and folds
                    require_same(hparams, run_dir, now)
                job = Job(str(path), overrides, str(run_dir))
                plan.append(Planned(job, path.stem, seed, fold, complete, best, searched_on))
    return plan


def _overrides(settings, searched, fold, seed):
    """Overrides of one run, in an order that does not depend on how they were written."""
    both = sorted(searched.keys() & settings.overrides.keys())
    if both:
        raise UserError(f"overrides.{both[0]}: it was searched, too: take it out, or write search: null")
    overrides = dict(sorted({**settings.overrides, **searched}.items()))
    if fold is not None:
        overrides |= dict(zip(FOLD, ("speaker_kfold", settings.folds, fold)))
    return {**overrides, "seed": seed, "output_folder": settings.output_folder, "cache_folder": settings.cache_folder}


def _read_search(settings, model):
    """What a search found for a model, None if there was none."""
    if settings.search is None:
        return None
    if not Path(settings.search).is_dir():
        raise UserError(f"search: there is no folder {settings.search}: search first, or write search: null")
    folder = Path(settings.search) / model
    if not (folder / "search.json").exists():
        logger.warning("!!! no search of %s in %s: it keeps the settings of its YAML", model, settings.search)
        return None
    search = read_json(folder / "search.json")
    if not search["complete"] or not search["best"]:
        raise UserError(f"the search in {folder} has not ended: go on with it, or write search: null")
    if search["n_complete"] < search["n_trials"]:
        counts = f"{search['n_complete']} of {search['n_trials']}"
        logger.warning("!!! search of %s: %s trials have a result, the others failed or were pruned", model, counts)
    return search


def _searched_on(hparams, search, corpora):
    """Speakers of the test part on whom the settings were searched; refuses a split that cannot be made."""
    data = {key: hparams[key] for key in ("data_folder", "label_map", "corpus_options")}
    key = repr((hparams["corpus"], data))
    if key not in corpora:
        corpora[key] = load_corpus(hparams["corpus"], **data)
    corpus = corpora[key]
    table = hparams["split"](corpus.data)
    return searched_speakers(search, corpus.name, hparams["data_folder"], table) if search else []


# -- all of it -------------------------------------------------------------------------------------------------------
def run_experiment(settings, workers):
    """Make the runs that are missing, compare all there are, and write the tables.

    Parameters
    ----------
    settings : CompareSettings
    workers : korser.workers.Workers

    Returns
    -------
    text : str
        Tables and answers as Markdown.
    failed : list of str
        One line for each run that could not be made; the tables are without it.

    Raises
    ------
    UserError
        See :func:`make_plan`; or if there is no complete run at all.
    """
    plan = make_plan(settings)
    todo = [planned for planned in plan if not planned.complete]
    logger.info("%d runs: %d complete, %d to make", len(plan), len(plan) - len(todo), len(todo))
    todo.sort(key=lambda planned: settings.seeds.index(planned.seed))  # so that all models can be seen early
    outcomes = run_jobs([planned.job for planned in todo], workers, progress="runs") if todo else []
    failed = {o.job.run_dir: f"{o.state}: {o.message}" for o in outcomes if o.state != "complete"}
    lines = [f"{_called(planned)}: {failed[planned.job.run_dir]}" for planned in plan if planned.job.run_dir in failed]
    if len(failed) == len(plan) and not settings.runs:
        raise UserError(f"no run could be made; the first: {lines[0]}")
    return write_tables(settings, plan, failed), lines


def _called(planned):
    fold = "" if planned.fold is None else f", fold {planned.fold}"
    return f"{planned.model}, seed {planned.seed}{fold} ({planned.job.run_dir})"


def write_tables(settings, plan, failed=None):
    """Compare the complete runs of a plan, and those made elsewhere, and write everything into ``compare``.

    Parameters
    ----------
    settings : CompareSettings
    plan : list of Planned
    failed : dict, optional
        ``{run directory: why}`` of those that are not complete.

    Returns
    -------
    str
        Tables and answers as Markdown.
    """
    failed = failed or {}
    folder = Path(settings.output_folder) / "compare"
    complete = {planned.job.run_dir: planned for planned in plan if planned.job.run_dir not in failed}
    runs = load_runs([*complete, *settings.runs])
    elsewhere = [read_json(file) for file in find_below(settings.runs, "comparison.json")]
    mark_searched(runs, elsewhere)
    planned = {Path(run_dir).resolve(): run for run_dir, run in complete.items()}
    for run in runs:
        if run.path.resolve() in planned:
            run.searched_on = sorted({*run.searched_on, *planned[run.path.resolve()].searched_on})
    comparison = compare(runs, metric=settings.metric, questions=settings.questions)
    if failed:
        note = f"{len(failed)} of {len(plan)} runs could not be made ({some(Path(run).name for run in failed)})"
        comparison.warnings.append(note)
    comparison.write(folder)
    aloud = [f"**!!! {said}**\n\n" for said in comparison.said_aloud]
    write_text(folder / "answers.md", "".join([*aloud, *(f"- {answer}\n" for answer in comparison.answers)]))
    about = _about(settings, plan, failed, comparison)
    own = {run["run"] for run in about["runs"]}
    earlier = read_json(folder / "comparison.json")["runs"] if (folder / "comparison.json").exists() else []
    # runs of another comparison that lie here too stay marked
    about["runs"] += [r for r in earlier if r["searched_on_tested_speakers"] and r["run"] not in own]
    write_json(folder / "comparison.json", about)
    text = comparison.to_markdown()
    for name in ("robustness.csv", "robustness.md"):  # of an earlier call
        (folder / name).unlink(missing_ok=True)
    if settings.robustness is not None:
        text += f"\n{_robustness(settings, comparison, folder)}"
    return text


def _robustness(settings, comparison, folder):
    conditions = degradations.conditions(settings.robustness)
    runs = [run for model in comparison.models.values() for run in model.runs]
    device = settings.overrides.get("device")
    measure(runs, conditions, device=None if device == "null" else device)
    table = robustness_table(comparison.models, conditions, comparison.main, comparison.metric)
    said = [
        "; ".join(filter(None, [comparison.searched.get(m), comparison.apart.get(m), n]))
        for m, n in zip(table["model"], table["note"])
    ]
    write_csv(folder / "robustness.csv", table.assign(note=said, warnings="; ".join(comparison.warnings)))
    title = f"{tables.column_title(comparison.main, comparison.metric)}, {comparison.corpus}, {comparison.protocol}"
    lines = [f"## Robustness: {title}", "", *(f"**!!! {warning}**\n" for warning in comparison.warnings)]
    lines += [robustness_markdown(table, comparison), ""]
    text = "\n".join(lines)
    write_text(folder / "robustness.md", text)
    return text


def _about(settings, plan, failed, comparison):
    """``comparison.json``; run directories by their names, since their folder may be moved."""
    return {
        "settings": {**asdict(settings), "models": [path.name for path in settings.models]},
        "corpus": comparison.corpus,
        "protocol": comparison.protocol,
        "runs": [
            {
                "model": planned.model,
                "seed": planned.seed,
                "fold": planned.fold,
                "run": Path(planned.job.run_dir).name,
                "failed": failed.get(planned.job.run_dir),
                "searched": planned.searched,
                "searched_on_tested_speakers": planned.searched_on,
            }
            for planned in plan
        ],
        "searched_on": comparison.searched,
        "not_compared": comparison.apart,
        "warnings": comparison.warnings,
        "notes": comparison.notes,
        "answers": comparison.answers,
    }
