"""Explain what in a recording speaks for a class, or what the models of some runs listen to.

    korser explain RUN_DIR recording.wav folder_with_recordings/ [--task=emotion] [--label=joy]
    korser explain RUNS_FOLDER

With recordings, writes a figure (PNG, PDF) and tables (CSV, JSON) of each to the folder --out. Without, explains test
utterances of every run below the folder, which `korser plot` then draws: over frequency for each class, the filters of
LEAF, and the most confidently wrong utterances in the report.
"""

import argparse

from korser import cli


def main(arguments: list[str]) -> None:
    """Write explanations and print where they are."""
    parser = cli.Parser("explain", __doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="directory of a complete run, or a folder of runs")
    parser.add_argument("files", nargs="*", metavar="FILE", help="audio files, or folders of them")
    parser.add_argument("--steps", type=int, default=32, help="points at which gradients are computed; default: 32")
    group = parser.add_argument_group("with recordings")
    group.add_argument("--task", metavar="NAME", help="default: the main task")
    group.add_argument("--label", metavar="CLASS", help="default: the class that is predicted")
    group.add_argument("--out", metavar="FOLDER", help="default: explanations")
    parser.add_argument(
        "--per_class", type=int, metavar="N", help="without recordings: utterances of each class; default: 10"
    )
    parser.add_trust_option()
    options = parser.parse_args(arguments)
    wrong = ("per_class",) if options.files else ("task", "label", "out")
    given = [f"--{name}" for name in wrong if getattr(options, name) is not None]
    if given:
        parser.error(f"{given[0]} is for explanations {'without' if options.files else 'with'} recordings")
    if options.per_class is not None and options.per_class < 1:
        parser.error(f"--per_class={options.per_class}: expected at least 1")
    _explain_files(options) if options.files else _explain_runs(options)


def _explain_files(options: argparse.Namespace) -> None:
    from korser.inference.load import load_trained_model
    from korser.reporting.explanations import write_explanations

    trained = load_trained_model(options.run_dir, trust=options.trust)
    what = {"task": options.task, "label": options.label, "steps": options.steps}
    for found, file in write_explanations(
        trained, options.files, options.out or "explanations", **what, progressbar=True
    ):
        print(f"{file}: {found.task} {found.label or ''}".rstrip() + f", {found.baseline:.2f} -> {found.output:.2f}")


def _explain_runs(options: argparse.Namespace) -> None:
    from korser.reporting.explanations import explain_runs
    from korser.utils.text import plural

    sizes = {} if options.per_class is None else {"per_class": options.per_class}
    n, new = explain_runs(options.run_dir, steps=options.steps, trust=options.trust, **sizes)
    print(f"{plural(n, 'run')} explained, {n - new} of them before: draw them by korser plot {options.run_dir}")


if __name__ == "__main__":
    cli.run(main)
