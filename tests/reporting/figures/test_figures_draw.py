"""Content and readability of every figure, drawn from made-up run directories."""

import json
import logging
import re
import warnings
import zlib
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from figures_made_up import EMOTIONS, write_run, write_search, write_study
from PIL import Image

import korser.reporting.figures.draw as figures
from korser.comparison.tables import interval_over
from korser.reporting.figures import NothingToDraw, Style, draw_all, layers
from korser.reporting.figures.group import gather
from korser.reporting.figures.search import draw_search, find_searches
from korser.reporting.figures.style import DPI, bar_limits, finish, with_hangul
from korser.runs.load import load_runs
from korser.utils.errors import UserError
from korser.utils.files import read_csv, write_csv, write_json
from korser.utils.notes import Note
from korser.utils.text import number

MODELS = ["leaf_stl", "leaf_mtl", "wav2vec_stl", "wav2vec_leaf_mtl"]
LONG = ["wav2vec2_xlsr_300m_layer_mix_leaf_attentive_pooling_mtl", "mel_stl"]
STYLES = [Style("ieee", 1), Style("ieee", 2), Style("interspeech", 1), Style("springer", 1)]


def drawings(folder, style=None, kinds=figures.FIGURES):
    """Return the only group below a folder and all its drawings by name, laid out as they are written."""
    style = style or Style()
    (group,) = gather(load_runs(folder))
    style = with_hangul(style, figures.user_texts(group))
    drawn = {}
    for kind in kinds:
        with style.context():
            try:
                for drawing in kind.draw(group, style):
                    finish(drawing.figure, "; ".join(group.notes(drawing.models)), style)
                    drawn[drawing.name] = drawing
            except NothingToDraw:
                pass
    for search, trials in find_searches(folder):
        with style.context():
            drawing = draw_search(search, trials, style)
            finish(drawing.figure, "", style)
            drawn[drawing.name] = drawing
    return group, drawn


@pytest.fixture(scope="module")
def eight_models(tmp_path_factory):
    """Eight models with two seeds and two folds each, and a search."""
    folder = write_study(tmp_path_factory.mktemp("runs"))
    write_search(folder / "search", "leaf_mtl")
    return folder


@pytest.fixture(scope="module")
def four_models(tmp_path_factory):
    """Group and drawings of four models with two seeds and two folds each, and of a search."""
    folder = write_study(tmp_path_factory.mktemp("runs"), MODELS)
    write_search(folder / "search", "leaf_mtl")
    return drawings(folder)


def overlapping(one, other):
    return one.get_window_extent().padded(-0.5).overlaps(other.get_window_extent().padded(-0.5))


def require_readable(drawing):
    """No text outside the figure; no tick labels, legend or footnote over one another."""
    figure = drawing.figure
    labels, others = [], [text for text in figure.texts if text.get_text()]  # the title of the whole among them
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            ticks = [tick for tick in axis.get_major_ticks() if limits[0] <= tick.get_loc() <= limits[1]]
            shown = [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]
            straight = [label for label in shown if label.get_rotation() % 90 == 0]  # of others the boxes overlap
            for one, other in combinations(straight, 2):
                assert not overlapping(one, other), (drawing.name, one.get_text(), other.get_text())
            labels += [*shown, *([axis.label] if axis.label.get_text() else [])]
        titled = [ax.title] if ax.title.get_text() else []
        texts = [*ax.texts, *titled, *(ax.get_legend().get_texts() if ax.get_legend() else [])]
        for one, other in combinations(titled + [t for t in others if t is figure._suptitle], 2):
            assert not overlapping(one, other), (drawing.name, one.get_text())
        others += [text for text in texts if text.get_text()]
    for legend in figure.legends:
        for text in labels + [text for text in others if text in figure.texts]:
            assert not overlapping(legend, text), (drawing.name, text.get_text())
        others += legend.get_texts()
    for note in figure.texts:
        for label in labels:
            assert not note.get_text() or not overlapping(note, label), (drawing.name, label.get_text())
    for text in labels + others:
        box, canvas = text.get_window_extent(), figure.bbox.padded(1)
        inside = canvas.x0 <= box.x0 and box.x1 <= canvas.x1 and canvas.y0 <= box.y0 and box.y1 <= canvas.y1
        assert inside, (drawing.name, text.get_text(), box, canvas)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES, ids=lambda s: f"{s.venue}{s.columns}")
