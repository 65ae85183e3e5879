"""The figure of a linear probe."""

import pandas as pd
import pytest

from korser.probing.encoders import ALL, CHOSEN
from korser.probing.report import probe_notes
from korser.reporting.figures import NothingToDraw, Style
from korser.reporting.figures.probe import draw_probe, find_probes
from korser.utils.files import write_csv


def write_probe(folder, encoders):
    """Write a probe.csv with made-up scores of encoders with some layers."""
    rows = []
    for task in ("emotion", "gender"):
        for i, (encoder, layers) in enumerate(encoders.items()):
            for k, layer in enumerate(layers):
                uar = 0.5 + 0.05 * i + 0.03 * k
                row = {"encoder": encoder, "task": task, "layer": layer, "uar": uar, "n_classes": 4}
                row |= {"uar_low": uar - 0.1, "uar_high": uar + 0.1, "pretrained": None, "synthetic": False}
                rows.append(row)
    write_csv(folder / "csv" / "probe.csv", pd.DataFrame(rows))


def test_every_layer_is_drawn(tmp_path):
    layers = ["0", "1", "2", ALL, CHOSEN]
    write_probe(tmp_path, {"log-mel": ["features", CHOSEN], "a": layers, "b": layers})
    [(name, scores)] = find_probes(tmp_path)
    style = Style()
    with style.context():
        drawing = draw_probe(name, scores, style)
    assert drawing.name == "probe-csv" and len(drawing.figure.axes) == 2
    for ax, task in zip(drawing.figure.axes, ("emotion", "gender")):
        uar = scores[scores["task"] == task].set_index(["encoder", "layer"])["uar"]
        lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
        assert list(lines) == ["log-mel", "a", "b"]
        for label in ("a", "b"):
            assert list(lines[label].get_ydata()) == [uar[label, layer] for layer in ("0", "1", "2")]
        assert set(lines["log-mel"].get_ydata()) == {uar["log-mel", CHOSEN]}
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2", ALL, CHOSEN]


def test_notes(tmp_path):
    write_probe(tmp_path, {"a": ["0", CHOSEN]})
    [(_, scores)] = find_probes(tmp_path)
    assert probe_notes(scores) == []
    notes = probe_notes(scores.assign(pretrained=False, synthetic=True))
    assert [note.code for note in notes] == ["synthetic_speech", "not_pretrained"] and notes[1].text.endswith("in a")


def test_a_probe_of_single_layers_has_no_figure(tmp_path):
    write_probe(tmp_path, {"log-mel": ["features", CHOSEN]})
    [(name, scores)] = find_probes(tmp_path)
    with pytest.raises(NothingToDraw, match="no encoder of the probe csv has several layers"):
        draw_probe(name, scores, Style())
