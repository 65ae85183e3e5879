"""Trained models on degraded audio: the same predictions on the same audio, nothing done twice, nothing lost."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import HPARAMS, write_tiny_corpus
from made_runs import write_run

from korser import UserError, load_hparams, train
from korser.comparison.compare import compare
from korser.comparison.robustness import robustness_results, robustness_table
from korser.data.degradations import Condition, conditions
from korser.inference import robustness
from korser.inference.robustness import measure
from korser.runs.directory import run_folder
from korser.runs.groups import label_runs
from korser.runs.load import load_runs
from korser.runs.pool import pool_runs
from korser.utils.files import read_json

SAME = Condition("same", "nothing", None, "", lambda x, utterance: x)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of mel and of a frozen wav2vec 2.0, tested on the same three speakers."""
    folder = tmp_path_factory.mktemp("robustness")
    data = write_tiny_corpus(folder / "data")
    for model, seed in (("mel_stl", 1), ("mel_stl", 2), ("wav2vec_stl", 1), ("wav2vec_stl", 2)):
        hparams = load_hparams(
            HPARAMS / f"{model}.yaml",
            {
                "corpus": "csv",
                "data_folder": str(data),
                "output_folder": str(folder / "results"),
                "cache_folder": str(folder / "cache"),
                "split.test_speakers": "[s0, s1, s2]",
                "split.valid_speakers": "[s3]",
                "n_epochs": 1,
                "batch_size": 8,
                "n_buckets": 2,
                "noprogressbar": True,
                "seed": seed,
            },
        )
        train(hparams, run_folder(hparams))
    return folder / "results"


@pytest.fixture
def runs(trained, tmp_path):
    """The trained runs, without anything measured."""
    shutil.copytree(trained, tmp_path / "results")
    return load_runs(tmp_path / "results")


def predictions(run, name):
    return run.predictions(f"robustness/{name}")


def numbers(table):
    return table[[c for c in table if c.startswith("emotion_prob_")]].to_numpy()


def test_unchanged_audio_gives_the_predictions_of_the_test(runs):
    assert measure(runs, [SAME], device="cpu", progress=False) == 4
    for run in runs:
        clean, again = run.predictions("test"), predictions(run, "same")
        assert list(again) == list(clean)
        same = ["id", "path", "speaker", "split", "emotion", "gender", "duration", "emotion_pred"]
        pd.testing.assert_frame_equal(again[same], clean[same])
        np.testing.assert_allclose(numbers(again), numbers(clean), atol=1e-5)


def test_what_the_users_code_raises_names_it(runs, monkeypatch):
    def leave(self, x, lengths):
        raise SystemExit("no data")

    monkeypatch.setattr("korser.plugins.backbones.convnet.ConvNet.forward", leave)
    with pytest.raises(UserError, match=r"^backbone: korser\.plugins.*ConvNet: .*in leave: SystemExit: no data"):
        measure(runs, [SAME], progress=False)


def test_predictions_do_not_depend_on_the_batch_or_on_the_other_models(runs, monkeypatch):
    wanted = conditions(["noise_0dB", "speed_1.1"])
    measure(runs, wanted, device="cpu", progress=False)
    before = [numbers(predictions(run, c.name)) for run in runs for c in wanted]
    monkeypatch.setattr(robustness, "BATCH_SIZE", 1)
    for run in runs:
        shutil.rmtree(run.path / "robustness")
        measure([run], wanted, device="cpu", progress=False)
    after = [numbers(predictions(run, c.name)) for run in runs for c in wanted]
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_complete_conditions_are_not_measured_again(runs):
    wanted = [SAME, *conditions(["noise_0dB"])]
    assert measure(runs, wanted, progress=False) == 8
    assert measure(runs, wanted, progress=False) == 0
    listed = read_json(runs[0].path / "robustness" / "conditions.json", list)
    assert [{k: entry[k] for k in ("name", "kind", "value", "unit")} for entry in listed] == [
        {"name": "same", "kind": "nothing", "value": None, "unit": ""},
        {"name": "noise_0dB", "kind": "pink noise", "value": 0, "unit": "dB SNR"},
    ]
    before = (runs[0].path / "robustness" / "same.csv").read_bytes()
    (runs[0].path / "robustness" / "same.csv").unlink()
    assert measure(runs, wanted, progress=False) == 1
    assert (runs[0].path / "robustness" / "same.csv").read_bytes() == before


def test_other_weights_or_other_noise_are_measured_again(runs):
    condition = conditions(["noise_0dB"])[0]
    measure(runs, [condition], progress=False)
    mel = [run for run in runs if run.model == "mel_stl"]
    shutil.copy(mel[1].path / "model.safetensors", mel[0].path)
    old = numbers(predictions(mel[0], condition.name))
    assert measure(runs, [condition], progress=False) == 1
    assert not np.allclose(numbers(predictions(mel[0], condition.name)), old)
    assert measure(runs, [dataclasses.replace(condition, made_from="other files")], progress=False) == 4


def test_an_interruption_loses_one_condition_at_most(runs):
    def interrupted(x, utterance):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(runs, [SAME, Condition("late", "nothing", None, "", interrupted)], progress=False)
    assert [entry["name"] for entry in read_json(runs[0].path / "robustness" / "conditions.json", list)] == ["same"]
    assert measure(runs, [SAME], progress=False) == 0


def test_audio_is_read_from_the_original_where_the_cache_was_cleared(runs):
    shutil.rmtree(Path(runs[0].settings["cache_folder"]) / "audio")
    measure(runs[:1], [SAME], progress=False)
    np.testing.assert_allclose(numbers(predictions(runs[0], "same")), numbers(runs[0].predictions("test")), atol=1e-5)


