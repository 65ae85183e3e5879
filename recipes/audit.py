"""Find what the parts of a published split share: speakers, recordings, near copies, sentences.

    korser audit folds.csv
    korser audit EmoBox/data/emodb --corpus=emobox --allow=sentence

The manifest has a column `split` or `fold`, also numbered (fold_1, fold_2, ...), or both with a row for each utterance
of each fold. Audio is not needed; if all of it exists, copies are found by what is heard. Exit code 1: something is
shared; 2: the manifest cannot be read.
"""

import sys

from korser import cli


def main(arguments: list[str]) -> None:
    """Audit a manifest and print what is shared."""
    parser = cli.Parser("audit", __doc__)
    parser.add_argument("manifest", metavar="MANIFEST", help="file or folder with the split")
    parser.add_argument("--corpus", default="csv", metavar="NAME", help="the format that it has; default: csv")
    parser.add_argument("--corpus_options", type=cli.mapping, default={}, metavar="{NAME: VALUE}")
    parser.add_argument("--cache_folder", default="cache", metavar="FOLDER", help="default: cache")
    parser.add_argument(
        "--allow",
        default=[],
        nargs="+",
        choices=("speaker", "recording", "copy", "near copy", "sentence"),
        metavar="KIND",
        help="what may be shared: speaker, recording, copy, 'near copy' or sentence (as in most acted corpora)",
    )
    options = vars(parser.parse_args(arguments))
    from korser.description import audit

    allowed = options.pop("allow")
    found = audit(**options)
    for name, sizes in found.partitions.items():
        print(f"{name}: {', '.join(f'{part} {n}' for part, n in sizes.items())} utterances")
    for note in (*found.unchecked, *found.notes):
        print(f"!!! {note}")
    if found.shared:
        print(f"\n{found.table().to_text()}\n")
    faults = list(dict.fromkeys(shared.kind for shared in found.shared if shared.kind not in allowed))
    if faults:
        print(f"SHARED between parts: {', '.join(faults)}")
        sys.exit(1)
    print("clean: nothing is shared" + (f" but {', '.join(allowed)}, as allowed" if found.shared else ""))


if __name__ == "__main__":
    cli.run(main)
