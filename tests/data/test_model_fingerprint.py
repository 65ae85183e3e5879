"""The digest of frozen stages covers everything that their output depends on."""

import functools
import importlib
import sys
import threading
from importlib.metadata import version

import numpy as np
import pytest
import torch
import torchaudio

from korser import Chain, Frontend
from korser.data import fingerprint
from korser.data.fingerprint import FingerprintError, stages_digest
from korser.plugins.frontends.encoder import PretrainedEncoder
from korser.plugins.frontends.mel import Mel


class Stage(Frontend):
    """Keeps whatever it is given."""

    def __init__(self, value=None, *, path=None):
        super().__init__(output_size=1, frame_rate=16000)
        self.config = {}  # so that only what is kept is compared
        self._kept = value


class Plain:
    def __init__(self, value):
        self.value = value


class WithTemporary(Plain):
    def __getstate__(self):
        return {**vars(self), "temporary": None}


def captured(value):
    return lambda x: x * value


def hooked(value):
    stage = Stage()
    stage.register_forward_hook(functools.partial(print, value))
    return stage


def registered(value):
    stage = Stage()
    stage.register_buffer("kept", torch.tensor(value))
    return stage


MAKE = {
    "number": Stage,
    "array": lambda value: Stage(np.array([value, 0.0])),
    "objects": lambda value: Stage(np.array([value, "a"], dtype=object)),
    "tensor": lambda value: Stage([torch.tensor(value)]),
    "bfloat16": lambda value: Stage(torch.tensor([value], dtype=torch.bfloat16)),
    "buffer": registered,
    "nested": lambda value: Stage({"a": (Plain([value]), {value})}),
    "module in a list": lambda value: Stage([Mel(f_min=value)]),
    "chain": lambda value: Chain(Stage(value)),
    "library": lambda value: Stage(torchaudio.transforms.Spectrogram(power=value)),
    "closure": lambda value: Stage(captured(value)),
    "partial": lambda value: Stage(functools.partial(max, value)),
    "method": lambda value: Stage([value].count),
    "hook": hooked,
    "cycle": lambda value: Stage(cycle(value)),
}


def cycle(value):
    one = Plain([value])
    one.itself = one
    return one


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_a_value_counts_wherever_it_is_kept(make):
    one, same, other = (stages_digest([make(value)]) for value in (1.0, 1.0, 2.0))
    assert one == same != other


def test_constructor_arguments_and_weights_count():
    assert len({stages_digest([stage]) for stage in (Mel(), Mel(), Mel(n_mels=80), Mel(lr=0.1))}) == 3
    wav2vec = PretrainedEncoder(source="nano-random")
    before = stages_digest([wav2vec])
    with torch.no_grad():
        wav2vec(torch.zeros(1, 4000), torch.tensor([4000]))
    assert stages_digest([wav2vec]) == before == stages_digest([PretrainedEncoder(source="nano-random")])
    next(wav2vec.parameters()).data += 1
    assert stages_digest([wav2vec]) != before


def test_the_content_of_a_file_that_an_argument_names_counts(tmp_path):
    class Reader(Frontend):
        def __init__(self, *, paths):
            super().__init__(output_size=1, frame_rate=16000)

    file = tmp_path / "stats.txt"
    digests = []
    for text in ("1", "2", "22"):
        file.write_text(text)
        digests.append(stages_digest([Reader(paths={"stats": [str(file)]})]))
    assert len(set(digests)) == 3


def test_what_else_it_is_computed_with_counts():
    assert stages_digest([Mel()], dtype="float32") != stages_digest([Mel()], dtype="float16")


def test_temporary_results_can_be_left_out():
    value = WithTemporary(1)
    before = stages_digest([Stage(value)])
    value.temporary = [1, 2, 3]
    assert stages_digest([Stage(value)]) == before


@pytest.mark.parametrize(
    "value, where",
    [
        (threading.Lock(), "Stage._kept is a lock"),
        ({"a": [0, iter([1]), (i for i in "a")]}, r"Stage._kept\['a'\]\[2\] is a generator"),
        (torch.eye(2).to_sparse(), "Stage._kept is a Tensor|layout torch.sparse_coo"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_it(value, where):
    with pytest.raises(FingerprintError, match=where):
        stages_digest([Stage(value)])


STAGE = """
import scipy.signal
from korser import Frontend

class Mine(Frontend):
    def __init__(self):
        super().__init__(output_size=1, frame_rate=16000)

    def forward(self, x, lengths):
        return x[..., None], lengths
"""


def test_code_counts_and_so_do_the_libraries_that_it_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def current(text):
        (tmp_path / "stage_of_mine.py").write_text(text)
        monkeypatch.delitem(sys.modules, "stage_of_mine", raising=False)
        importlib.invalidate_caches()
        return stages_digest([importlib.import_module("stage_of_mine").Mine()])

    before = current(STAGE)
    assert current(STAGE.replace("    def forward", "    # a comment\n    def forward")) == before
    assert current(STAGE.replace("x[..., None]", "x[..., None] * 1")) != before
    assert current(STAGE + "\n\nclass Another(Frontend):\n    size = 3\n") == before
    monkeypatch.setattr(fingerprint, "version", lambda name: "0" if name == "scipy" else version(name))
    assert current(STAGE) != before


@pytest.mark.parametrize("module, counts", [("korser.frontend.lengths", True), ("korser.utils.errors", False)])
def test_of_korser_only_what_computes_counts(monkeypatch, module, counts):
    before = stages_digest([Mel()])
    original = fingerprint.module_digest
    monkeypatch.setattr(fingerprint, "module_digest", lambda name: "other" if name == module else original(name))
    assert (stages_digest([Mel()]) != before) is counts
