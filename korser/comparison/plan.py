"""Which runs a comparison needs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from korser.comparison.settings import FOLD
from korser.config.hparams import HParams, load_hparams
from korser.config.usage import keep_used, require_used
from korser.corpora import load_corpus
from korser.runs.directory import SEARCH_FILE, RunDirectory, run_folder
from korser.runs.provenance import searched_speakers, verify_provenance
from korser.utils.errors import UserError
from korser.utils.files import read_json
from korser.utils.text import shorten
from korser.workers import Job

if TYPE_CHECKING:
    from korser.comparison.settings import CompareSettings
    from korser.corpora import Corpus

__all__ = ["PlannedRun", "make_plan"]

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
        Whether it is complete already.
    searched : dict
        Settings that a search found for it.
    searched_on : list of str
        Speakers of its test split on whom they were searched.
    """

    job: Job
    model: str
    seed: int
    fold: int | None
    complete: bool
    searched: dict[str, Any] = field(default_factory=dict)
    searched_on: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.model}, seed {self.seed}{fold} ({self.job.run_dir})"


def make_plan(settings: CompareSettings) -> list[PlannedRun]:
    """Return every run that the comparison needs, model by model, after checking all settings; nothing is trained.

    Raises
    ------
    UserError
        If a setting of a model, its data or its split is invalid, a search is missing or incomplete, or was made on
        speakers of a test split.
    """
    require_used(settings.models, settings.overrides)
    corpora: dict[str, Corpus] = {}
    plan = []
    for path in settings.models:
        search = _read_search(settings, path.stem)
        best = search["best"] if search else {}
        if search is None and (path.parent / SEARCH_FILE).exists():  # the YAML was written by a search
            search = read_json(path.parent / SEARCH_FILE)
        for fold in [None] if settings.folds is None else range(settings.folds):
            for seed in settings.seeds:
                overrides = keep_used(path, _overrides(settings, best, fold, seed))
                hparams = load_hparams(path, overrides)
                run_dir = run_folder(hparams)  # checks the settings, too
                _check_metric(settings, hparams, path.stem)
                searched_on = _searched_on(hparams, search, corpora)
                if searched_on and not settings.allow_searched_speakers:
                    raise UserError(_searched_message(path.stem, fold, searched_on))
                complete = RunDirectory(run_dir).complete
                if complete:
                    verify_provenance(hparams, run_dir)
                job = Job(str(path), overrides, str(run_dir))
                plan.append(PlannedRun(job, path.stem, seed, fold, complete, best, searched_on))
    return plan


def _check_metric(settings: CompareSettings, hparams: HParams, model: str) -> None:
    main = hparams["tasks"][0]
    if settings.metric == "qwk" and not main.ordinal:
        raise UserError(f"metric=qwk: the main task of {model}, {main.name}, is not ordinal; use metric=uar")


def _searched_message(model: str, fold: int | None, speakers: list[str]) -> str:
    where = "the test split" if fold is None else f"the test split of fold {fold}"
    return (
        f"the settings of {model} were searched on speakers of {where} ({shorten(speakers)}): search without them "
        "(--overrides.split.exclude_speakers), or set allow_searched_speakers: true, which marks every table"
    )


def _overrides(settings: CompareSettings, searched: dict[str, Any], fold: int | None, seed: int) -> dict[str, Any]:
    """Return the overrides of one run; the order does not depend on how they were written."""
    both = sorted(searched.keys() & settings.overrides.keys())
    if both:
        raise UserError(f"overrides.{both[0]} was also searched: remove it, or set search: null")
    overrides = dict(sorted({**settings.overrides, **searched}.items()))
    if fold is not None:
        overrides |= dict(zip(FOLD, ("speaker_kfold", settings.folds, fold)))
    return {**overrides, "seed": seed, "output_folder": settings.output_folder, "cache_folder": settings.cache_folder}


def _read_search(settings: CompareSettings, model: str) -> dict[str, Any] | None:
    """Return the result of the search of a model, None if there was none."""
    if settings.search is None:
        return None
    if not Path(settings.search).is_dir():
        raise UserError(f"search={settings.search}: folder not found; search first, or set search: null")
    folder = Path(settings.search) / model
    if not (folder / SEARCH_FILE).exists():
        logger.warning("no search of %s in %s: using the settings of its YAML", model, settings.search)
        return None
    search = read_json(folder / SEARCH_FILE)
    if not search["complete"] or not search["best"]:
        raise UserError(f"the search in {folder} is incomplete: resume it, or set search: null")
    if search["n_complete"] < search["n_trials"]:
        counts = f"{search['n_complete']} of {search['n_trials']}"
        logger.warning("search of %s: only %s trials have a result, the others failed or were pruned", model, counts)
    return search


def _searched_on(hparams: HParams, search: dict[str, Any] | None, corpora: dict[str, Corpus]) -> list[str]:
    """Return the test speakers on whom the settings were searched; refuse a split that cannot be made."""
    data = {key: hparams[key] for key in ("data_folder", "label_map", "corpus_options")}
    key = repr((hparams["corpus"], data))
    if key not in corpora:
        corpora[key] = load_corpus(hparams["corpus"], **data)
    corpus = corpora[key]
    table = hparams["split"](corpus.data)
    return searched_speakers(search, corpus, hparams["data_folder"], table) if search else []
