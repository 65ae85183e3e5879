"""What ``korser corpora`` and ``docs/corpora.md`` state about each corpus."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CorpusCard"]


@dataclass(frozen=True)
class CorpusCard:
    """Facts about a corpus, the constant ``ABOUT`` of its adapter.

    Parameters
    ----------
    name : str
        As papers call it.
    language : str
    speakers : int or None
        People who speak; None if nothing tells who does.
    utterances : int or None
        That the adapter reads of the complete corpus; None if that is not known.
    terms : str
        Licence, or how to obtain the corpus, in a few words.
    url : str
        Where to obtain it.
    checked : str
        What the adapter was verified on: ``"audio"``, or such as ``"published tables"`` where no audio was at hand.
    """

    name: str
    language: str
    speakers: int | None
    utterances: int | None
    terms: str
    url: str
    checked: str
