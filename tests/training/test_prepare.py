"""Checks of a run's data, before it trains and when it resumes."""

import dataclasses
import json
import linecache
import shutil
import sys

import pandas as pd
import pytest
import soundfile
import torch
from conftest import HPARAMS
from helpers import Killed, kill_at, run

from korser import UserError, load_hparams, train
from korser.comparison.compare import compare
from korser.data.load_split import keep_labelled, load_split
from korser.inference.load import load_trained_model
from korser.runs.load import load_runs
from korser.training import prepare
from korser.training.brain import EmotionBrain
from korser.training.tasks import labelled_tasks
from korser.utils.files import read_csv


@pytest.fixture
def interrupted(tiny_corpus, tiny, tmp_path, monkeypatch):
    """Overrides of a run that was killed before its evaluation, and the folder of its data."""
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    tiny |= {"data_folder": str(data), "n_epochs": "1"}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "predict", 3)  # behind two rehearsals
        run(tiny)
    return tiny, data


def test_a_run_on_two_corpora(two_corpora, tiny, tmp_path):
    overrides = {
        **tiny,
        **two_corpora,
        "n_epochs": "1",
        "balance_corpora": "true",
        "split.valid": "1",
        "split.test": "2",
    }
    run_dir = run(overrides)
    table = read_csv(run_dir / "test.csv")
    assert set(table["corpus"]) == {"a", "b"} and set(table["speaker"].str[:2]) == {"a/", "b/"}
    assert table["id"].str.match("[ab]/0[123]_").all()
    info = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    assert info["corpus"] == "a+b" and list(info["corpora"]) == ["a", "b"]
    assert sum(part["test"] for part in info["corpora"].values()) == len(table)
    assert [task["classes"] for task in info["tasks"]][0] == ["anger", "fear", "joy", "neutral", "sadness"]
    assert table.loc[table["corpus"] == "b", "intensity"].isna().all()
    [loaded] = load_runs(run_dir)
    assert loaded.data_folder("b/x") == tmp_path
    comparison = compare([loaded])
    assert comparison.corpus == "a+b" and "corpus" in set(comparison.subgroups["attribute"])
    assert train(load_hparams(HPARAMS / "mel_mtl.yaml", overrides)).run_dir == run_dir  # verified, not trained again


def test_cross_corpus_trains_and_counts_the_classes_of_the_training_corpora(two_corpora, tiny):
    settings = {
        **tiny,
        **two_corpora,
        "split.protocol": "cross_corpus",
        "split.test_corpora": "[b]",
        "split.valid": "1",
    }
    corpus, manifest = load_split(load_hparams(HPARAMS / "mel_stl.yaml", settings))
    assert corpus.classes["emotion"] == ("anger", "joy", "neutral", "sadness")  # not fear, which only b has
    tested = manifest[manifest["split"] == "test"]
    assert set(tested["corpus"]) == {"b"} and tested["emotion"].isna().sum() == 6  # of fear
    settings |= {"split.test_corpora": "[a]"}
    corpus, manifest = load_split(load_hparams(HPARAMS / "mel_stl.yaml", settings))
    assert corpus.classes["emotion"] == ("anger", "fear", "joy", "sadness")
    settings |= {"common_classes": "true"}
    corpus, manifest = load_split(load_hparams(HPARAMS / "mel_stl.yaml", settings))
    assert corpus.classes["emotion"] == ("anger", "joy", "sadness")


def test_utterances_of_several_corpora_without_a_label_of_a_trained_task_are_left_out(two_corpora, tiny):
    label_map = "{a: {emotion: {joy: null}}, b: {emotion: {joy: null, rage: anger}}}"
    tiny |= {**two_corpora, "label_map": label_map, "n_epochs": "1", "split.valid": "1", "split.test": "2"}
    single = run(tiny, "mel_stl")
    assert len(read_csv(single / "manifest.csv")) == 48 - 12
    assert train(load_hparams(HPARAMS / "mel_stl.yaml", tiny)).run_dir == single  # verified
    corpus, manifest = load_split(load_hparams(HPARAMS / "mel_mtl.yaml", tiny))
    assert len(keep_labelled(corpus, manifest, ["emotion", "gender"])) == 48
    single = dataclasses.replace(corpus, parts=())
    assert len(keep_labelled(single, manifest, ["emotion"])) == 48  # of a single corpus all stay


