"""A document of headings, paragraphs, lists and tables, written as plain text or Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from korser.utils.table import Table, escape_markdown

__all__ = ["Document"]


class Document:
    r"""Collects blocks in order; escaping happens in the writers.

    Example
    -------
    >>> document = Document()
    >>> document.heading("mel_stl")
    >>> document.bullets(["one", "two"])
    >>> print(document.to_markdown())
    ## mel\_stl
    <BLANKLINE>
    - one
    - two
    <BLANKLINE>
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[str, str]] = []  # as text and as Markdown

    def heading(self, text: str, level: int = 2) -> None:
        """Add a heading."""
        self._add(f"{text}\n{'-' * len(text)}", f"{'#' * level} {escape_markdown(text)}")

    def paragraph(self, text: str) -> None:
        """Add a paragraph; nothing if it is empty."""
        if text:
            self._add(text, escape_markdown(text))

    def warnings(self, warnings: Iterable[object]) -> None:
        """Add warnings (notes or text), each as a paragraph."""
        for warning in warnings:
            self._add(f"!!! {warning}", f"**!!! {escape_markdown(warning)}**")

    def bullets(self, items: Iterable[object], heading: str = "") -> None:
        """Add a list, below a heading if there is one; nothing if it is empty."""
        items = list(items)
        if items and heading:
            self.heading(heading)
        if items:
            self._add("\n".join(f"- {i}" for i in items), "\n".join(f"- {escape_markdown(i)}" for i in items))

    def table(self, table: Table) -> None:
        """Add a table with its notes, without its title."""
        self._add(table.to_text(), table.to_markdown())

    def _add(self, text: str, markdown: str) -> None:
        self._blocks.append((text, markdown))

    def to_text(self) -> str:
        """Return plain text for a terminal."""
        return "\n\n".join(text for text, _ in self._blocks) + "\n"

    def to_markdown(self) -> str:
        """Return Markdown."""
        return "\n\n".join(markdown for _, markdown in self._blocks) + "\n"
