"""Tables as Markdown, LaTeX and CSV."""

import json
import re
import shutil
import subprocess

import pandas as pd
import pytest
from made_runs import utterances, write_run

from korser.comparison.compare import compare
from korser.comparison.tables import results_table
from korser.runs.load import load_runs


def test_the_legend_names_columns_without_possible_significance(tmp_path):
    table = utterances(n_speakers=8)
    for model in ("a_stl", "b_stl", "c_stl", "d_stl", "e_stl", "f_mtl", "g_mtl"):  # 21 pairs, and one of gender
        write_run(tmp_path, model, table=table)
    text = compare(load_runs(tmp_path)).to_markdown()
    assert "no difference in emotion accuracy, emotion UAR, emotion macro-F1 could be significant" in text


def test_the_number_of_corrected_tests_is_stated(tmp_path, four_models):
    text = compare(
        four_models, questions=[{"title": "Q?", "pairs": [["leaf_stl", "wav2vec_leaf_stl"], ["leaf_stl", "x"]]}]
    )
    assert "Holm's correction is over the" not in text.to_markdown()
    assert "Holm's correction is over the 4 comparisons" in compare(four_models).to_markdown()


def test_csv_opens_in_excel_with_hangul(tmp_path):
    write_run(tmp_path, "한국어_stl")
    write_run(tmp_path, "leaf_stl")
    comparison = compare(load_runs(tmp_path))
    comparison.write(tmp_path / "out")
    names = {"models.csv", "pairs.csv", "questions.csv", "subgroups.csv", "calibration.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {
        "answers.md",
        "comparison.md",
        "comparison.tex",
        "comparison-short.tex",
        "comparison-siunitx.tex",
    }
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\xef\xbb\xbf") for name in names)
    models = pd.read_csv(tmp_path / "out" / "models.csv", encoding="utf-8-sig")
    assert sorted(models["model"]) == ["leaf_stl", "한국어_stl"] and {"emotion_uar_low", "emotion_uar_high"} <= set(
        models
    )
    assert "XeLaTeX" in (tmp_path / "out" / "comparison.tex").read_text(encoding="utf-8")


def test_markdown(comparison):
    lines = comparison.to_markdown().splitlines()
    assert "corpus made, protocol speaker\\_kfold: 9 speakers, 81 utterances, 3 seeds" in lines[0]
    assert sum(line.count("**") for line in lines if line.startswith("| wav2vec")) == 2 * len(comparison.columns)
    tables = [line for line in lines if line.startswith("|")]
    for row in tables:
        assert len(re.findall(r"(?<!\\)\|", row)) in (9, 8)
    assert "94.4 M" in "".join(tables) and "6.9 G" in "".join(tables) and "1 GB" in "".join(tables)
    assert "(exact, 9 speakers, common seeds: 3)" in "".join(lines)


def test_latex_is_well_formed(comparison):
    text = comparison.to_latex()
    body = re.sub(r"%.*", "", text.replace("\\%", ""))
    assert body.replace("\\{", "").replace("\\}", "").count("{") == body.replace("\\{", "").replace("\\}", "").count(
        "}"
    )
    opened = re.findall(r"\\begin\{([a-z*]+)\}", text)
    assert (
        sorted(opened) == sorted(re.findall(r"\\end\{([a-z*]+)\}", text)) == ["table*", "table*", "tabular", "tabular"]
    )
    assert text.count("\\caption") == text.count("\\parbox") == 2
    for caption in re.findall(r"\\caption\{(.*)\}", text):
        assert len(caption) < 140  # two lines
    for tabular in re.findall(r"\\begin\{tabular\}\{@\{\}(l[c]*)@\{\}\}(.*?)\\end\{tabular\}", text, re.S):
        columns, content = tabular
        rows = [line for line in content.splitlines() if line.endswith("\\\\")]
        assert len(rows) == 5 and all(row.count("&") == len(columns) - 1 for row in rows)
        assert all(rule in content for rule in ("\\toprule", "\\midrule", "\\bottomrule"))
    assert not re.search(r"(?<!\\)[_#]", re.sub(r"\\label\{[^}]*\}", "", body))
    assert text.count("\\textbf{.") == len(comparison.columns) and "wav2vec\\_leaf\\_mtl" in text
    assert text.isascii()