def test_the_same_recording_in_two_corpora_is_refused(two_corpora, tiny, tmp_path):
    table = pd.read_csv(tmp_path / "b.csv", dtype=str)
    table.loc[0, "path"] = pd.read_csv(tmp_path / "a.csv", dtype=str)["path"][0]
    table.to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(UserError, match="a/01 and b/01|in more than one split"):
        run({**tiny, **two_corpora, "split.protocol": "speaker_holdout", "split.test": "1", "split.valid": "1"})


def test_settings_for_several_corpora_need_several(tiny):
    for key in ("common_classes", "balance_corpora"):
        with pytest.raises(UserError, match=f"{key}=true: expected false, since there is one corpus"):
            run({**tiny, key: "true"})
    with pytest.raises(UserError, match="data_folder='.*': expected one for each corpus"):
        run({**tiny, "corpus": "[csv, mini]"})


def test_an_interrupted_run_does_not_resume_with_other_data(interrupted):
    overrides, data = interrupted
    manifest = data / "manifest.csv"
    table = pd.read_csv(manifest, dtype=str)
    for changed in ({"joy": "anger", "anger": "joy"}, {"joy": "happiness"}):
        table.assign(emotion=table["emotion"].replace(changed)).to_csv(manifest, index=False)
        with pytest.raises(UserError, match="the data have changed"):
            run(overrides)
    table.to_csv(manifest, index=False)
    audio, rate = soundfile.read(data / "s0_joy_2.wav")
    soundfile.write(data / "s0_joy_2.wav", audio / 2, rate)
    with pytest.raises(UserError, match="the data have changed"):
        run(overrides)


@pytest.mark.parametrize("name", ["run.json", "manifest.csv"])
def test_an_interrupted_run_needs_what_tells_whether_its_data_are_the_same(interrupted, tmp_path, name):
    overrides, _ = interrupted
    (file,) = tmp_path.glob(f"results/*/{name}")
    file.write_text("{}")
    with pytest.raises(UserError, match=f"{name} is damaged \\(no "):
        run(overrides)
    file.unlink()
    with pytest.raises(UserError, match=f"{name} is missing, without which the run cannot resume"):
        run(overrides)


def test_resuming_with_another_version_is_reported(interrupted, monkeypatch, caplog):
    overrides, _ = interrupted
    other = {"versions": {"torch": "0"}, "korser_source": "other", "device": "cpu", "threads": 99}
    monkeypatch.setattr(prepare, "environment", lambda device: other)
    run(overrides)
    assert "was begun with another version of korser or of its libraries" in caplog.text
    assert f"was begun with threads {torch.get_num_threads()}, now 99: results may differ" in caplog.text
    assert "was begun with device" not in caplog.text


def test_changed_data_are_noticed_in_a_complete_run(tiny_corpus, tiny, tmp_path, caplog):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    tiny |= {"data_folder": str(data), "n_epochs": "1"}
    run_dir = run(tiny, model="mel_stl")
    manifest = data / "manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(
        text.replace(",joy,", ",J,").replace(",anger,", ",joy,").replace(",J,", ",anger,"), encoding="utf-8"
    )
    with pytest.raises(UserError, match="the data have changed"):
        run(tiny, model="mel_stl", run_dir=run_dir)
    manifest.write_text(text.replace(",female,", ",male,"), encoding="utf-8")  # no task of this model; of its tables
    with pytest.raises(UserError, match="the data have changed"):
        run(tiny, model="mel_stl", run_dir=run_dir)
    manifest.write_text(text, encoding="utf-8")
    run(tiny, model="mel_stl", run_dir=run_dir)
    audio, rate = soundfile.read(data / "s0_joy_2.wav")
    soundfile.write(data / "s0_joy_2.wav", audio / 2, rate)
    with pytest.raises(UserError, match="the data have changed"):
        run(tiny, model="mel_stl", run_dir=run_dir)
    (data / "s0_joy_2.wav").write_bytes(b"no audio")
    run(tiny, model="mel_stl", run_dir=run_dir)
    assert f"cannot verify that the recordings match {run_dir}" in caplog.text
    shutil.rmtree(data)  # a complete run can be read without its corpus
    run(tiny, model="mel_stl", run_dir=run_dir)
    assert f"cannot verify that the data match {run_dir}" in caplog.text


