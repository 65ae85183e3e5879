"""Parts of a training step on all cached layers of an encoder: reading, mixing, backbone; CPU time.

Random float16 layers in a store on disk, batches of 16 utterances of 2.4 to 3.7 s at 50 frames per second.
"read" assembles a batch, with checksums; "mix" is LayerMix, forward and backward, on the float16 batch; "mix, float32
copy" converts the batch first and mixes by autograd; "backbone" is that of encoders on one layer.
"""

import tempfile
import time

import torch
from epoch import manifest, settings
from timing import arguments, interleaved, report

from korser.data.batches import CachedReader, bucketed_batches, make_dataset
from korser.data.resident import InMemorySplit, MemoryBudget
from korser.data.store import ArrayStore
from korser.frontend.lengths import mask_padding
from korser.plugins.frontends.encoder import LayerMix
from korser.utils.seeding import set_arithmetic

RATE, UTTERANCES, BATCH = 50, 96, 16
SIZES = {"Whisper base": (7, 512), "nano": (8, 192)}  # layers, channels


class Layers:
    """Random layers in a store, with the interface of a cache."""

    def __init__(self, folder, frames, channels):
        self.store = ArrayStore(folder)
        self.store.write((str(i), torch.randn(n, channels).half()) for i, n in enumerate(frames))

    def read(self, path, digest):
        return self.store.read(digest)


def parts(folder, n_layers, channels):
    """Return the cases of an encoder, each of which does its part for all batches, and the number of batches."""
    frames = [120 + 37 * i % 66 for i in range(UTTERANCES)]
    layers = Layers(folder, frames, n_layers * channels)
    backbone = "!new:korser.plugins.backbones.linear_pool.LinearPool"  # as in hparams/base.yaml, behind an encoder
    backbone += f" {{in_channels: {channels}, width: 128, pooling: attentive, input_norm: batch, dropout: 0.5}}"
    hparams, tasks = settings("cpu", batch_size=BATCH, backbone=backbone)
    table = manifest([n * 16_000 // RATE for n in frames], tasks)
    dataset = make_dataset(table, tasks, CachedReader(layers))
    dataset = InMemorySplit(dataset, [task.name for task in tasks], layers, MemoryBudget("cpu", 0))
    sampler = bucketed_batches(dataset, batch_size=BATCH, n_buckets=4, seed=0)
    batches = [(batch.x.data, batch.frames) for batch in map(dataset.collate, sampler)]
    module = LayerMix(in_channels=n_layers * channels, n_layers=n_layers, input_rate=RATE)

    def read():
        for indices in sampler:
            dataset.collate(indices)

    def mix():
        for x, lengths in batches:
            module(mask_padding(x, lengths, look_first=True), lengths)[0].sum().backward()

    def mix_copy():
        for x, lengths in batches:
            frames = mask_padding(x.float(), lengths, look_first=True).view(-1, n_layers, channels)
            torch.bmm(module.weights.softmax(0).expand(len(frames), 1, -1), frames).sum().backward()

    def rest():
        for x, lengths in batches:
            mixed = x[..., :channels].float().requires_grad_()
            hparams["backbone"](mixed, lengths).sum().backward()

    return {"read": read, "mix": mix, "mix, float32 copy": mix_copy, "backbone": rest}, len(batches)


def main():
    args = arguments(__doc__)
    torch.set_num_threads(1)
    set_arithmetic()
    for name, (n_layers, channels) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            cases, steps = parts(folder, n_layers, channels)
            seconds = interleaved(cases, args.repeats, clock=time.process_time)
        report(
            f"{name}: {n_layers} layers of {channels} channels, per batch of {BATCH}",
            {case: [s / steps for s in times] for case, times in seconds.items()},
            "backbone",
            out=args.out,
        )


if __name__ == "__main__":
    main()
