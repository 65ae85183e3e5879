"""Which runs a comparison needs."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from korser.comparison.settings import FOLD
from korser.config.hparams import load_hparams
from korser.corpora import load_corpus
from korser.runs.directory import SEARCH_FILE, RunDirectory, run_folder
from korser.runs.provenance import searched_speakers, verify_provenance
from korser.utils.errors import UserError
from korser.utils.files import read_json
from korser.utils.text import shorten
from korser.workers import Job

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedRun:
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
        if search is None and (path.parent / SEARCH_FILE).exists():  # the file that a search left
            search = read_json(path.parent / SEARCH_FILE)
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
                        f"the settings of {path.stem} were searched on speakers whom {tests} ({shorten(searched_on)}): "
                        "search without them (--overrides.split.exclude_speakers), or insist by "
                        "allow_searched_speakers: true, and every table says so"
                    )
                complete = RunDirectory(run_dir).complete
                if complete:
                    verify_provenance(hparams, run_dir)
                job = Job(str(path), overrides, str(run_dir))
                plan.append(PlannedRun(job, path.stem, seed, fold, complete, best, searched_on))
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
    if not (folder / SEARCH_FILE).exists():
        logger.warning("!!! no search of %s in %s: it keeps the settings of its YAML", model, settings.search)
        return None
    search = read_json(folder / SEARCH_FILE)
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
    return searched_speakers(search, corpus, hparams["data_folder"], table) if search else []
