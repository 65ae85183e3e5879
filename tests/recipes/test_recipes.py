"""The recipes as a person calls them, and one line for each mistake that a person makes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import soundfile
import torch
from conftest import HPARAMS

from korser.utils.files import read_csv


def options(settings):
    return [f"--{k}={v}" for k, v in settings.items()]


@pytest.fixture
def data(tiny_corpus, tmp_path):
    """A copy of the tiny corpus to spoil."""
    return shutil.copytree(tiny_corpus, tmp_path / "data")


@pytest.fixture(scope="module")
def trained(tiny_corpus, tmp_path_factory):
    """The run directory of a tiny model."""
    from helpers import run

    folder = tmp_path_factory.mktemp("trained")
    settings = {
        "corpus": "csv",
        "data_folder": str(tiny_corpus),
        "output_folder": str(folder),
        "cache_folder": str(folder / "cache"),
        "n_epochs": "2",
        "batch_size": "8",
        "n_buckets": "2",
        "noprogressbar": "true",
    }
    return run(settings)


def test_a_yaml_without_its_base(call, tmp_path):
    (tmp_path / "alone.yaml").write_text("frontend: !new:korser.plugins.frontends.mel.Mel\n")
    for option in ([], ["--n_epochs=1"]):
        code, _, err = call("train", tmp_path / "alone.yaml", *option)
        assert code == 2 and "base: base.yaml" in err and err.count("\n") == 1


def test_train_prints_a_summary(call, tiny):
    code, out, _ = call("train", HPARAMS / "mel_stl.yaml", *options(tiny))
    assert code == 0
    assert "accuracy" in out and "UAR" in out and "95 % interval" in out and "recall joy" in out
    assert "Everything is in" in out


def test_run_options_of_speechbrain_take_effect(call, tiny, caplog):
    run_options = ["--debug", "--debug_batches=1", "--grad_accumulation_factor=2", "--device=cpu", "--precision=bf16"]
    code, out, err = call("train", "mel_stl.yaml", *options({**tiny, "n_epochs": "5"}), *run_options)
    assert code == 0, err
    (log,) = Path(tiny["output_folder"]).rglob("log.csv")
    assert len(read_csv(log)) == 2, "debugging is two epochs"
    text = (log.parent / "hparams.yaml").read_text()
    assert "grad_accumulation_factor: 2\n" in text and "precision: bf16\n" in text


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("hparams.yaml", "seed: 1\n", "no 'frontend'"),
        ("run.json", "null", "it holds null"),
        ("run.json", '{"a": 1}', "no 'tasks'"),
    ],
)
def test_predict_names_a_damaged_file(call, trained, data, tmp_path, name, text, reason):
    run_dir = shutil.copytree(trained, tmp_path / "run")
    (run_dir / name).write_text(text)
    code, _, err = call("predict", run_dir, data / "s0_joy_1.wav")
    assert code == 2 and f"{run_dir / name} is damaged ({reason}" in err and err.count("\n") == 1


def test_train_names_a_damaged_file_of_a_complete_run(call, tiny):
    arguments = "train", "mel_stl.yaml", *options({**tiny, "n_epochs": "1"})
    assert call(*arguments)[0] == 0
    (file,) = Path(tiny["output_folder"]).rglob("metrics.json")
    file.write_text('{"a": 1}')
    code, _, err = call(*arguments)
    assert code == 2 and f"{file} is damaged (no 'valid')" in err


# -- predict ---------------------------------------------------------------------------------------------------------
def test_predict_table_and_json(call, trained, data, tmp_path):
    x, _ = soundfile.read(data / "s0_joy_1.wav")
    soundfile.write(tmp_path / "한국어.flac", np.stack([x, x], 1).repeat(3, 0), 48000)
    files = [data / "s0_joy_1.wav", tmp_path / "한국어.flac"]
    code, out, _ = call("predict", trained, *files, files[0], tmp_path)  # each file once
    assert code == 0
    assert str(files[1]) in out and "emotion" in out and "gender" in out and "intensity" in out
    code, out, _ = call("predict", trained, *files, "--json")
    first, second = json.loads(out)
    assert sum(v for k, v in first.items() if k.startswith("emotion_prob_")) == pytest.approx(1, abs=1e-5)
    assert first["emotion_pred"] in ("joy", "sadness", "neutral", "anger")
    assert second["path"] == str(files[1])


def test_predict_a_folder_with_progress_and_suspicious_recordings(call, trained, data, tmp_path, caplog):
    folder = tmp_path / "home" / "recordings"
    (folder / "more").mkdir(parents=True)
    for name in ("b.wav", "more/a.WAV", "more/copy.wav"):
        shutil.copy(data / f"s0_{'joy' if name == 'b.wav' else 'anger'}_1.wav", folder / name)
    cut = (data / "s0_neutral_1.wav").read_bytes()
    (folder / "cut.wav").write_bytes(cut[: len(cut) // 2])
    (folder / "notes.txt").write_text("no audio")
    code, out, err = call("predict", trained, folder, "--json")
    assert code == 0 and "predict: 100%" in err
    assert [record["path"] for record in json.loads(out)] == [
        str(folder / name) for name in ("b.wav", "cut.wav", "more/a.WAV", "more/copy.wav")
    ]
    listed = Path(trained) / "evaluations" / "predict-bad-recordings.csv"
    assert read_csv(listed)["problem"].tolist() == ["truncated", "copy"]
    assert f"1 of 4 audio files: copy ({folder}/more/copy.wav: the same audio as {folder}/more/a.WAV)" in caplog.text
    (folder / "bad.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    (folder / "bad.wav").write_text("no audio")
    code, out, err = call("predict", trained, folder)
    assert (code, out) == (2, "")
    assert "error: 2 of 6 audio files cannot be used: " in err and f"ffmpeg -i {folder}/bad.m4a" in err
    assert read_csv(listed)["problem"].tolist() == ["unusable", "unusable", "truncated", "copy"]


def test_predict_along_a_recording(call, trained, data, tmp_path):
    parts = [soundfile.read(data / f"s0_{name}_1.wav", dtype="int16")[0] for name in ("joy", "anger", "sadness")]
    x = np.concatenate(parts * 3)
    soundfile.write(tmp_path / "long.wav", x, 16000)
    files = [tmp_path / f"{i}.wav" for i in range(4)]
    for i, file in enumerate(files):
        soundfile.write(file, x[8000 * i : 8000 * i + 12000], 16000)
    out = tmp_path / "out"
    code, said, err = call("predict", trained, tmp_path / "long.wav", "--window=0.75", "--hop=0.5", f"--out={out}")
    assert code == 0 and f"segments of {len(x) / 16000:.1f} s are in {out}/long.csv" in said and "100%" in err
    table = read_csv(out / "long.csv")
    _, text, _ = call("predict", trained, *files, "--json")
    alone = pd.DataFrame(json.loads(text)).drop(columns="path").astype({"intensity_pred": str})
    along = table.drop(columns=["start", "end"]).iloc[:4].astype({"intensity_pred": str})
    pd.testing.assert_frame_equal(along, alone, check_exact=True)


def test_explain_recordings_and_runs(call, trained, data, tmp_path):
    files = sorted(data.glob("s0_joy_*.wav"))
    code, said, err = call("explain", trained, *files, "--label=anger", "--steps=4", f"--out={tmp_path / 'out'}")
    assert code == 0 and said.count("emotion anger, ") == 2 and "explain: 100%" in err
    endings = ["-features.csv", ".csv", ".json", ".pdf", ".png"]
    names = [f"{file.stem}{ending}" for file in files for ending in endings]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    record = json.loads((tmp_path / "out" / "s0_joy_1.json").read_text())
    table = read_csv(tmp_path / "out" / "s0_joy_1.csv")
    change = record["output"] - record["baseline"]
    assert table.drop(columns="time").to_numpy().sum() == pytest.approx(change, abs=record["error"] + 1e-4)
    code, said, _ = call("explain", trained, "--per_class=1", "--steps=4")
    assert code == 0 and "1 run explained, 0 of them before" in said
    code, said, _ = call("explain", Path(trained).parent, "--per_class=1", "--steps=4")
    assert code == 0 and "1 run explained, 1 of them before" in said
    (Path(trained) / "explanations" / "spectrum.npy").unlink()
    code, said, _ = call("explain", trained, "--per_class=1", "--steps=4")
    assert code == 0 and "1 run explained, 0 of them before" in said
    assert (read_csv(Path(trained) / "explanations" / "utterances.csv")["frames"] > 20).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["{wav}", "--label=angr"], "label angr: expected one of anger, joy, neutral, sadness"),
        (["{wav}", "--task=mood"], "task mood: expected emotion or gender or intensity"),
        (["{wav}", "--steps=1"], "steps=1: expected an integer >= 4"),
        (["{wav}", "--per_class=1"], "--per_class is for explanations without recordings"),
        (["--label=joy"], "--label is for explanations with recordings"),
        (["--per_class=0"], "--per_class=0: expected at least 1"),
        (["{wav}", "{text}"], "1 of 2 audio files cannot be used"),
        (["{text}.gone"], "no such file or folder"),
    ],
)
def test_explain_mistakes(call, trained, data, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (data / "notes.wav").write_text("no audio")
    names = {"wav": data / "s0_joy_1.wav", "text": data / "notes.wav"}
    code, out, err = call("explain", trained, *(option.format(**names) for option in options))
    assert (code, out) == (2, "") and said in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hop=1"], "--hop is for predictions along recordings, with --window or --segments"),
        (["--window=1", "--json"], "--json prints one record per file"),
        (["--window=x"], "argument --window: invalid float value: 'x'"),
        (["--window=-1"], "--window=-1: expected seconds from 0.01 on"),
        (["--segments=absent.rttm"], "--segments=absent.rttm: no such file"),
    ],
)
def test_predict_along_a_recording_mistakes(call, trained, data, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("predict", trained, data / "s0_joy_1.wav", *options)
    assert (code, out) == (2, "") and err.startswith(f"error: {said}") and err.count("\n") == 1, err


def test_a_tilde_is_the_home_folder(call, trained, data, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(trained).parent))
    code, out, err = call("predict", f"~/{Path(trained).name}", data / "s0_joy_1.wav", "--json")
    assert code == 0 and json.loads(out), err
    code, _, err = call("train", "mel_stl.yaml", "--corpus=csv", "--data_folder=~/nowhere")
    assert code == 2 and f"data_folder={trained.parent}/nowhere" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "absent.wav"], "absent.wav: no such file or folder"),
        (["{run}", "{run}"], "a folder without audio files"),
        (
            ["{run}/model.safetensors", "{data}/s0_joy_1.wav"],
            "safetensors is a file: expected a run directory, such as {run}",
        ),
        (["{run}", "{data}/empty.wav"], "empty.wav"),
        (["{run}", "{data}/fifo.wav"], "fifo.wav: cannot be read (a FIFO, expected a file)"),
        (["{run}", "{data}/manifest.csv"], "manifest.csv"),
        (["{data}", "{data}/s0_joy_1.wav"], "not a run directory"),
        (["{run}/..", "{data}/s0_joy_1.wav"], "directories of runs are in it: mel_mtl-"),
        (["{data}/manifest.csv", "{data}/s0_joy_1.wav"], "manifest.csv is a file: expected a run directory"),
        (["{data}/nowhere", "{data}/s0_joy_1.wav"], "nowhere: folder not found"),
        (["{run}"], "the following arguments are required: FILE (see korser predict --help)"),
        (["{run}", "{data}/s0_joy_1.wav", "--jason"], "unknown option --jason"),
    ],
)
def test_predict_mistakes(call, trained, data, arguments, said):
    soundfile.write(data / "empty.wav", np.zeros(0), 16000)
    os.mkfifo(data / "fifo.wav")
    code, out, err = call("predict", *(a.format(run=trained, data=data) for a in arguments))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ") and said.format(run=trained) in err and err.count("\n") == 1


@pytest.fixture
def spoilt(trained, tmp_path):
    """A copy of the trained run, whose files a test changes: ``spoilt(name, change)``."""
    run = shutil.copytree(trained, tmp_path / "run")

    def rewrite(name, change):
        (run / name).write_text(change((run / name).read_text(encoding="utf-8")), encoding="utf-8")
        return run

    return rewrite


def of_other_code(text):
    info = json.loads(text)
    info["code"]["korser.plugins.frontends.mel.Mel"] = "0" * 16
    return json.dumps(info)


def test_predict_with_changed_code_says_so(call, spoilt, data, caplog):
    run = spoilt("run.json", of_other_code)
    code, out, _ = call("predict", run, data / "s0_joy_1.wav", "--json")
    said = f"CHANGED CODE OR FILES: the code of korser.plugins.frontends.mel.Mel changed after {run} was trained"
    assert code == 0 and [message[: 4 + len(said)] for message in caplog.messages] == [f"!!! {said}"]
    assert json.loads(out)[0]["warnings"][0].startswith(said)


def test_evaluate_with_changed_code_says_so(call, spoilt, tiny_corpus, tmp_path):
    run = spoilt("run.json", of_other_code)
    code, out, _ = call("evaluate", run, "--corpus=csv", f"--data_folder={tiny_corpus}", f"--cache_folder={tmp_path}")
    assert code == 0 and "!!! CHANGED CODE OR FILES: the code of korser.plugins.frontends.mel.Mel changed" in out
    written = json.loads(next((run / "evaluations").glob("csv-*.json")).read_text())
    assert written["info"]["warnings"][0]["code"] == "changed_code"


def test_predict_with_weights_that_do_not_fit(call, spoilt, data):
    run = spoilt("run.json", str)
    weights = safetensors.torch.load_file(run / "model.safetensors")
    name = min(weights)
    for changed in ({name: torch.zeros(77)}, {"another": torch.zeros(1)}):
        safetensors.torch.save_file({**weights, **changed}, run / "model.safetensors")
        code, out, err = call("predict", run, data / "s0_joy_1.wav")
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert err.startswith(f"error: the weights in {run} do not fit the model that its code builds")
        assert min(changed) in err
    (run / "model.safetensors").unlink()
    code, _, err = call("predict", run, data / "s0_joy_1.wav")
    assert code == 2 and "cannot read" in err and "model.safetensors" in err and err.count("\n") == 1


def test_predict_with_other_frozen_stages(call, spoilt, data):
    run = spoilt(
        "run.json",
        lambda text: text.replace(
            '"frozen": [', '"frozen": [{"stage": "gone", "source": null, "config": null, "weights": ""}, '
        ),
    )
    code, _, err = call("predict", run, data / "s0_joy_1.wav")
    assert code == 2 and "with 2 frozen stages, now there are 1" in err and err.count("\n") == 1


def test_predict_with_the_frontend_moved_away(call, spoilt, data):
    spoilt("run.json", lambda text: json.dumps({**json.loads(text), "yaml_folders": [str(data)]}))
    run = spoilt("hparams.yaml", lambda text: text.replace("korser.plugins.frontends.mel.Mel", "moved_away.Conv"))
    code, _, err = call("predict", run, data / "s0_joy_1.wav", "--trust")
    assert code == 2 and err.count("\n") == 1
    assert f"'frontend': cannot import moved_away.Conv: there is no module 'moved_away' (searched in {data} and" in err


# -- evaluate --------------------------------------------------------------------------------------------------------
def test_evaluate_on_another_corpus(call, trained, data):
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["emotion"] = table["emotion"].replace({"joy": "기쁨", "anger": "bored"})
    table.to_csv(data / "manifest.csv", index=False)
    arguments = [trained, "--corpus=csv", f"--data_folder={data}", f"--cache_folder={data}/cache"]
    code, _, err = call("evaluate", *arguments)
    assert code == 2 and "label_map" in err and err.count("\n") == 1
    for old in (trained / "evaluations").glob("*"):
        old.unlink()
    code, out, _ = call("evaluate", *arguments, "--label_map={emotion: {기쁨: joy, bored: null}}")
    assert code == 0
    assert "trained on csv" in out
    written = read_csv(next((trained / "evaluations").glob("csv-*.csv")))
    assert set(written["emotion"].dropna()) == {"joy", "sadness", "neutral"}
    metrics = json.loads(next((trained / "evaluations").glob("csv-*.json")).read_text())["metrics"]
    assert metrics["emotion"]["n"] == 36


def test_evaluate_on_several_corpora(call, trained, two_corpora, tmp_path):
    corpora = {**two_corpora, "cache_folder": tmp_path}
    arguments = [trained, *(f"--{key}={value}" for key, value in corpora.items())]
    code, _, err = call("evaluate", *arguments)
    assert code == 2 and "corpus 'b' has emotion 'fear'" in err
    assert "--label_map='{b: {emotion: {fear: ...}}}'" in err and err.count("\n") == 1
    code, out, _ = call("evaluate", *arguments, "--label_map={b: {emotion: {rage: anger, fear: null}}}")
    assert code == 0 and "a+b" in out
    written = read_csv(next((trained / "evaluations").glob("a+b-*.csv")))
    assert len(written) == 48 and set(written["speaker"].str[:2]) == {"a/", "b/"}
    code, _, err = call("evaluate", *arguments[:-1], f"--data_folder={tmp_path}", f"--cache_folder={tmp_path}")
    assert code == 2 and "expected one for each corpus, {a: ..., ...}" in err


def test_evaluate_agrees_with_the_test(call, trained, tiny_corpus, tmp_path):
    for old in (trained / "evaluations").glob("*"):
        old.unlink()
    _, out, err = call(
        "evaluate", trained, "--corpus=csv", f"--data_folder={tiny_corpus}", f"--cache_folder={tmp_path}"
    )
    assert "recordings were used in training" in out and "RANDOM SPLIT" not in out, "there was no split here"
    there = read_csv(next((trained / "evaluations").glob("csv-*.csv"))).set_index("id")
    test = read_csv(trained / "test.csv").set_index("id")
    columns = [c for c in test if "_prob_" in c]
    torch.testing.assert_close(
        torch.tensor(there.loc[test.index, columns].to_numpy()),
        torch.tensor(test[columns].to_numpy()),
        rtol=1e-5,
        atol=1e-6,
    )


def test_evaluate_knows_names_of_training_in_other_recordings(call, trained, tiny_corpus, tmp_path):
    other = shutil.copytree(tiny_corpus, tmp_path / "quieter")
    for path in other.glob("*.wav"):
        x, rate = soundfile.read(path)
        soundfile.write(path, 0.9 * x, rate)
    arguments = ("evaluate", trained, "--corpus=csv", f"--data_folder={other}", f"--cache_folder={tmp_path}")
    _, out, _ = call(*arguments)
    seen = read_csv(trained / "manifest.csv").query("split != 'test'")
    assert f"{len(seen)} of 48 utterances have the ids, and {seen['speaker'].nunique()} of 6 speakers the names" in out
    both = ("--corpus={csv: csv, more: csv}", f"--data_folder={{csv: {other}, more: {other}}}")
    assert f"{len(seen)} of 96 utterances have the ids" in call(*arguments[:2], *both, arguments[-1])[1]
    table = pd.read_csv(other / "manifest.csv", dtype=str)
    table["id"] = [f"new{i}" for i in range(len(table))]
    table.to_csv(other / "manifest.csv", index=False)
    assert "have the ids" not in call(*arguments)[1]


def test_evaluate_mistakes(call, trained):
    required = "the following arguments are required: "
    assert f"{required}--corpus, --data_folder" in call("evaluate", trained)[2]
    assert f"{required}--data_folder" in call("evaluate", trained, "--corpus=csv")[2]
    assert "unknown option --corpsu (did you mean '--corpus'?)" in call("evaluate", trained, "--corpsu=csv")[2]
    assert (
        "argument --label_map: 'joy': expected a mapping"
        in call("evaluate", trained, "--corpus=csv", "--data_folder=.", "--label_map=joy")[2]
    )
    code, _, err = call("evaluate", trained, "--corpus=ravdes", "--data_folder=.")
    assert code == 2 and "ravdess" in err


# -- what may go wrong before training -------------------------------------------------------------------------------
def spoil_wav(content):
    def spoil(data, settings):
        path = data / "s1_anger_2.wav"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            soundfile.write(path, content, 16000, subtype="FLOAT")

    return spoil


def rewrite(column, value):
    def spoil(data, settings):
        table = pd.read_csv(data / "manifest.csv", dtype=str)
        if column is None:
            table = value(table)
        else:
            table[column] = table[column].astype(object)
            table.loc[3, column] = value
        table.to_csv(data / "manifest.csv", index=False)

    return spoil


def setting(**changes):
    def spoil(data, settings):
        settings.update({k.replace("__", "."): v.format(data=data) for k, v in changes.items()})

    return spoil


def leak(data, settings):
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["split"] = ["train", "valid", "test"] * (len(table) // 3)
    table.to_csv(data / "manifest.csv", index=False)
    settings["split.protocol"] = "manifest"


MISTAKES = {
    "no such folder": (setting(data_folder="{data}/absent"), "absent"),
    "unreadable wav": (spoil_wav(b"RIFF this is no sound"), "s1_anger_2.wav"),
    "empty wav": (spoil_wav(np.zeros(0)), "s1_anger_2.wav"),
    "NaN samples": (spoil_wav(np.full(8000, np.nan)), "s1_anger_2.wav"),
    "missing file": (lambda data, settings: (data / "s1_anger_2.wav").unlink(), "s1_anger_2.wav"),
    "unknown label in label_map": (setting(label_map="{{emotion: {{hapy: joy}}}}"), "hapy"),
    "no labels for the main task": (rewrite(None, lambda t: t.drop(columns="emotion")), "emotion"),
    "typo in an override": (setting(n_epoch="3"), "did you mean 'n_epochs'?"),
    "typo inside an object": (setting(frontend__n_mel="3"), "did you mean 'n_mels'?"),
    "unknown corpus": (setting(corpus="ravdes"), "ravdess"),
    "unknown protocol": (setting(split__protocol="speaker_holdot"), "speaker_holdout"),
    "a leaking manifest": (leak, "manifest_random"),
    "unknown speaker": (setting(split__test_speakers="[s77]"), "s77"),
    "too many folds": (setting(split__protocol="speaker_kfold", split__n_folds="77"), "77"),
    "unknown option of the split": (setting(split__protocl="manifest"), "did you mean 'protocol'?"),
    "no such checkpoint": (
        setting(frontend="!new:korser.plugins.frontends.encoder.PretrainedEncoder {{source: no/such-model}}"),
        "no/such-model",
    ),
    "wrong type": (setting(lr="fast"), "lr"),
    "no epochs": (setting(n_epochs="0"), "n_epochs"),
    "a frontend for another rate": (
        setting(frontend__sample_rate="8000", frontend__f_max="3800"),
        "input_rate=8000: expected 16000",
    ),
    "too much smoothing": (setting(label_smoothing="1.5"), "label_smoothing"),
    "negative mixup": (setting(augment__mixup_alpha="-1"), "mixup_alpha"),
    "mask larger than all": (setting(augment__time_fraction="3"), "time_fraction"),
    "negative weight": (setting(emotion_weight="-1"), "weight of task 'emotion'"),
    "no cache folder": (setting(cache_folder="null"), "cache_folder"),
    "half a batch": (setting(batch_size="2.5"), "batch_size"),
    "negative seed": (setting(seed="-1"), "seed"),
    "no such device": (setting(device="gpu"), "device"),
    "tasks by name": (setting(tasks="[emotion]"), "tasks"),
    "a name for an object": (setting(split="speaker_kfold"), "change one argument with split.NAME=VALUE"),
    "a word for a mapping": (setting(label_map="foo"), "label_map"),
    "typo in class_weights": (setting(class_weights="balancd"), "class_weights"),
    "a scheduler that needs more": (setting(lr_scheduler="!name:torch.optim.lr_scheduler.StepLR"), "lr_scheduler"),
    "cache that cannot be written": (setting(cache_folder="/proc/absent"), "/proc/absent"),
    "wrong precision": (setting(precision="fp17"), "argument --precision: invalid choice: 'fp17'"),
    "too short for the frontend": (
        lambda data, settings: (
            soundfile.write(data / "s1_anger_2.wav", np.full(100, 0.1), 16000),
            settings.update(frontend="!new:korser.plugins.frontends.encoder.PretrainedEncoder {source: nano-random}"),
        ),
        "too short",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_code_2(call, tiny, data, mistake, tmp_path):
    spoil, said = MISTAKES[mistake]
    settings = {**tiny, "data_folder": str(data)}
    spoil(data, settings)
    code, out, err = call("train", HPARAMS / "mel_stl.yaml", *options(settings))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert len(errors) == 1 and said in errors[0]
    assert "Traceback" not in err
    assert not list(tmp_path.glob("results/*/log.csv")), "training had started"


@pytest.mark.parametrize("rate, channels", [(48000, 2), (8000, 1), (44100, 1)])
def test_other_rates_and_stereo_are_converted(call, tiny, data, rate, channels):
    x, _ = soundfile.read(data / "s1_anger_2.wav")
    soundfile.write(data / "s1_anger_2.wav", np.stack([x] * channels, 1), rate)
    code, _, err = call("train", HPARAMS / "mel_stl.yaml", *options({**tiny, "data_folder": str(data)}))
    assert code == 0, err
