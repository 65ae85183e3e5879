"""Which runs are read, which belong together, and what is refused."""

import json
import logging

import numpy as np
import pytest
from made_runs import utterances, write_run

from korser.comparison.compare import compare
from korser.runs.directory import headline
from korser.runs.groups import display_names, label_runs, made_by_other_code, studies
from korser.runs.load import load_runs
from korser.runs.pool import pool_runs, require_same_utterances
from korser.utils.errors import UserError


def test_reads_every_complete_run_below(tmp_path, caplog):
    write_run(tmp_path / "a", "mel_stl")
    write_run(tmp_path / "b" / "deep", "mel_mtl", cost=False)
    write_run(tmp_path / "b", "leaf_stl", complete=False)
    with caplog.at_level(logging.WARNING):
        runs = load_runs([tmp_path, tmp_path / "a"])
    assert [run.model for run in runs] == ["mel_stl", "mel_mtl"]  # the first was named twice, and is there once
    assert runs[0].cost["parameters"] == 94_371_712 and runs[1].cost == {}
    assert list(runs[1].tasks) == ["emotion", "gender", "intensity"] and runs[1].tasks["intensity"].kind == "ordinal"
    assert "incomplete runs are left out" in caplog.text and "leaf_stl" in caplog.text
    table = runs[0].predictions()
    assert set(table["intensity"].dropna()) == {"1", "2"}  # text, though the model was not trained on it


def test_links_to_folders_are_followed_once(tmp_path):
    write_run(tmp_path / "runs", "mel_stl")
    write_run(tmp_path / "disk", "leaf_stl")
    for name, target in {"a": "runs", "another_disk": "disk", "round": ".", "in_circles": "runs/../."}.items():
        (tmp_path / "runs" / name).symlink_to(tmp_path / target)
    (tmp_path / "disk" / "back").symlink_to(tmp_path)
    runs = load_runs(tmp_path / "runs")
    assert sorted(run.model for run in runs) == ["leaf_stl", "mel_stl"]
    assert [run.path.parent for run in runs if run.model == "mel_stl"] == [tmp_path / "runs"]


def test_published_folds_are_part_of_the_protocol(tmp_path):
    for fold in (0, 1, 2):
        write_run(tmp_path, "mel_stl", fold=fold, split={"folds": "emobox_ravdess"})
    runs = load_runs(tmp_path)
    (name,) = studies(runs)
    assert name == "made, speaker_kfold (emobox_ravdess)" and runs[0].fold in (0, 1, 2)
    assert headline(runs[0].info)["protocol"] == compare(runs).protocol == "speaker_kfold (emobox_ravdess)"


def test_folds_of_a_manifest_are_told_apart(tmp_path):
    for fold in (0, 1, 2):
        write_run(tmp_path, "mel_stl", fold=fold, protocol="manifest")
    assert pool_runs("mel_stl", load_runs(tmp_path)).folds == [0, 1, 2]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda path: (path / "metrics.json").unlink(), "no complete run below .1 incomplete"),
        (lambda path: (path / "run.json").write_text("{"), "run.json is damaged"),
        (lambda path: (path / "run.json").write_text("{}"), "run.json is damaged .no 'model'."),
        (
            lambda path: (path / "run.json").write_text("null"),
            "run.json is damaged .it holds null, expected a valid dictionary.",
        ),
        (lambda path: (path / "metrics.json").write_text("[1]"), "metrics.json is damaged .it holds .1., expected"),
        (lambda path: (path / "hparams.yaml").write_text("a: ["), "hparams.yaml is not valid YAML"),
        (lambda path: (path / "hparams.yaml").unlink(), "cannot read .*hparams.yaml"),
    ],
)
def test_bad_folders_are_named(tmp_path, spoil, message):
    spoil(write_run(tmp_path, "mel_stl"))
    with pytest.raises(UserError, match=message):
        load_runs(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("run.json", {"seed": "one"}, 'seed="one": expected a valid integer'),
        ("run.json", {"corpus": ["made"]}, r'corpus=["made"]: expected a valid string'),
        ("run.json", {"code": [1]}, "code=[1]: expected a valid dictionary"),
        ("run.json", {"tasks": {"emotion": 1}}, 'tasks={"emotion": 1}: expected a valid list'),
        ("run.json", {"tasks": [{"name": "emotion"}]}, "no 'tasks.0.kind'"),
        ("run.json", {"frozen": [{"stage": "a", "weights": 1}]}, "no 'frozen.0.source'"),
        ("run.json", {"warnings": ["RANDOM SPLIT"]}, 'warnings.0="RANDOM SPLIT": expected'),
        ("run.json", {"environment": {"versions": {"torch": 2.1}}}, "environment.versions.torch=2.1: expected"),
        ("metrics.json", {"best_epoch": "last"}, 'best_epoch="last": expected a valid integer'),
        ("metrics.json", {"test": {"emotion": [0.5]}}, "test.emotion=[0.5]: expected"),
        (
            "metrics.json",
            {"test": {"emotion": {"n": 1, "n_speakers": 1, "classes": [], "uar": {"value": ".5"}}}},
            'test.emotion.uar.value=".5": expected a valid number',
        ),
        ("cost.json", {"train_seconds": "long"}, 'train_seconds="long": expected a valid number'),
        ("cost.json", {"macs_not_counted": "LSTM"}, 'macs_not_counted="LSTM": expected a valid list'),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_file_and_key(tmp_path, name, change, said):
    file = write_run(tmp_path, "mel_stl") / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError) as error:
        load_runs(tmp_path)
    assert str(error.value).startswith(f"{file} is damaged ({said}") and "\n" not in str(error.value)


