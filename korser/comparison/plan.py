"""Which runs a comparison needs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from korser.comparison.settings import CORPORA, FOLD
from korser.config.hparams import HParams, load_hparams, resolve_hparams
from korser.config.names import check_shared_overrides
from korser.config.usage import keep_used
from korser.corpora.segments import sources
from korser.data.audio_cache import scan_audio
from korser.data.load_split import CORPUS_SETTINGS, load_corpus_of
from korser.metrics.scores import METRICS
from korser.runs.directory import SEARCH_FILE, RunDirectory, run_folder
from korser.runs.groups import require_distinct_names
from korser.runs.heard import Search, find_searches, read_search
from korser.runs.provenance import verify_provenance
from korser.runs.records import SearchRecord
from korser.utils.errors import UserError
from korser.utils.files import read_json
from korser.utils.text import shorten
from korser.workers import Job

if TYPE_CHECKING:
    from korser.comparison.settings import CompareSettings
    from korser.corpora import Corpus

__all__ = ["PlannedRun", "make_plan", "matrix_parts"]

logger = logging.getLogger(__name__)

FOLDS_WITHIN = 5  # of the speakers of a corpus in a cross-corpus matrix, unless folds states another number


@dataclass(frozen=True)
class PlannedRun:
    """One run of the plan."""

    job: Job
    model: str
    seed: int
    fold: int | None
    complete: bool  # whether it is complete already
    name: str = ""  # of the model in tables and figures
    searched: dict[str, Any] = field(default_factory=dict)  # settings that a search found for it
    searched_on: list[str] = field(default_factory=list)  # speakers of its test split on whom they were searched

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
    check_shared_overrides(settings.models, settings.overrides)
    corpora: dict[str, _Material] = {}
    search_in = functools.cache(read_search)
    plan = []
    for path in settings.models:
        folder, best = _find_search(settings, path.stem)
        shared = keep_used(path, _shared_overrides(settings, best))
        for fold, of_part in _parts(settings, path, shared, corpora):
            for seed in settings.seeds:
                folders = {"output_folder": settings.output_folder, "cache_folder": settings.cache_folder}
                overrides = {**of_part, "seed": seed, "comparison": settings.name, **folders}
                hparams = load_hparams(path, overrides)
                run_dir = run_folder(hparams)  # checks the settings, too
                _check_metric(settings, hparams, path.stem)
                found, _ = find_searches(hparams, [] if folder is None else [folder])
                if folder is not None:  # the run records it, too
                    overrides["searched_in"] = [str(each.resolve()) for each in found]
                searched_on = _searched_on(hparams, corpora, [search_in(each) for each in found])
                if searched_on and not settings.allow_searched_speakers:
                    raise UserError(_searched_message(path.stem, fold, searched_on))
                complete = RunDirectory(run_dir).complete
                if complete:
                    verify_provenance(hparams, run_dir)
                job = Job(str(path), overrides, str(run_dir))
                name = settings.names.get(path.stem) or hparams.get("label") or path.stem
                plan.append(PlannedRun(job, path.stem, seed, fold, complete, name, best, searched_on))
    require_distinct_names({planned.model: planned.name for planned in plan})
    return plan


def _check_metric(settings: CompareSettings, hparams: HParams, model: str) -> None:
    main = hparams["tasks"][0]
    known = main.strategy.compared
    if settings.metric not in (None, *known):
        raise UserError(
            f"metric={settings.metric}: the main task of {model}, {main.name}, is of kind {main.kind}; use one of "
            f"{', '.join(name for name in known if name in METRICS)}"
        )


def _searched_message(model: str, fold: int | None, speakers: list[str]) -> str:
    where = "the test split" if fold is None else f"the test split of fold {fold}"
    return (
        f"the settings of {model} were searched on speakers of {where} ({shorten(speakers)}): search without them "
        "(--overrides.split.exclude_speakers), or set allow_searched_speakers: true, which marks every table"
    )


def _shared_overrides(settings: CompareSettings, searched: dict[str, Any]) -> dict[str, Any]:
    """Return what all runs of a model share; the order does not depend on how it was written."""
    both = sorted(searched.keys() & settings.overrides.keys())
    if both:
        raise UserError(f"overrides.{both[0]} was also searched: remove it, or set search: null")
    return dict(sorted({**settings.overrides, **searched}.items()))


def _parts(
    settings: CompareSettings, path: Path, shared: dict[str, Any], corpora: dict[str, _Material]
) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Yield fold and overrides of every run of a model with one seed; too many folds are refused with the first."""
    if settings.cross_corpus:
        names = _material(resolve_hparams(path, shared, CORPUS_SETTINGS), corpora).corpus.parts
        yield from matrix_parts(settings.folds or FOLDS_WITHIN, shared, names)
    elif settings.folds is None:
        yield None, shared
    else:
        for fold in range(settings.folds):
            yield fold, {**shared, **dict(zip(FOLD, ("speaker_kfold", settings.folds, fold)))}


