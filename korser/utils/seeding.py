"""Random number generators and repeatable arithmetic."""

import contextlib
import random

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed):
    """Seed the generators that the CPU draws from, and put them back afterwards.

    ``torch.manual_seed`` would seed those of GPUs too, or leave word to seed them once CUDA is there.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def seed_everything(*numbers):
    """Seed torch, numpy and Python (SpeechBrain's and transformers' augmentations use them) from integers."""
    state = [int(n) for n in np.random.SeedSequence(numbers).generate_state(3)]
    if torch.accelerator.is_available() and not torch.cuda.is_available():
        torch.manual_seed(state[0])
    else:  # for each kind of device that is not there, manual_seed formats a stack trace and keeps it, at every step
        torch.default_generator.manual_seed(state[0])
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(state[0])
    np.random.seed(state[1])
    random.seed(state[2])


def set_arithmetic():
    """Make numbers repeatable: the same seed on the same machine gives the same."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32: predictions on a CPU are those of the test
    torch.backends.cuda.matmul.allow_tf32 = False
