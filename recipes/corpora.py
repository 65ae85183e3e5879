"""List the corpora that korser reads, or describe one.

    korser corpora
    korser corpora kemdy19

Prints language, numbers of speakers and utterances, tasks with their numbers of classes, ratings with their scales, and
terms; for one corpus source, terms, folder layout, labels and options.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Print the table of corpora, or the docstring of one adapter."""
    parser = cli.Parser("corpora", __doc__)
    parser.add_argument("name", nargs="?", metavar="CORPUS", help="a name in the list, or an import path")
    parser.add_argument("--markdown", action="store_true", help="print the list as Markdown, as in docs/corpora.md")
    options = parser.parse_args(arguments)
    from korser.corpora import corpus_names, find_adapter
    from korser.corpora.card import corpus_table

    if options.name is not None:
        print(find_adapter(options.name).__doc__ or f"{options.name} has no description")
        return
    adapters = {name: find_adapter(name) for name in corpus_names()}
    print(corpus_table(adapters, complete=True).to_markdown() if options.markdown else corpus_table(adapters).to_text())


if __name__ == "__main__":
    cli.run(main)
