"""Evaluate a trained model on another corpus.

    python recipes/evaluate.py RUN_DIR --corpus=emotiontts --data_folder=... [--label_map="{emotion: {happy: joy}}"]

Labels of that corpus are mapped to the model's classes by `label_map`; null leaves a class out. Predictions and metrics
are written to RUN_DIR/evaluations.
"""

import sys

from korser import UserError, cli
from korser.evaluation import summary_table
from korser.hparams import nearest, parse_overrides, parse_value
from korser.inference import TrainedModel
from korser.rundir import headline

OPTIONS = {
    "corpus": None,
    "data_folder": None,
    "label_map": {},
    "corpus_options": {},
    "cache_folder": "cache",
}


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    run_dir, *rest = arguments
    options = dict(OPTIONS)
    for key, value in parse_overrides(rest).items():
        if key not in OPTIONS:
            raise UserError(f"unknown option --{key}{nearest(key, OPTIONS)}")
        options[key] = parse_value(key, value) if isinstance(OPTIONS[key], dict) else value
        if isinstance(OPTIONS[key], dict) and not isinstance(options[key], dict):
            raise UserError(f"--{key} is {value!r}: write a mapping")
    for key in ("corpus", "data_folder"):
        if options[key] is None:
            raise UserError(f"say on what to evaluate: --{key}=...")
    metrics, info = TrainedModel(run_dir).evaluate_corpus(**options, out=f"{run_dir}/evaluations")
    print(summary_table(metrics, **headline(info)))


if __name__ == "__main__":
    cli.run(main)
