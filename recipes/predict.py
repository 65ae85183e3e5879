"""Predict the emotion (and gender, intensity) of audio files by a trained model.

    korser predict RUN_DIR recording.wav folder_with_recordings/ [--json]

Prints the probability of every class, or the number, for each file.
"""

import json

from korser import cli


def main(arguments: list[str]) -> None:
    """Print the predictions for each file."""
    parser = cli.Parser("predict", __doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="directory of a complete run")
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio files, or folders of them")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one record per file")
    parser.add_trust_option()
    options = parser.parse_args(arguments)
    from korser.inference.predict import load_trained_model

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
