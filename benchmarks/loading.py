"""Loading of audio, compared with the rate at which training on mel consumes it.

Synthetic FLAC, WAV and Ogg files of 4.5 s (--data: your own instead); batches of 128 as in training: drawn by length,
padded, float32 on the device. "plain" is SpeechBrain's loader that reads one file per utterance, with a number of
workers; "store" is the same loader on the audio store; "resident" is korser's default. The demand is
that of the complete training step of hparams/mel_mtl.yaml on waveforms, log-mel included, on batches in memory.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from epoch import epoch, manifest, settings
from timing import arguments, figure, interleaved, report

from korser.data.audio import read_audio, to_float
from korser.data.audio_cache import AudioStore, scan_audio
from korser.data.batches import CachedReader, bucketed_batches, collate, make_dataset
from korser.data.resident import InMemorySplit, MemoryBudget
from korser.frontend.base import SAMPLE_RATE

SECONDS = 4.5
ENDINGS = ("flac", "wav", "ogg")
SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")
BATCH = 128
OPTIONS = [("--data", {"type": Path, "help": "folder of audio files to use instead of synthetic ones"})]


def make_files(folder, n):
    """Write tones with the rhythm of syllables, and noise; return paths by file type."""
    rng = np.random.default_rng(0)
    t = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    paths = {ending: [] for ending in ENDINGS}
    for i in range(n):
        tones = sum(np.sin(2 * np.pi * k * rng.uniform(100, 250) * t) / k for k in range(1, 6))
        x = 0.1 * tones * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t + i)) + 0.01 * rng.standard_normal(len(t))
        for ending, names in paths.items():
            names.append(str(folder / f"{i}.{ending}"))
            soundfile.write(names[-1], x, SAMPLE_RATE)
    return paths


class Files:
    """Every file read anew, as a stock recipe does."""

    def read(self, path, digest):
        return read_audio(path)


def delivered(dataset, hparams, workers=0):
    """A function that goes through a split once, and leaves every batch on the device as float32."""
    sampler = bucketed_batches(dataset, batch_size=BATCH, n_buckets=hparams["n_buckets"], seed=0)
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=sampler, collate_fn=collate(dataset), num_workers=workers, persistent_workers=workers > 0
    )

    def run():
        for batch in loader:
            to_float(batch.to(hparams["device"]).x.data)

    return run


def main():
    args = arguments(__doc__, options=OPTIONS)
    hparams, tasks = settings(args.device, use_cache=False)
    names = [task.name for task in tasks]
    with tempfile.TemporaryDirectory() as folder:
        if args.data:
            found = sorted(p for p in args.data.rglob("*") if p.suffix.lower() in SUFFIXES)
            paths = {"files": [str(p) for p in found]}
        else:
            paths = make_files(Path(folder), 256 if args.small else 2048)
        cases, seconds_of_audio = {}, {}
        memory = MemoryBudget(args.device, 2**36)
        for ending, files in paths.items():
            audio = scan_audio(files, Path(folder) / ending)
            table = manifest(audio["samples"], tasks)
            table[["path", "digest"]] = audio[["path", "digest"]].to_numpy()
            stored = AudioStore(Path(folder) / ending)
            plain = make_dataset(table, tasks, CachedReader(Files()))
            cases[f"{ending}, plain, 0 workers"] = delivered(plain, hparams)
            cases[f"{ending}, plain, 2 workers"] = delivered(plain, hparams, 2)
            from_store = make_dataset(table, tasks, CachedReader(stored))
            cases[f"{ending}, store"] = delivered(from_store, hparams)
            resident = InMemorySplit(from_store, names, stored, memory)
            cases[f"{ending}, resident"] = delivered(resident, hparams)
            seconds_of_audio[ending] = audio["duration"].sum()
        n, ending = len(table), next(iter(paths))
        seconds = interleaved(cases, args.repeats, device=args.device)
        training = interleaved(
            {"training": epoch(resident, hparams, tasks, skip_frozen=False)},
            min(args.repeats, 2) if args.small else args.repeats,
            device=args.device,
        )["training"]
    demand = n / statistics.median(training)
    fed = {name: f"{figure(n / statistics.median(times) / demand)} x" for name, times in seconds.items()}
    report(
        f"{n:,} utterances of {seconds_of_audio[ending] / n:.1f} s through a loader, batches of {BATCH}",
        seconds,
        f"{ending}, plain, 0 workers",
        ("utterances", n),
        device=args.device,
        extra={"of the demand": fed},
        notes=[
            f"Demand of mel training: {figure(demand)} utterances per second.",
            f"Resident in: {resident.place}.",
        ],
        out=args.out,
    )


if __name__ == "__main__":
    main()
