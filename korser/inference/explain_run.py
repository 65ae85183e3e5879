"""Explain test utterances of a run, for figures and the report: a sample of each class, and chosen ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from korser.corpora.segments import sources
from korser.data.audio_cache import AudioStore
from korser.inference.explain import BAND_EDGES, STEPS, NotFinite, explain
from korser.inference.load import load_trained_model
from korser.runs.directory import RunDirectory
from korser.runs.explained import ExplainedRun, made_from, read_explained, write_explained
from korser.runs.load import Run
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest, file_digest, module_digest

__all__ = ["PER_CLASS", "explain_run"]

PER_CLASS = 10  # utterances
N_BANDS = len(BAND_EDGES) - 1

logger = logging.getLogger(__name__)


def explain_run(
    run: Run,
    chosen: Iterable[tuple[str, str]] = (),
    *,
    per_class: int = PER_CLASS,
    steps: int = STEPS,
    device: str | None = None,
    trust: bool = False,
    progress: bool = True,
) -> bool:
    """Explain the main task and write ``explanations/`` in the run directory, unless it is up to date.

    Utterances whose attributions are not finite are left out with a warning.

    Parameters
    ----------
    run : Run
        With predictions of the test split.
    chosen : iterable of (str, str)
        Ids of test utterances with the class that is explained. What the run did not test is left out.
    per_class : int
        Test utterances of each class that the run predicts, from as many speakers as there are.
    steps : int
        See :mod:`korser.inference.explain`.
    device : str, optional
        Default: a GPU if there is one.
    trust : bool
        See :func:`korser.inference.load.load_trained_model`.

    Returns
    -------
    bool
        Whether anything was computed.

    Raises
    ------
    UserError
        If audio or weights are missing, or nothing can be explained.
    """
    rows = _rows(run, chosen, per_class)
    weights = run.directory.weights_file
    if not weights.is_file():
        raise UserError(f"{run.path} has no {weights.name}, which explanations need: train again")
    asked = rows[["id", "label", "sampled"]].astype(str).to_numpy().tolist()
    source = digest([file_digest(weights), module_digest(explain.__module__), asked, steps])
    if rows.empty or _is_up_to_date(run.directory, source):
        return False
    trained = load_trained_model(run.path, device or ("cuda" if torch.cuda.is_available() else "cpu"), trust=trust)
    audio, found = AudioStore(trained.cache_folder), {}
    bar = tqdm(list(zip(rows.itertuples(), sources(rows))), desc=f"explain {run.path.name}", disable=not progress)
    for row, path in bar:
        label = None if pd.isna(row.label) else row.label
        try:
            found[row.Index] = explain(trained, audio.waveform(path, row.digest), trained.tasks[0].name, label, steps)
        except NotFinite as error:
            logger.warning("%s: utterance %s is left out: %s", run.path, row.id, error)
    if not found:
        raise UserError(f"{run.path}: no utterance can be explained")
    n_inaccurate = sum(each.inaccurate for each in found.values())
    if n_inaccurate:
        logger.warning(
            "%s: attributions differ from the outputs in %d of %d explanations: increase the steps (--steps=%d)",
            run.path.name,
            n_inaccurate,
            len(found),
            4 * steps,
        )
    table, found = rows.loc[list(found), ["id", "label", "sampled"]], list(found.values())
    table = table.assign(
        output=[each.output for each in found],
        baseline=[each.baseline for each in found],
        frames=[0 if each.spectrum is None else len(each.spectrum) for each in found],
    )
    empty = np.zeros((0, N_BANDS))
    spectra = [empty if each.spectrum is None else each.spectrum for each in found]
    channels = np.stack([each.features.sum(0) for each in found]) if found[0].frequency_axis else None
    write_explained(run.directory, ExplainedRun(trained.tasks[0].name, table, spectra, channels), source)
    return True


def _is_up_to_date(directory: RunDirectory, source: str) -> bool:
    try:
        return made_from(directory) == source and read_explained(directory, N_BANDS) is not None
    except UserError:  # damaged
        return False


def _rows(run: Run, chosen: Iterable[tuple[str, str]], per_class: int) -> pd.DataFrame:
    """Return the rows of the manifest with ``label`` and ``sampled``; an utterance may have two classes."""
    task = next(iter(run.tasks.values()))
    tested = run.predictions()[["id", "speaker", f"{task.name}_pred"]]
    tested = tested.assign(label=tested[f"{task.name}_pred"] if task.classes else None, sampled=1)
    tested["turn"] = tested.groupby(["label", "speaker"], dropna=False).cumcount()
    tested = tested.sort_values(["turn", "speaker", "id"])
    sample = tested.groupby("label", dropna=False, sort=False).head(per_class)
    others = pd.DataFrame([each for each in chosen if each[0] in set(tested["id"])], columns=["id", "label"])
    table = pd.concat([sample[["id", "label", "sampled"]], others.assign(sampled=0)], ignore_index=True)
    table = table.drop_duplicates(["id", "label"])  # the sample comes first
    return table.merge(
        run.directory.manifest(run.text_columns).drop(columns=["label", "sampled"], errors="ignore"), on="id"
    )
