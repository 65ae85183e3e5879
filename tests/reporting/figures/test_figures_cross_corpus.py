"""Heat maps of cross-corpus matrices."""

import pytest
from made_runs import write_matrix

import korser.reporting.figures.draw as figures
from korser.comparison.cross_corpus import cross_corpus
from korser.comparison.cross_tables import write_cross_corpus
from korser.reporting.figures import Style, draw_all
from korser.reporting.figures.cross_corpus import draw_cross_corpus
from korser.reporting.figures.style import finish
from korser.runs.load import load_runs
from korser.utils.files import write_json


def test_a_heat_map_has_every_cell_with_its_interval(tmp_path):
    result, style = cross_corpus(load_runs(write_matrix(tmp_path))), Style()
    with style.context():
        [drawing] = draw_cross_corpus(result, style)
        finish(drawing.figure, "", style)
    [ax] = drawing.figure.axes
    texts = [text.get_text() for text in ax.texts]
    assert len(texts) == 12 and all(text.count("\n[") == 1 for text in texts)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c", "all others"]
    assert "trained on the rows" in drawing.caption and "joy, sadness, neutral" in drawing.caption
    assert float(texts[0].split()[0]) == pytest.approx(result.table["uar"].iloc[0], abs=6e-4)


def test_it_is_among_all_figures_with_the_name_of_its_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", ())
    write_matrix(tmp_path / "runs", names=("a", "b"))
    runs = load_runs(tmp_path / "runs")
    planned = [{"run": run.path.name, "failed": None, "searched_on_tested_speakers": []} for run in runs]
    made = {"settings": {"metric": None, "questions": None}, "runs": planned, "names": {"mel_stl": "Mel & more"}}
    write_json(tmp_path / "runs" / "comparison.json", made)
    drawn = draw_all(tmp_path / "runs", tmp_path / "out")
    assert [figure.name for figure in drawn] == ["cross-corpus-mel_stl"] and drawn[0].title.startswith("Mel & more,")
    write_cross_corpus(cross_corpus(runs, names=made["names"]), tmp_path / "out")
    assert "\\label{tab:corpora-mel_stl}" in (tmp_path / "out" / "cross_corpus.tex").read_text()
    assert (tmp_path / "out" / "cross-corpus-mel_stl.pdf").exists()
