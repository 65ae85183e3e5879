"""The storage of a search: an Optuna study in a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import optuna
import sqlalchemy

from korser.utils.errors import UserError
from korser.utils.text import one_line

if TYPE_CHECKING:
    from korser.search.plan import SearchPlan
    from korser.search.settings import SearchSettings

__all__ = ["damage_named", "open_study", "storage_failures", "storage_url"]

FAILURES = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError)
SQLITE_PATIENCE = 100  # seconds to wait while another process, such as a dashboard, reads


def storage_url(settings: SearchSettings, plan: SearchPlan, *, hide_password: bool = False) -> str:
    """Return the URL of the storage that the settings name, or of ``search.db`` in the search's folder."""
    if settings.storage is None:
        url = sqlalchemy.URL.create("sqlite", database=str(plan.folder / "search.db"))
    else:
        url = sqlalchemy.make_url(settings.storage)
    return url.render_as_string(hide_password=hide_password)


def open_study(settings: SearchSettings, plan: SearchPlan) -> optuna.Study:
    """Open the storage, and the study of a model in it.

    Raises
    ------
    UserError
        If the storage is invalid or damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        url = storage_url(settings, plan)
        options = {"connect_args": {"timeout": SQLITE_PATIENCE}} if url.startswith("sqlite") else {}
        return optuna.create_study(
            storage=optuna.storages.RDBStorage(url, engine_kwargs=options),
            study_name=plan.study,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),  # not used: every trial of a grid is enqueued
            pruner=settings.pruner or optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except (*FAILURES, ImportError, OSError, ValueError) as error:
        raise UserError(
            f"{_name(settings, plan)}: cannot open the Optuna storage ({_reason(error)}): check the URL and its "
            "driver, free disk space, or move a damaged file away (completed runs are kept)"
        ) from error


@contextmanager
def storage_failures() -> Iterator[None]:
    """Turn a failure of the storage during the search into a UserError."""
    try:
        yield
    except FAILURES as error:
        raise UserError(
            f"the Optuna storage failed ({_reason(error)}): check that its disk is not full and that no other search "
            "writes to it, then run the same command again to resume"
        ) from error


@contextmanager
def damage_named(settings: SearchSettings, plan: SearchPlan) -> Iterator[None]:
    """Turn whatever reading the trials of a storage raises that was changed by other programs into a UserError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{_name(settings, plan)}: the trials of the study {plan.study} are damaged ({type(error).__name__}: "
            f"{_reason(error)}): delete the study, or move the file away (completed runs are kept)"
        ) from error


def _name(settings: SearchSettings, plan: SearchPlan) -> str:
    return "storage" if settings.storage else str(plan.folder / "search.db")


def _reason(error: Exception) -> str:
    return one_line(error.__cause__ or error)
