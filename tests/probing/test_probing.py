"""Linear probes of frozen features, on small checkpoints that transformers itself saves."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import transformers
from conftest import HPARAMS, ROOT
from sklearn.metrics import accuracy_score, recall_score

from korser import Task
from korser.data.audio import read_audio
from korser.data.audio_cache import scan_audio
from korser.metrics.counts import table_statistics
from korser.metrics.estimates import estimate
from korser.probing import classifier, features, load_settings, report, run_probe
from korser.probing.encoders import ALL, CHOSEN, make_encoders
from korser.probing.features import pooled_statistics
from korser.probing.splits import make_splits
from korser.utils.errors import UserError
from korser.utils.files import read_csv, read_json

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(8,) * 7)
LAYERS = ["0", "1", "2", ALL, CHOSEN]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two encoders with random weights, in folders of one name."""
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("checkpoints") / "nano"
        torch.manual_seed(seed)
        config = transformers.Wav2Vec2Config(**SMALL, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
        transformers.Wav2Vec2Model(config).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture
def overrides(tiny_corpus, tmp_path, checkpoints):
    return {
        "sources": f"[{checkpoints[0]}]",
        "corpus": "csv",
        "data_folder": str(tiny_corpus),
        "split.test_speakers": "[s3, s4, s5]",
        "C": "[0.01, 0.1]",
        "inner_folds": "3",
        "output_folder": str(tmp_path / "results"),
        "cache_folder": str(tmp_path / "cache"),
        "device": "cpu",
        "noprogressbar": "true",
    }


def settings_of(overrides, **more):
    return load_settings(HPARAMS / "probe.yaml", {**overrides, **more})


@pytest.fixture
def encoder(overrides):
    return make_encoders(settings_of(overrides, floor="{}"))[0]


@pytest.fixture
def audio(tiny_corpus, tmp_path):
    paths = sorted(map(str, tiny_corpus.glob("s[01]_*.wav")))
    return scan_audio(paths, tmp_path / "cache").reset_index(drop=True)


@pytest.fixture
def csv_corpus(tiny_corpus, tmp_path):
    """A copy of the tiny corpus with sentences, each of one emotion and read by all; gives folder and table."""
    folder = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(folder / "manifest.csv", dtype=str)
    table["sentence"] = table["id"].str.partition("_")[2]
    table.to_csv(folder / "manifest.csv", index=False)
    return folder, table


# -- features ---------------------------------------------------------------------------------------------------------
def test_statistics_do_not_depend_on_the_batch(encoder, audio, tmp_path):
    together = pooled_statistics(encoder, audio, tmp_path / "cache", seconds=2)
    assert together.shape == (16, 3, 32) and together.dtype == np.float32
    for row, got in zip(audio.itertuples(), together):
        x = read_audio(row.path)[None]
        y, _ = encoder.frontend(x, torch.tensor([x.shape[1]]))
        layers = y[0].unflatten(-1, (3, 16)).detach()
        expected = torch.cat([layers.mean(0), layers.std(0, correction=0)], -1).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def count_files(monkeypatch, encoder, until=10**9):
    """Files that the encoder is given; it breaks when it is to be given more than ``until``."""
    seen, forward = [], encoder.frontend.forward

    def counted(x, lengths):
        if len(seen) + len(x) > until:
            raise KeyboardInterrupt
        seen.extend(lengths.tolist())
        return forward(x, lengths)

    monkeypatch.setattr(encoder.frontend, "forward", counted)
    return seen


def test_statistics_are_computed_once(encoder, audio, tmp_path, monkeypatch):
    seen = count_files(monkeypatch, encoder)
    first = pooled_statistics(encoder, audio, tmp_path / "cache")
    again = pooled_statistics(encoder, audio[::-1], tmp_path / "cache")
    assert sorted(seen) == sorted(audio["samples"]) and seen == sorted(seen, reverse=True)
    np.testing.assert_array_equal(first, again[::-1])


def test_an_interrupted_extraction_resumes(encoder, audio, tmp_path, monkeypatch):
    whole = pooled_statistics(encoder, audio, tmp_path / "other", seconds=1)
    monkeypatch.setattr(features, "SHARD_SIZE", 4)
    with monkeypatch.context() as patch:
        count_files(patch, encoder, until=10)
        with pytest.raises(KeyboardInterrupt):
            pooled_statistics(encoder, audio, tmp_path / "cache", seconds=1)
    seen = count_files(monkeypatch, encoder)
    resumed = pooled_statistics(encoder, audio, tmp_path / "cache", seconds=1)
    assert 0 < len(seen) <= len(audio) - 4
    np.testing.assert_allclose(resumed, whole, rtol=1e-4, atol=1e-5)


def test_a_damaged_cache_is_recomputed(encoder, audio, tmp_path):
    whole = pooled_statistics(encoder, audio, tmp_path / "cache")
    [file] = (tmp_path / "cache" / "probe").rglob("*.bin")
    values = bytearray(file.read_bytes())
    values[100] ^= 1
    file.write_bytes(values)
    np.testing.assert_array_equal(pooled_statistics(encoder, audio, tmp_path / "cache"), whole)


def test_other_weights_have_another_digest(overrides, checkpoints):
    encoders = make_encoders(settings_of(overrides, sources=f"[{checkpoints[0]}, {checkpoints[1]}]"))
    assert len({encoder.digest for encoder in encoders}) == 3  # with log-mel
    assert [encoder.label.endswith("/nano") for encoder in encoders] == [False, True, True]
    assert encoders[0].layers == ["features"] and encoders[1].probed == LAYERS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_statistics_on_a_gpu(encoder, audio, tmp_path):
    cpu = pooled_statistics(encoder, audio, tmp_path / "a")
    np.testing.assert_allclose(
        pooled_statistics(encoder, audio, tmp_path / "b", device="cuda"), cpu, rtol=1e-3, atol=1e-4
    )


# -- splits -----------------------------------------------------------------------------------------------------------
def test_folds_of_speakers_and_sentences_are_crossed(overrides, csv_corpus):
    folder, _ = csv_corpus
    more = {
        "data_folder": str(folder),
        "folds": "3",
        "split.test_speakers": "null",
        "split.hold_out": "sentence",
        "sources": "[]",
        "C": "0.1",
    }
    settings = settings_of(overrides, **more)
    splits = make_splits(settings.corpora[0], ["emotion"], settings.cache_folder)
    assert len(splits.rows) == 9 and splits.n_folds == 3
    for train, test in splits.rows:
        for column in ("speaker", "sentence"):
            values = splits.table[column]
            assert not set(values.iloc[train]) & set(values.iloc[test])
    assert sorted(np.concatenate([test for _, test in splits.rows])) == list(range(48))
    assert "sentence held out" in splits.protocol
    run_probe(settings)
    predictions = read_csv(folder.parent / "results/probe/csv/predictions/log-mel.csv")
    assert len(predictions) == 48
    counts = table_statistics(predictions, Task("emotion", classes=splits.classes["emotion"]), "emotion_pred_chosen")
    chosen = read_csv(folder.parent / "results/probe/csv/probe.csv").query("layer == 'chosen'").iloc[0]
    assert chosen["uar_low"] == pytest.approx(estimate(counts[None], "uar", n_folds=3)["low"])


def test_a_single_training_value_is_an_error(overrides, csv_corpus):
    folder, table = csv_corpus
    table["take"] = (table["speaker"].str[1:].astype(int) + table["id"].str[-1].astype(int)) % 3
    table.to_csv(folder / "manifest.csv", index=False)
    more = {"data_folder": str(folder), "split.hold_out": "take", "split.test": "2", "sources": "[]"}
    settings = settings_of(overrides, **more)
    with pytest.raises(UserError, match="one training take"):
        make_splits(settings.corpora[0], ["emotion"], settings.cache_folder)


def test_validation_utterances_are_trained_on(overrides):
    settings = settings_of(overrides, **{"split.valid": "0.4"})
    [(train, test)] = make_splits(settings.corpora[0], ["emotion"], settings.cache_folder).rows
    assert len(train) == len(test) == 24


def test_validation_utterances_are_trained_on_in_crossed_folds(overrides, csv_corpus):
    more = {
        "data_folder": str(csv_corpus[0]),
        "folds": "3",
        "split": "!name:korser.data.splits.assign_splits {protocol: speaker_holdout, hold_out: sentence}",
    }
    settings = settings_of(overrides, **more)
    splits = make_splits(settings.corpora[0], ["emotion"], settings.cache_folder)
    for train, test in splits.rows:
        held = [splits.table[c].isin(splits.table[c].iloc[test]) for c in ("speaker", "sentence")]
        assert train.tolist() == np.flatnonzero(~held[0] & ~held[1]).tolist()


def test_several_corpora_share_the_settings_that_they_do_not_state(overrides, tiny_corpus, tmp_path):
    corpora = "[{name: a, split: {test_speakers: [s0, s1, s2]}}, {folds: 3}]"
    first, second = settings_of(overrides, corpora=corpora).corpora
    assert (first.name, first.folds, second.name, second.folds) == ("a", None, "csv", 3)
    assert first.split.keywords["test_speakers"] == ["s0", "s1", "s2"] and first.split.keywords["valid"] == 0
    assert second.split.keywords["test_speakers"] == ["s3", "s4", "s5"] and first.data_folder == str(tiny_corpus)


def test_several_corpora_are_probed_as_one(overrides, two_corpora):
    united = {**two_corpora, "label_map": "{b: {emotion: {rage: anger, fear: neutral}}}", "folds": "3"}
    (material,) = settings_of({k: v for k, v in overrides.items() if k != "split.test_speakers"}, **united).corpora
    splits = make_splits(material, ["emotion"], overrides["cache_folder"])
    assert material.name == "a+b" and len(splits.rows) == 3 and set(splits.table["corpus"]) == {"a", "b"}
    for train, test in splits.rows:
        assert not set(splits.table["speaker"].iloc[train]) & set(splits.table["speaker"].iloc[test])


# -- run --------------------------------------------------------------------------------------------------------------
def test_the_recipe(call, overrides, checkpoints, tmp_path, monkeypatch):  # noqa: F811
    overrides["sources"] = str(checkpoints)
    arguments = [HPARAMS / "probe.yaml", *(f"--{k}={v}" for k, v in overrides.items())]
    code, out, _ = call("probe", *arguments)
    folder = tmp_path / "results/probe/csv"
    labels = ["log-mel", *("/".join(source.split("/")[-2:]) for source in checkpoints)]
    assert code == 0 and all(label in out for label in labels) and str(folder.parent) in out
    scores = read_csv(folder / "probe.csv", ["layer"])
    for label, layers in zip(labels, [["features", CHOSEN], LAYERS, LAYERS]):
        predictions = read_csv(folder / "predictions" / f"{label.replace('/', '_')}.csv")
        about = read_json(folder / "predictions" / f"{label.replace('/', '_')}.json")
        assert set(predictions["speaker"]) == {"s3", "s4", "s5"} and len(predictions) == 24
        for task in ("emotion", "gender"):
            rows = scores[(scores["encoder"] == label) & (scores["task"] == task)].set_index("layer")
            assert list(rows.index) == layers
            chosen = about["chosen"][task][0]["layer"]
            assert rows.loc[CHOSEN, "chosen"] == chosen and rows.loc[CHOSEN, "uar"] == rows.loc[chosen, "uar"]
            for layer in layers:
                truth, predicted = predictions[task], predictions[f"{task}_pred_{layer}"]
                assert rows.loc[layer, "uar"] == pytest.approx(recall_score(truth, predicted, average="macro"))
                assert rows.loc[layer, "accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert scores[scores["encoder"] == "log-mel"]["uar"].min() > 0.5  # emotions are tones of different pitch
    markdown = (folder / "probe.md").read_text(encoding="utf-8")
    assert markdown.count("| encoder | chosen layer | UAR | accuracy |") == 2  # tasks
    assert markdown.count("| layer | ") == 2 and "log-mel" not in markdown.split("| layer | ")[1].split("##")[0]
    pairs = read_csv(folder / "differences.csv")
    assert len(pairs) == 6
    uar = scores[scores["layer"] == CHOSEN].set_index(["task", "encoder"])["uar"]
    for pair in pairs.itertuples():
        expected = uar[pair.task, pair.encoder_a] - uar[pair.task, pair.encoder_b]
        assert pair.uar_difference == pytest.approx(expected)

    files = {file: file.read_bytes() for file in folder.rglob("*.*")}
    monkeypatch.setattr(classifier, "fit_predict", None)
    monkeypatch.setattr(features, "_compute", None)
    assert call("probe", *arguments)[:2] == (0, out)
    assert {file: file.read_bytes() for file in folder.rglob("*.*")} == files


def test_another_penalty_reuses_the_features(overrides, tmp_path, monkeypatch):
    run_probe(settings_of(overrides))
    monkeypatch.setattr(features, "_compute", None)
    run_probe(settings_of(overrides, C="0.5"))
    assert set(read_csv(tmp_path / "results/probe/csv/probe.csv")["C"]) == {0.5}


def test_two_test_speakers_have_no_interval_and_a_note(overrides, tmp_path):
    text = run_probe(settings_of(overrides, **{"split.test_speakers": "[s4, s5]"}, sources="[]"))
    assert "No interval: 2 speakers, at least 3 are needed." in text and "[" not in text.replace("\\[", "")
    assert read_csv(tmp_path / "results/probe/csv/probe.csv")["uar_low"].isna().all()


def test_a_class_of_one_speaker_is_why_uar_has_no_interval():
    labels = ["joy", "anger"] * 6 + ["fear"]
    table = pd.DataFrame({"id": map(str, range(13)), "speaker": [*"aaaabbbbcccc", "a"], "emotion": labels})
    table["emotion_pred_3"] = ["joy", "anger", "anger"] * 4 + ["fear"]
    choices = [{"layer": "3", "C": {"3": 1}, "uar": {"3": 0.5}}]
    row = report._scores(table, "emotion", ("joy", "anger", "fear"), "3", choices, 1)
    assert row["uar_low"] is None and row["accuracy_low"] is not None
    assert row["note"].startswith("it depends on a class that only one speaker has")


def test_random_weights_are_a_note(overrides):
    text = run_probe(settings_of(overrides, sources="[nano-random]", tasks="[emotion]", C="0.01", inner_folds="2"))
    assert "NOT PRETRAINED: random weights in nano-random" in text


def test_utterances_without_a_label_are_masked(overrides, tmp_path):
    run_probe(settings_of(overrides, tasks="[emotion, intensity, valence]", sources="[]"))
    scores = read_csv(tmp_path / "results/probe/csv/probe.csv").set_index(["task", "layer"])
    assert scores.loc[("emotion", CHOSEN), "n_utterances"] == 24
    assert scores.loc[("intensity", CHOSEN), "n_utterances"] == 18  # neutral speech has none
    assert "valence" not in scores.index.get_level_values(0)


INVALID = {
    "no such folder": ({"sources": "[/no/such/folder]"}, "/no/such/folder: no such folder"),
    "not a checkpoint": ({"sources": f"[{ROOT / 'recipes'}]"}, "has no config.json"),
    "twice": ({"sources": "[nano-random, nano-random]"}, "duplicate nano-random"),
    "nothing": ({"sources": "[]", "floor": "{}"}, "nothing to probe"),
    "encoder without source": (
        {"encoder": "!name:korser.plugins.frontends.mel.Mel"},
        "an argument source",
    ),
    "encoder option": ({"encoder.layr": "all"}, "did you mean 'layer'"),
    "unknown key": ({"sorces": "[a]"}, "did you mean 'sources'"),
    "task": ({"tasks": "[valence]"}, "no training and test labels of 'valence'"),
    "random split": ({"split.protocol": "random_stratified"}, "expected one that shares no speakers"),
    "folds": ({"folds": "2"}, "folds=2: expected an integer >= 3"),
    "no such column": (
        {"folds": "3", "split.test_speakers": "null", "split.hold_out": "sentence"},
        "not every utterance has a 'sentence'",
    ),
    "too few to hold out": (
        {"folds": "3", "split.test_speakers": "null", "split.hold_out": "gender"},
        "'gender' has 2 values, expected at least 3",
    ),
    "C": ({"C": "[0.1, -1]"}, "C=[0.1, -1]: expected a number > 0"),
    "inner folds": ({"inner_folds": "1"}, "inner_folds=1: expected an integer >= 2"),
    "device": ({"device": "gpu0"}, "device=gpu0: cannot use this device"),
    "one training speaker": ({"split.exclude_speakers": "[s1, s2]", "tasks": "[emotion]"}, "csv: one training speaker"),
    "corpora of one name": (
        {"corpora": "[{folds: 3}, {folds: 4}]"},
        "two corpora are called csv",
    ),
    "corpora's key": ({"corpora": "[{data_foldr: x}]"}, "did you mean 'data_folder'"),
    "corpora's split": ({"corpora": "[{split: {test_speaker: [s1]}}]"}, "expected a mapping of protocol"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_setting_is_one_line(call, overrides, name):  # noqa: F811
    wrong, message = INVALID[name]
    code, _, err = call("probe", HPARAMS / "probe.yaml", *(f"--{k}={v}" for k, v in {**overrides, **wrong}.items()))
    assert code == 2 and message in err and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("error: ")


def test_an_utterance_too_short_for_an_encoder(overrides, csv_corpus):
    folder, table = csv_corpus
    soundfile.write(folder / table["path"][0], np.zeros(300), 16000)
    with pytest.raises(UserError, match="too short: 0.019 s"):
        run_probe(settings_of(overrides, data_folder=str(folder)))


def test_the_yaml_of_a_model_is_not_a_probe():
    with pytest.raises(UserError, match="is the YAML file of a model"):
        load_settings(HPARAMS / "mel_stl.yaml")


def test_families_side_by_side(overrides, tiny_whisper):
    run_probe(settings_of(overrides, sources=f"[{overrides['sources'][1:-1]}, {tiny_whisper}]", floor="{}"))
    table = read_csv(Path(overrides["output_folder"]) / "probe" / "csv" / "probe.csv")
    layers = table[table["task"] == "emotion"].groupby("encoder")["layer"].nunique()
    assert layers[tiny_whisper.name] == len(["0", "1", "2", "3", ALL, CHOSEN])


def test_an_utterance_too_long_for_an_encoder(overrides, csv_corpus, tiny_whisper):
    folder, table = csv_corpus
    soundfile.write(folder / table["path"][0], np.zeros(3 * 16000), 16000)
    overrides |= {"data_folder": str(folder), "sources": f"[{tiny_whisper}]", "floor": "{}"}
    with pytest.raises(UserError, match="too long: 3.000 s, but whisper0 takes at most 2.000 s: .*windows: true"):
        run_probe(settings_of(overrides))
    run_probe(settings_of(overrides, **{"encoder.windows": "true"}))