NAMES = {"leaf_stl": "LEAF → 50 %", "leaf_mtl": "LEAF & more", "wav2vec_leaf_stl": "wav2vec <b>", "x": "no such model"}


@pytest.fixture(scope="module")
def named(four_models):
    return compare(four_models, names=NAMES)


def test_names_are_shown_in_every_table_and_answer(named, comparison, tmp_path):
    named.write(tmp_path)
    shown = [NAMES.get(label, label) for label in comparison.models]
    for file in ("comparison.md", "answers.md", "models.csv", "pairs.csv", "subgroups.csv"):
        text = (tmp_path / file).read_text(encoding="utf-8")
        for label in ("leaf_stl", "leaf_mtl", "wav2vec_leaf_stl"):
            assert not re.search(rf"\b{label}\b", text.replace("\\_", "_")), (file, label)
    assert list(named.models) == shown and [named.labels[name] for name in shown] == list(comparison.models)
    answer = named.answers[0]
    assert answer.pair == "wav2vec <b> vs LEAF → 50 %" and answer.result == comparison.answers[0].result
    pairs = [["leaf_mtl", "leaf_stl"], ["LEAF & more", "leaf_stl"]]  # a question may use either
    asked = compare(
        named.models["LEAF & more"].runs + named.models["LEAF → 50 %"].runs,
        questions=[{"title": "Q?", "pairs": pairs}],
        names=NAMES,
    ).answers
    assert [each.pair for each in asked] == ["LEAF & more vs LEAF → 50 %"] * 2
    assert "LEAF $\\rightarrow$ 50 \\%" in named.to_latex() and named.to_latex().isascii()


def test_the_short_latex_table_has_no_intervals(named):
    text = named.to_latex(intervals=False)
    assert "[" not in text.replace("table*}[t]", "") and "interval " not in text.replace("belongs to the interval", "")
    assert text.count("\\textbf{.") == len(named.columns) and "Bold (best)" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_compiles_without_errors_and_overfull_lines(named, tmp_path):
    named.write(tmp_path)
    files = ["comparison.tex", "comparison-short.tex", "comparison-siunitx.tex"]
    packages = "\\usepackage[margin=0.75in]{geometry}\\usepackage{booktabs,siunitx}"
    inputs = "".join(f"\\input{{{file}}}" for file in files)
    page = f"\\documentclass[twocolumn]{{article}}{packages}\\begin{{document}}{inputs}\\end{{document}}"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    missing = re.search(r"File `.*' not found", done.stdout)
    if missing:
        pytest.skip(missing.group())
    assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout[-2000:]


def test_operations_that_are_not_counted_are_no_zero(tmp_path):
    for model in ("smile", "mel"):
        run = write_run(tmp_path, model, seed=1)
        if model == "smile":
            cost = json.loads((run / "cost.json").read_text())
            cost |= {"macs_per_second": None, "macs_not_counted": ["mine.Smile"]}
            (run / "cost.json").write_text(json.dumps(cost))
    text = compare(load_runs(tmp_path)).to_markdown()
    assert text.count("not counted |") == 1
    assert "Operations outside torch are not counted: smile (mine.Smile)." in text


def test_the_table_of_results_has_the_notes_on_intervals(tmp_path):
    table = utterances(n_speakers=9)
    for model, right in (("leaf_mtl", 0.6), ("mel_stl", 0.98)):
        for fold in range(3):
            write_run(tmp_path, model, fold=fold, right=right, table=table)
    comparison = compare(load_runs(tmp_path))
    codes = [note.code for note in comparison.interval_notes]
    assert [code for code in codes if code != "no_interval"] == ["one_seed", "folds_pooled", "near_bound"]
    notes = results_table(comparison).notes
    assert any(note.startswith("Folds are pooled: ") and note.endswith("approximately.") for note in notes)
    assert any(note.startswith("Most speakers are nearly perfect") and "(mel_stl)" in note for note in notes)
    assert "Folds are pooled" in comparison.to_markdown() and "Folds are pooled" in comparison.to_latex()
