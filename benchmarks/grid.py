"""The paper's grid: its parts are measured and added up.

Four models (LEAF and wav2vec -> LEAF, single task and multitask), 27 cells each (3 batch sizes x 3 learning rates x 3
loss weights), 10 epochs, on `mini` at the paper's scale: 68,000 utterances of 120 speakers, split at random, 13,000 /
2,000 / 2,000 per emotion; by korser and by stock libraries (stock.py). Every result states whether it was measured at
that scale or extrapolated, and from how many utterances.

An epoch depends on the model and the batch size, not on the learning rate or the loss weights, so it is measured once
for the nine cells that share both. One trial runs at a time. Measurements are printed at once and appended to --out.
"""

import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import stock
import torch
from timing import append, arguments, figure, in_words, write

import korser
from korser.config.shipped import SHIPPED
from korser.corpora.synthetic import mini
from korser.data.audio_cache import AudioStore, scan_audio
from korser.data.feature_cache import FeatureCache
from korser.frontend.tree import split_frozen
from korser.runs.directory import RunDirectory

MODELS = ("leaf_stl", "leaf_mtl", "wav2vec_leaf_stl", "wav2vec_leaf_mtl")
FULL_CELLS = "wav2vec_leaf_mtl"  # in full form trained for all ten epochs, at each batch size
BATCH_SIZES = (32, 64, 128)
CELLS = 9  # of each model and batch size: 3 learning rates x 3 loss weights
EPOCHS = 10
UTTERANCES, HELD_OUT = 68_000, 2_000  # held out: of each emotion, for validation and again for the test
PAPER_HOURS = 85
NANO = SHIPPED.parent / "plugins/frontends/encoder/nano"  # config of the encoder of the small form


@dataclass(frozen=True)
class Size:
    """Numbers of speakers and utterances that a form of this benchmark measures.

    The time of a run outside its epochs is measured on few and on many utterances, since a part of it is constant.
    """

    speakers: int
    few: int
    many: int
    stock: int  # by stock libraries, at most


SMALL, FULL = Size(24, 120, 480, 120), Size(120, 480, UTTERANCES, 4800)


@dataclass
class Part:
    """A part of the grid: its time as measured and at the paper's scale.

    Parameters
    ----------
    name : str
    seconds : list of float
        As measured.
    once : float
        Seconds at the paper's scale.
    basis : str
        "measured", or the numbers of utterances of the extrapolation.
    times : int
        How often it occurs in the grid.
    audio : bool
        Whether it goes with the audio's duration, and not only with the number of utterances.
    """

    name: str
    seconds: list
    once: float
    basis: str
    times: int = 1
    audio: bool = True

    def total(self, longer=1.0):
        """Return the seconds in the grid, for audio ``longer`` times as long."""
        return self.once * self.times * (longer if self.audio else 1.0)

    def row(self):
        spread = in_words(min(self.seconds), max(self.seconds))
        median = in_words(statistics.median(self.seconds))
        return [self.name, median, spread, self.basis, in_words(self.once), self.times, in_words(self.total())]


def proportional(name, seconds, of, full, **how):
    """Return a part whose time is proportional to an amount; ``of`` was measured, ``full`` is the paper's scale."""
    basis = "measured" if of == full else f"from {of:,} to {full:,}"
    return Part(name, seconds, statistics.median(seconds) * full / of, basis, **how)


def straight_line(name, small, large, **how):
    """Return a part with a constant term, from ``(utterances, seconds)`` at two sizes."""
    (few, before), (many, after) = small, large
    low, high = statistics.median(before), statistics.median(after)
    slope = max(high - low, 0) / max(many - few, 1)
    basis = "measured" if many == UTTERANCES else f"line through {few:,} and {many:,}, to {UTTERANCES:,}"
    return Part(name, after, high + slope * (UTTERANCES - many), basis, audio=False, **how)