def test_eight_models_are_readable(eight_models, style):
    for drawing in drawings(eight_models, style)[1].values():
        require_readable(drawing)


@pytest.mark.parametrize(
    "style, models, classes",
    [
        pytest.param(Style("interspeech", 1), LONG, EMOTIONS, id="long"),
        pytest.param(Style("ieee", 2), LONG, EMOTIONS, id="long-two-columns", marks=pytest.mark.slow),
        pytest.param(Style("interspeech", 1), ["leaf_mtl"], EMOTIONS[:2], id="one", marks=pytest.mark.slow),
    ],
)
def test_long_names_notes_and_many_classes_are_readable(tmp_path, style, models, classes):
    write_study(tmp_path, models, seeds=1, folds=1, classes=classes, synthetic=True, pretrained=False)
    _, drawn = drawings(tmp_path, style)
    for drawing in drawn.values():
        require_readable(drawing)


def test_everything_is_drawn(four_models):
    _, drawn = four_models
    assert set(drawn) == {
        *(
            "losses",
            "results-emotion",
            "results-gender",
            "results-intensity",
            "ablation",
            "layers",
            "cost",
            "subgroups",
        ),
        *("speakers", "calibration", "robustness", "search-leaf_mtl"),
        *(f"confusion-emotion-{name}" for name in MODELS),
        *(f"confusion-{task}" for task in ("emotion", "gender", "intensity")),
        *(f"parameters-leaf-{name}" for name in MODELS if "leaf" in name),
        *(f"embeddings-{name}" for name in MODELS),
    }


def test_an_interval_from_zero_is_drawn(tmp_path):
    write_run(tmp_path, "mel_stl")
    (group,) = gather(load_runs(tmp_path))
    table = group.comparison.subgroups
    table[["uar", "uar_low", "uar_high"]] = [0.3, 0.0, 0.7]
    (drawing, *_) = figures.subgroups.draw(group, Style())
    for ax in drawing.figure.axes:
        assert len(ax.containers) >= 2 * len(ax.patches) > 0  # a bar and its whisker
        assert all(0 <= patch.get_x() + patch.get_width() <= len(ax.get_xticks()) for patch in ax.patches)


def test_captions_state_what_intervals_are_over(tmp_path):
    for model, seeds in {"mel_stl": (0, 1), "leaf_stl": (0,)}.items():
        for seed in seeds:
            write_run(tmp_path, model, seed=seed)
    kinds = {"results-emotion": figures.results, "subgroups": figures.subgroups, "robustness": figures.robustness}
    _, drawn = drawings(tmp_path, kinds=[*kinds.values(), figures.ablation])
    for name in kinds:
        assert f"95 % confidence interval {interval_over([2, 1])}" in drawn[name].caption
    assert f"95 % confidence interval {interval_over([1])};" in drawn["ablation"].caption  # the seed that both have


def test_utterances_without_a_label_are_not_counted(tmp_path):
    for seed in (1, 2):
        path = write_run(tmp_path, "mel_stl", seed=seed) / "test.csv"
        table = read_csv(path)
        table.loc[:9, "emotion"] = None
        write_csv(path, table)
    _, drawn = drawings(tmp_path, kinds=[figures.confusion])
    assert "(86 labelled test utterances)" in drawn["confusion-emotion-mel_stl"].caption


def test_captions_name_the_classes_that_a_group_lacks(tmp_path):
    path = write_run(tmp_path, "mel_stl") / "test.csv"
    table = read_csv(path, ["intensity"])
    joy = table["emotion"] == "joy"
    lacking = joy & (table["intensity"] == "2") | (table["emotion"] == "anger") & (table["speaker"] == "s3")
    write_csv(path, table[~lacking])
    _, drawn = drawings(tmp_path, kinds=[figures.subgroups])
    text = "UAR is the mean over the classes present in a group"
    assert f"{text} (intensity 2: no joy)." in drawn["subgroups"].caption
    assert drawn["speakers"].caption.endswith(f"{text} (speaker s3: no anger).")
    (group,) = gather(load_runs(tmp_path), "accuracy")
    assert text not in next(figures.subgroups.draw(group, Style())).caption


