"""The page, from run directories and from the figures that lie beside it (``figures.json``).

Pictures and audio are inside the page, and its own policy forbids it to load anything else.
"""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import PIL.Image
from markupsafe import Markup, escape

from korser.comparison import tables
from korser.data.splits import speaker_independent
from korser.reporting.cells import Table, metric_cell, plain_cell
from korser.reporting.figures.group import gather
from korser.reporting.results import answers, costs, pairs, results, robustness, subgroups
from korser.reporting.settings import details, environments, runs_table, settings_tables
from korser.reporting.wrong import MEGABYTE, WRONG, Clips, most_wrong
from korser.runs.directory import COMPARISON_FILE, SEARCH_FILE
from korser.runs.groups import mark_searched
from korser.runs.load import load_runs
from korser.search.summary import verdict_lines
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_csv, read_json, write_text
from korser.utils.text import shorten

PIXELS = 96  # to the inch, on a screen
ENLARGED = 1.4  # figures are drawn for a printed column; read on a screen they are this much larger


def write_report(folders, out, *, metric=None, audio=True, audio_megabytes=8, n_wrong=WRONG):
    """Write ``report.html``.

    Parameters
    ----------
    folders : str, Path or list of them
        Run directories, or folders above them. Searches below them are shown too; of a comparison there
        (``comparison.json``) its questions are taken, and which settings were searched on speakers who are tested.
    out : str or Path
        Folder to write to. If ``figures.json`` is there, a list of ``{"name", "title", "caption", "png", "pdf"}`` with
        paths relative to the folder, its figures are shown.
    metric : str, optional
        By which models are compared, see :func:`korser.comparison.compare.compare`. That of the comparison if not given,
        ``uar`` without one.
    audio : bool
        Whether to put the audio of the most confidently wrong utterances into the page, where the files are at hand.
        False for a corpus that may not be passed on.
    audio_megabytes : float
        The most audio to put into the page (2**20 bytes, as FLAC).
    n_wrong : int
        How many of each model's most confidently wrong utterances to show.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UserError
        If there is neither a complete run with test predictions nor a search nor a probe, runs contradict each other, or
        a listed figure is missing.
    """
    out = Path(out)
    folders = [Path(f) for f in ([folders] if isinstance(folders, (str, Path)) else folders)]
    searches = [_search(file) for file in find_below(folders, SEARCH_FILE)]
    runs = _tested(folders, searches or find_below(folders, "probe.csv"))
    clips = Clips(audio, audio_megabytes * MEGABYTE)
    asked = [read_json(file) for file in find_below(folders, COMPARISON_FILE)]
    mark_searched(runs, asked)
    found = gather(runs, metric, asked)
    parts = [_study(study.name, study.comparison, folders, clips, n_wrong) for study in found]
    page = _template().render(
        studies=parts,
        searches=searches,
        figures=_figures(out),
        clips=clips,
        n_runs=len(runs),
        n_wrong=n_wrong,
        failed=_failed(runs, asked),
    )
    write_text(out / "report.html", page)
    return out / "report.html"


def _tested(folders, others):
    """Complete runs with test predictions; there may be none of them beside others, searches or probes."""
    try:
        runs = [run for run in load_runs(folders) if run.directory.has_predictions()]
    except UserError:
        if not others:
            raise
        runs = []
    if not runs and not others:
        raise UserError(f"{shorten(folders)}: no run has predictions of the test part: train with evaluate_test: true")
    return runs


def _failed(runs, asked):
    """Runs that a comparison could not make."""
    there = {run.path.name for run in runs}
    planned = [run for comparison in asked for run in comparison["runs"]]
    return [run["run"] for run in planned if run["failed"] and run["run"] not in there]


def _template():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html")


def _breakable(text):
    """Names like ``korser.plugins.frontends.mel`` may be broken into lines after a dot or an underscore."""
    return Markup(re.sub(r"(?<=[^\W\d_])([._])(?=[^\W\d_])", r"\1<wbr>", str(escape(text))))


def _study(name, comparison, folders, clips, n_wrong):
    """What the template needs of one comparison."""
    return SimpleNamespace(
        name=name,
        what=tables.described(comparison),
        warnings=comparison.warnings,
        badges=list(dict.fromkeys(warning.split(":")[0] for warning in comparison.warnings if ":" in warning)),
        answers=answers(comparison),
        family=tables.family(comparison),
        notes=comparison.notes,
        results=results(comparison),
        costs=costs(comparison),
        pairs=pairs(comparison),
        subgroups=subgroups(comparison),
        robustness=robustness(comparison),
        wrong=most_wrong(comparison, clips, n_wrong),
        main=comparison.main,
        settings=settings_tables(comparison),
        environments=environments(comparison),
        runs=runs_table(comparison, folders),
        details=details(comparison, folders),
    )


def _search(file):
    """A search's verdict and its table of trials."""
    about = read_json(file)
    trials = read_csv(file.parent / "trials.csv")
    rows = []
    for trial in trials.to_dict("records"):
        best = trial["run_dir"] == about["run_dir"]
        cells = {c: plain_cell(trial[c]) for c in trials if c not in ("low", "high", "run_dir")}
        reach = {f"valid_uar_{bound}": trial[bound] for bound in ("low", "high")}
        cells["valid_uar"] = metric_cell({"valid_uar": trial["valid_uar"], **reach}, "valid_uar", "best" * best)
        rows.append(list(cells.values()))
    badges = ["SYNTHETIC speech"] * about["synthetic"]
    badges += ["RANDOM SPLIT"] * (not speaker_independent(about["data"]["split"]["protocol"]))
    badges += ["NOT PRETRAINED"] * (about.get("pretrained") is False)
    columns = ["validation UAR" if c == "valid_uar" else c for c in trials if c not in ("low", "high", "run_dir")]
    return SimpleNamespace(
        model=about["model"],
        corpus=about["corpus"],
        badges=badges,
        complete=about["complete"],
        verdict=verdict_lines(about),
        trials=Table(f"All {len(trials)} trials of {about['model']}", columns, rows, folded=True),
    )


def _figures(out):
    """Figures listed beside the page, with their pictures as ``data:`` addresses."""
    if not (out / "figures.json").exists():
        return []
    found = []
    for figure in read_json(out / "figures.json"):
        path = out / figure["png"]
        try:
            data = path.read_bytes()
            with PIL.Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
                dpi = picture.info.get("dpi", (PIXELS, PIXELS))[0]
        except (OSError, PIL.UnidentifiedImageError) as error:
            why = " ".join(str(error).split())
            raise UserError(f"{path}: cannot be read ({why}); draw the figures again") from error
        scale = ENLARGED * PIXELS / dpi
        picture = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        size = {"width": round(width * scale), "height": round(height * scale)}
        found.append(SimpleNamespace(**{**figure, **size, "png": picture}))
    return found
