"""Test speakers whom a search or a pretraining has heard, whatever their corpus and files are called."""

import os
import shutil

import pandas as pd
import pytest
import torch
from conftest import HPARAMS

from korser import UserError, load_hparams
from korser.corpora import load_corpus
from korser.data.audio_cache import scan_audio
from korser.data.load_split import load_split
from korser.runs.directory import RunDirectory, run_folder
from korser.runs.heard import find_searches, heard_in_test, pretrained_on_tested, read_search
from korser.runs.load import load_runs
from korser.utils.files import write_csv, write_json


@pytest.fixture
def search(tiny_corpus, tmp_path):
    """The folder of a search with a trial on the speakers s0 and s4 of the tiny corpus."""
    folder = tmp_path / "search" / "mel_stl"
    data = load_corpus("csv", tiny_corpus).data
    heard = data[data["speaker"].isin(["s0", "s4"])]
    digests = scan_audio(heard["path"].tolist(), tmp_path / "cache")["digest"].tolist()
    write_csv(folder / "runs" / "trial" / "manifest.csv", heard.assign(split="train", digest=digests))
    about = {"corpus": "csv", "data": {"data_folder": "/another/folder"}, "speakers": ["s0", "s4"]}
    write_json(folder / "search.json", about)
    (folder / "mel_stl-best.yaml").write_text(f'base: mel_stl.yaml\nlr: 0.01\nsearched_in: ["{folder}"]\n')
    return folder


def divided(hparams):
    corpus, table = load_split(hparams)
    digests = scan_audio(table["path"].tolist(), hparams["cache_folder"])["digest"]
    return corpus, table.assign(digest=digests.to_numpy())


def heard_by(search, overrides):
    hparams = load_hparams(search / "mel_stl-best.yaml", overrides)
    corpus, table = divided(hparams)
    return read_search(search).in_test(corpus, hparams["data_folder"], table)


def test_recordings_are_recognised_in_another_folder_under_other_names(search, tiny, tiny_corpus, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "copied")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["speaker"] = "p" + table["speaker"]
    table["id"] = "x" + table["id"]
    table.to_csv(data / "manifest.csv", index=False)
    tiny["data_folder"] = str(data)
    assert heard_by(search, {**tiny, "split.test_speakers": "[ps4, ps5]"}) == ["ps4"]
    assert heard_by(search, {**tiny, "split.test_speakers": "[ps5]"}) == []
    table[~table["id"].str.contains("s4_[jsn]")].to_csv(
        data / "manifest.csv", index=False
    )  # a part of their recordings
    assert heard_by(search, {**tiny, "split.test_speakers": "[ps4]"}) == ["ps4"]


def test_recordings_are_recognised_without_speakers(search, tiny, tiny_corpus, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "copied")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table.drop(columns="speaker").to_csv(data / "manifest.csv", index=False)
    settings = {**tiny, "data_folder": str(data), "split.protocol": "random_stratified", "split.seed": "3"}
    found = heard_by(search, settings)
    _, table = divided(load_hparams(search / "mel_stl-best.yaml", settings))
    tested = table.loc[table["split"] == "test", "id"]
    assert found == sorted(name for name in tested if name.startswith(("s0", "s4"))) and found


def test_the_same_names_with_other_recordings_are_other_speakers(search, tiny):
    for file in search.glob("runs/*/manifest.csv"):
        write_csv(file, pd.read_csv(file).assign(digest="other"))
    assert heard_by(search, {**tiny, "split.test_speakers": "[s4]"}) == []