class Grid:
    """Measurements of korser and of stock libraries.

    Parameters
    ----------
    args : argparse.Namespace
    folder : Path
        For corpus, cache and runs.
    """

    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.size = SMALL if args.small else FULL
        self.encoder = stock.save_random_wav2vec(folder / "wav2vec", NANO if args.small else None)

    def load(self, model, n, **overrides):
        """Return the settings of a model on ``n`` utterances, as in a search: the test split is not read.

        Only the last layer of the encoder is used: all 13 of wav2vec2-base are 9984 channels, 270 GB at that scale.
        """
        held_out = round(n * HELD_OUT / UTTERANCES)
        protocol = f"protocol: random_stratified, test: {held_out}, valid: {held_out}"
        settings = {
            "corpus": "mini",
            "data_folder": str(self.folder / "mini"),
            "corpus_options": {"n_speakers": self.size.speakers, "n_utterances": n},
            "split": f"!name:korser.data.splits.assign_splits {{{protocol}}}",
            "evaluate_test": False,
            "output_folder": str(self.folder / "results"),
            "cache_folder": str(self.folder / "cache"),
            "noprogressbar": True,
        }
        if self.args.device == "cpu":
            settings["device"] = "cpu"
        else:
            settings["extraction_precision"] = "bf16"
        if model.startswith("wav2vec"):
            settings["wav2vec_source"] = self.encoder
            if "encoder" not in overrides:
                settings["encoder.layer"] = "last"
        return korser.load_hparams(SHIPPED / f"{model}.yaml", {**settings, **overrides})

    def data(self, n):
        """Measure what is done once for ``n`` utterances: corpus, scan, audio store, frozen features."""
        seconds = {}

        def timed(name, do):
            start = time.perf_counter()
            done = do()
            if self.args.device == "cuda":
                torch.cuda.synchronize()
            seconds[name] = [time.perf_counter() - start]
            self.say(f"{n} utterances, {name}: {in_words(*seconds[name])}")
            return done

        hparams = self.load("wav2vec_leaf_mtl", n)
        workers = min(os.cpu_count(), 4)
        table = timed(
            f"making the corpus, {workers} workers",
            lambda: mini.prepare(hparams["data_folder"], **hparams["corpus_options"]),
        )
        paths = table["path"].tolist()
        audio = timed("checking and decoding files", lambda: scan_audio(paths, hparams["cache_folder"]))
        prefix = split_frozen(hparams["frontend"]).frozen
        for stage in prefix:
            stage.to(self.args.device)
        cache = FeatureCache(
            prefix,
            hparams["cache_folder"],
            AudioStore(hparams["cache_folder"]).waveform,
            dtype=hparams["cache_dtype"],
            precision=hparams["extraction_precision"],
            seconds=hparams["extraction_seconds"],
        )
        timed(f"frozen features ({hparams['extraction_precision']})", lambda: cache.fill(audio, progressbar=False))
        return seconds, audio["duration"].sum()

    def train(self, model, n, n_epochs, **overrides):
        """Train a model and measure its times.

        Returns
        -------
        training : list of float
            Seconds of training per epoch, without the first.
        validation : list of float
            Seconds of validation, checkpoint and log in these epochs.
        overhead : float
            Seconds of the run outside its epochs, each counted as the median of those above: reading settings, checking
            the data, building the model, loading, warming up, the final evaluation, writing.
        """
        gc.collect()  # frees GPU memory of the run before, whose references form cycles
        torch.cuda.empty_cache()
        start, ends = time.perf_counter(), []
        hparams = self.load(model, n, n_epochs=n_epochs, patience=n_epochs, **overrides)
        run_dir = self.folder / "results" / hparams.run_name
        shutil.rmtree(run_dir, ignore_errors=True)  # a complete run would not be trained again
        korser.train(hparams, run_dir, on_epoch=lambda epoch, score: ends.append(time.perf_counter()))
        total = time.perf_counter() - start
        epochs = np.diff(ends)
        training = RunDirectory(run_dir).log()["seconds"].to_numpy()[1:]
        how = "stock libraries, " if overrides.keys() >= stock.SETTINGS.keys() else ""
        self.say(
            f"{n} utterances, {how}{hparams.name}, batch {hparams['batch_size']}: {n_epochs} epochs in "
            f"{in_words(total)}, one takes {in_words(float(np.median(training)))} and its validation, checkpoint "
            f"{in_words(float(np.median(epochs - training)))}"
        )
        return training.tolist(), (epochs - training).tolist(), total - n_epochs * float(np.median(epochs))

    def trials(self, n, batch_sizes=BATCH_SIZES):
        """Return ``{(model, batch size): result of train()}``; in full form with all ten epochs of some."""
        return {
            (model, size): self.train(model, n, self.epochs(model, n), batch_size=size)
            for model in MODELS
            for size in batch_sizes
        }

    def epochs(self, model, n):
        """Return how many epochs are trained to measure one; the first is not counted."""
        return EPOCHS if model == FULL_CELLS and n > FULL.few else 1 + self.args.repeats

    def stock(self, n, batch_sizes=BATCH_SIZES):
        """Return the same for stock libraries."""
        workers = 0 if self.args.small else min(os.cpu_count(), 4)
        measured = {}
        for model in MODELS:
            how = {**stock.SETTINGS, **stock.FRONTENDS[model[:-4]], "num_workers": workers}  # without _stl, _mtl
            for size in batch_sizes:
                with stock.training():
                    measured[model, size] = self.train(model, n, self.stock_epochs(model, n), batch_size=size, **how)
        return measured

    def stock_epochs(self, model, n):
        """Return the same for stock libraries."""
        return 1 + min(self.args.repeats, 2)

    def say(self, line):
        """Print a line outside the tables; append it to ``--out``."""
        print(line, file=sys.stderr, flush=True)
        append(self.args.out, f"- {line}\n")