def test_errors_of_audio_and_weights(runs, monkeypatch):
    short = Condition("short", "nothing", None, "", lambda x, utterance: x[:10])
    with pytest.raises(UserError, match=r"wav under short: too short: 0.001 s, .*; or remove the condition"):
        measure(runs, [short], progress=False)
    slow = Condition("slow", "nothing", None, "", lambda x, utterance: x.repeat(3))
    load = robustness.load_trained_model

    def limited(*args, **options):
        trained = load(*args, **options)
        trained.max_length = 16_000
        return trained

    with monkeypatch.context() as patch:
        patch.setattr(robustness, "load_trained_model", limited)
        with pytest.raises(UserError, match=r"wav under slow: too long: .* at most 1.000 s: .*; or remove the cond"):
            measure(runs, [slow], progress=False)
    (runs[0].path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no model.safetensors"):
        measure(runs, [SAME], progress=False)


def test_the_table_has_the_change_from_clean_audio(runs):
    loud = conditions(["white_-5dB"])[0]
    measure(runs, [SAME, loud], progress=False)
    models = {label: pool_runs(label, own) for label, own in label_runs(runs).items()}
    table = robustness_table(models, [SAME, loud], "emotion").set_index(["model", "condition"])
    assert list(table.index) == [(m, c) for m in ("mel_stl", "wav2vec_stl") for c in ("same", "white_-5dB")]
    for model, pooled in models.items():
        same, lost = table.loc[(model, "same")], table.loc[(model, "white_-5dB")]
        assert same["drop"] == 0 and same["uar"] == same["clean"]
        counts = pooled.counts("emotion").sum(1)
        uar = (np.diagonal(counts, axis1=1, axis2=2) / counts.sum(2)).mean()
        assert same["clean"] == pytest.approx(uar)
        assert lost["drop"] == pytest.approx(lost["clean"] - lost["uar"])
        assert (lost["n_speakers"], lost["n_seeds"], lost["value"], lost["unit"]) == (3, 2, -5, "dB SNR")
        assert pd.isna(lost["drop_low"]) or lost["drop_low"] <= lost["drop"] <= lost["drop_high"]
    header, _, clean, *rest = robustness_results(table.reset_index(), compare(runs)).to_markdown().splitlines()
    assert header == "| condition | mel\\_stl | wav2vec\\_stl |"
    assert clean.startswith("| clean | .") and "(.000" in rest[0] and rest[1].startswith("| white\\_-5dB | .")


# -- tables of made-up predictions -------------------------------------------------------------------------------------
def made(folder, model, change=lambda table: table, **options):
    """A run with its own predictions under noise, and whatever the change makes of them."""
    path = write_run(folder, model, **options)
    table = pd.read_csv(path / "test.csv", encoding="utf-8-sig", dtype=str)
    (path / "robustness").mkdir()
    change(table).to_csv(path / "robustness" / "noise.csv", index=False, encoding="utf-8-sig")
    entry = {"name": "noise", "kind": "nothing", "value": None, "unit": ""}
    (path / "robustness" / "conditions.json").write_text(json.dumps([entry]))


NOISE = dataclasses.replace(SAME, name="noise")


def test_every_model_with_a_mark_has_it_in_the_table_and_the_legend(tmp_path):
    for fold in range(3):
        made(tmp_path, "mel_stl", fold=fold)
        if fold:
            made(tmp_path, "leaf_stl", fold=fold)
    comparison = compare(load_runs(tmp_path), searched_on={"leaf_stl": "searched on <s1>"})
    table = robustness_table(comparison.models, [NOISE], "emotion").replace("mel_stl", "mel_stl (a|b)")
    text = robustness_results(table, comparison).to_markdown()
    assert text.startswith(
        "| condition | leaf\\_stl\N{DAGGER}\N{DOUBLE DAGGER} | mel\\_stl (a\\|b) |\n| --- | --- | --- |\n"
    )
    assert "\N{DAGGER}: searched on \\<s1\\>. \N{DOUBLE DAGGER}: leaf\\_stl was tested on 36 of 54 utterances" in text


@pytest.mark.parametrize("seeds, said", [([1], "over speakers,"), ([1, 2], "over speakers and seeds,")])
def test_the_legend_states_what_intervals_are_over(tmp_path, seeds, said):
    for seed in seeds:
        made(tmp_path, "mel_stl", seed=seed)
    comparison = compare(load_runs(tmp_path))
    text = robustness_results(robustness_table(comparison.models, [NOISE], "emotion"), comparison).to_markdown()
    assert f"interval of that change {said} paired by utterance." in text


@pytest.mark.parametrize(
    "changed, change",
    [
        ([1, 2], lambda t: t[t["speaker"] != "s1"]),
        ([2], lambda t: t[t["speaker"] != "s1"]),
        ([1, 2], lambda t: t.assign(emotion="joy")),
    ],
    ids=["utterances", "utterances of one seed", "labels"],
)
def test_other_utterances_under_degradation_are_refused(tmp_path, changed, change):
    for seed in (1, 2):
        made(tmp_path, "mel_stl", seed=seed, **({"change": change} if seed in changed else {}))
    models = compare(load_runs(tmp_path)).models
    with pytest.raises(UserError, match="mel_stl under noise: utterances, speakers or labels differ") as error:
        robustness_table(models, [NOISE], "emotion")
    assert str(error.value).endswith("and measure again, or train again if manifest.csv is damaged")
    assert [f"mel_stl-{seed}-None-made-0.001/robustness/noise.csv" in str(error.value) for seed in (1, 2)] == [
        seed in changed for seed in (1, 2)
    ]
