"""Draw the figures of a paper and write the report page, from run directories.

    python recipes/plot.py RUNS_FOLDER [MORE ...] --out figures/ [--venue=ieee] [--columns=1] [--metric=uar]
        [--audio=false]

venue: ieee, interspeech or springer, whose column a figure fills
columns: 1, or 2 for a figure across the page
metric: uar, accuracy or macro_f1, by which models are compared; if not given that of the comparison there, else uar
audio: false leaves the speech out of report.html, where the corpus must not be passed on

PDF with embedded fonts, PNG, figures.json with titles and captions, and report.html, which needs nothing else and no
network, are written to `out`.
"""

import itertools

from korser import UserError, cli
from korser.config.overrides import parse_overrides, parse_value
from korser.reporting import write_report
from korser.reporting.figures import Style, draw_all
from korser.utils.text import did_you_mean

OPTIONS = {"out": "figures", "venue": "ieee", "columns": 1, "metric": None, "audio": True}


def main(arguments):
    folder, rest = cli.first(arguments, "the folder of the runs")
    more = list(itertools.takewhile(lambda argument: not argument.startswith("--"), rest))
    folders, rest = [folder, *more], rest[len(more) :]
    options = dict(OPTIONS)
    for key, value in parse_overrides(rest).items():
        if key not in OPTIONS:
            raise UserError(f"unknown option --{key}{did_you_mean(key, OPTIONS)}")
        options[key] = parse_value(key, value)
    if not isinstance(options["out"], str):
        raise UserError("say where to: --out=figures/")
    style = Style(options["venue"], options["columns"])
    figures = draw_all(folders, options["out"], style, metric=options["metric"])
    page = write_report(folders, options["out"], metric=options["metric"], audio=options["audio"])
    print(f"{len(figures)} figures are in {options['out']}; open {page}")


if __name__ == "__main__":
    cli.run(main)