def test_models_are_compared_by_the_metric_of_their_comparison(tmp_path, caplog, monkeypatch):
    def made(name, metric, run):
        settings = {"metric": metric, "questions": None}
        runs = [{"run": run.name, "searched_on_tested_speakers": [], "failed": None}]
        about = {"settings": settings, "runs": runs, "corpus": "made-up", "protocol": "speaker_kfold"}
        write_json(tmp_path / name / "comparison.json", about)
        return about

    monkeypatch.setattr(figures, "FIGURES", (figures.subgroups,))
    run = write_run(tmp_path / "runs", "mel_stl")
    one = made("a", "macro_f1", run)
    assert draw_all(tmp_path, tmp_path / "out")[0].caption.startswith("Emotion macro-F1")
    assert draw_all(tmp_path, tmp_path / "out", metric="uar")[0].caption.startswith("Emotion UAR")
    assert not caplog.records
    runs = load_runs(tmp_path)
    other = {**one, "settings": {**one["settings"], "metric": "accuracy"}, "runs": [{"run": "another"}]}
    assert gather(runs, made=[other, one])[0].metric == "macro_f1"  # that of its own runs
    assert gather(runs, made=[other])[0].metric == "accuracy"  # of runs that lie elsewhere
    assert gather(runs, made=[{**other, "corpus": "another"}])[0].metric == "uar"
    other["runs"] = one["runs"]
    assert gather(runs, made=[one, other])[0].metric == "uar"
    assert "different metrics (accuracy, macro_f1)" in caplog.text


def test_seeds_are_not_mistaken_for_epochs(tmp_path):
    for seed in (1, 2):  # which are epochs too
        write_run(tmp_path, "mel_stl", seed=seed)
    (group,) = gather(load_runs(tmp_path))
    table = figures.losses.curves(group.models["mel_stl"], "train_emotion_loss")
    assert table.index.tolist() == [1, 2, 3, 4, 5] and table.columns.tolist() == [1, 2]


def test_a_single_epoch_has_one_tick_and_results_of_nothing_but_0_have_an_axis(tmp_path, recwarn):
    path = write_run(tmp_path, "mel_stl", right=0.0)
    log = read_csv(path / "log.csv")
    write_csv(path / "log.csv", log[:1])
    _, drawn = drawings(tmp_path, kinds=(figures.losses, figures.results))
    ax = drawn["losses"].figure.axes[0]
    shown = [tick for tick in ax.get_xticks() if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]]
    assert shown == [1]
    assert bar_limits([0.0, np.nan]) == (0, 1) and bar_limits([-1.0, 0.0]) == (-1.05, 0)
    assert not [str(warning.message) for warning in recwarn if "identical" in str(warning.message)]


def test_losses_are_means_over_folds_and_seeds_with_a_band(four_models):
    group, drawn = four_models
    train, valid = drawn["losses"].figure.axes
    assert [ax.get_title() for ax in (train, valid)] == ["training", "validation"]
    assert train.get_ylabel() == "emotion loss" and valid.get_xlabel() == "epoch"
    for ax, part in ((train, "train"), (valid, "valid")):
        for label, model in group.models.items():
            (line,) = [line for line in ax.lines if line.get_label() == label]
            logs = [
                np.genfromtxt(run.path / "log.csv", delimiter=",", names=True, encoding="utf-8-sig")
                for run in model.runs
            ]
            np.testing.assert_allclose(line.get_ydata(), np.mean([log[f"{part}_emotion_loss"] for log in logs], 0))
        assert len(ax.collections) == len(MODELS)  # bands


def test_results_bars_are_the_metrics_with_one_point_per_seed(four_models):
    group, drawn = four_models
    for ax, metric in zip(drawn["results-emotion"].figure.axes, ("accuracy", "uar")):
        bars = [patch.get_width() for patch in ax.patches]
        np.testing.assert_allclose(bars, group.comparison.table[f"emotion_{metric}"].astype(float))
        points = [c.get_offsets() for c in ax.collections if len(c.get_offsets()) == 2]
        assert len(points) == len(MODELS)  # two seeds each
        np.testing.assert_allclose([p[:, 0].mean() for p in points], bars)
        assert ax.get_xlabel() == f"emotion {'UAR' if metric == 'uar' else 'accuracy'}"
        intervals = [bars[0].get_segments()[0][0, 1] for _, _, bars in ax.containers[1::2]]
        for i, (interval, own) in enumerate(zip(intervals, points)):  # beside the interval
            assert interval < i - 0.1 and (own[:, 1] > i + 0.1).all()
    names = [label.get_text().replace("\n", "") for label in drawn["results-emotion"].figure.axes[0].get_yticklabels()]
    assert names == list(group.models)