FRONTEND = """
from korser import Frontend
from korser.frontend.lengths import mask_padding
from torch import nn

class Mine(Frontend):
    def __init__(self):
        super().__init__(output_size=2, frame_rate=16000)
        self.layer = nn.Linear(1, 2)

    def forward(self, x, lengths):
        return mask_padding(self.layer(x[..., None]), lengths), lengths
"""


def test_a_directory_with_a_run_of_other_code_is_refused(tiny, tmp_path, monkeypatch):
    (tmp_path / "code_that_changes.py").write_text(FRONTEND)
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nfrontend: !new:code_that_changes.Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    tiny["n_epochs"] = "1"
    train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")
    (tmp_path / "code_that_changes.py").write_text(
        FRONTEND.replace("self.layer(x[..., None])", "0 * self.layer(x[..., None])")
    )
    monkeypatch.delitem(sys.modules, "code_that_changes")
    with pytest.raises(UserError, match="the code of code_that_changes.Mine changed since .*run was begun"):
        train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")


def test_a_run_that_failed_before_its_first_checkpoint_can_be_fixed(tiny, tmp_path, monkeypatch):
    file = tmp_path / "code_that_fails.py"
    fails = "        if len(x) > 5:\n            raise KeyError('Mine')\n        return mask"
    file.write_text(FRONTEND.replace("        return mask", fails))
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nfrontend: !new:code_that_fails.Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    tiny["n_epochs"] = "1"
    with pytest.raises(Exception, match="Mine"):
        train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()
    file.write_text(FRONTEND)
    monkeypatch.delitem(sys.modules, "code_that_fails")
    linecache.clearcache()
    assert "test" in train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")


