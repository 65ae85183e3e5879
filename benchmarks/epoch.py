"""An epoch of training on cached features: wav2vec -> LEAF, multitask, without its encoder.

Random float16 features of 225 frames (4.5 s) and 768 channels in memory, batches of 128, settings of hparams/base.yaml.
"SpeechBrain" is its loader, which reads single utterances from host memory, and its training step, which synchronises
with the device some forty times, with TF32 on a GPU; "loader" is its loader with korser's step; "resident" is korser's
default. On a GPU, "launched" is the default without CUDA graphs (``cuda_graphs: false``). In full form the first two,
which take minutes, are measured on a twentieth of the utterances.
"""

import dataclasses
import statistics

import numpy as np
import pandas as pd
import speechbrain as sb
import torch
from stock import arithmetic, titled
from timing import arguments, in_words, interleaved, report

from korser import load_hparams
from korser.config.shipped import SHIPPED
from korser.data.batches import CachedReader, make_dataset
from korser.data.resident import InMemorySplit, MemoryBudget
from korser.training.brain import EmotionBrain
from korser.training.build import build_model
from korser.training.checkpoints import History
from korser.training.datasets import training_loader
from korser.utils.seeding import set_arithmetic

UTTERANCES = 52_000  # in the paper's training split
FRAMES, CHANNELS, RATE = 225, 768, 50  # of wav2vec2-base; 50 frames per second
DIFFERENT = 512  # random utterances, reused under other names
FRONTEND = f"!new:korser.plugins.frontends.leaf.Leaf {{in_channels: {CHANNELS}, sample_rate: {RATE}}}"
STOCK, LOADER, LAUNCHED, RESIDENT = "SpeechBrain", "loader", "launched", "resident"
AS_IT_COMES = "!name:torch.optim.AdamW {weight_decay: 0.05, foreach: true}"  # as torch would choose on a GPU


class RandomFeatures:
    """Features in memory with the interface of a cache."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(DIFFERENT, FRAMES, CHANNELS, generator=generator).half()
        self.store = self

    def read(self, *names, out=None):
        features = self.features[int(names[-1]) % DIFFERENT]
        return features if out is None else out.copy_(features)

    def layout(self, name):
        return self.features.dtype, (FRAMES, CHANNELS)


class StockBrain(EmotionBrain):
    """Train with SpeechBrain's own step."""

    fit_batch = sb.Brain.fit_batch
    optimizers_step = sb.Brain.optimizers_step

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        self.batch_losses = {name: float(value.detach()) for name, value in self.batch_losses.items()}
        super().on_fit_batch_end(batch, outputs, loss, should_step)


def settings(device, file=SHIPPED / "mel_mtl.yaml", **overrides):
    """Return the settings of a file with overrides, and its tasks with classes."""
    common = {"batch_size": 128, "device": device, "noprogressbar": True, "ckpt_interval_minutes": 0}
    hparams = load_hparams(file, {**common, **overrides})
    classes = {"emotion": "1234", "gender": "12", "intensity": "1234"}
    return hparams, [dataclasses.replace(task, classes=tuple(classes[task.name])) for task in hparams["tasks"]]


def manifest(samples, tasks):
    """Return a manifest of utterances of given lengths with random labels; digests are their numbers."""
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(len(samples))]
    labels = {task.name: rng.choice(task.classes, len(samples)) for task in tasks}
    return pd.DataFrame({"id": names, "path": names, "digest": names, "samples": samples, **labels})


def epoch(dataset, hparams, tasks, *, skip_frozen, kind=EmotionBrain):
    """Return a function that trains for another epoch."""
    set_arithmetic()
    brain = kind(
        model=build_model(hparams, tasks), tasks=tasks, hparams=hparams, skip_frozen=skip_frozen, history=History()
    )
    loader = training_loader(brain, dataset)
    brain.n_train_batches = len(loader)
    brain.on_fit_start()
    done = [0]

    def run():
        done[0] += 1
        brain._fit_train(loader, done[0], False)

    return arithmetic(matmul=True)(run) if kind is StockBrain else run


def main():
    args = arguments(__doc__)
    few, many = (384, 384) if args.small else (UTTERANCES // 20, UTTERANCES)
    features, cases, amounts = RandomFeatures(), {}, {}
    for name in (STOCK, LOADER, LAUNCHED, RESIDENT) if args.device == "cuda" else (STOCK, LOADER, RESIDENT):
        overrides = {"frontend": FRONTEND, "cuda_graphs": name in (LOADER, RESIDENT)}
        if name == STOCK and args.device == "cuda":
            overrides["opt_class"] = AS_IT_COMES
        hparams, tasks = settings(args.device, **overrides)
        amounts[name] = n = few if name in (STOCK, LOADER) else many  # minutes each otherwise
        dataset = make_dataset(manifest([FRAMES] * n, tasks), tasks, CachedReader(features))
        if name in (LAUNCHED, RESIDENT):
            dataset = InMemorySplit(dataset, [task.name for task in tasks], features, MemoryBudget(args.device, 2**36))
        kind = StockBrain if name == STOCK else EmotionBrain
        cases[name] = epoch(dataset, hparams, tasks, skip_frozen=True, kind=kind)
    seconds = interleaved(cases, args.repeats, warmup=1, device=args.device)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    report(
        titled(f"An epoch of cached utterances, {FRAMES} x {CHANNELS} frames each, batches of 128", args.device),
        seconds,
        STOCK,
        ("utterances", amounts),
        device=args.device,
        extra={
            "utterances in it": {name: f"{n:,}" for name, n in amounts.items()},
            "per step": {name: in_words(s / -(-amounts[name] // 128)) for name, s in medians.items()},
            f"epoch of {UTTERANCES:,}": {name: in_words(s * UTTERANCES / amounts[name]) for name, s in medians.items()},
        },
        notes=[f"Resident in: {dataset.place}."],
        out=args.out,
    )


if __name__ == "__main__":
    main()