def test_a_missing_metric_is_named(tmp_path):
    write_run(tmp_path, "mel_stl")
    (run,) = load_runs(tmp_path)
    with pytest.raises(UserError, match=r"metrics.json is damaged .no 'test.emotion.uar'.: delete it and train again"):
        run.result("emotion", "uar")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_runs([tmp_path, tmp_path / "nowhere"])


def test_studies_are_kept_apart(tmp_path):
    write_run(tmp_path, "mel_stl")
    write_run(tmp_path, "mel_stl", corpus="other")
    write_run(tmp_path, "mel_stl", fold=0)
    write_run(tmp_path, "mel_stl", fold=1)
    other = write_run(tmp_path, "leaf_stl", fold=1)
    (other / "hparams.yaml").write_text((other / "hparams.yaml").read_text().replace("n_folds: 3", "n_folds: 5"))
    groups = studies(load_runs(tmp_path))
    assert {name: len(runs) for name, runs in groups.items()} == {
        "made, speaker_holdout": 1,
        "other, speaker_holdout": 1,
        "made, speaker_kfold, n_folds 3": 2,
        "made, speaker_kfold, n_folds 5": 1,
    }


def test_what_differs_beside_seed_and_fold_is_in_the_name(tmp_path):
    write_run(tmp_path / "a", "mel_stl", seed=1)
    write_run(tmp_path / "b", "mel_stl", seed=2)
    write_run(tmp_path, "mel_stl", seed=1, lr=0.01)
    write_run(tmp_path, "leaf_stl", fold=1)
    runs = load_runs(tmp_path)
    labels = {label: len(own) for label, own in label_runs(runs).items()}
    assert labels == {"mel_stl (lr 0.001)": 2, "mel_stl (lr 0.01)": 1, "leaf_stl": 1}  # not opt_class.lr beside it
    for run in runs:
        run.label = f"my {run.model}"
    assert {label: len(own) for label, own in label_runs(runs).items()} == {"my mel_stl": 3, "my leaf_stl": 1}


def test_names_for_display(tmp_path):
    for model, lr in (("mel_stl", 0.001), ("mel_stl", 0.01), ("leaf_stl", 0.001), ("x_stl", 0.001)):
        run = write_run(tmp_path, model, lr=lr)
        if model == "x_stl":
            (run / "hparams.yaml").write_text((run / "hparams.yaml").read_text() + "label: X of its file\n")
    labelled = label_runs(load_runs(tmp_path))
    assert sorted(display_names(labelled).values()) == ["X of its file", *sorted(labelled)[:-1]]
    names = {"mel_stl": "Mel", "mel_stl (lr 0.01)": "Mel, fast", "leaf_stl": "LEAF", "gone": "?"}
    shown = {"mel_stl (lr 0.001)": "Mel (lr 0.001)", "mel_stl (lr 0.01)": "Mel, fast", "leaf_stl": "LEAF"}
    assert display_names(labelled, names) == {**shown, "x_stl": "X of its file"}
    with pytest.raises(UserError, match="leaf_stl and x_stl would both be called 'X of its file'"):
        display_names(labelled, {"leaf_stl": "X of its file"})