def divided(n):
    """Return how many of ``n`` utterances are trained and validated on."""
    held_out = 4 * round(n * HELD_OUT / UTTERANCES)
    return n - 2 * held_out, held_out


def imports():
    """Return the seconds that a new process takes until it can train."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import korser, transformers"], check=True)
    return time.perf_counter() - start


def affordable(seconds, few, most, epochs, trials, data=None):
    """Return how many utterances can be measured in ``seconds``, from the time of a few; below 0 if none.

    Parameters
    ----------
    seconds : float
    few, most : int
    epochs : callable
        Number of epochs of a model on a number of utterances.
    trials : dict
        Result of :meth:`Grid.trials` or :meth:`Grid.stock` on the few.
    data : dict of str to list of float, optional
        Other times that are proportional to the utterances.
    """
    each = sum(statistics.median(taken) for taken in (data or {}).values()) / few
    fixed = 0.0
    for (model, _), (training, validation, overhead) in trials.items():
        epoch = (statistics.median(training) + statistics.median(validation)) / few
        # measured in the largest batches; an upper limit for smaller ones, which need more steps
        each += sum(BATCH_SIZES[-1] / size for size in BATCH_SIZES) * epochs(model, most) * epoch
        fixed += len(BATCH_SIZES) * overhead
    return min(most, int((seconds - fixed) / each))


def parts_of(n, data, trials, few, few_trials):
    """Return korser's parts, of the data and of each model."""
    train, valid = divided(n)
    full_train, full_valid = divided(UTTERANCES)
    shared = [
        proportional(name, seconds, n, UTTERANCES, audio=not name.startswith("making"))
        for name, seconds in data.items()
    ]
    by_model = {model: [] for model in MODELS}
    for (model, size), (training, validation, _) in trials.items():
        name, times = f"{model}, batch {size}", CELLS * EPOCHS
        by_model[model] += [
            proportional(f"{name}: training epoch", training, train, full_train, times=times),
            proportional(f"{name}: its validation, checkpoint", validation, valid, full_valid, times=times),
        ]
    for model in MODELS:
        low, high = (
            [overhead for (name, _), (*_, overhead) in measured.items() if name == model]
            for measured in (few_trials, trials)
        )
        times = CELLS * len(BATCH_SIZES)
        by_model[model].append(straight_line(f"{model}: beyond its epochs", (few, low), (n, high), times=times))
    return shared, by_model


def stock_parts(n, trials):
    """Return the parts of each model by stock libraries."""
    train, valid = divided(n)
    full_train, full_valid = divided(UTTERANCES)
    sizes = len(trials) // len(MODELS)  # one if time is short: the others are taken to be as fast
    by_model = {model: [] for model in MODELS}
    for (model, size), (training, validation, _) in trials.items():
        name, times = f"stock {model}, batch {size}", CELLS * EPOCHS * len(BATCH_SIZES) // sizes
        by_model[model] += [
            proportional(f"{name}: training epoch", training, train, full_train, times=times),
            proportional(f"{name}: its validation, checkpoint", validation, valid, full_valid, times=times),
        ]
    return by_model


