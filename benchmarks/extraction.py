"""Frozen features of wav2vec 2.0: transformers, the frontend's reference and fast paths, and the feature cache.

GFLOP of wav2vec2-base per second of audio (a multiplication and an addition are two), in utterances of 4.5 s:

| part | GFLOP |
|---|--:|
| convolutions (3,200, 1,600, ... 50 frames, 512 channels) | 0.03 + 2.52 + 1.26 + 0.63 + 0.31 + 0.10 + 0.05 = 4.9 |
| projection to 768 channels | 0.04 |
| positional convolution (128 taps, 16 groups), directly | 0.47 |
| 12 layers: projections of attention 2.8, feed-forward 5.7 | 8.5 |
| 12 layers: attention over 225 frames | 0.41 |
| sum | 14.3 |

At 783 TFLOP/s (bf16 matrix products on an H100, measured) that is 18 us, 55,000 audio seconds per second. The rest is
memory traffic, at 3.0 TB/s: an activation of the convolutions is written once, read and written by GELU and read again,
in bf16 6.5 MB for the seven layers each time, 9 us; the sums of partial products take 2 us; what is element by element
between the transformer's matrix products, with a float32 residual stream, about 30 MB, 10 us, or 18 MB, 6 us, where it
is fused (``implementation: compiled``). If nothing overlapped, some 39 us: 26,000 audio seconds per second.
"""

import math
import tempfile
from pathlib import Path

import pandas as pd
import torch
from stock import arithmetic, save_random_wav2vec, titled
from timing import arguments, in_words, interleaved, peak_bytes, report
from torch.nn import functional as F
from transformers import AutoModel

from korser.data.feature_cache import FeatureCache
from korser.frontend.base import SAMPLE_RATE
from korser.plugins.frontends.encoder.encoder import PretrainedEncoder
from korser.plugins.frontends.encoder.families.waveform.fast import (
    convolution_weights,
    convolve,
    fft_convolve,
    fft_weights,
)
from korser.utils.seeding import set_arithmetic

SECONDS = 4.5  # of an utterance, as in the paper's corpus
OPTIONS = [
    ("--source", {"help": "folder or hub id of a checkpoint; default: wav2vec2-base with random weights"}),
    ("--compiled", {"action": "store_true", "help": "also measure the variant that needs a C compiler"}),
]


def main():
    args = arguments(__doc__, options=OPTIONS)
    set_arithmetic()
    n = 2 if args.small else 256
    x = 0.1 * torch.randn(n, int(SECONDS * SAMPLE_RATE), generator=torch.Generator().manual_seed(0))
    x = x.to(args.device)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        source = args.source or save_random_wav2vec(Path(folder) / "base")
        complete_models(args, source, x)
        parts(args, source, x)
        positional_convolution(args, source, x)
        second_convolution(args, source, x)
        cache(args, source, Path(folder))


def autocast(function, device, enabled=True):
    def call():
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            return function()

    return call


as_it_comes = arithmetic(matmul=False)  # the default of PyTorch and transformers


def in_batches(model, x, size, *lengths):
    """Return a function that computes ``x`` in batches and drops the output."""

    def call():
        for i in range(0, len(x), size):
            model(x[i : i + size], *(each[i : i + size] for each in lengths))

    return call


def complete_models(args, source, x):
    device, n = args.device, len(x)
    lengths = torch.full((n,), x.shape[1], device=device)
    stock = AutoModel.from_pretrained(source, dtype=torch.float32).to(device).eval()
    half = AutoModel.from_pretrained(source, dtype=torch.bfloat16).to(device).eval()
    kinds = ["reference", "auto"] + ["compiled"] * args.compiled
    ours = {kind: PretrainedEncoder(source=source, implementation=kind).to(device) for kind in kinds}
    few, many = (1, 2) if args.small else (8, 64)
    baseline = f"transformers, fp32, batch {many}"
    cases = {
        f"transformers, fp32, batch {few}": as_it_comes(in_batches(stock, x, few)),
        baseline: as_it_comes(in_batches(stock, x, many)),
        f"transformers, bf16, batch {n}": as_it_comes(in_batches(half, x.bfloat16(), n)),
        "korser auto, fp32, one at a time": in_batches(ours["auto"], x, 1, lengths),
    }
    errors, size = {}, f"batch {n}"
    exact = ours["reference"](x, lengths)[0].float()
    for kind, model in ours.items():
        for precision in ("fp32", "bf16"):
            name = f"korser {kind}, {precision}, {size}"
            cases[name] = autocast(in_batches(model, x, n, lengths), device, precision == "bf16")
            y = autocast(lambda model=model: model(x, lengths)[0], device, precision == "bf16")().float()
            errors[name] = f"{((y - exact).norm() / exact.norm()).item():.1e}"
    del exact, y
    peaks = {name: f"{peak_bytes(case, device) / 2**30:.2f} GiB" for name, case in cases.items()}
    report(
        titled(f"frozen wav2vec 2.0, {n} utterances of {SECONDS} s", device),
        interleaved(cases, args.repeats, device=device),
        baseline,
        ("audio s", n * SECONDS),
        device=device,
        extra={"peak memory": peaks, "error": errors},
        notes=["Error: of all features in the 2-norm, relative to `korser reference, fp32`."],
        out=args.out,
    )