def test_a_part_is_named_by_its_class_and_its_arguments_only_where_they_tell_models_apart(tmp_path):
    frontends = ("my.Bands {n: 8}", "korser.Mel {n_mels: 4}", "korser.Mel {n_mels: 8}")
    for seed, frontend in enumerate(frontends):
        path = write_run(tmp_path / str(seed), "mel_stl", seed=seed)
        with open(path / "hparams.yaml", "a", encoding="utf-8") as file:
            file.write(f"frontend: !new:{frontend}\n")
    runs = load_runs(tmp_path)
    assert list(label_runs(runs[:2])) == ["mel_stl (frontend Bands)", "mel_stl (frontend Mel)"]
    assert list(label_runs(runs)) == [
        "mel_stl (frontend my.Bands, frontend.n 8, frontend.n_mels none)",
        "mel_stl (frontend korser.Mel, frontend.n none, frontend.n_mels 4)",
        "mel_stl (frontend korser.Mel, frontend.n none, frontend.n_mels 8)",
    ]


def test_other_code_makes_another_model(tmp_path):
    write_run(tmp_path / "a", "mel_stl")
    write_run(tmp_path / "b", "mel_stl", seed=2, code={"korser.plugins.frontends.made.Made": "fedcba"})
    assert list(label_runs(load_runs(tmp_path))) == [
        "mel_stl (code.korser.plugins.frontends.made.Made 0123456789abcdef)",
        "mel_stl (code.korser.plugins.frontends.made.Made fedcba)",
    ]


def test_code_is_in_the_name_only_where_settings_do_not_tell_models_apart(tmp_path):
    other = {"korser.plugins.frontends.made.Made": "fedcba"}
    write_run(tmp_path / "a", "mel_stl")
    write_run(tmp_path / "b", "mel_stl", lr=0.01, code=other)
    write_run(tmp_path / "b", "leaf_stl", code=other)
    runs = load_runs(tmp_path)
    assert list(label_runs(runs)) == ["mel_stl (lr 0.001)", "leaf_stl", "mel_stl (lr 0.01)"]
    (note,) = made_by_other_code(runs)
    assert note.code == "different_code"
    assert str(note) == "mel_stl: its runs were made with different code of korser.plugins.frontends.made.Made"
    write_run(tmp_path / "c", "mel_stl", lr=0.01)
    assert sum("code." in label for label in label_runs(load_runs(tmp_path))) == 3


def test_other_versions_are_told(tmp_path):
    for seed, (source, torch) in enumerate([("aa", "2.4"), ("aa", "2.4"), ("bb", "2.9")]):
        versions = {"korser": "0.1", "torch": torch, "numpy": "2.0"}
        made = {"versions": versions, "korser_source": source}
        write_run(tmp_path, "mel_stl", seed=seed, environment=made)
        notes = made_by_other_code(load_runs(tmp_path))
        assert notes == [] or seed == 2
    (note,) = notes
    assert note.code == "different_versions"
    assert str(note).startswith("the runs were made with torch 2.4, 2.9; 2 states of korser's code: ")
    assert str(note) in compare(load_runs(tmp_path)).to_markdown().replace("\\", "")


