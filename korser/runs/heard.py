"""Test speakers whom a model has heard before: in the search of its settings, or in the pretraining of its encoder.

Recordings are recognised by the digests of their samples, whatever the corpus, its folder and its files are called.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from korser.runs.directory import SEARCH_FILE, RunDirectory
from korser.runs.records import SearchRecord
from korser.utils.errors import UserError
from korser.utils.files import LARGEST, folder_of, read_bytes, read_json
from korser.utils.notes import Note
from korser.utils.text import first_line, shorten

if TYPE_CHECKING:
    from korser.config.hparams import HParams
    from korser.corpora import Corpus

__all__ = [
    "RECORDINGS_FILE",
    "Search",
    "find_searches",
    "heard_in_test",
    "pretrained_on_tested",
    "pretraining_digests",
    "read_search",
]

RECORDINGS_FILE = "recordings.csv"  # in the folder of a pretrained checkpoint: digests of what it was trained on
NO_RECORD = "SEARCHED SETTINGS: {} is missing: whether the settings were searched on test speakers is not known"


@dataclass(frozen=True)
class Search:
    """What a search trained and validated on."""

    about: dict[str, Any]  # search.json
    digests: frozenset[str]  # of the recordings; empty if its trials are missing

    def in_test(self, corpus: Corpus, data_folder: Any, table: pd.DataFrame) -> list[str]:
        """Return the heard speakers (or ids, see :func:`heard_in_test`) of the test split, also those known by name."""
        names = set(self.about["speakers"]) if self._same_names(corpus, data_folder) else set()
        named = set(table.loc[table["split"] == "test", "speaker"].dropna()) & names
        return sorted(named.union(heard_in_test(table, self.digests)))

    def _same_names(self, corpus: Corpus, data_folder: Any) -> bool:
        """Return whether a speaker's name is that of the same person in the search and in a corpus."""
        if self.about["corpus"] != corpus.name:
            return False
        return not corpus.identified_by_folder or _folders(self.about["data"]["data_folder"]) == _folders(data_folder)


def _folders(data_folder: Any) -> list[Path]:
    """Return the folder of a corpus, or those of several in their order."""
    return [folder_of(path) for path in (data_folder.values() if isinstance(data_folder, dict) else [data_folder])]


def heard_in_test(table: pd.DataFrame, digests: Collection[str]) -> list[str]:
    """Return the speakers of the test split of whom a recording, in any split, was heard.

    The table has ``id, speaker, split, digest``. A heard test utterance without a speaker is returned by its id.
    """
    heard, test = table["digest"].isin(digests), table["split"] == "test"
    speakers = test & table["speaker"].isin(table.loc[heard, "speaker"].dropna())
    return sorted({*table.loc[speakers, "speaker"], *table.loc[test & heard & table["speaker"].isna(), "id"]})


def find_searches(hparams: HParams, used: Iterable[Path] = ()) -> tuple[list[Path], list[Note]]:
    """Find the searches that settings come from.

    Returns
    -------
    list of Path
        Folders: of a file that a search wrote, and those that the setting ``searched_in`` and ``used`` name.
    list of Note
        Of code ``unknown_search``, for folders without a search or without the recordings of its trials.
    """
    beside = [Path(folder) for folder in hparams.folders if (Path(folder) / SEARCH_FILE).exists()]
    named = [Path(folder) for folder in (*hparams.get("searched_in", []), *used)]
    found = [folder for folder in named if (folder / SEARCH_FILE).exists()]
    folders = {folder.resolve(): folder for folder in (*beside, *found)}
    missing = [folder for folder in named if folder not in found and not beside]
    missing += [folder / "runs" for folder in folders.values() if not any(_manifests(folder))]
    return list(folders.values()), [
        Note("unknown_search", NO_RECORD.format("/".join(folder.parts[-3:]))) for folder in missing
    ]


def pretrained_on_tested(frontend: nn.Module, table: pd.DataFrame) -> list[Note]:
    """Return a warning about each encoder that ``korser pretrain`` trained on recordings of tested speakers."""
    notes = []
    for source in dict.fromkeys(str(module.source) for module in frontend.modules() if hasattr(module, "source")):
        heard = heard_in_test(table, pretraining_digests(source))
        if heard:
            text = f"PRETRAINED ON TEST SPEAKERS: {Path(source).name} has heard recordings of {shorten(heard)}"
            notes.append(Note("pretrained_on_test_speakers", text))
    return notes


def pretraining_digests(source: str | Path) -> frozenset[str]:
    """Return the digests of the recordings on which ``korser pretrain`` made a checkpoint; empty if there is no record.

    The checkpoint's folder has them, so that it can be moved; otherwise the run directory that holds it.
    """
    folder, run = Path(source), RunDirectory(Path(source).parent)
    files = [folder / RECORDINGS_FILE, *([run.manifest_file] if run.info_file.exists() else [])]
    return _recorded_digests(file for file in files if folder.is_dir() and file.exists())


def read_search(folder: Path) -> Search:
    """Read a search and the digests that its trials recorded."""
    return Search(read_json(folder / SEARCH_FILE, SearchRecord), _recorded_digests(_manifests(folder)))


def _manifests(folder: Path) -> Iterable[Path]:
    return folder.glob(f"runs/*/{RunDirectory(folder).manifest_file.name}")


def _recorded_digests(manifests: Iterable[Path]) -> frozenset[str]:
    """Return the digests in some manifests; trials of a search mostly have the same one, which is parsed once."""
    read: dict[bytes, set[str]] = {}
    for file in manifests:
        try:
            content = read_bytes(file, LARGEST["table"])
            if content not in read:
                read[content] = set(pd.read_csv(io.BytesIO(content), usecols=["digest"], dtype=str)["digest"])
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(f"{file} is damaged ({reason}): restore it, or delete its folder") from error
    return frozenset().union(*read.values())