def test_chance_levels_are_drawn_where_the_caption_names_them(tmp_path):
    for seed in (1, 2):
        run = write_run(tmp_path, "mel_mtl", seed=seed)
        for path in (run / "test.csv", *(run / "robustness").glob("*.csv")):
            table = read_csv(path, ["intensity"])
            write_csv(path, table[(table["emotion"] != "joy") | (table["intensity"] == "1")])  # half of joy
    group, drawn = drawings(tmp_path, kinds=[figures.results, figures.subgroups, figures.robustness])
    accuracy, uar = (ax.lines[-1].get_xdata()[0] for ax in drawn["results-emotion"].figure.axes)
    np.testing.assert_allclose([accuracy, uar], [2 / 7, 1 / 4])
    assert "Dotted: chance level (of accuracy: always the most frequent class)." in drawn["results-emotion"].caption
    (kappa,) = drawn["results-intensity"].figure.axes
    assert kappa.lines[-1].get_xdata()[0] == 0 and drawn["results-intensity"].caption.endswith(" Dotted: chance level.")
    dotted = [line for ax in drawn["robustness"].figure.axes for line in ax.lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in dotted] == [0.25, 0.25] and "Dotted" in drawn["robustness"].caption
    assert "Dotted" not in drawn["subgroups"].caption  # joy is missing in a group, which has another level
    (group,) = gather(load_runs(tmp_path), "macro_f1")
    drawing, *_ = figures.robustness.draw(group, Style())
    assert "Dotted" not in drawing.caption


def test_axes_follow_the_data_and_write_numbers_as_tables_do(four_models):
    group, drawn = four_models
    table = group.comparison.table
    for ax, metric in zip(drawn["results-emotion"].figure.axes, ("accuracy", "uar")):
        highest = table[f"emotion_{metric}_high"].astype(float).max()
        low, high = ax.get_xlim()
        assert low == 0 and highest < high < 1.3 * highest
    for name, drawing in drawn.items():
        for ax in drawing.figure.axes if not name.startswith("search") else ():  # settings are as they are written
            texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts]
            assert not [text.get_text() for text in texts if re.match(r"[-+\u2212]?0\.\d", text.get_text())]


def test_models_of_the_same_size_stand_side_by_side():
    moved = figures.cost._side_by_side(pd.Series([3e6, 3e6, 1e5, 3.05e6]))
    assert np.diff(sorted(moved[[0, 1, 3]])).min() > 1e5 and moved[0] < moved[1] < moved[3]
    np.testing.assert_allclose(moved[2], 1e5)


def test_one_panel_of_robustness_has_no_title_and_clean_audio_has_an_interval(tmp_path):
    run = write_run(tmp_path, "mel_stl")
    path = run / "robustness" / "conditions.json"
    write_json(path, [entry for entry in json.loads(path.read_text()) if entry["name"] == "telephone"])
    group, drawn = drawings(tmp_path, kinds=[figures.robustness])
    (ax,) = drawn["robustness"].figure.axes
    assert ax.get_title() == "" and [t.get_text() for t in ax.get_xticklabels()] == ["clean", "telephone"]
    clean = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose(clean, group.comparison.table[["emotion_uar_low", "emotion_uar_high"]].to_numpy()[0])


def test_names_are_shown_in_figures_whose_files_keep_the_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", (figures.confusion, figures.losses))
    for model in ("leaf_stl", "mel_stl"):
        run = write_run(tmp_path / "runs", model)
    settings = {"settings": {"metric": None, "questions": None}, "runs": [{"run": run.name}]}
    names = {"mel_stl": "Mel (single-task)", "leaf_stl": "LEAF \u2192 x"}
    runs = [{"run": run.name, "searched_on_tested_speakers": [], "failed": None}]
    write_json(tmp_path / "runs" / "comparison.json", {**settings, "runs": runs, "names": names})
    made = draw_all(tmp_path / "runs", tmp_path / "out")
    assert [f.name for f in made] == [
        "confusion-emotion",
        "confusion-emotion-mel_stl",
        "confusion-emotion-leaf_stl",
        "losses",
    ]
    assert made[1].title == "Mel (single-task): emotion" and "of LEAF \u2192 x," in made[2].caption
    (group,) = gather(load_runs(tmp_path), made=[{**settings, "runs": runs, "names": names}])
    assert list(group.models) == list(names.values())  # in the order of the comparison


