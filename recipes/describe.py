"""Describe a corpus before anything is trained on it.

    korser describe --corpus=ravdess --data_folder=/data/ravdess

Writes description.html, a page that needs no other file, and its tables as CSV: labels by speaker, duration, loudness
and sampling rate; how well loudness, duration and silence, or the sentence, predict the label; copies; agreement of
raters (columns emotion_rater1, emotion_rater2, ...); which splits are possible.
"""

from korser import cli


def main(arguments: list[str]) -> None:
    """Describe a corpus and print what is likely wrong with it."""
    parser = cli.Parser("describe", __doc__)
    parser.add_corpus_options()
    parser.add_argument("--out", default="description", metavar="FOLDER", help="default: description")
    options = vars(parser.parse_args(arguments))
    from korser.description import describe
    from korser.reporting.corpus_page import write_description

    description = describe(**options)
    page = write_description(description, options["out"])
    for note in description.notes:
        print(f"!!! {note}")
    for section in description.sections:
        for table in [section.tables[name] for name in ("floor",) if name in section.tables]:
            print(f"\n{table.title}\n\n{table.to_text()}")
    print(f"\nEverything is in {options['out']}; open {page}")


if __name__ == "__main__":
    cli.run(main)
