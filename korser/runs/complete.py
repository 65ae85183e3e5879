"""Find the complete run of some settings without importing what trains one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from korser.config.hparams import resolve_hparams
from korser.data.load_split import CORPUS_SETTINGS
from korser.runs.directory import RunDirectory
from korser.utils.user_code import FAILURES

__all__ = ["KEYS", "find_complete_run"]

# what a complete run is verified with
KEYS = (*CORPUS_SETTINGS, "split", "evaluate_test", "output_folder", "cache_folder")

logger = logging.getLogger(__name__)


def find_complete_run(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunDirectory | None:
    """Find and verify the complete run of some settings, without building the model.

    None if it is not complete, or the settings (:func:`korser.config.hparams.load_hparams`) are invalid.

    Raises
    ------
    UserError
        See :func:`korser.runs.provenance.verify_provenance`.
    """
    try:
        hparams = resolve_hparams(path, overrides, ["output_folder"])
        directory = RunDirectory(Path(hparams["output_folder"]) / hparams.run_name)
        if not directory.complete:
            return None
        hparams = resolve_hparams(path, overrides, KEYS)
    except FAILURES:  # load_hparams reports all that is wrong
        return None
    from korser.runs.provenance import verify_provenance  # here: it imports torch

    verify_provenance(hparams, directory.path)
    logger.info("%s is complete", directory)
    return directory