def test_ablation_shows_the_planned_differences(four_models):
    group, drawn = four_models
    (ax,) = drawn["ablation"].figure.axes
    drawn_at = [container.lines[0].get_xdata()[0] for container in ax.containers]
    np.testing.assert_allclose(drawn_at, group.comparison.planned["difference"].astype(float))
    assert len(drawn_at) == 2  # one frontend, one head


def test_ablation_says_why_an_interval_without_0_is_not_significant(four_models, monkeypatch):
    group, _ = four_models
    planned = group.comparison.planned
    reasons = [Note("after_correction", "not significant after correction"), None]
    monkeypatch.setattr(group.comparison, "planned", planned.assign(reason=reasons))
    style = Style()
    with style.context():
        (drawing,) = figures.ablation.draw(group, style)
    a, b = planned.loc[0, ["model_a", "model_b"]]
    assert drawing.caption.endswith(f" {a} \u2212 {b}: not significant after correction.")


def test_confusion_matrix_shows_percentages_and_counts(four_models):
    group, drawn = four_models
    counts = group.models["leaf_mtl"].counts("emotion").sum((0, 1))
    (ax,) = drawn["confusion-emotion-leaf_mtl"].figure.axes
    np.testing.assert_allclose(ax.collections[0].get_array(), 100 * counts / counts.sum(1, keepdims=True))
    texts = [text.get_text() for text in ax.texts]
    assert texts == [f"{100 * c / row.sum():.0f}\n({c})" for row in counts for c in row]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    assert abs(ax.get_tightbbox().x0 + ax.get_tightbbox().x1 - ax.figure.bbox.width) < 0.05 * ax.figure.bbox.width


def test_confusion_matrices_of_all_models_are_one_figure(four_models):
    group, drawn = four_models
    mtl = {label: model for label, model in group.models.items() if "mtl" in label}
    axes = drawn["confusion-intensity"].figure.axes
    assert [ax.get_title().replace("\n", "") for ax in axes] == list(mtl)
    for ax, model in zip(axes, mtl.values()):
        counts = model.counts("intensity").sum((0, 1))
        percent = 100 * counts / counts.sum(1, keepdims=True)
        np.testing.assert_allclose(ax.collections[0].get_array(), percent)
        assert [text.get_text() for text in ax.texts] == [f"{p:.0f}" for p in percent.ravel()]
    shown = [[t.get_text() for t in ax.get_yticklabels() if t.get_visible()] for ax in axes]
    assert shown == [["1", "2"], []] and [ax.get_ylabel() for ax in axes] == ["true", ""]


def test_search_shows_the_maximum_over_other_settings_and_frames_the_best(tmp_path):
    trials = write_search(tmp_path, "mel_stl").query("state == 'complete'")
    ((search, table),) = find_searches(tmp_path)
    style = Style()
    with style.context():
        drawing = draw_search(search, table, style)
    ax = drawing.figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("batch_size", "lr")
    expected = trials.groupby(["lr", "batch_size"])["valid_uar"].max().unstack()
    np.testing.assert_allclose(ax.collections[0].get_array(), expected)
    assert "maximum over the other settings" in drawing.figure._suptitle.get_text().replace("\n", " ")
    (frame,) = ax.patches
    best = list(expected.columns).index(search["best"]["batch_size"]), list(expected.index).index(search["best"]["lr"])
    assert frame.get_xy() == best


def test_parameters_show_initial_and_trained_values(four_models):
    group, drawn = four_models
    *panels, moved = drawn["parameters-leaf-leaf_stl"].figure.axes
    assert panels[0].get_title() == "centre frequency (Hz)" and len(panels) == 7
    values = group.parameters["leaf_stl"]["Leaf", "centre frequency"]
    lines = {line.get_label(): line.get_ydata() for line in panels[0].lines}
    np.testing.assert_allclose(lines["initial"], values.initial[0])
    np.testing.assert_allclose(lines["trained"], values.trained.mean(0))
    bars = dict(zip((t.get_text() for t in moved.get_yticklabels()), (p.get_width() for p in moved.patches)))
    assert bars["centre frequency"] < 2 and bars["PCEN alpha"] > 10  # %