def matrix_parts(
    n_folds: int, shared: dict[str, Any], names: Sequence[str]
) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Yield the runs of a cross-corpus matrix: folds within each corpus, trained on it alone, and on all others.

    A run that was trained on a corpus is tested on all others at once.
    """
    if len(names) < 2:
        raise UserError("cross_corpus=true: expected several corpora, --overrides.corpus='[ravdess, emodb]'")
    protocol, *_, within, tested = CORPORA
    no_folds = {key: value for key, value in shared.items() if key != "split.folds"}
    if shared.get("split.valid", 0) != 0:  # a fraction of speakers; within a corpus a fold validates
        shared = {key: value for key, value in shared.items() if key != "split.valid"}
    for name in names:
        for fold in range(n_folds):
            yield fold, {**shared, **dict(zip(FOLD, ("speaker_kfold", n_folds, fold))), within: [name]}
    others = [[other for other in names if other != name] for name in names]
    for tests in [*others, *([[name] for name in names] if len(names) > 2 else [])]:
        yield None, {**no_folds, protocol: "cross_corpus", tested: tests}


def _find_search(settings: CompareSettings, model: str) -> tuple[Path | None, dict[str, Any]]:
    """Return the folder of the search of a model, None if there was none, and the settings that it found."""
    if settings.search is None:
        return None, {}
    if not Path(settings.search).is_dir():
        raise UserError(f"search={settings.search}: folder not found; search first, or set search: null")
    folder = Path(settings.search) / model
    if not (folder / SEARCH_FILE).exists():
        logger.warning("no search of %s in %s: using the settings of its YAML", model, settings.search)
        return None, {}
    search = read_json(folder / SEARCH_FILE, SearchRecord, ("complete", "best", "n_complete", "n_trials"))
    if not search["complete"] or not search["best"]:
        raise UserError(f"the search in {folder} is incomplete: resume it, or set search: null")
    if search["n_complete"] < search["n_trials"]:
        counts = f"{search['n_complete']} of {search['n_trials']}"
        logger.warning("search of %s: only %s trials have a result, the others failed or were pruned", model, counts)
    return folder, search["best"]


@dataclass(frozen=True)
class _Material:
    """A corpus, and the digests of its recordings by path (and segment), as far as they were needed."""

    corpus: Corpus
    digests: dict[str, str] = field(default_factory=dict)


def _material(hparams: HParams, corpora: dict[str, _Material]) -> _Material:
    """Return the corpus of some settings, loaded once."""
    key = repr([hparams.get(name) for name in CORPUS_SETTINGS])
    if key not in corpora:
        corpora[key] = _Material(load_corpus_of(hparams))
    return corpora[key]


def _searched_on(hparams: HParams, corpora: dict[str, _Material], searches: Sequence[Search]) -> list[str]:
    """Return the test speakers on whom the settings were searched; refuse a split that cannot be made."""
    material = _material(hparams, corpora)
    corpus, digests = material.corpus, material.digests
    table = hparams["split"](corpus.data)
    if not searches:
        return []
    utterances = sources(table)
    new = [source for source in utterances if str(source) not in digests]
    if new:
        digests.update(scan_audio(new, hparams["cache_folder"])["digest"])
    table["digest"] = [digests[str(source)] for source in utterances]
    return sorted({heard for search in searches for heard in search.in_test(corpus, hparams["data_folder"], table)})
