"""LEAF compared with mel and SpeechBrain's Leaf: forward, and forward and backward, on the same audio.

SpeechBrain's Leaf has its defaults (40 filters; TF32 on a GPU). korser's is measured in its plain form
(``implementation="reference"``, the convolutions of the definition) and its fast one, on a GPU also as a CUDA graph,
with the same batch and four times that. Peak memory is without parameters and audio.
"""

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.features import Leaf as SpeechBrainLeaf
from stock import arithmetic, titled
from timing import arguments, in_child, interleaved, peak_bytes, report
from torchaudio.transforms import MelSpectrogram

from korser.plugins.frontends.leaf.leaf import Leaf
from korser.utils.seeding import set_arithmetic

RATE = 16_000
BOTH, FORWARD = "forward and backward", "forward"
THEIRS, PLAIN, FAST = "SpeechBrain Leaf", "korser Leaf, plain", "korser Leaf, fast"


def audio(batch, seconds, device):
    """Return noise at the level of speech, ``(batch, seconds * RATE)``, and its lengths."""
    x = 0.1 * torch.randn(batch, int(seconds * RATE), generator=torch.Generator().manual_seed(0))
    return x.to(device), torch.full((batch,), x.shape[1], device=device)


def make(name, device):
    """Return a frontend as a function of audio and lengths, and its module."""
    if name == "torchaudio mel":
        module = MelSpectrogram(RATE, n_fft=512, win_length=400, hop_length=160, n_mels=40)
    elif name == "SpeechBrain Fbank":
        module = Fbank(n_mels=40)
    elif name == THEIRS:
        module = SpeechBrainLeaf(out_channels=40, in_channels=1)
    else:
        module = Leaf(implementation="reference" if name == PLAIN else "auto")
    module = module.to(device)
    if isinstance(module, Leaf):
        return (lambda x, lengths: module(x, lengths)[0]), module
    return (lambda x, lengths: module(x)), module


def case(name, what, x, lengths):
    """Return the step to be timed, a function without arguments."""
    run, module = make(name, x.device)
    if what == FORWARD:

        def step():
            with torch.no_grad():
                run(x, lengths)

    else:

        def step():
            module.zero_grad(set_to_none=True)
            run(x, lengths).square().mean().backward()

    return step if isinstance(module, Leaf) else arithmetic(matmul=name.startswith("SpeechBrain"))(step)


def captured(step):
    """Return the step as the replay of a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # plans of the transforms, constants
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(step=step):  # keeps the parameters and the audio that the graph reads
        graph.replay()

    return replay


def peak(name, what, batch, seconds, device):
    """Return the peak memory of a case in bytes."""
    step = case(name, what, *audio(batch, seconds, device))
    step()
    return peak_bytes(step, device)


def peak_in_child(name, what, batch, seconds, threads):
    """Return the same, called in a new process, since a CPU's allocator keeps memory of earlier cases."""
    torch.set_num_threads(threads)
    step = case(name, what, *audio(batch, seconds, "cpu"))
    case(name, what, *audio(1, seconds, "cpu"))()  # libraries are loaded, constants made
    return peak_bytes(step, "cpu")


def main():
    options = [
        ("--batch", {"type": int, "help": "utterances (default: 8 if small, 128 if full)"}),
        ("--seconds", {"type": float, "help": "of an utterance (default: 4 if small, 4.5 if full)"}),
        ("--threads", {"type": int, "default": 2, "help": "of a CPU (default: 2)"}),
    ]
    args = arguments(__doc__, options=options)
    torch.set_num_threads(args.threads)
    set_arithmetic()
    batch, seconds = args.batch or (8 if args.small else 128), args.seconds or (4.0 if args.small else 4.5)
    frontends = ["torchaudio mel", "SpeechBrain Fbank", THEIRS, PLAIN, FAST]
    learning = [THEIRS, PLAIN, FAST]
    for what, names in ((FORWARD, frontends), (BOTH, learning)):
        x, lengths = audio(batch, seconds, args.device)
        cases = {name: case(name, what, x, lengths) for name in names}
        amounts = {name: batch * seconds for name in names}
        if args.device == "cuda" and what == BOTH:
            for times in 1, 4:
                name = f"{FAST}, CUDA graph, batch {times * batch}"
                cases[name] = captured(case(FAST, what, *audio(times * batch, seconds, args.device)))
                amounts[name] = times * batch * seconds
        rows = interleaved(cases, args.repeats, warmup=2, device=args.device)
        del cases
        if args.device == "cuda":
            torch.cuda.empty_cache()
            memory = {name: peak(name, what, batch, seconds, args.device) for name in names}
        else:
            memory = {name: in_child(peak_in_child, name, what, batch, seconds, args.threads) for name in names}
        report(
            titled(f"LEAF, {what}: {batch} x {seconds:g} s at 16 kHz, float32, 40 filters", args.device),
            rows,
            THEIRS,
            ("audio s", amounts),
            device=args.device,
            extra={"peak memory": {name: f"{size / 2**20:,.0f} MiB" for name, size in memory.items()}},
            out=args.out,
        )


if __name__ == "__main__":
    main()