def test_labels_and_speakers_may_look_like_anything(tiny_corpus, tiny, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["emotion"] = table["emotion"].replace({"joy": "0", "anger": "1", "sadness": "2", "neutral": "True"})
    table["speaker"] = table["speaker"].replace({"s0": "NA", "s1": "1e3", "s2": "001"})
    table.to_csv(data / "manifest.csv", index=False)
    run_dir = run({**tiny, "data_folder": str(data), "n_epochs": "1"}, model="mel_stl")
    log = read_csv(run_dir / "log.csv")
    assert log["train_emotion_loss"].gt(0.1).all()
    manifest = read_csv(run_dir / "manifest.csv", ["emotion"])
    assert set(manifest["speaker"]) == {"NA", "1e3", "001", "s3", "s4", "s5"}
    assert set(manifest["emotion"]) == {"0", "1", "2", "True"}
    assert (
        sum(sum(row) for row in json.loads((run_dir / "metrics.json").read_text())["test"]["emotion"]["confusion"]) == 8
    )


def test_missing_labels_are_masked(tiny_corpus, tiny, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table.loc[table["speaker"].isin(["s0"]), "gender"] = None
    table.to_csv(data / "manifest.csv", index=False)
    run_dir = run({**tiny, "data_folder": str(data), "n_epochs": "1"})
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test"]["intensity"]["n"] < metrics["test"]["emotion"]["n"]


def test_a_task_the_corpus_does_not_have_is_left_out(tiny_corpus, tiny, tmp_path, caplog):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str).drop(columns="intensity")
    table.to_csv(data / "manifest.csv", index=False)
    run_dir = run({**tiny, "data_folder": str(data), "n_epochs": "1"})
    assert "no labels for task 'intensity': it is left out" in caplog.text
    assert set(json.loads((run_dir / "metrics.json").read_text())["test"]) == {"emotion", "gender"}
    assert list(load_trained_model(run_dir).predict_files([data / "s0_joy_1.wav"])["gender_pred"])


def test_a_corpus_without_the_main_task_is_refused(tiny_corpus, tiny, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table.drop(columns="emotion").to_csv(data / "manifest.csv", index=False)
    with pytest.raises(UserError, match="has no labels for the main task 'emotion'.*columns: id, path, speaker"):
        run({**tiny, "data_folder": str(data)})
    table.rename(columns={"emotion": "Label"}).to_csv(data / "manifest.csv", index=False)
    with pytest.raises(UserError, match="main task 'emotion'.*: rename 'Label' to 'emotion', fill the column, or"):
        run({**tiny, "data_folder": str(data)})


def test_a_task_with_one_class_in_training_is_refused_or_left_out(tiny_corpus, tiny, caplog):
    hparams = load_hparams(HPARAMS / "mel_mtl.yaml", tiny)
    corpus, manifest = load_split(hparams)
    men = manifest.assign(gender=manifest["gender"].where(manifest["split"] != "train", "male"))
    assert [task.name for task in labelled_tasks(hparams["tasks"], corpus, men)] == ["emotion", "intensity"]
    assert "labelled training utterances have the gender 'male': the task is left out" in caplog.text
    glad = manifest.assign(emotion="joy")
    with pytest.raises(UserError, match="training utterances have the emotion 'joy', but a task needs two classes"):
        labelled_tasks(hparams["tasks"], corpus, glad)


def test_the_settings_that_a_search_found_name_their_speakers_where_these_are_tested(tiny, tmp_path, caplog):
    found = {"corpus": "csv", "data": {"data_folder": f"{tiny['data_folder']}/manifest.csv"}}
    (tmp_path / "mel_stl-best.yaml").write_text("base: mel_stl.yaml\nlr: 0.01\n")
    for speakers, shared in (["s0", "s4"], ["s4"]), (["s0"], []):
        (tmp_path / "search.json").write_text(json.dumps({**found, "speakers": speakers}))
        overrides = {**tiny, "split.test_speakers": "[s4, s5]", "n_epochs": "1"}
        hparams = load_hparams(tmp_path / "mel_stl-best.yaml", overrides)
        caplog.clear()
        train(hparams, tmp_path / f"run{len(shared)}")
        (loaded,) = load_runs(tmp_path / f"run{len(shared)}")
        assert loaded.searched_on == shared
        assert ("searched on speakers on whom it is tested (s4)" in caplog.text) == bool(shared)


WITH_AGE = "[!ref <emotion>, !new:korser.Task {name: age}]"


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"lr_scheduler": "!name:speechbrain.nnet.schedulers.CyclicLRScheduler"},
            "lr_scheduler: speechbrain.nnet.schedulers.CyclicLRScheduler: ",
        ),
        ({"tasks": WITH_AGE}, "'age' is a column .* --corpus_options='{tasks: .*age]}"),
        (
            {"corpus_options": "{tasks: [emotion, age]}", "tasks": WITH_AGE},
            "48 different numbers: give the task kind: number",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(tiny_corpus, tiny, tmp_path, settings, message):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["age"] = [f"{20 + i / 3:.2f}" for i in range(len(table))]
    table.to_csv(data / "manifest.csv", index=False)
    with pytest.raises(UserError, match=message):
        run({**tiny, "data_folder": str(data), **settings}, model="mel_stl")


def test_a_random_split_is_named(tiny):
    run_dir = run({**tiny, "split.protocol": "random_stratified"}, model="mel_stl")
    assert json.loads((run_dir / "run.json").read_text())["speaker_independent"] is False


def test_recordings_longer_than_the_frontend_accepts_are_refused_by_name(tiny, tmp_path):
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", tiny)
    hparams["frontend"].max_length = 1600
    reason = "audio files cannot be used: .*wav: too long: .* s, but the model takes at most 0.100 s: shorten it"
    with pytest.raises(UserError, match=reason):
        prepare.prepare_data(hparams, tmp_path / "run")
