"""Explanations in run directories: what is explained, and the figures and pictures drawn from it."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_runs import EMOTIONS, utterances
from test_report import Page, made_run, made_table

from korser import UserError
from korser.comparison.compare import compare
from korser.inference import explain_run
from korser.inference.explain import BAND_EDGES, Explanation, NotFinite
from korser.reporting import confidently_wrong, write_report
from korser.reporting.explanations import explain_runs
from korser.reporting.figures import NothingToDraw, Style, explanations
from korser.reporting.figures.group import gather
from korser.runs.directory import RunDirectory
from korser.runs.explained import ExplainedRun, made_from, read_explained, write_explained
from korser.runs.load import load_runs
from korser.utils.files import write_csv

F = len(BAND_EDGES) - 1


def explained_run(folder, model="leaf_stl", seed=1, right=0.3, **options):
    """A run whose utterances are explained, those of joy by the lowest band; with four filters."""
    path = made_run(folder, model, seed=seed, right=right, **options)
    table = pd.read_csv(path / "test.csv")[["id", "emotion_pred"]].rename(columns={"emotion_pred": "label"})
    table = table.assign(sampled=1, output=1.0, baseline=0.0, frames=np.arange(len(table)) % 3 + 20)
    table.loc[table.index >= 44, "sampled"] = 0
    spectra = [np.full((n, F), 0.01) for n in table["frames"]]
    for spectrum, label in zip(spectra, table["label"]):
        spectrum[:, 0] += label == "joy"
    channels = np.tile([4.0, -3.0, 2.0, 1.0], (len(table), 1))
    write_explained(RunDirectory(path), ExplainedRun("emotion", table, spectra, channels), "digest")
    values = {"centre frequency": [100.0, 300.0, 1000.0, 4000.0], "bandwidth": [50.0] * 4}
    quantities = {k: {"unit": "Hz", "initial": v, "trained": v} for k, v in values.items()}
    record = [{"stage": "Leaf", "quantities": quantities}]
    (path / "interpretable_parameters.json").write_text(json.dumps(record))
    return path


def test_explanations_are_read_as_they_were_written(tmp_path):
    directory = RunDirectory(explained_run(tmp_path))
    assert made_from(directory) == "digest"
    explained = read_explained(directory, F)
    assert [len(each) for each in explained.spectra] == explained.table["frames"].tolist()
    assert explained.channels.shape == (len(explained.table), 4) and set(explained.table["label"]) <= set(EMOTIONS)
    assert read_explained(RunDirectory(tmp_path), F) is None and made_from(RunDirectory(tmp_path)) is None


@pytest.mark.parametrize("what", ["frames", "shape", "nan", "column"])
def test_damaged_explanations_are_one_line(tmp_path, what):
    folder = explained_run(tmp_path) / "explanations"
    table, spectra = pd.read_csv(folder / "utterances.csv"), np.load(folder / "spectrum.npy")
    if what == "frames":
        table.loc[0, "frames"] += 1
    elif what == "column":
        table = table.drop(columns="label")
    else:
        spectra = spectra[:, 1:] if what == "shape" else np.where(spectra > 1, np.nan, spectra)
    table.to_csv(folder / "utterances.csv", index=False)
    np.save(folder / "spectrum.npy", spectra)
    with pytest.raises(UserError, match="explanations is damaged .*: delete it and explain again"):
        read_explained(RunDirectory(folder.parent), F)


def test_figures_of_classes_and_filters(tmp_path):
    for seed in (1, 2):
        explained_run(tmp_path / "runs", seed=seed)
    (group,) = gather(load_runs(tmp_path / "runs"))
    figures = {drawing.name: drawing for drawing in explanations.draw(group, Style())}
    assert "(44 utterances of a run" in figures["explanations"].caption
    assert "One point per filter and run (2 runs), the line is the mean" in figures["filters-leaf_stl"].caption
    _, profile = (line.get_ydata() for line in figures["explanations"].figure.axes[0].get_lines())
    assert profile[0] > 0.5 > profile[1] > 0  # joy
    points = figures["filters-leaf_stl"].figure.axes[0].get_lines()[0]
    assert points.get_ydata().tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    made_run(tmp_path / "other", "mel_stl")
    with pytest.raises(NothingToDraw, match="korser explain"):
        list(explanations.draw(*gather(load_runs(tmp_path / "other")), Style()))


def test_pictures_of_confident_errors(tmp_path):
    table = made_table(tmp_path / "audio").iloc[8:10]  # the first has audio
    explained_run(tmp_path, table=table, right=0.0)
    made_run(tmp_path, "mel_stl", table=table, right=0.0)
    page = Page(write_report(tmp_path, tmp_path))
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) == len(table) and all(
        a["src"].startswith("data:image/png") and int(a["width"]) > 400 for a in pictures
    )
    assert "shows what of the recording" in (tmp_path / "report.html").read_text(encoding="utf-8")
    heights = {int(a["height"]) for a in pictures}  # with the energy where the audio is embedded
    assert len(heights) == 2
    without = Page(write_report(tmp_path, tmp_path, audio=False))
    assert {int(a["height"]) for tag, a in without.tags if tag == "img"} == {min(heights)}


def test_which_utterances_are_explained(tmp_path):
    path = made_run(tmp_path, "mel_stl", table=utterances(n_speakers=5).assign(duration=0.5), right=0.3)
    (run,) = load_runs(path)
    model = compare([run]).models["mel_stl"]
    wrong = confidently_wrong(model, "emotion")
    rows = explain_run._rows(run, [*zip(wrong["id"], wrong["predicted"]), ("not tested", "joy")], 3)
    sample = rows[rows["sampled"] == 1]
    assert (sample.groupby("label").size() == 3).all() and (sample.groupby("label")["speaker"].nunique() == 3).all()
    assert {*wrong["id"]} <= {*rows["id"]} and not rows.duplicated(["id", "label"]).any()
    predicted = run.predictions().set_index("id")["emotion_pred"]
    assert (predicted[rows["id"]].to_numpy() == rows["label"]).all()


def test_inaccurate_explanations_of_a_run_are_told(tmp_path, monkeypatch, caplog):
    path = made_run(tmp_path, "mel_stl", table=utterances(n_speakers=3).assign(duration=0.5), right=0.3)
    (path / "model.safetensors").write_bytes(b"weights")
    (run,) = load_runs(path)
    level = np.zeros((2, F))
    spectra = iter([level + 0.2 / F, *[level + 0.5 / F] * 100])  # the first one sums to .4, the others to 1

    def explain(trained, waveform, task, label, steps):
        axes = {"frequency_axis": False, "frequencies": None, "layers": None}
        return Explanation(task, label, 0.02, 1.0, 0.0, next(spectra), level, np.full((2, 1), 0.5), **axes)

    model = SimpleNamespace(cache_folder=tmp_path, tasks=[run.tasks["emotion"]])
    audio = SimpleNamespace(waveform=lambda path, digest: None)
    for name, replaced in {"load_trained_model": model, "AudioStore": audio}.items():
        monkeypatch.setattr(explain_run, name, lambda *args, replaced=replaced, **options: replaced)
    monkeypatch.setattr(explain_run, "module_digest", lambda name: "digest")
    monkeypatch.setattr(explain_run, "explain", explain)
    assert explain_run.explain_run(run, per_class=1, steps=8, progress=False)
    assert "attributions differ from the outputs in 1 of 3 explanations: increase the steps (--steps=32)" in caplog.text


def test_runs_without_test_predictions_are_named(tmp_path):
    (made_run(tmp_path, "mel_stl") / "test.csv").unlink()
    for folders in str(tmp_path), tmp_path, [tmp_path]:
        with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}: no run has predictions of the test split"):
            explain_runs(folders)


def test_utterances_with_infinite_gradients_are_left_out(tmp_path, monkeypatch, caplog):
    path = made_run(tmp_path, "mel_stl", table=utterances(n_speakers=2).assign(duration=0.5))
    (path / "model.safetensors").write_bytes(b"")
    (run,) = load_runs(path)
    predictions = run.predictions()
    manifest = predictions[["id", "path", "speaker"]].assign(digest="0", split="test")
    write_csv(path / "manifest.csv", manifest)
    ids = iter(range(1000))

    def explained(*_):
        if next(ids) == 0:
            raise NotFinite("its gradient is not finite")
        spectrum = np.ones((3, F))
        return SimpleNamespace(
            output=1.0, baseline=0.0, spectrum=spectrum, features=spectrum, frequency_axis=False, inaccurate=False
        )

    model = SimpleNamespace(cache_folder=tmp_path / "cache", tasks=list(run.tasks.values()))
    monkeypatch.setattr("korser.inference.explain_run.load_trained_model", lambda *args, **options: model)
    audio = SimpleNamespace(waveform=lambda *_: None)
    monkeypatch.setattr("korser.inference.explain_run.AudioStore", lambda folder: audio)
    monkeypatch.setattr("korser.inference.explain_run.explain", explained)
    assert explain_run.explain_run(run, progress=False) and not explain_run.explain_run(run, progress=False)
    table = read_explained(run.directory, F).table
    assert len(table) == len(predictions) - 1 and "is left out: its gradient is not finite" in caplog.text
