"""Arithmetic and random number generators."""

import random
import subprocess
import sys

import numpy as np
import torch
from helpers import run
from torch import nn

import korser
from korser.inference.load import load_trained_model
from korser.utils.seeding import seed_everything, seeded


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_seeded_restores_the_generators():
    seed_everything(1, 2)
    expected = draws()
    seed_everything(1, 2)
    with seeded(5):
        inside = draws()
    assert draws() == expected != inside
    with seeded(5):
        assert draws() == inside


def test_numbers_of_the_seed_all_count():
    seen = set()
    for numbers in (0,), (1,), (1, 0, 1), (1, 2), (2, 1):
        seed_everything(*numbers)
        seen.add(draws())
    assert len(seen) == 5


CODE = """
import torch
from korser.utils.seeding import set_arithmetic
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
set_arithmetic()
import speechbrain
print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.deterministic)
print(torch.backends.mha.get_fastpath_enabled())
"""


def test_tf32_stays_off_where_speechbrain_is_imported_later():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout == "False False True\nFalse\n", done.stderr


class Frames(korser.Frontend):
    def __init__(self):
        super().__init__(output_size=1, frame_rate=100)
        self.conv = nn.Conv1d(1, 1, 160, 160)

    def forward(self, x, lengths):
        return self.conv(x[:, None]).transpose(1, 2), lengths // 160


def test_every_entry_point_computes_without_tf32(tiny, tmp_path):
    entry_points = [
        lambda: run({**tiny, "n_epochs": "1"}, model="mel_stl", run_dir=tmp_path / "run"),
        lambda: load_trained_model(tmp_path / "run"),
        lambda: list(korser.check_frontend(Frames)),
    ]
    for enter in entry_points:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        enter()
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