def test_layer_weights_of_several_branches_are_separate_lines(four_models):
    group, _ = four_models
    values = group.parameters["wav2vec_stl"]["LayerMix", "layer weight"]
    branches = {(name, "layer weight"): values for name in ("LayerMix 1", "LayerMix 2")}
    several = SimpleNamespace(parameters={"wav2vec_stl": branches}, model_style=group.model_style)
    (drawing,) = layers.draw(several, Style())
    lines = [line.get_label() for line in drawing.figure.axes[0].lines if not line.get_label().startswith("_")]
    assert lines == ["wav2vec_stl, LayerMix 1", "wav2vec_stl, LayerMix 2"]


def test_layers_cost_subgroups_and_robustness_show_the_tables(four_models):
    group, drawn = four_models
    table = group.comparison.table.set_index("model")
    lines = {line.get_label(): line for line in drawn["layers"].figure.axes[0].lines}
    assert {name for name in MODELS if "wav2vec" in name} <= set(lines)
    np.testing.assert_allclose(lines["wav2vec_stl"].get_ydata().sum(), 1)

    for ax, name in zip(drawn["cost"].figure.axes, ("parameters", "macs_per_second")):
        marks = {c.get_label(): c.lines[0].get_xydata()[0] for c in ax.containers}
        for label in MODELS:
            np.testing.assert_allclose(marks[label][1], table["emotion_uar"][label])
            assert abs(np.log10(marks[label][0] / table[name][label])) < 0.05  # moved by less than its marker
        assert ax.get_xscale() == "log"

    gender = drawn["subgroups"].figure.axes[0]
    groups = group.comparison.subgroups.query("attribute == 'gender'")
    bars = [p.get_height() for p in gender.patches]
    np.testing.assert_allclose(bars, groups["uar"].astype(float))
    assert [t.get_text() for t in gender.get_xticklabels()] == ["female", "male"]

    noise, others = drawn["robustness"].figure.axes
    assert [t.get_text() for t in noise.get_xticklabels()] == ["0", "10", "clean"]
    assert noise.get_xlabel() == "dB SNR" and noise.get_title() == "pink noise"
    assert [t.get_text().replace("\n", " ") for t in others.get_xticklabels()] == [
        "clean",
        "telephone",
        "MP3 32 kbit/s",
    ]

    worst = group.comparison.subgroups.query("worst")["group"].tolist()
    assert [text.get_text() for text in drawn["speakers"].figure.axes[0].texts] == worst


def test_reliability_diagram_bars_are_accuracies(four_models):
    group, drawn = four_models
    ax = drawn["calibration"].figure.axes[0]
    first = group.comparison.calibration["model"] == next(iter(group.models))
    own = group.comparison.calibration[first].query("count > 0")
    np.testing.assert_allclose([p.get_height() for p in ax.patches], own["accuracy"])
    ece = group.comparison.table["emotion_ece"].iloc[0]
    assert ax.texts[0].get_text() == f"ECE {number(ece)}"


def test_embeddings_show_each_utterance_in_each_panel(four_models):
    group, drawn = four_models
    axes = drawn["embeddings-leaf_stl"].figure.axes
    assert [ax.get_title() for ax in axes] == ["emotion", "gender", "intensity"]
    n = len(group.models["leaf_stl"].runs[0].predictions())
    assert [sum(len(c.get_offsets()) for c in ax.collections) for ax in axes] == [n] * 3
    assert axes[0].figure.get_figheight() < 2.5 and len({ax.get_position().y0 for ax in axes}) == 1  # one row


def fonts_of(pdf):
    """Subtypes of the fonts in a PDF whose object streams are compressed or not."""
    data = pdf.read_bytes()
    parts = [data]
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", data, re.DOTALL):
        try:
            parts.append(zlib.decompress(match.group(1)))
        except zlib.error:
            continue
    everything = b"".join(parts)
    return everything, {kind for kind in (b"/Type3", b"/CIDFontType2", b"/TrueType") if kind in everything}


