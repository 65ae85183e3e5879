"""Time to generate `mini`, speech synthesis and FLAC files, with one, two and four workers."""

import tempfile
from pathlib import Path

from timing import arguments, interleaved, report

from korser.corpora.synthetic import mini


def main():
    args = arguments(__doc__)
    n_speakers, n_utterances = (12, 120) if args.small else (120, 4800)
    with tempfile.TemporaryDirectory() as folder:
        made = iter(range(10**6))

        def make(n_workers):
            new = Path(folder) / str(next(made))  # in a new folder: existing files would be kept
            mini.prepare(new, n_speakers=n_speakers, n_utterances=n_utterances, n_workers=n_workers)

        names = {f"{n} worker{'s' if n > 1 else ''}": n for n in (1, 2, 4)}
        cases = {name: lambda n=n: make(n) for name, n in names.items()}
        seconds = interleaved(cases, args.repeats)
    report(f"mini, {n_utterances} utterances", seconds, "1 worker", ("utterances", n_utterances), out=args.out)


if __name__ == "__main__":
    main()