def parts(args, source, x):
    """Measure the convolutional extractor and the transformer separately."""
    device, n = args.device, len(x)
    model = PretrainedEncoder(source=source).to(device)
    fast, plain = model.encoder._fast, AutoModel.from_pretrained(source, dtype=torch.float32).to(device).eval()
    half = AutoModel.from_pretrained(source, dtype=torch.bfloat16).to(device).eval()
    lengths = torch.full((n,), x.shape[1], device=device)
    frames = int(model.output_lengths(lengths)[0])
    projected = torch.randn(n, frames, plain.config.hidden_size, device=device)
    extracted = torch.randn(n, frames, plain.config.conv_dim[-1], device=device)
    cases = {
        "transformers, fp32: convolutions": lambda: plain.feature_extractor(x),
        "transformers, bf16: convolutions": lambda: half.feature_extractor(x.bfloat16()),
        "transformers, fp32: encoder": lambda: plain.encoder(projected),
        "transformers, bf16: encoder": lambda: half.encoder(projected.bfloat16()),
    }
    cases = {name: as_it_comes(case) for name, case in cases.items()}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        weights = fast._derive(dtype)
        cases |= {
            f"korser, {name}: convolutions": lambda w=weights, d=dtype: fast._extract(x, lengths, frames, w, d),
            f"korser, {name}: encoder": lambda w=weights, d=dtype: fast._encode(
                extracted.to(d), None, [(frames, n)], None, w, d, every_layer=False
            ),
        }
    cases = dict(sorted(cases.items(), key=lambda case: case[0].split(":")[1]))
    seconds = interleaved(cases, args.repeats, device=device)
    units = ("audio s", n * SECONDS)
    title = titled("its parts (korser's encoder with the projection)", device)
    report(title, seconds, None, units, device=device, out=args.out)


def positional_convolution(args, source, x):
    """Measure the grouped convolution by the library and by FFT."""
    n, device = len(x), args.device
    model = PretrainedEncoder(source=source).to(device).encoder.model
    embed = model.encoder.pos_conv_embed
    if not hasattr(embed, "conv"):  # data2vec-audio
        return
    h = torch.randn(n, round(SECONDS * 50), model.config.hidden_size, device=device)
    weights, conv, taps = fft_weights(embed.conv), embed.conv, embed.conv.kernel_size[0]
    w, bias = conv.weight, conv.bias

    def library(dtype):
        return F.conv1d(h.mT.to(dtype), w.to(dtype), bias.to(dtype), padding=taps // 2, groups=conv.groups)

    cases = {
        "conv1d, fp32": lambda: library(torch.float32),
        "conv1d, bf16": lambda: library(torch.bfloat16),
        "FFT, fp32": lambda: fft_convolve(h, *weights),
    }
    seconds = interleaved(cases, args.repeats, device=device)
    title = f"positional convolution, {taps} taps, {conv.groups} groups"
    report(title, seconds, "conv1d, fp32", ("audio s", n * SECONDS), device=device, out=args.out)


def second_convolution(args, source, x):
    """Measure the most expensive convolution in three layouts."""
    n, device = len(x), args.device
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    conv = PretrainedEncoder(source=source).to(device).encoder.model.feature_extractor.conv_layers[1].conv
    stride, channels = conv.stride[0], conv.in_channels
    rows = 2 * stride * (round(SECONDS * 3200) // (2 * stride))
    last = torch.randn(n, rows, channels, device=device, dtype=dtype)
    first = last.mT.contiguous()
    weights, (w, bias) = convolution_weights(conv, dtype), (conv.weight.to(dtype), conv.bias)
    bias = None if bias is None else bias.to(dtype)
    image = w[:, :, None].contiguous(memory_format=torch.channels_last)
    cases = {
        "conv1d, channels first": lambda: F.conv1d(first, w, bias, stride),
        "conv2d, channels last": lambda: F.conv2d(last.mT[:, :, None], image, bias, (1, stride)),
        "matrix products, channels last": lambda: convolve(last.flatten(0, 1), stride, *weights),
    }
    seconds = interleaved(cases, args.repeats, device=device)
    title = f"second convolution, {channels} channels, {str(dtype).removeprefix('torch.')}"
    report(title, seconds, "conv1d, channels first", ("audio s", n * SECONDS), device=device, out=args.out)


def cache(args, source, folder):
    """Measure FeatureCache.fill, disk included, for utterances of 3 to 6 s with waveforms in memory."""
    generator = torch.Generator().manual_seed(1)
    n = 3 if args.small else 4096
    sizes = ((3 + 3 * torch.rand(n, generator=generator)) * SAMPLE_RATE).int().tolist()
    noise = 0.1 * torch.randn(max(sizes) + n, generator=generator)
    names, digests = map(str, range(n)), [f"{i:064x}" for i in range(n)]
    audio = pd.DataFrame({"path": names, "digest": digests, "samples": sizes})

    def read(path, digest):
        return noise[int(path) : int(path) + sizes[int(path)]]

    cases, repeats = {}, min(args.repeats, 3)  # each call writes its features again
    for precision, dtype in (("fp32", "float32"), ("bf16", "float16")):
        model = PretrainedEncoder(source=source).to(args.device)
        # one folder per call, else nothing would be left to compute; the constructor hashes the encoder
        caches = iter(
            [
                FeatureCache([model], folder / precision / str(i), read, dtype=dtype, precision=precision)
                for i in range(1 + repeats)
            ]
        )
        cases[f"{precision}, kept as {dtype}"] = lambda caches=caches: next(caches).fill(audio, progressbar=False)
    total = sum(sizes) / SAMPLE_RATE
    size = sum(math.floor(s / 320) for s in sizes) * 768 * 4
    measured = interleaved(cases, repeats, device=args.device)
    report(
        f"FeatureCache.fill, {n} utterances of 3 to 6 s ({in_words(total)}), disk included",
        measured,
        next(iter(measured)),
        ("audio s", total),
        device=args.device,
        notes=[f"Written: {size / 1e9:.2f} GB in float32, half of it in float16."] if args.source is None else [],
        out=args.out,
    )


if __name__ == "__main__":
    main()
