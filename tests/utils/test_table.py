"""The table and its writers."""

from html.parser import HTMLParser

import pandas as pd
import pytest

from korser.utils.document import Document
from korser.utils.notes import Note, caveats
from korser.utils.table import Table, TableCell, difference_cell, metric_cell, p_cell
from korser.utils.text import number

ROW = {"uar": 0.5, "uar_low": 0.4, "uar_high": 0.6}


@pytest.fixture
def table():
    name = TableCell("mel_<b>", symbols="\N{DAGGER}", tags=("not <pretrained>",))
    rows = [
        [name, metric_cell(ROW, "uar", "best"), TableCell(3), p_cell(0.0001)],
        ["leaf|a", TableCell(0.4, format=number, mark="same", detail="s_2"), None, p_cell(float("nan"))],
    ]
    return Table("Results & more", ["model", "UAR_x", "seeds", "p"], rows, notes=["A_note <of> 5 %."])


def test_text(table):
    assert table.to_text().splitlines() == [
        "model     UAR_x                     seeds  p",
        "--------  ------------------------  -----  ------",
        "mel_<b>\N{DAGGER}  .500 (best) [.400, .600]  3      < .001",
        "leaf|a    .400* (s_2)",
        "A_note <of> 5 %.",
    ]


def test_a_significant_difference_is_not_called_the_best():
    table = Table("", ["pair", "difference"], [["a - b", difference_cell(-0.25, -0.4, -0.1, mark="significant")]])
    assert "-.250 (significant) [-.400, -.100]" in table.to_text() and "**-.250**" in table.to_markdown()
    assert r"\textbf{$-$.250}" in table.to_latex("x") and 'class="significant"' in table.to_html()


def test_numbers_are_aligned_to_the_right_in_text():
    text = Table("", ["model", "n"], [["a", 5], ["b", 1234]]).to_text()
    assert text.splitlines() == ["model     n", "-----  ----", "a         5", "b      1234"]


def test_markdown(table):
    assert table.to_markdown().splitlines() == [
        "| model | UAR\\_x | seeds | p |",
        "| --- | --- | --- | --- |",
        "| mel\\_\\<b\\>\N{DAGGER} | **.500** [.400, .600] | 3 | \\< .001 |",
        "| leaf\\|a | .400\\* (s\\_2) |  |  |",
        "",
        "A\\_note \\<of\\> 5 %.",
    ]


def test_latex(table):
    text = table.to_latex("tab:x", [Note("random_split", "RANDOM SPLIT: 5 %")])
    assert r"\caption{Results \& more.}" in text
    note = r"\textbf{RANDOM SPLIT: 5 \%.} A\_note \textless{}of\textgreater{} 5 \%."
    assert text.index(r"\end{tabular}") < text.index(rf"\parbox{{\linewidth}}{{\footnotesize {note}}}")
    first, second = [line for line in text.splitlines() if line.endswith(r" \\")][1:]
    star = r"\textsuperscript{*}"  # as wide in every row, and in front of the interval
    value = rf"\textbf{{.500}}\hphantom{{{star}}}\,{{\scriptsize [.400, .600]}}"
    assert first == rf"mel\_\textless{{}}b\textgreater{{}}\dag{{}} & {value} & 3 & \textless{{}} .001 \\"
    assert second == rf"leaf\textbar{{}}a & .400{star} &  &  \\"


def test_latex_with_columns_of_siunitx():
    cells = difference_cell(-0.25, -0.4, -0.1, mark="same"), difference_cell(0.5, 0.4, 0.6, mark="best")
    rows = [["a", cells[0], 12, "< .001"], ["b", cells[1], 3, ".5"]]
    table = Table("T", ["model \u2192 x", "difference", "n", "p"], rows)
    text = table.to_latex("tab:x", siunitx=True)
    star = r"\textsuperscript{*}"
    assert rf"{{@{{}}lS[table-format=+0.3,table-space-text-post={star}]@{{\,}}lS[table-format=2.0]c@{{}}}}" in text
    assert r"model $\rightarrow$ x & \multicolumn{2}{c}{difference} & {n} & p \\" in text
    assert rf"a & -.250{star} & {{\scriptsize [$-$.400, $-$.100]}} & 12 & \textless{{}} .001 \\" in text
    assert r"b & \bfseries +.500 & {\scriptsize [.400, .600]} & 3 & .5 \\" in text
    assert "parbox" not in text  # no notes
    assert r"a & $-$.250" in table.to_latex("tab:x")


def test_html_escapes_everything_and_sorts_by_values(table):
    html = table.to_html(["<i>"])
    assert "<b>" not in html and "<i>" not in html and "not &lt;pretrained&gt;" in html
    assert '<td class="best" data-value="0.5">.500<small>[.400, .600]</small></td>' in html
    assert '<td class="same" data-value="0.4">.400*<small>s_2</small></td>' in html
    assert html.count("\N{EN DASH}") == 2  # missing values
    HTMLParser().feed(html)
    table.folded = True
    assert table.to_html().startswith('<details class="fold"><summary>Results &amp; more <small>(2 rows)')


def test_csv_keeps_values_and_intervals(table, tmp_path):
    table.to_csv(tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv", encoding="utf-8-sig")
    assert list(read) == ["model", "UAR_x", "UAR_x low", "UAR_x high", "seeds", "p"]
    assert read.loc[0].to_list() == ["mel_<b>", 0.5, 0.4, 0.6, 3, 0.0001]


def test_differences_are_signed():
    assert difference_cell(0.014, -0.03, 0.058).text == "+.014" and difference_cell(None, None, None).text == ""
    assert difference_cell(0.014, -0.03, 0.058).interval == "[-.030, .058]"


def test_a_line_break_in_a_cell_does_not_break_the_row():
    assert Table("", ["a"], [["one\ntwo"]]).to_markdown().splitlines()[2] == "| one two |"


def test_caveats():
    found = caveats(synthetic=True, random_split=True, pretrained=False)
    assert [note.code for note in found] == ["synthetic_speech", "random_split", "not_pretrained"]
    assert [note.code for note in caveats(random_split=True, protocol="age_sex_groups")] == ["age_sex_groups"]
    assert caveats(pretrained=True) == caveats() == []


def test_a_document_is_written_as_text_and_as_markdown(table):
    document = Document()
    document.heading("mel_stl", level=1)
    document.warnings([Note("a", "A <b>")])
    document.paragraph("")
    document.bullets(["x_y"])
    document.table(table)
    assert document.to_text() == f"mel_stl\n-------\n\n!!! A <b>\n\n- x_y\n\n{table.to_text()}\n"
    assert document.to_markdown() == f"# mel\\_stl\n\n**!!! A \\<b\\>**\n\n- x\\_y\n\n{table.to_markdown()}\n"


def test_a_name_with_line_breaks_stays_in_its_line():
    table = Table("two\n\nlines", ["a\nb"], [[TableCell("c\r\n\nd")]], notes=["e\nf"])
    assert table.to_markdown().splitlines() == ["| a b |", "| --- |", "| c d |", "", "e f"]
    text = table.to_latex("tab:x")
    assert Table("", ["a"], [["[1pt]"], ["*"]]).to_latex("").count("\n{}") == 2
    assert "two  lines" in text and "\n\n" not in text and "c   d" in text
