"""A training step of a LEAF model compared with a mel model, and its parts; CPU time of one thread.

Batches of 16 utterances of 3.1 to 4.5 s, a harmonic tone in noise 40 dB below; forward and backward of the models of
``mel_mtl.yaml``, whose features are cached, and ``leaf_mtl.yaml``. "energies" are the filters of LEAF with pooling.
"inverse FFTs" are the transforms in them alone, forward and backward: of as many points as the filters' outputs have at
their rates, and ("the least") as if no filter were cut by its window and no frame by the end of an utterance.
"""

import time

import torch
from epoch import settings
from timing import arguments, interleaved, report

from korser.config.shipped import SHIPPED
from korser.plugins.frontends.leaf.geometry import CPU_CHUNK, Geometry
from korser.plugins.frontends.leaf.rates import BAND, RATES
from korser.training.build import build_model
from korser.utils.seeding import set_arithmetic

BATCH, RATE = 16, 16_000
MEL, LEAF = "mel, step", "LEAF, step"


def audio():
    """Return a batch of waveforms, ``(BATCH, T)``, and its lengths."""
    lengths = torch.tensor([50_000 + 22_000 * i // (BATCH - 1) for i in range(BATCH)])
    t = torch.arange(int(lengths.max())) / RATE
    tone = sum(torch.sin(2 * torch.pi * 150 * k * t) / k for k in range(1, 20))
    x = 0.01 * (tone + 0.01 * torch.randn(BATCH, len(t), generator=torch.Generator().manual_seed(0)))
    return x.masked_fill(torch.arange(len(t)) >= lengths[:, None], 0), lengths


def transforms(points):
    """Return a function that transforms forwards and backwards as many points as given for each size."""
    chunks = []  # as large as in LEAF, which fit into the cache
    for size, n in points.items():
        chunk = torch.randn(max(1, min(CPU_CHUNK, n) // size), size, dtype=torch.complex64)
        chunks += [chunk] * round(n / chunk.numel())

    def run():
        for x in chunks:
            torch.fft.fft(torch.fft.ifft(x, norm="forward"))

    return run


def filter_points(leaf, lengths):
    """Return the points of the filters' outputs by the size of the transform: as computed, and the least possible."""
    geometry = Geometry.of(leaf.taps, leaf.pool_taps, leaf.hop)
    blocks = int((-(-(leaf.output_lengths(lengths) - geometry.edge) // geometry.frames)).sum())
    ends = geometry.at_the_ends.block
    enough = (BAND * leaf.hop / (torch.pi * leaf.filters()[1])).tolist()
    least = [next(r for r in RATES if r >= rate) for rate in enough]
    counts = []
    for rates in (leaf.plan(leaf._widths(), None, wait=True), least):
        counts.append({r * geometry.hops: blocks * geometry.hops * r * rates.count(r) for r in set(rates)})
    counts[0][ends] = counts[0].get(ends, 0) + 2 * len(lengths) * ends * leaf.output_size
    return counts


def main():
    args = arguments(__doc__)
    torch.set_num_threads(1)
    set_arithmetic()
    x, lengths = audio()
    models = {}
    for name, file in ((MEL, "mel_mtl.yaml"), (LEAF, "leaf_mtl.yaml")):
        hparams, tasks = settings("cpu", batch_size=BATCH, file=SHIPPED / file)
        models[name] = build_model(hparams, tasks).train()

    def step(model):
        with torch.no_grad():
            inputs = model.frozen_outputs(x, lengths) if len(model.frozen_stages) else (x, lengths)
        return lambda: sum(y.sum() for y in model(*inputs, skip_frozen=True)[0].values()).backward()

    leaf = models[LEAF].trainable_stages[0]
    with torch.no_grad():
        energies = leaf._energies(leaf.gain * x[:, None], lengths).transpose(1, 2)
        counts = filter_points(leaf, lengths)
    energies.requires_grad_()
    cases = {name: step(model) for name, model in models.items()} | {
        "energies": lambda: leaf._energies(leaf.gain * x[:, None], lengths).sum().backward(),
        "PCEN": lambda: leaf.pcen(energies).sum().backward(),
        "inverse FFTs": transforms(counts[0]),
        "inverse FFTs, the least": transforms(counts[1]),
    }
    points = dict(zip(list(cases)[-2:], (f"{sum(count.values()) / 1e6:.1f} M" for count in counts)))
    report(
        f"Steps of batches of {BATCH} utterances of 3.1 to 4.5 s, 40 bands or filters",
        interleaved(cases, args.repeats, warmup=2, clock=time.process_time),
        MEL,
        extra={"points": points},
        out=args.out,
    )


if __name__ == "__main__":
    main()
