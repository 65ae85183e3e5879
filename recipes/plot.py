"""Draw the figures of a paper and write the report page, from run directories.

    korser plot results --out=figures --venue=interspeech

Writes PDF with embedded fonts, PNG, figures.json with titles and captions, and report.html, a page that needs no other
file and no network.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Draw the figures of the runs in some folders."""
    parser = cli.Parser("plot", __doc__)
    parser.add_argument("folders", nargs="+", metavar="RUNS_FOLDER", help="searched for run directories")
    parser.add_argument("--out", default="figures", metavar="FOLDER", help="default: figures")
    parser.add_argument("--venue", default="ieee", help="whose column a figure fills: ieee, interspeech or springer")
    parser.add_argument("--columns", type=int, default=1, help="2 for figures across the page")
    parser.add_argument("--serif", action="store_true", help="text of figures in a Times-like font")
    parser.add_argument(
        "--metric",
        help="uar, accuracy, macro_f1, qwk, ccc or pearson; default: that of the comparison, or of the main task",
    )
    parser.add_argument("--audio", choices=("true", "false"), default="true", help="false: no speech in report.html")
    options = parser.parse_args(arguments)
    from korser.reporting import write_report
    from korser.reporting.figures import Style, draw_all

    style = Style(options.venue, options.columns, options.serif)
    figures = draw_all(options.folders, options.out, style, metric=options.metric)
    page = write_report(options.folders, options.out, metric=options.metric, audio=options.audio == "true")
    print(f"{len(figures)} figures are in {options.out}; open {page}")


if __name__ == "__main__":
    cli.run(main)