def test_other_threads_devices_and_precisions_are_told(tmp_path):
    for n, (threads, device, precision) in enumerate([(1, "cpu", "fp32"), (1, "cpu", "fp32"), (2, "a GPU", "bf16")]):
        made = {"threads": threads, "device": device}
        settings = write_run(tmp_path / str(n), ("mel_stl", "leaf_stl")[n // 2], environment=made) / "hparams.yaml"
        settings.write_text(f"{settings.read_text()}precision: {precision}\n")
        notes = made_by_other_code(load_runs(tmp_path))
        assert notes == [] or n == 2
    (note,) = made_by_other_code(load_runs(tmp_path))
    assert note.code == "different_arithmetic"
    assert str(note).startswith("the runs were computed with device a GPU, cpu; threads 1, 2; precision bf16, fp32: ")
    assert str(note) in compare(load_runs(tmp_path)).to_markdown().replace("\\", "")


def test_folds_are_pooled_and_seeds_stand_side_by_side(tmp_path):
    for seed in (1, 2):
        for fold in (2, 0, 1):
            write_run(tmp_path, "mel_mtl", seed=seed, fold=fold)
    pooled = pool_runs("mel_mtl", load_runs(tmp_path))
    assert pooled.seeds == [1, 2] and pooled.folds == [0, 1, 2] and not pooled.notes
    assert list(pooled.table["id"]) == sorted(utterances()["id"])
    counts = pooled.counts("emotion")
    assert counts.shape == (2, 6, 3, 3) and (counts.sum(-1) == 3).all()
    table = pooled.tables[2]
    own = table[table["speaker"] == "s3"]
    assert counts[1, 3].trace() == (own["emotion"] == own["emotion_pred"]).sum()
    rows = (pooled.table["gender"] == "male").to_numpy()
    assert np.array_equal(pooled.counts("emotion", rows=rows, seeds=[2]), counts[1:, ::2])
    assert pooled.counts("intensity").sum() == 2 * 36  # neutral has none
    bins = pooled.bins("emotion")
    assert bins.shape[:3] == (2, 6, 3) and bins[:, :, 0].sum() == 2 * 54
    assert np.allclose(bins[:, :, 2].sum(-1), np.trace(counts, axis1=-2, axis2=-1))


def test_a_speaker_without_a_label_is_not_counted(tmp_path):
    table = utterances()
    table.loc[table["speaker"] == "s1", "intensity"] = ""
    write_run(tmp_path, "mel_mtl", table=table)
    pooled = pool_runs("mel_mtl", load_runs(tmp_path))
    assert pooled.counts("intensity").shape == (1, 5, 2, 2)
    assert pooled.speakers_with("intensity", "uar") == ["s0", "s2", "s3", "s4", "s5"]


def test_a_seed_that_lacks_a_fold_is_left_out_and_said(tmp_path):
    for seed, fold in ((1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0), (3, 2)):
        write_run(tmp_path, "mel_stl", seed=seed, fold=fold)
    pooled = pool_runs("mel_stl", load_runs(tmp_path))
    assert pooled.seeds == [1, 2] and len(pooled.runs) == 6
    (note,) = pooled.notes
    assert note.code == "incomplete_seed"
    assert str(note) == "mel_stl: seed 3 is left out: tested on 36 utterances, others on 54"


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    write_run(tmp_path / "a", "mel_stl")
    write_run(tmp_path / "b", "mel_stl")
    pooled = pool_runs("mel_stl", load_runs(tmp_path))
    (note,) = pooled.notes
    assert len(pooled.runs) == 1 and note.code == "repeated_run"
    assert "b/mel_stl-1-None-made-0.001 repeats seed 1" in str(note)


def test_folds_that_share_utterances_are_refused(tmp_path):
    write_run(tmp_path, "mel_stl", fold=0)
    write_run(tmp_path, "mel_stl", fold=1, n_folds=1, right=0.5).joinpath("test.csv").write_bytes(
        (tmp_path / "mel_stl-1-0-made-0.001" / "test.csv").read_bytes()
    )
    with pytest.raises(UserError, match="18 utterances .first: s0_joy_0. are in the test split of more than one"):
        pool_runs("mel_stl", load_runs(tmp_path))


def test_other_labels_are_refused(tmp_path):
    table = utterances()
    write_run(tmp_path, "mel_stl", seed=1)
    write_run(tmp_path, "mel_stl", seed=2, table=table.replace({"emotion": {"joy": "sadness"}}))
    with pytest.raises(UserError, match="seed 1 and seed 2 disagree on the emotion of s0_joy_0 .'joy', 'sadness'."):
        pool_runs("mel_stl", load_runs(tmp_path))


def test_other_utterances_are_named(tmp_path):
    write_run(tmp_path, "mel_stl")
    write_run(tmp_path, "leaf_stl", table=utterances(n_speakers=7))
    write_run(tmp_path, "other_stl", table=utterances().replace({"speaker": {"s1": "s2"}}))
    runs = {run.model: run for run in load_runs(tmp_path)}
    one, other, third = (pool_runs(name, [runs[name]]) for name in ("mel_stl", "leaf_stl", "other_stl"))
    with pytest.raises(
        UserError, match="leaf_stl was tested on 9 utterances that mel_stl was not .s6_joy_0, .* and 6 more"
    ):
        require_same_utterances(one, other)
    with pytest.raises(UserError, match="mel_stl and other_stl disagree on the speaker of s1_joy_0"):
        require_same_utterances(one, third)


def test_unknown_speakers_are_one_group(tmp_path):
    write_run(tmp_path, "mel_stl", table=utterances().assign(speaker=""), protocol="random_stratified")
    pooled = pool_runs("mel_stl", load_runs(tmp_path))
    assert pooled.speakers == [] and pooled.counts("emotion").shape == (1, 1, 3, 3)


def test_a_damaged_manifest_is_named(tmp_path):
    path = write_run(tmp_path, "mel_stl")
    (run,) = load_runs(tmp_path)
    damage = {b"garbage\n": "no column 'id'", b"": "No columns to parse", b"id\n\xe9\n": "'utf-8' codec"}
    for content, reason in damage.items():
        (path / "manifest.csv").write_bytes(content)
        with pytest.raises(UserError, match=f"manifest.csv is damaged .{reason}"):
            _ = run.recordings
