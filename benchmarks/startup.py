"""Fixed costs: answers of the command line, imports, and what a run does before its first training step.

CPU time (user and system) of processes for the first two tables, since that is what a user waits for on an idle
machine; wall-clock time for the third. The run is `wav2vec_stl` on `mini`, trained for one epoch before the clock
starts, so that audio and features are cached.
"""

import os
import resource
import subprocess
import sys
import tempfile

from timing import arguments, interleaved, report

from korser import load_hparams
from korser.config.shipped import SHIPPED
from korser.data.audio_cache import scan_audio
from korser.data.load_split import load_split
from korser.runs.directory import RunDirectory, run_folder
from korser.testing.checks import quick_check
from korser.training.build import build_model
from korser.training.datasets import make_readers
from korser.training.prepare import load_prepared

KORSER = [sys.executable, "-m", "korser.cli"]
MODULES = ("korser", "numpy", "pandas", "torch", "speechbrain", "transformers", "korser.training.train")


def cpu_seconds(command, folder):
    """CPU time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(commands, folder, repeats):
    """Run commands in turns, once before the clock starts."""
    for command in commands.values():
        cpu_seconds(command, folder)
    seconds = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            seconds[name].append(cpu_seconds(command, folder))
    return seconds


def main():
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        n_utterances = 120 if args.small else 4800
        settings = {
            "corpus_options": f"{{n_utterances: {n_utterances}}}",
            "device": args.device,
            "n_epochs": "1",
            "noprogressbar": "true",
        }
        train = [*KORSER, "train", "wav2vec_stl.yaml", *(f"--{key}={value}" for key, value in settings.items())]
        subprocess.run(train, check=True, capture_output=True)
        answers = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "--help": [*KORSER, "--help"],
            "train --help": [*KORSER, "train", "--help"],
            "unknown command": [*KORSER, "trian"],
            "unknown file": [*KORSER, "train", "absent.yaml"],
            "unknown option of plot": [*KORSER, "plot", "results", "--outt=figures"],
            "unknown setting of train": [*KORSER, "train", "mel_stl.yaml", "--n_epoch=3"],
            "unknown setting of search": [*KORSER, "search", "search.yaml", "--modle=mel_stl.yaml"],
            "unknown setting of compare": [*KORSER, "compare", "compare.yaml", "--sedes=[1]"],
            "train, complete run": train,
        }
        report("Answers of the command line, CPU time", measure(answers, folder, args.repeats), out=args.out)
        imports = {module: [sys.executable, "-c", f"import {module}"] for module in MODULES}
        report("Imports, CPU time", measure(imports, folder, args.repeats), out=args.out)

        hparams = load_hparams(SHIPPED / "wav2vec_stl.yaml", settings)
        run_dir = run_folder(hparams)
        manifest, tasks = load_prepared(hparams, run_dir)
        paths = RunDirectory(run_dir).manifest()["path"].tolist()
        model = build_model(hparams, tasks, manifest)
        steps = {
            "load the settings": lambda: load_hparams(SHIPPED / "wav2vec_stl.yaml", settings),
            "check the frontend's contract": lambda: quick_check(hparams["frontend"]),
            "read and split the corpus": lambda: load_split(hparams),
            "check the decoded audio": lambda: scan_audio(paths, hparams["cache_folder"]),
            "check and open the cached features": lambda: make_readers(hparams, model, manifest),
        }
        title = f"Steps of a run before training, {len(paths):,} utterances, all cached"
        seconds = interleaved(steps, args.repeats, device=args.device)
        report(title, seconds, device=args.device, out=args.out)
        os.chdir("/")


if __name__ == "__main__":
    main()
