"""Colours that are distinguishable in grey and by colour-blind readers, widths, options of the recipe."""

import importlib.util
import re
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from figures_made_up import write_run
from matplotlib import font_manager
from matplotlib.colors import to_rgb

import korser.reporting.figures.draw as figures
from korser.reporting.figures import fonts as module
from korser.reporting.figures.style import (
    COLOURS,
    Style,
    finish,
    model_style,
    new_figure,
    save_figure,
    with_hangul,
    wrap,
)
from korser.utils.errors import UserError

# Machado, Oliveira and Fernandes 2009, severity 1.0, for linear RGB.
MACHADO = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65


def lab(linear):
    """CIE L*a*b* of linear RGB."""
    xyz = TO_XYZ @ linear / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def test_neighbours_differ_in_grey():
    lightness = [lab(linear(colour))[0] for colour in COLOURS]
    assert np.abs(np.diff(lightness)).min() > 16
    assert min(abs(a - b) for a, b in combinations(lightness[:4], 2)) > 11  # up to four models: by lightness alone


@pytest.mark.parametrize("kind", MACHADO)
def test_colours_differ_for_colour_blind_readers(kind):
    seen = [lab(np.clip(np.array(MACHADO[kind]) @ linear(colour), 0, 1)) for colour in COLOURS]
    distances = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(range(len(COLOURS)), 2)}
    assert min(distances.values()) > 10  # about 2.3 can just be seen
    assert min(distances[i, i + 1] for i in range(len(COLOURS) - 1)) > 15
    red, green = (lab(np.clip(np.array(MACHADO[kind]) @ linear(c), 0, 1)) for c in ("#cc4444", "#557f00"))
    assert (
        abs(red[1] - green[1]) < abs(lab(linear("#cc4444"))[1] - lab(linear("#557f00"))[1]) / 4
    )  # red and green are not distinguishable


def test_models_differ_in_more_than_colour():
    looks = [model_style(i) for i in range(16)]
    assert len({(one.colour, one.marker) for one in looks}) == 16
    for what in ("marker", "hatch", "line"):
        assert len({str(getattr(one, what)) for one in looks[:8]}) == 8, what


@pytest.mark.parametrize(
    "venue, columns, inches",
    [("ieee", 1, 3.5), ("ieee", 2, 7.16), ("interspeech", 1, 3.15), ("interspeech", 2, 6.69), ("springer", 1, 4.80)],
)
def test_widths(venue, columns, inches):
    assert Style(venue, columns).width == pytest.approx(inches, abs=0.005)


def test_wrap_keeps_every_character():
    for text in ("wav2vec_leaf_mtl", "a b c", "x" * 50, "mel_stl (frontend.n_mels 80, lr 0.001)"):
        lines = wrap(text, 12).split("\n")
        assert max(map(len, lines)) <= 13
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.fixture
def plot():
    path = Path(__file__).parents[3] / "recipes" / "plot.py"
    spec = importlib.util.spec_from_file_location("plot_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recipe_draws(plot, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FIGURES", (figures.results,))
    write_run(tmp_path / "runs", "mel_stl")
    plot.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--venue=springer"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "results-emotion.pdf",
        "results-emotion.png",
        "figures.json",
        "report.html",
    }
    assert capsys.readouterr().out.startswith("1 figures are in ")


def test_recipe_draws_runs_of_several_folders_and_linked_ones(plot, tmp_path, monkeypatch):
    seen = []
    kind = SimpleNamespace(__name__="kind", draw=lambda study, style: seen.extend(study.models) or [])
    monkeypatch.setattr(figures, "FIGURES", (kind,))
    write_run(tmp_path / "one", "mel_stl")
    write_run(tmp_path / "disk", "leaf_stl")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "linked").symlink_to(tmp_path / "disk")
    folders = [str(tmp_path / name) for name in ("one", "two")]
    plot.main([*folders, "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert sorted(seen) == ["leaf_stl", "mel_stl"] and all(model in page for model in seen)
    with pytest.raises(UserError, match="three is not a folder"):
        plot.main([*folders, str(tmp_path / "three"), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    "option, said",
    [
        ("--venue=ieeee", "did you mean 'ieee'"),
        ("--columns=3", "columns"),
        ("--venu=ieee", "did you mean '--venue'"),
        ("--metric=f1", "macro_f1"),
    ],
)
def test_recipe_refuses_wrong_options(plot, tmp_path, option, said):
    write_run(tmp_path / "runs", "mel_stl")
    with pytest.raises(UserError, match=said):
        plot.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), option])


def test_a_serif_font_is_that_of_the_whole_figure(tmp_path):
    style = Style(serif=True, fonts=("NanumGothic",))
    with style.context():
        assert matplotlib.rcParams["font.family"] == ["STIXGeneral", "NanumGothic"]
        figure = new_figure(style, 1.0)
        figure.subplots().set(xscale="log", xlabel="\u2212.5 \u2192", xlim=(1, 1e6))
        save_figure(figure, tmp_path / "serif", style)
    fonts = re.findall(rb"/BaseFont /[A-Z]+\+(\w+)", (tmp_path / "serif.pdf").read_bytes())
    assert fonts and all(name.startswith(b"STIX") for name in fonts)


def test_springer_has_one_column():
    with pytest.raises(UserError, match="columns=2: expected 1 for the venue springer"):
        Style("springer", 2)


def test_a_dollar_in_a_name_is_a_dollar_and_logarithmic_ticks_have_exponents(tmp_path):
    style, name = Style(), "$1 \\frac a $2 {x}_y"  # no mathematics
    with style.context():
        figure = new_figure(style, 2)
        ax = figure.subplots()
        ax.plot([1e-4, 1], [0, 1], label=name)
        ax.set(xscale="log", title=name, xlabel=name)
        finish(figure, name, style)
    save_figure(figure, tmp_path / "figure", style)
    assert not ax.title.get_parse_math() and not ax.xaxis.label.get_parse_math()
    shown = [label for label in ax.get_xticklabels() if label.get_text()]
    assert shown and all(label.get_parse_math() for label in shown)


def test_fonts_that_matplotlib_has_not_listed_are_found(monkeypatch):
    fonts = font_manager.fontManager.ttflist
    listed = [font for font in fonts if font.name not in module.HANGUL_FONTS]
    if "NanumGothic" not in [Path(path).stem for path in font_manager.findSystemFonts()]:
        pytest.skip("NanumGothic is not installed (apt-get install fonts-nanum)")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    monkeypatch.setattr(module, "_list_new_fonts", module._list_new_fonts.__wrapped__)
    assert with_hangul(Style(), ["joy"]).fonts == ()
    assert with_hangul(Style(), ["기쁨"]).fonts == ("NanumGothic",)
