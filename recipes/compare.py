"""Compare models: train each with several seeds, and with every fold if asked.

    korser compare compare.yaml --overrides.corpus=ravdess --overrides.data_folder=/data/ravdess --folds=6

The file names models, seeds and folds; every key of it can be set on the command line, settings that all runs share by
--overrides.NAME=VALUE. Tables and answers are written to <output_folder>/compare. An interrupted comparison resumes
when the command is given again: only missing runs are trained.
"""

import sys

from korser import cli


def main(arguments: list[str]) -> None:
    """Train what is missing of a comparison and print its tables."""
    parser = cli.Parser("compare", __doc__, settings_file="compare.yaml")
    cli.add_worker_options(parser)
    parser.add_trust_option()
    path, overrides, options = cli.parse_settings(parser, arguments)
    from korser.comparison.run import run_experiment
    from korser.comparison.settings import load_settings
    from korser.workers import open_workers

    settings = load_settings(path, overrides)
    trust = vars(options).pop("trust")
    with open_workers(**vars(options)) as workers:
        text, failed = run_experiment(settings, workers, trust=trust)
    print(text)
    print(f"\nEverything is in {settings.output_folder}/compare")
    if failed:
        print(f"\n{len(failed)} runs failed; the same command tries them again:", *failed, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
