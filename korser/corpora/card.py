"""What ``korser corpora`` and ``docs/corpora.md`` state about each corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from korser.utils.table import Table

__all__ = ["CorpusCard", "corpus_table"]


@dataclass(frozen=True)
class CorpusCard:
    """Facts about a corpus, the constant ``ABOUT`` of its adapter.

    Parameters
    ----------
    name : str
        As papers call it.
    language : str
    speakers : int or None
        People who speak; None if nothing tells who does, or if ``utterances`` is None, since options determine both.
    utterances : int or None
        That the adapter reads of the complete corpus; None if that is not known.
    terms : str
        Licence, or how to obtain the corpus, in a few words.
    url : str
        Where to obtain it.
    checked : str
        What the adapter was verified on: ``"audio"``, or such as ``"published tables"`` where no audio was at hand.
    raters : str
        How many people rated an utterance, if the adapter gives their votes.
    """

    name: str
    language: str
    speakers: int | None
    utterances: int | None
    terms: str
    url: str
    checked: str
    raters: str = ""


def corpus_table(adapters: Mapping[str, ModuleType], *, complete: bool = False) -> Table:
    """Return the table of corpora.

    Parameters
    ----------
    adapters : dict of str to module
        By the corpus's name; those without ``ABOUT``, which read manifests of any corpus, are named below the table.
    complete : bool
        Whether with titles, addresses and what each adapter was verified on.
    """
    cards = {name: module.ABOUT for name, module in adapters.items() if hasattr(module, "ABOUT")}
    rows = []
    for name, about in cards.items():
        row = {
            "name": name,
            "corpus": f"{about.name}, {about.url}",
            "language": about.language,
            "speakers": "unknown" if about.speakers is None and about.utterances else about.speakers,
            "utterances": about.utterances,
            "classes": ", ".join(f"{task} {len(labels)}" for task, labels in adapters[name].TASKS.items()),
            "ratings": _scales(getattr(adapters[name], "RATINGS", {})),
            "raters": about.raters,
            "terms": about.terms,
            "verified on": about.checked,
        }
        rows.append(row if complete else {k: v for k, v in row.items() if k not in ("corpus", "verified on")})
    manifests = [name for name in adapters if name not in cards]
    return Table(
        "Corpora", list(rows[0]), [list(row.values()) for row in rows], [f"Any corpus: {', '.join(manifests)}"]
    )


def _scales(ratings: Mapping[str, tuple[float, float]]) -> str:
    """Return ``valence, arousal 1-5``."""
    by_scale: dict[tuple[float, float], list[str]] = {}
    for name, scale in ratings.items():
        by_scale.setdefault(scale, []).append(name)
    return "; ".join(f"{', '.join(names)} {low:g}-{high:g}" for (low, high), names in by_scale.items())
