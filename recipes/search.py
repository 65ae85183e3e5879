"""Search for the settings of a model that give the best validation UAR.

    python recipes/search.py hparams/search.yaml [--key=value ...] [--workers=N] [--cluster=auto]

`hparams/search.yaml` says which model, which settings and how; every key of it can be set on the command line, what all
trials share by --overrides.NAME=VALUE and what is searched by --space.NAME='[...]'. The same command again goes on
where it was stopped.

    --workers=N             trials at a time on this machine; without it one a GPU, or one a CPU core
    --gpus_per_trial=0.5    two trials on one GPU
    --cluster=auto          on the Ray cluster that this machine is part of (pip install 'korser[cluster]')
"""

from korser import cli
from korser.config.overrides import parse_overrides, parse_value
from korser.search import load_settings, search
from korser.workers import open_workers

WORKERS = ("workers", "cluster", "gpus_per_trial")


def main(arguments):
    path, rest = cli.first(arguments, "the search's YAML")
    overrides = parse_overrides(rest)
    how = {key: parse_value(key, overrides.pop(key)) for key in WORKERS if key in overrides}
    settings = load_settings(path, overrides)
    with open_workers(
        how.get("workers"), cluster=how.get("cluster"), gpus_per_trial=how.get("gpus_per_trial")
    ) as workers:
        search(settings, workers, say=print)


if __name__ == "__main__":
    cli.run(main)
