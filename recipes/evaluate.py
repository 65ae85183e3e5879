"""Evaluate a trained model on another corpus.

    korser evaluate RUN_DIR --corpus=emotiontts --data_folder=/data/emotiontts --label_map='{emotion: {happy: joy}}'

Predictions and metrics are written to RUN_DIR/evaluations.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Evaluate a run on a corpus and print the results."""
    parser = cli.Parser("evaluate", __doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="directory of a complete run")
    parser.add_corpus_options("labels of the corpus and classes of the model; null leaves a label out")
    parser.add_trust_option()
    options = vars(parser.parse_args(arguments))
    from korser.inference.evaluate import evaluate_corpus
    from korser.inference.load import load_trained_model
    from korser.metrics.evaluate import summary_table
    from korser.utils.notes import caveats

    trained = load_trained_model(options.pop("run_dir"), trust=options.pop("trust"))
    metrics, info = evaluate_corpus(trained, **options, out=trained.directory.evaluations)
    notes = [*caveats(synthetic=info["synthetic"], pretrained=info["pretrained"]), *info["warnings"]]
    about = {"title": info["model"], "corpus": info["corpus"], "protocol": info["protocol"]}
    print(summary_table(metrics, **about, warnings=notes))


if __name__ == "__main__":
    cli.run(main)
