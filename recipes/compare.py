"""Compare models: train each with several seeds, on every fold if asked, and lay them side by side.

    python recipes/compare.py hparams/compare.yaml [--key=value ...] [--workers=N] [--cluster=auto]

`hparams/compare.yaml` says which models, seeds and folds; every key of it can be set on the command line, what all
runs share by --overrides.NAME=VALUE. Tables and answers go to <output_folder>/compare. The same command again goes on
where it was stopped and makes only what is missing. --workers: how many runs go at a time on this machine (by default
one a GPU, or one a CPU core). --cluster=auto spreads them over the Ray cluster that this machine is part of
(pip install 'korser[cluster]'); --gpus_per_trial=0.5 puts two on one GPU.
"""

import sys

from korser import cli
from korser.comparison.run import run_experiment
from korser.comparison.settings import load_settings
from korser.config.overrides import parse_overrides, parse_value
from korser.workers import open_workers

WORKERS = ("workers", "cluster", "gpus_per_trial")


def main(arguments):
    path, rest = cli.first(arguments, "the comparison's YAML")
    overrides = parse_overrides(rest)
    how = {key: parse_value(key, overrides.pop(key)) for key in WORKERS if key in overrides}
    settings = load_settings(path, overrides)
    with open_workers(how.pop("workers", None), **how) as workers:
        text, failed = run_experiment(settings, workers)
    print(text)
    print(f"\nEverything is in {settings.output_folder}/compare")
    if failed:
        print(f"\n!!! {len(failed)} runs could not be made; the same command tries again:", file=sys.stderr)
        print("\n".join(failed), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
