"""A corpus of stereo calls with one speaker per channel, through training, evaluation, degradation and the report."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import tiny_overrides
from helpers import run

from korser.data.degradations import Condition
from korser.inference.evaluate import evaluate_corpus
from korser.inference.load import load_trained_model
from korser.inference.robustness import measure
from korser.reporting.page import write_report
from korser.runs.load import load_runs
from korser.utils.files import read_csv, read_json

WHERE = ["path", "start", "end", "channel"]


@pytest.fixture(scope="module")
def calls(tiny_corpus, tmp_path_factory):
    """The utterances of the tiny corpus one after the other, those of two speakers in the channels of one file."""
    folder = tmp_path_factory.mktemp("calls")
    table = pd.read_csv(tiny_corpus / "manifest.csv", dtype=str)
    for pair in range(3):
        channels = []
        for channel in range(2):
            rows, said, position = table.index[table["speaker"] == f"s{2 * pair + channel}"], [], 0
            for i in rows:
                said.append(soundfile.read(tiny_corpus / f"{table['id'][i]}.wav", dtype="int16")[0])
                table.loc[i, WHERE[1:]] = [position / 16000, (position + len(said[-1])) / 16000, channel]
                position += len(said[-1])
            table.loc[rows, "path"] = f"call{pair}.flac"
            channels.append(np.concatenate(said))
        longest = max(map(len, channels))
        soundfile.write(
            folder / f"call{pair}.flac", np.stack([np.pad(x, (0, longest - len(x))) for x in channels], 1), 16000
        )
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def runs(tiny_corpus, calls, tmp_path_factory):
    """Runs on the files and on the calls."""
    overrides = {"n_epochs": "1", "split.test_speakers": "[s0, s1, s2]", "split.valid_speakers": "[s3]"}
    folder = tmp_path_factory.mktemp("runs")
    return [
        run({**tiny_overrides(corpus, folder / name), **overrides}, model="mel_stl")
        for name, corpus in (("files", tiny_corpus), ("calls", calls))
    ]


def test_segments_give_the_numbers_of_files_of_their_own(runs):
    of_files, of_calls = runs
    for name in ("valid.csv", "test.csv"):
        one, other = read_csv(of_files / name), read_csv(of_calls / name)
        assert other["path"].str.fullmatch(r".*/call\d.flac").all() and other[WHERE[1:]].notna().all(None)
        pd.testing.assert_frame_equal(one.drop(columns="path"), other.drop(columns=WHERE), check_exact=True)
    metrics, of_segments = (read_json(folder / "metrics.json") for folder in (of_files, of_calls))
    (warning,) = of_segments.pop("warnings")
    assert "segments of 1 of 3 recordings are in more than one split (call1.flac)" in warning["text"]
    assert {**of_segments, "warnings": []} == metrics


def test_segments_are_decoded_again_for_degradation_evaluation_and_the_report(runs, calls, tmp_path):
    of_files, of_calls = runs
    shutil.rmtree(of_calls.parent.parent / "cache")
    measure(load_runs(of_calls), [Condition("same", "nothing", None, "", lambda x, utterance: x)], progress=False)
    same = read_csv(of_calls / "robustness" / "same.csv").filter(like="_prob_")
    np.testing.assert_allclose(same, read_csv(of_calls / "test.csv").filter(like="_prob_"), atol=1e-5)
    options = {"out": tmp_path / "out", "cache_folder": tmp_path / "cache"}
    _, info = evaluate_corpus(load_trained_model(of_files), corpus="csv", data_folder=calls, **options)
    assert info["recordings_trained_on"] == 24
    parts = calls / "parts.csv"
    table = pd.read_csv(calls / "manifest.csv")
    table.assign(end=table["end"] - 0.1).to_csv(parts, index=False)
    _, info = evaluate_corpus(load_trained_model(of_calls), corpus="csv", data_folder=parts, **options)
    assert info["recordings_trained_on"] == 24, "by their overlap, although their samples differ"

    page = write_report(of_calls, tmp_path / "report", n_wrong=3).read_text(encoding="utf-8")
    assert page.count("data:audio/flac") > 0 and "not embedded" not in page and "(call0.flac#t=" in page
