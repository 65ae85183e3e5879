"""Emotion (and gender, intensity) of audio files, by a trained model.

    python recipes/predict.py RUN_DIR files... [--json]

--json writes a list with a record for each file.
"""

import json

from korser import UserError, cli
from korser.inference.predict import load_trained_model


def main(arguments):
    as_json = "--json" in arguments
    arguments = [a for a in arguments if a != "--json"]
    unknown = next((a for a in arguments if a.startswith("--")), None)
    if unknown:
        raise UserError(f"unknown option {unknown}: there is only --json")
    if len(arguments) < 2:
        raise UserError("say which run and which files: python recipes/predict.py RUN_DIR files... [--json]")
    trained = load_trained_model(arguments[0])
    table = trained.predict_files(arguments[1:])
    if as_json:
        warnings = {"warnings": [str(note) for note in trained.warnings]} if trained.warnings else {}
        print(json.dumps([row | warnings for row in table.to_dict("records")], ensure_ascii=False, indent=1))
        return
    for row in table.to_dict("records"):
        print(row["path"])
        for task in trained.tasks:
            ranked = sorted(task.classes, key=lambda label: -row[f"{task.name}_prob_{label}"])
            print(f"  {task.name:<10}", "  ".join(f"{c} {row[f'{task.name}_prob_{c}']:.3f}" for c in ranked))


if __name__ == "__main__":
    cli.run(main)
