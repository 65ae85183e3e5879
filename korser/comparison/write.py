"""Write a comparison: text for the terminal, Markdown for reading, LaTeX for a paper, CSV for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from korser.comparison.tables import costs_table, description, family, pairs_table, results_table
from korser.utils.document import Document
from korser.utils.files import write_text

if TYPE_CHECKING:
    from korser.comparison.compare import Comparison

__all__ = ["document", "latex", "write_comparison"]


def document(comparison: Comparison) -> Document:
    """Return the tables, answers and notes of a comparison."""
    document = Document()
    document.heading(description(comparison), level=1)
    document.warnings(comparison.warnings)
    document.table(results_table(comparison))
    document.table(costs_table(comparison))
    document.bullets(comparison.answers, "Answers")
    document.paragraph(family(comparison))
    if len(comparison.pairs):
        table = pairs_table(comparison)
        document.heading(table.title)
        document.table(table)
    document.bullets(comparison.notes, "Notes")
    return document


def _answers_document(comparison: Comparison) -> Document:
    """Return the warnings and answers of a comparison."""
    document = Document()
    document.warnings(comparison.all_warnings)
    document.bullets(comparison.answers)
    return document


def latex(comparison: Comparison, *, intervals: bool = True, siunitx: bool = False) -> str:
    r"""Return two tables, results and costs, for ``\usepackage{booktabs}``, and ``siunitx`` if wanted.

    Names in another script than Latin need XeLaTeX or LuaLaTeX and a font that has it.
    """
    named = {
        "tab:comparison": results_table(comparison, counts=False, intervals=intervals),
        "tab:costs": costs_table(comparison, worst_speaker=False, intervals=intervals),
    }
    for table in named.values():
        table.title += f"; {description(comparison)}"
    tables = [f"{table.to_latex(name, comparison.warnings, siunitx=siunitx)}\n" for name, table in named.items()]
    lines = [rf"% needs \usepackage{{booktabs{',siunitx' if siunitx else ''}}}"]
    if not "".join(tables).isascii():
        lines.append("% and XeLaTeX or LuaLaTeX with a font for the models' names")
    return "\n".join([*lines, *tables])


def write_comparison(comparison: Comparison, folder: str | Path) -> None:
    """Write the CSV files, ``comparison.md``, ``answers.md``, and ``comparison.tex`` in three forms."""
    folder = Path(folder)
    comparison.to_csv(folder)
    write_text(folder / "comparison.md", document(comparison).to_markdown())
    for name, options in (("", {}), ("-short", {"intervals": False}), ("-siunitx", {"siunitx": True})):
        write_text(folder / f"comparison{name}.tex", latex(comparison, **options))
    write_text(folder / "answers.md", _answers_document(comparison).to_markdown())
