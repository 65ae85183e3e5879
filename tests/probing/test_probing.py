"""Linear probes of frozen features, on small checkpoints that transformers itself saves."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import transformers
from conftest import HPARAMS, ROOT
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from korser.data.audio import read_audio
from korser.data.audio_cache import scan_audio
from korser.probing import classifier, features, load_settings, run_probe
from korser.probing.classifier import fit_predict, inner_divisions, probe
from korser.probing.divisions import divide
from korser.probing.encoders import ALL, CHOSEN, make_encoders
from korser.probing.features import pooled_statistics
from korser.reporting.figures.probe import draw_probe, find_probes, probe_notes
from korser.reporting.figures.style import NothingToDraw, Style
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
def test_statistics_are_those_of_each_utterance_alone(encoder, audio, tmp_path):
    together = pooled_statistics(encoder, audio, tmp_path / "cache", seconds=2)
    assert together.shape == (16, 3, 32) and together.dtype == np.float32
    for row, got in zip(audio.itertuples(), together):
        x = read_audio(row.path)[None]
        y, _ = encoder.stage(x, torch.tensor([x.shape[1]]))
        layers = y[0].unflatten(-1, (3, 16)).detach()
        expected = torch.cat([layers.mean(0), layers.std(0, correction=0)], -1).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def count_files(monkeypatch, encoder, until=10**9):
    """Files that the encoder is given; it breaks when it is to be given more than ``until``."""
    seen, forward = [], encoder.stage.forward

    def counted(x, lengths):
        if len(seen) + len(x) > until:
            raise KeyboardInterrupt
        seen.extend(lengths.tolist())
        return forward(x, lengths)

    monkeypatch.setattr(encoder.stage, "forward", counted)
    return seen


def test_statistics_are_computed_once(encoder, audio, tmp_path, monkeypatch):
    seen = count_files(monkeypatch, encoder)
    first = pooled_statistics(encoder, audio, tmp_path / "cache")
    again = pooled_statistics(encoder, audio[::-1], tmp_path / "cache")
    assert sorted(seen) == sorted(audio["samples"]) and seen == sorted(seen, reverse=True)
    np.testing.assert_array_equal(first, again[::-1])


def test_what_a_kill_left_is_gone_on_with(encoder, audio, tmp_path, monkeypatch):
    whole = pooled_statistics(encoder, audio, tmp_path / "other", seconds=1)
    monkeypatch.setattr(features, "SHARD", 4)
    with monkeypatch.context() as patch:
        count_files(patch, encoder, until=10)
        with pytest.raises(KeyboardInterrupt):
            pooled_statistics(encoder, audio, tmp_path / "cache", seconds=1)
    seen = count_files(monkeypatch, encoder)
    resumed = pooled_statistics(encoder, audio, tmp_path / "cache", seconds=1)
    assert 0 < len(seen) <= len(audio) - 4
    np.testing.assert_allclose(resumed, whole, rtol=1e-4, atol=1e-5)


def test_a_damaged_cache_is_made_again(encoder, audio, tmp_path):
    whole = pooled_statistics(encoder, audio, tmp_path / "cache")
    [file] = (tmp_path / "cache" / "probe").rglob("*.bin")
    values = bytearray(file.read_bytes())
    values[100] ^= 1
    file.write_bytes(values)
    np.testing.assert_array_equal(pooled_statistics(encoder, audio, tmp_path / "cache"), whole)


def test_other_weights_have_another_digest(overrides, checkpoints):
    encoders = make_encoders(settings_of(overrides, sources=f"[{checkpoints[0]}, {checkpoints[1]}]"))
    assert len({encoder.digest for encoder in encoders}) == 3  # with the floor
    assert [encoder.label.endswith("/nano") for encoder in encoders] == [False, True, True]
    assert encoders[0].layers == ["features"] and encoders[1].probed == LAYERS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_statistics_on_a_gpu(encoder, audio, tmp_path):
    cpu = pooled_statistics(encoder, audio, tmp_path / "a")
    np.testing.assert_allclose(
        pooled_statistics(encoder, audio, tmp_path / "b", device="cuda"), cpu, rtol=1e-3, atol=1e-4
    )


# -- the classifier ---------------------------------------------------------------------------------------------------
def made_up(n_features, seed=0, n_speakers=9):
    """Three classes in noise that differs between speakers."""
    rng = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(n_speakers), 12)
    y = np.tile([0, 1, 2], 4 * n_speakers)
    x = rng.normal(size=(len(y), n_features)) + rng.normal(size=(n_speakers, n_features))[speakers]
    return x + 0.3 * rng.normal(size=(3, n_features))[y], y, speakers


def by_hand(x, y, x_new, strength):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(x, y).predict(x_new)


@pytest.mark.parametrize("n_features", [10, 300])  # fewer and more than utterances
def test_predictions_are_those_of_scikit_learn(n_features):
    x, y, _ = made_up(n_features)
    for strength, got in zip((0.01, 1.0), fit_predict(x[:72], y[:72], x[72:], [0.01, 1.0])):
        np.testing.assert_array_equal(got, by_hand(x[:72], y[:72], x[72:], strength))


def test_a_fold_with_one_class_predicts_it():
    x, _, _ = made_up(4)
    [got] = fit_predict(x[:5], np.ones(5, dtype=int), x[5:9], [1.0])
    assert got.tolist() == [1, 1, 1, 1]


def test_choices_are_those_of_a_cross_validation_by_hand():
    x, y, speakers = made_up(12)
    layers = {"0": made_up(12, seed=5)[0], "1": x, "2": made_up(12, seed=6)[0]}
    rows, strengths = np.arange(len(y)), [0.01, 0.1, 1.0]
    train, test = rows[:72], rows[72:]
    predictions, [choice] = probe(layers, y, [speakers], [(train, test)], C=strengths, inner_folds=3)

    expected = {}
    for name, values in layers.items():
        for strength in strengths:
            inner = np.full(72, -1)
            for a, b in StratifiedGroupKFold(3, shuffle=True, random_state=0).split(train, y[train], speakers[train]):
                inner[b] = by_hand(values[a], y[a], values[b], strength)
            expected[name, strength] = recall_score(y[train], inner, average="macro")
    best = max(expected, key=expected.get)
    assert (choice["layer"], choice["C"][choice["layer"]]) == best
    assert choice["uar"][best[0]] == pytest.approx(expected[best], abs=0.03)  # fits end a little earlier there
    np.testing.assert_array_equal(
        predictions[CHOSEN][test], by_hand(layers[best[0]][train], y[train], layers[best[0]][test], best[1])
    )
    assert (predictions[CHOSEN][train] == -1).all()


def test_the_labels_of_the_test_speakers_change_nothing():
    x, y, speakers = made_up(12)
    layers = {"0": x, "1": made_up(12, seed=5)[0], ALL: np.hstack([x, x])}
    rows = np.arange(len(y))
    parts = [(rows[:72], rows[72:]), (rows[36:], rows[:36])]
    for train, test in parts:
        other = y.copy()
        other[test] = np.random.default_rng(1).permutation(y[test])
        before, after = (
            probe(layers, own, [speakers], [(train, test)], C=[0.1, 1], inner_folds=3) for own in (y, other)
        )
        assert before[1] == after[1]
        for name in before[0]:
            np.testing.assert_array_equal(before[0][name], after[0][name])


def test_all_layers_together_are_never_the_chosen_layer():
    x, y, speakers = made_up(4)
    layers = {"0": np.random.default_rng(0).normal(size=x.shape), ALL: x + 5 * np.eye(3, 4)[y]}
    rows = np.arange(len(y))
    _, [choice] = probe(layers, y, [speakers], [(rows[:72], rows[72:])], C=[1.0], inner_folds=3)
    assert choice["uar"][ALL] > choice["uar"]["0"] and choice["layer"] == "0"


def test_utterances_without_a_label_are_not_trained_on():
    x, y, speakers = made_up(6)
    rows = np.arange(len(y))
    masked = np.where(rows % 4 == 0, -1, y)
    labelled = np.flatnonzero(masked[:72] >= 0)
    predictions, _ = probe({"0": x}, masked, [speakers], [(rows[:72], rows[72:])], C=[1.0], inner_folds=3)
    np.testing.assert_array_equal(predictions["0"][72:], by_hand(x[labelled], y[labelled], x[72:], 1.0))


def test_inner_divisions_share_neither_speaker_nor_sentence():
    speakers, sentences = (a.ravel() for a in np.meshgrid(np.arange(6), np.arange(8)))
    y = sentences % 4
    divisions = inner_divisions(y, [speakers, sentences], 3)
    assert len(divisions) == 9
    for train, test in divisions:
        for group in (speakers, sentences):
            assert not set(group[train]) & set(group[test])
    assert sorted(np.concatenate([test for _, test in divisions])) == list(range(48))


# -- divisions --------------------------------------------------------------------------------------------------------
def test_folds_of_speakers_and_sentences_are_crossed(overrides, csv_corpus):
    folder, _ = csv_corpus
    more = {"data_folder": str(folder), "folds": "3", "split.hold_out": "sentence", "sources": "[]", "C": "0.1"}
    settings = settings_of(overrides, **more)
    division = divide(settings.corpora[0], ["emotion"], settings.cache_folder)
    assert len(division.parts) == 9
    for train, test in division.parts:
        for column in ("speaker", "sentence"):
            values = division.table[column]
            assert not set(values.iloc[train]) & set(values.iloc[test])
    assert sorted(np.concatenate([test for _, test in division.parts])) == list(range(48))
    assert "sentence held out too" in division.protocol
    run_probe(settings)
    assert len(read_csv(folder.parent / "results/probe/csv/predictions/log-mel.csv")) == 48


def test_a_single_value_to_train_on_is_refused(overrides, csv_corpus):
    folder, table = csv_corpus
    table["take"] = (table["speaker"].str[1:].astype(int) + table["id"].str[-1].astype(int)) % 3
    table.to_csv(folder / "manifest.csv", index=False)
    more = {"data_folder": str(folder), "split.hold_out": "take", "split.test": "2", "sources": "[]"}
    settings = settings_of(overrides, **more)
    with pytest.raises(UserError, match="one training take"):
        divide(settings.corpora[0], ["emotion"], settings.cache_folder)


def test_what_is_set_aside_for_validation_is_trained_on(overrides):
    settings = settings_of(overrides, **{"split.valid": "0.4"})
    [(train, test)] = divide(settings.corpora[0], ["emotion"], settings.cache_folder).parts
    assert len(train) == len(test) == 24


def test_it_is_where_folds_are_crossed_too(overrides, csv_corpus):
    more = {"data_folder": str(csv_corpus[0]), "folds": "3", "split.hold_out": "sentence", "split.valid": "0.4"}
    settings = settings_of(overrides, **more)
    division = divide(settings.corpora[0], ["emotion"], settings.cache_folder)
    for train, test in division.parts:
        held = [division.table[c].isin(division.table[c].iloc[test]) for c in ("speaker", "sentence")]
        assert train.tolist() == np.flatnonzero(~held[0] & ~held[1]).tolist()


def test_several_corpora_state_what_differs(overrides, tiny_corpus, tmp_path):
    corpora = "[{name: a, split: {test_speakers: [s0, s1, s2]}}, {folds: 3}]"
    first, second = settings_of(overrides, corpora=corpora).corpora
    assert (first.name, first.folds, second.name, second.folds) == ("a", None, "csv", 3)
    assert first.split.keywords["test_speakers"] == ["s0", "s1", "s2"] and first.split.keywords["valid"] == 0
    assert second.split.keywords["test_speakers"] == ["s3", "s4", "s5"] and first.data_folder == str(tiny_corpus)


# -- the whole --------------------------------------------------------------------------------------------------------
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
    assert (
        scores[scores["encoder"] == "log-mel"]["uar"].min() > 0.5
    )  # tones of different pitch, women's and men's alike
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


def test_another_setting_is_fitted_again(overrides, tmp_path, monkeypatch):
    run_probe(settings_of(overrides))
    monkeypatch.setattr(features, "_compute", None)
    run_probe(settings_of(overrides, C="0.5"))
    assert set(read_csv(tmp_path / "results/probe/csv/probe.csv")["C"]) == {0.5}


def test_two_test_speakers_have_no_interval_and_it_is_said(overrides, tmp_path):
    text = run_probe(settings_of(overrides, **{"split.test_speakers": "[s4, s5]"}, sources="[]"))
    assert "No interval: 2 speakers, 3 are needed." in text and "[" not in text.replace("\\[", "")
    assert read_csv(tmp_path / "results/probe/csv/probe.csv")["uar_low"].isna().all()


def test_random_weights_and_a_random_choice_are_said(overrides):
    text = run_probe(settings_of(overrides, sources="[nano-random]", tasks="[emotion]", C="0.01", inner_folds="2"))
    assert "NOT PRETRAINED, random weights: nano-random" in text


def test_a_task_that_some_lack_is_masked(overrides, tmp_path):
    run_probe(settings_of(overrides, tasks="[emotion, intensity, valence]", sources="[]"))
    scores = read_csv(tmp_path / "results/probe/csv/probe.csv").set_index(["task", "layer"])
    assert scores.loc[("emotion", CHOSEN), "n_utterances"] == 24
    assert scores.loc[("intensity", CHOSEN), "n_utterances"] == 18  # neutral speech has none
    assert "valence" not in scores.index.get_level_values(0)


MISTAKES = {
    "no such folder": ({"sources": "[/no/such/folder]"}, "/no/such/folder: no such folder"),
    "not a checkpoint": ({"sources": f"[{ROOT / 'recipes'}]"}, "has no config.json"),
    "twice": ({"sources": "[nano-random, nano-random]"}, "duplicate nano-random"),
    "nothing": ({"sources": "[]", "floor": "{}"}, "nothing to probe"),
    "encoder without source": (
        {"encoder": "!name:korser.plugins.frontends.mel.Mel"},
        "a class with an argument source",
    ),
    "encoder option": ({"encoder.layr": "all"}, "did you mean 'layer'"),
    "unknown key": ({"sorces": "[a]"}, "did you mean 'sources'"),
    "task": ({"tasks": "[valence]"}, "no labels of 'valence'"),
    "random split": (
        {"split.protocol": "random_stratified"},
        "split.protocol=random_stratified: expected one that shares no speakers",
    ),
    "folds": ({"folds": "2"}, "folds=2: expected an integer >= 3"),
    "no such column": ({"folds": "3", "split.hold_out": "sentence"}, "not every utterance has a 'sentence'"),
    "too few to hold out": ({"folds": "3", "split.hold_out": "gender"}, "folds of it need at least 3"),
    "C": ({"C": "[0.1, -1]"}, "C=[0.1, -1]: expected a number > 0"),
    "inner folds": ({"inner_folds": "1"}, "inner_folds=1: expected an integer >= 2"),
    "device": ({"device": "gpu0"}, "device=gpu0: cannot use this device"),
    "one training speaker": ({"split.exclude_speakers": "[s1, s2]", "tasks": "[emotion]"}, "is one training speaker"),
    "corpora of one name": (
        {"corpora": "[{folds: 3}, {folds: 4}]"},
        "two corpora are called csv: give each its own name",
    ),
    "corpora's key": ({"corpora": "[{data_foldr: x}]"}, "did you mean 'data_folder'"),
    "corpora's split": (
        {"corpora": "[{split: {test_speaker: [s1]}}]"},
        "corpora[0]: split={test_speaker: [s1]}: expected a mapping of protocol",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(call, overrides, mistake):  # noqa: F811
    wrong, said = MISTAKES[mistake]
    code, _, err = call("probe", HPARAMS / "probe.yaml", *(f"--{k}={v}" for k, v in {**overrides, **wrong}.items()))
    assert code == 2 and said in err and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("error: ")


def test_an_utterance_too_short_for_an_encoder(overrides, csv_corpus):
    folder, table = csv_corpus
    soundfile.write(folder / table["path"][0], np.zeros(300), 16000)
    with pytest.raises(UserError, match="is too short: 0.019 s"):
        run_probe(settings_of(overrides, data_folder=str(folder)))


def test_a_model_yaml_is_refused():
    with pytest.raises(UserError, match="is the YAML file of a model"):
        load_settings(HPARAMS / "mel_stl.yaml")


# -- the figure -------------------------------------------------------------------------------------------------------
def test_the_figure_shows_every_layer(overrides, checkpoints, tmp_path):
    run_probe(settings_of(overrides, sources=str(checkpoints), C="0.1"))
    [(name, scores)] = find_probes(tmp_path / "results")
    style = Style()
    with style.context():
        drawing = draw_probe(name, scores, style)
    assert drawing.name == "probe-csv" and len(drawing.figure.axes) == 2
    for ax, task in zip(drawing.figure.axes, ("emotion", "gender")):
        uar = scores[scores["task"] == task].set_index(["encoder", "layer"])["uar"]
        lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
        assert list(lines) == list(scores["encoder"].unique())
        for label in list(lines)[1:]:
            assert list(lines[label].get_ydata()) == [uar[label, layer] for layer in ("0", "1", "2")]
        assert set(lines["log-mel"].get_ydata()) == {uar["log-mel", CHOSEN]}
    assert probe_notes(scores) == []
    notes = probe_notes(scores.assign(pretrained=[False] * len(scores), synthetic=True))
    assert len(notes) == 2 and "log-mel" in notes[1]


def test_a_probe_of_single_layers_has_no_figure(overrides, tmp_path):
    run_probe(settings_of(overrides, sources="[]", C="0.1"))
    [(name, scores)] = find_probes(tmp_path)
    with pytest.raises(NothingToDraw, match="several layers"):
        draw_probe(name, scores, Style())
