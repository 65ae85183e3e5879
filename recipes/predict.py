"""Predict the emotion (and gender, intensity) of audio files, or along recordings, by a trained model.

    korser predict RUN_DIR recording.wav folder_with_recordings/ [--json]
    korser predict RUN_DIR long.wav --window=3 --hop=1
    korser predict RUN_DIR long.wav --segments=vad

Prints the probability of every class, or the number, for each file. With --window or --segments, predicts each part of
the recordings, and writes tables along time (CSV, JSON), a TextGrid and a figure (PNG, PDF) for each recording to the
folder --out.
"""

import argparse
import json

from korser import cli


def main(arguments: list[str]) -> None:
    """Print the predictions for each file, or write those along recordings."""
    parser = cli.Parser("predict", __doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="directory of a complete run")
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio files, or folders of them")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one record per file")
    group = parser.add_argument_group("along recordings")
    group.add_argument("--window", type=float, metavar="SECONDS", help="predict windows of this length")
    group.add_argument("--hop", type=float, metavar="SECONDS", help="from one window to the next; default: --window")
    group.add_argument(
        "--segments",
        metavar="vad|FILE",
        help="predict segments: vad finds speech (pip install 'korser[vad]'); a file .csv, .TextGrid or .rttm",
    )
    group.add_argument("--tier", metavar="NAME", help="of the TextGrid that --segments names, if it has several")
    group.add_argument("--out", metavar="FOLDER", help="default: predictions")
    parser.add_trust_option()
    options = parser.parse_args(arguments)
    if options.window is None and options.segments is None:
        given = [f"--{name}" for name in ("hop", "tier", "out") if getattr(options, name) is not None]
        if given:
            parser.error(f"{given[0]} is for predictions along recordings, with --window or --segments")
        _print_files(options)
    elif options.json:
        parser.error("--json prints one record per file; along recordings, a JSON file of each is in --out")
    else:
        _write_along(options)


def _write_along(options: argparse.Namespace) -> None:
    from korser.inference.recordings import Division

    division = Division(options.window, options.hop, options.segments, options.tier)  # checked before a model is loaded
    from korser.inference.load import load_trained_model
    from korser.reporting.recordings import write_predictions

    trained = load_trained_model(options.run_dir, trust=options.trust)
    out = options.out or "predictions"
    for recording, file in write_predictions(trained, options.files, division, out, progressbar=True):
        print(f"{recording.path}: {len(recording.table)} segments of {recording.seconds:.1f} s are in {file}")


def _print_files(options: argparse.Namespace) -> None:
    from korser.inference.load import load_trained_model

    trained = load_trained_model(options.run_dir, trust=options.trust)
    records = trained.predict_files(options.files, progressbar=True).to_dict("records")
    if options.json:
        warnings = {"warnings": [str(note) for note in trained.warnings]} if trained.warnings else {}
        print(json.dumps([record | warnings for record in records], ensure_ascii=False, indent=1))
        return
    for record in records:
        print(record["path"])
        for task in trained.tasks:
            if not task.classes:
                print(f"  {task.name:<10}", f"{record[f'{task.name}_pred']:.3f}")
                continue
            probabilities = {label: record[f"{task.name}_prob_{label}"] for label in task.classes}
            ranked = sorted(probabilities, key=probabilities.get, reverse=True)
            print(f"  {task.name:<10}", "  ".join(f"{label} {probabilities[label]:.3f}" for label in ranked))


if __name__ == "__main__":
    cli.run(main)