def sums(shared, started, ours, theirs, longer):
    """Return the rows of the sum: by korser and by stock libraries, on `mini` and scaled to the paper's hours."""
    corpus = [part for part in shared if part.name.startswith("making")]
    groups = {
        "corpus": (corpus, corpus),
        "audio and frozen features, once": ([part for part in shared if part not in corpus], []),
        "starting processes": ([started], [Part(**{**vars(started), "times": CELLS * len(BATCH_SIZES) * len(MODELS)})]),
        **{model: (ours[model], theirs[model]) for model in MODELS},
    }
    rows, totals = [], np.zeros(4)
    for name, ways in groups.items():
        seconds = [sum(part.total(factor) for part in parts) for parts in ways for factor in (1.0, longer)]
        totals += seconds
        rows.append([name, *(in_words(s) if s else "-" for s in seconds), figure(seconds[2] / seconds[0])])
    last = [*(in_words(s) for s in totals), figure(totals[2] / totals[0])]
    return [*rows, ["**the grid**", *(f"**{text}**" for text in last)]]


def measure(args, folder):
    grid, start = Grid(args, folder), time.perf_counter()

    def left():
        return 60 * args.minutes - (time.perf_counter() - start)

    n = stock_n = few = grid.size.few
    few_data, _ = grid.data(few)
    few_trials, stock_trials = grid.trials(few, BATCH_SIZES[-1:]), grid.stock(few, BATCH_SIZES[-1:])
    if args.small:
        n = grid.size.many
    else:  # a third of the time is for stock libraries, which take longest
        more = affordable(left() / 3, few, grid.size.stock, grid.stock_epochs, stock_trials)
        if more > few:
            stock_n, stock_trials = more, grid.stock(more)
        n = max(2 * few, affordable(left(), few, grid.size.many, grid.epochs, few_trials, few_data))
    data, audio_seconds = grid.data(n)
    trials = grid.trials(n)

    hours = audio_seconds / n * UTTERANCES / 3600
    shared, ours = parts_of(n, data, trials, few, few_trials)
    theirs = stock_parts(stock_n, stock_trials)
    started = Part("starting a process", [imports() for _ in range(3)], 0.0, "measured", audio=False)
    started.once = statistics.median(started.seconds)
    encoder = "nano-random" if args.small else "wav2vec2-base, random weights"
    head = ["part", "median here", "spread", "basis", "once, paper scale", "times", "in the grid"]
    parts = [*shared, started, *(part for model in MODELS for part in (*ours[model], *theirs[model]))]
    write(
        f"the grid's parts ({encoder}; {n:,} utterances, {audio_seconds / 3600:.2f} h; stock libraries on {stock_n:,})",
        head,
        [part.row() for part in parts],
        device=args.device,
        out=args.out,
    )
    longer = PAPER_HOURS / hours
    basis = "All parts of korser were measured at that scale." if n == UTTERANCES else "Extrapolated as above."
    write(
        "the grid, one trial at a time",
        ["", "korser", f"korser, {PAPER_HOURS} h", "stock", f"stock, {PAPER_HOURS} h", "stock / korser"],
        sums(shared, started, ours, theirs, longer),
        device=args.device,
        notes=[
            (
                f"`mini` has {hours:.1f} h in {UTTERANCES:,} utterances; in the columns of {PAPER_HOURS} h, the "
                f"duration of the paper's corpus, what is proportional to audio counts {longer:.2f} times. {basis}"
            ),
            "Stock: transformers' encoder in fp32 (on a GPU with TF32, as SpeechBrain enables it) in every epoch, "
            "SpeechBrain's `Leaf` on audio, korser's reference LEAF on features (SpeechBrain's takes audio only), "
            "files decoded in every epoch by SpeechBrain's loader, one process per trial; the time of its runs outside "
            "their epochs is not counted"
            + (
                "."
                if len(stock_trials) > len(MODELS)
                else f", and all batch sizes are assumed to be as fast as {BATCH_SIZES[-1]}."
            ),
        ],
        out=args.out,
    )


def main():
    options = [
        (
            "--folder",
            {"type": Path, "help": "folder on a disk with space (full: 30 GB); its contents are removed at the end"},
        ),
        (
            "--minutes",
            {
                "type": float,
                "default": 50,
                "help": "total for the full form, which measures as much as fits (default: 50)",
            },
        ),
    ]
    args = arguments(__doc__, options=options)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:  # new, without existing files
        measure(args, Path(folder).resolve())


if __name__ == "__main__":
    main()
