"""Theoretical limits of speed: operations and bytes, counted and not timed.

Operations are those of matrix products, convolutions, attention and Fourier transforms as they are executed (PyTorch's
FlopCounterMode with :data:`korser.nn.cost.FLOPS`), without element-wise operations. Bytes are the minimum: each
input is read once, each output written once, and weights, which a batch shares, are not counted. The limits of an H100
are those in the README.
"""

import torch
from timing import arguments, figure, in_words, write
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Wav2Vec2Config, Wav2Vec2Model

from korser import SAMPLE_RATE
from korser.nn.cost import FLOPS
from korser.plugins.backbones.convnet import ConvNet
from korser.plugins.frontends.leaf.leaf import Leaf
from korser.plugins.frontends.mel import Mel

BF16, FP32, COPY = 783e12, 50e12, 3.0e12  # FLOP/s with and without tensor cores, bytes/s
SECONDS = 4.5  # of an utterance
FRAMES, CHANNELS = 225, 768  # of an utterance behind wav2vec2-base
UTTERANCES = 52_000  # of an epoch


def flop(function):
    """Return the floating-point operations of a call."""
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops()


def forward(stage, x):
    """Return the operations of a forward pass, and the bytes of input and output, for ``(1, T)`` or ``(1, T, C)``."""
    lengths = torch.tensor([x.shape[1]])
    with torch.no_grad():
        y, _ = stage(x, lengths)
        return flop(lambda: stage(x, lengths)), x.nbytes + y.nbytes


def training_step(x):
    """Return the operations of a forward and backward pass of LEAF and the ConvNet on features ``(1, T, C)``.

    Three times the forward pass, since a product of matrices has two gradients of its own size. (PyTorch's counter
    multiplies the gradient of a grouped convolution by the number of groups.)
    """
    leaf = Leaf(in_channels=x.shape[-1], sample_rate=50)
    net = ConvNet(in_channels=leaf.output_size, frame_rate=leaf.frame_rate).eval()
    with torch.no_grad():
        return 3 * flop(lambda: net(*leaf(x, torch.tensor([x.shape[1]]))))


def wav2vec():
    """Return the operations of wav2vec2-base on an utterance, counted on the meta device."""
    with torch.device("meta"), torch.no_grad():
        model = Wav2Vec2Model(Wav2Vec2Config()).eval()
        x = torch.empty(1, int(SECONDS * SAMPLE_RATE))
        extractor = flop(lambda: model.feature_extractor(x))
        return extractor, flop(lambda: model(x))


def main():
    args = arguments(__doc__)
    x = torch.randn(1, int(SECONDS * SAMPLE_RATE)) * 0.1
    extractor, whole = wav2vec()
    rows = []

    def row(name, flops, bytes_moved, peak):
        flops, bytes_moved = flops / SECONDS, bytes_moved / SECONDS
        kind = "bf16" if peak == BF16 else "fp32"
        cells = [f"{flops / 1e9:.3g}", f"{bytes_moved / 1e3:.3g}", f"{figure(peak / flops)} ({kind})"]
        rows.append([name, *cells, figure(COPY / bytes_moved)])

    row("mel, 40 bands", *forward(Mel(n_mels=40), x), FP32)
    row("LEAF by definition (implementation: reference)", *forward(Leaf(implementation="reference"), x), FP32)
    row("LEAF, the fast path (implementation: auto)", *forward(Leaf(), x), FP32)
    features = FRAMES * CHANNELS * 2
    row("wav2vec2-base, conv extractor only", extractor, x.nbytes + FRAMES * 512 * 2, BF16)
    row("wav2vec2-base, features kept in 16 bit", whole, x.nbytes + features, BF16)
    head = ["forward", "GFLOP per audio s", "kB per audio s", "audio s/s at the limit of operations", "of memory"]
    write("limits of an H100, per audio second", head, rows, out=args.out)

    step = training_step(torch.randn(1, FRAMES, CHANNELS)) * UTTERANCES
    size = features * UTTERANCES
    body = [
        ["read its features, 16 bit", f"{size / 1e9:.3g} GB", in_words(size / COPY)],
        ["forward and backward in fp32", f"{step / 1e12:.3g} TFLOP", in_words(step / FP32)],
        ["the same on tensor cores (bf16)", f"{step / 1e12:.3g} TFLOP", in_words(step / BF16)],
    ]
    title = f"an epoch of {UTTERANCES:,} cached utterances ({FRAMES} x {CHANNELS}) through LEAF and the ConvNet"
    write(title, ["", "amount", "at the limit"], body, out=args.out)


if __name__ == "__main__":
    main()