def test_files_have_the_width_of_the_venue_embedded_fonts_and_an_index(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(figures, "FIGURES", (figures.losses, figures.confusion, figures.layers, figures.subgroups))
    write_study(tmp_path / "runs", ["mel_stl", "leaf_stl"], seeds=1, folds=1, synthetic=True)
    made = draw_all(tmp_path / "runs", tmp_path / "out", Style("interspeech", 1))
    index = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in index] == [figure.name for figure in made]
    for figure in made:
        assert set(index[0]) == {"name", "title", "caption", "png", "pdf"}
        assert "SYNTHETIC" in figure.caption
        with Image.open(tmp_path / "out" / figure.png) as image:
            assert abs(image.width - 80 / 25.4 * DPI) <= 1
        text, fonts = fonts_of(tmp_path / "out" / figure.pdf)
        assert fonts & {b"/CIDFontType2", b"/TrueType"} and b"/Type3" not in fonts
        assert b"/FontFile2" in text  # the outlines are inside
        width = float(re.search(rb"/MediaBox \[\s*0 0 ([\d.]+)", text).group(1))
        assert abs(width - 80 / 25.4 * 72) < 0.1
    said = [record.getMessage() for record in caplog.records]
    for name in ("layers", "search"):
        assert sum(text.startswith(f"{name}: not drawn") for text in said) == 1


def test_notes_are_in_the_figure(tmp_path):
    write_run(
        tmp_path, "mel_stl", synthetic=True, pretrained=False, speaker_independent=False, protocol="random_stratified"
    )
    _, drawn = drawings(tmp_path, kinds=[figures.losses])
    text = " ".join(t.get_text() for t in drawn["losses"].figure.texts).replace("\n", " ")
    for caveat in ("SYNTHETIC", "RANDOM SPLIT", "NOT PRETRAINED"):
        assert caveat in text


def test_hangul_labels_use_a_font_with_hangul(tmp_path):
    if not with_hangul(Style(), ["기쁨"]).fonts:
        pytest.skip("no font with Hangul is installed (apt-get install fonts-nanum)")
    write_run(tmp_path / "runs", "mel_stl", classes=["기쁨", "슬픔", "중립", "분노"])
    with pytest.MonkeyPatch.context() as patch, logging_of("matplotlib.font_manager") as said:
        patch.setattr(figures, "FIGURES", (figures.confusion,))
        draw_all(tmp_path / "runs", tmp_path / "out")
    assert not [text for text in said if "Glyph" in text or "not found" in text]
    (pdf,) = (tmp_path / "out").glob("*.pdf")
    text, fonts = fonts_of(pdf)
    assert b"/Type3" not in fonts and len(set(re.findall(rb"/BaseFont /([\w+-]+)", text))) >= 2


class logging_of(logging.Handler):
    """The messages of a logger, and matplotlib's warnings of missing glyphs, as a list."""

    def __init__(self, name):
        super().__init__()
        self.logger, self.said = logging.getLogger(name), []

    def emit(self, record):
        self.said.append(record.getMessage())

    def __enter__(self):
        self.logger.addHandler(self)
        return self.said

    def __exit__(self, *_):
        self.logger.removeHandler(self)


def test_without_a_hangul_font_one_warning_names_a_package(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("korser.reporting.figures.fonts.HANGUL_FONTS", ("no such font",))
    monkeypatch.setattr(figures, "FIGURES", (figures.results, figures.confusion))
    write_run(tmp_path / "runs", "mel_stl", classes=["기쁨", "슬픔"])
    with warnings.catch_warnings(record=True) as shown:
        assert draw_all(tmp_path / "runs", tmp_path / "out")
    assert not [warning for warning in shown if "Glyph" in str(warning.message)]
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len([line for line in lines if "fonts-nanum" in line]) == 1


def test_a_search_without_runs_is_drawn_and_an_empty_folder_is_an_error(tmp_path):
    data = {"data_folder": "data/made-up", "split": {"protocol": "random_stratified"}}
    write_search(tmp_path / "search", "mel_stl", {"lr": [0.001, 0.01, 0.1]}, data=data)
    (figure,) = draw_all(tmp_path, tmp_path / "out")
    assert figure.name == "search-mel_stl" and "RANDOM SPLIT" in figure.caption
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no complete run"):
        draw_all(tmp_path / "empty", tmp_path / "out")


def test_two_corpora_give_separate_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", (figures.losses,))
    write_run(tmp_path / "a", "mel_stl")
    write_run(tmp_path / "b", "mel_stl", corpus="another")
    one, two = draw_all(tmp_path, tmp_path / "out")
    assert (one.name, two.name) == ("1-losses", "2-losses")
    assert one.title.startswith("made-up") and two.title.startswith("another")