def test_searches_are_found_beside_the_settings_or_by_name(search, tiny, tmp_path):
    def found(path):
        folders, notes = find_searches(load_hparams(path, tiny))
        return [folder.resolve() for folder in folders], [note.code for note in notes]

    copied = shutil.copy(search / "mel_stl-best.yaml", tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: mel_stl-best.yaml\nbatch_size: 4\n")
    for path in (search / "mel_stl-best.yaml", copied, mine):
        assert found(path) == ([search], [])
    assert found(HPARAMS / "mel_stl.yaml") == ([], [])
    shutil.rmtree(search / "runs")
    assert found(copied) == ([search], ["unknown_search"])
    moved = search.rename(tmp_path / "moved")
    assert found(moved / "mel_stl-best.yaml") == ([moved], ["unknown_search"])
    assert found(copied) == ([], ["unknown_search"])


def test_names_of_several_corpora_are_those_of_the_same_folders(search, two_corpora, tiny, tmp_path):
    for file in search.glob("runs/*/manifest.csv"):
        write_csv(file, pd.read_csv(file).assign(digest="other"))
    overrides = {**tiny, **two_corpora, "split.test_speakers": "[a/01, b/2]"}
    folders = {"a": f"{tmp_path}/a.csv", "b": f"{tmp_path}/b.csv"}
    about = {"corpus": "a+b", "data": {"data_folder": folders}, "speakers": ["a/01", "b/03"]}
    write_json(search / "search.json", about)
    assert heard_by(search, overrides) == ["a/01"]
    write_json(search / "search.json", {**about, "data": {"data_folder": {**folders, "a": "/another/folder"}}})
    assert heard_by(search, overrides) == []


def test_damaged_records_are_named(search):
    file = search / "runs" / "trial" / "manifest.csv"
    file.write_text("no digests\n")
    with pytest.raises(UserError, match=r"runs/trial/manifest\.csv is damaged"):
        read_search(search)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=r"runs/trial/manifest\.csv is damaged \(a FIFO, expected a file\)"):
        read_search(search)


def test_the_mark_is_in_every_result_of_a_run(search, tiny, tmp_path, call):
    yaml = shutil.copy(search / "mel_stl-best.yaml", tmp_path)
    overrides = {**tiny, "split.test_speakers": "[s4, s5]", "n_epochs": "1"}
    code, out, _ = call("train", yaml, *(f"--{key}={value}" for key, value in overrides.items()))
    mark = "settings searched on speakers on whom it is tested (s4)"
    assert code == 0 and f"!!! {mark}" in out
    directory = RunDirectory(run_folder(load_hparams(yaml, overrides)))
    assert directory.metrics()["warnings"] == [{"code": "searched_on_test_speakers", "text": mark}]
    (run,) = load_runs(directory.path)
    assert run.searched_on == ["s4"] and run.info["warnings"] == []
    # where the settings were searched does not change what is trained
    plain = {**overrides, "searched_in": "[]"}
    assert run_folder(load_hparams(yaml, plain)) == directory.path


class Encoder(torch.nn.Module):
    def __init__(self, source):
        super().__init__()
        self.source = source


def test_an_encoder_that_heard_test_speakers_is_reported(tmp_path):
    table = pd.DataFrame({"id": list("abc"), "speaker": ["s", "s", None], "digest": ["1", "2", "3"]})
    table["split"] = ["train", "test", "test"]
    checkpoint = tmp_path / "pretrained" / "checkpoint"
    checkpoint.mkdir(parents=True)
    frontend = torch.nn.Sequential(Encoder(str(checkpoint)), Encoder("nano"))
    assert pretrained_on_tested(frontend, table) == []
    write_csv(checkpoint / "recordings.csv", pd.DataFrame({"digest": ["1", "9"]}))
    (note,) = pretrained_on_tested(frontend, table)
    assert note.code == "pretrained_on_test_speakers"
    assert note.text == "PRETRAINED ON TEST SPEAKERS: checkpoint has heard recordings of s"
    (checkpoint / "recordings.csv").unlink()
    write_csv(tmp_path / "pretrained" / "manifest.csv", pd.DataFrame({"digest": ["3"]}))
    assert pretrained_on_tested(frontend, table) == []  # the manifest of something else
    write_json(tmp_path / "pretrained" / "run.json", {})
    (note,) = pretrained_on_tested(frontend, table)
    assert note.text.endswith("recordings of c")


def test_heard_speakers_need_no_heard_test_utterance():
    table = pd.DataFrame({"id": list("abcd"), "speaker": ["s", "s", "t", "t"], "digest": list("1234")})
    table["split"] = ["train", "test", "test", "valid"]
    assert heard_in_test(table, {"1"}) == ["s"] and heard_in_test(table, {"4", "9"}) == ["t"]
    assert heard_in_test(table, set()) == []
