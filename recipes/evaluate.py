"""Evaluate a trained model on another corpus.

    python recipes/evaluate.py RUN_DIR --corpus=emotiontts --data_folder=... [--label_map="{emotion: {happy: joy}}"]

Labels of that corpus are mapped to the model's classes by `label_map`; null leaves a class out. Predictions and metrics
are written to RUN_DIR/evaluations.
"""

from korser import UserError, cli
from korser.config.overrides import parse_overrides, parse_value
from korser.corpora import corpus_names
from korser.inference.evaluate import evaluate_corpus
from korser.inference.predict import load_trained_model
from korser.metrics.evaluate import summary_table
from korser.runs.directory import headline
from korser.utils.text import did_you_mean

OPTIONS = {
    "corpus": None,
    "data_folder": None,
    "label_map": {},
    "corpus_options": {},
    "cache_folder": "cache",
}


def main(arguments):
    run_dir, rest = cli.first(arguments, "the run directory")
    options = dict(OPTIONS)
    for key, value in parse_overrides(rest).items():
        if key not in OPTIONS:
            raise UserError(f"unknown option --{key}{did_you_mean(key, OPTIONS)}")
        options[key] = parse_value(key, value) if isinstance(OPTIONS[key], dict) else value
        if isinstance(OPTIONS[key], dict) and not isinstance(options[key], dict):
            raise UserError(f"--{key} is {value!r}: write a mapping")
    if options["corpus"] is None:
        raise UserError(f"say on what to evaluate: --corpus={'|'.join(corpus_names())} or the import path of your own")
    if options["data_folder"] is None:
        raise UserError("say where the corpus lies: --data_folder=...")
    trained = load_trained_model(run_dir)
    metrics, info = evaluate_corpus(trained, **options, out=trained.directory.evaluations)
    # there was no split here
    head = {**headline(info), "protocol": info["protocol"], "random_split": False, "warnings": info["warnings"]}
    print(summary_table(metrics, **head))


if __name__ == "__main__":
    cli.run(main)
