"""Subgroups, speakers and calibration."""

import numpy as np
from made_runs import utterances, write_run

from korser.comparison.compare import compare
from korser.comparison.subgroups import groups_of
from korser.runs.load import load_runs


def test_subgroups(tmp_path):
    table = utterances(n_speakers=7)
    right = (table["speaker"] != "s2").to_numpy() & (np.random.default_rng(0).random(len(table)) < 0.8)
    write_run(tmp_path, "leaf_mtl", table=table, right=right, tasks=("emotion",))
    comparison = compare(load_runs(tmp_path))
    groups = comparison.subgroups.set_index(["attribute", "group"])
    assert list(groups.loc["gender"].index) == ["female", "male"]
    assert groups.loc["age", "n_speakers"].to_dict() == {"<30": 1, "30-39": 1, "40-49": 1, "50+": 4}
    assert groups.loc[("intensity", "1"), "note"].startswith("no neutral")  # classes that the group lacks
    assert groups.loc[("age", "<30"), "note"] == "no interval: 1 speaker, at least 3 are needed"
    male = (table["gender"] == "male").to_numpy()
    assert np.isclose(groups.loc[("gender", "male"), "accuracy"], right[male].mean())
    assert groups.loc[("gender", "male"), "uar_low"] < groups.loc[("gender", "male"), "uar"]
    assert groups.index[groups["worst"]].tolist() == [("speaker", "s2")]
    assert (
        comparison.table.loc[0, "worst_speaker"] == "s2" and comparison.table.loc[0, "worst_speaker_emotion_uar"] == 0
    )


def test_subgroups_are_in_the_order_of_their_classes(tmp_path):
    table = utterances()
    table["intensity"] = table["intensity"].map({"1": "weak", "2": "strong"})
    write_run(tmp_path, "leaf_stl", table=table)
    (model,) = compare(load_runs(tmp_path)).models.values()
    names = [
        group for attribute, group, _ in groups_of(model, {"intensity": ("weak", "strong")}) if attribute == "intensity"
    ]
    assert names == ["weak", "strong"]


def test_ages_that_are_not_numbers_are_not_grouped(tmp_path):
    write_run(tmp_path, "leaf_stl", table=utterances().assign(age=["young", "old"] * 27))
    groups = compare(load_runs(tmp_path)).subgroups
    assert list(groups[groups["attribute"] == "age"]["group"]) == ["old", "young"]


def test_reliability(comparison):
    bins = comparison.calibration[comparison.calibration["model"] == "leaf_stl"]
    assert bins["count"].sum() == 3 * 81 and len(bins) == 15
    filled = bins[bins["count"] > 0]
    assert ((filled["low"] < filled["confidence"]) & (filled["confidence"] <= filled["high"])).all()
    accuracy = comparison.table.set_index("model").loc["leaf_stl", "emotion_accuracy"]
    assert np.isclose((filled["accuracy"] * filled["count"]).sum() / bins["count"].sum(), accuracy)
    assert bins[bins["count"] == 0]["accuracy"].isna().all()
