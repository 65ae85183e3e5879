"""Search for the settings of a model that give the best validation score.

    korser search search.yaml --model=leaf_mtl.yaml --workers=4

The file names the model, the searched settings and the method; every key of it can be set on the command line, settings
that all trials share by --overrides.NAME=VALUE and searched ones by --space.NAME='[...]'. An interrupted search resumes
when the command is given again.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Run a search and print its results."""
    parser = cli.Parser("search", __doc__, settings_file="search.yaml")
    cli.add_worker_options(parser)
    path, overrides, options = cli.parse_settings(parser, arguments)
    from korser.search import load_settings, search
    from korser.workers import open_workers

    settings = load_settings(path, overrides)
    with open_workers(**vars(options)) as workers:
        search(settings, workers, show=print)


if __name__ == "__main__":
    cli.run(main)
