"""The cache of the frozen prefix: equal to the uncached path, and never stale."""

import importlib
import json
import linecache
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import HPARAMS
from test_training import run

from korser import load_hparams
from korser.audio import read_audio
from korser.features import FeatureCache, digest
from korser.rundir import read_csv
from korser.model import SpeechEmotionModel
from korser.training import make_reader, prepare
from plugins.frontends.mel import Mel


@pytest.fixture
def wave(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(8000) * 0.1, 16000)
    return str(tmp_path / "a.wav")


def stages(**settings):
    return [Mel(**settings)]


def test_what_is_read_is_what_was_computed(tmp_path, wave):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    computed = cache.read(wave, "d1")
    assert cache.path("d1").exists()
    cache.read_audio = None  # the second time nothing is computed
    assert cache.read(wave, "d1").equal(computed)
    expected, _ = stages()[0](read_audio(wave)[None], torch.tensor([8000]))
    torch.testing.assert_close(computed, expected[0])


@pytest.mark.parametrize("damage", [b"", b"no numbers at all", None])
def test_a_damaged_entry_is_made_again(tmp_path, wave, damage):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    good = cache.read(wave, "d1")
    content = cache.path("d1").read_bytes()
    cache.path("d1").write_bytes(content[:-100] if damage is None else damage)
    assert cache.read(wave, "d1").equal(good)
    assert cache.path("d1").read_bytes() == content


def test_only_what_is_missing_is_computed(tmp_path, wave):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    audio = pd.DataFrame({"audio_path": [wave] * 3, "digest": ["d1", "d2", "d3"]})
    cache.read(wave, "d2")
    assert cache.fill(audio, progressbar=False) == 2
    assert cache.fill(audio, progressbar=False) == 0


def test_of_processes_that_start_together_one_computes(tmp_path, wave, monkeypatch):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    other = FeatureCache(stages(), tmp_path / "cache", read_audio)
    audio = pd.DataFrame({"audio_path": [wave] * 3, "digest": ["d1", "d2", "d3"]})
    counts, waiting = [], []

    def compute(path, name):
        if not waiting:  # the other one starts while this one is at work
            waiting.append(threading.Thread(target=lambda: counts.append(other.fill(audio, progressbar=False))))
            waiting[0].start()
            time.sleep(0.2)
        return FeatureCache.compute(cache, path, name)

    monkeypatch.setattr(cache, "compute", compute)
    counts.append(cache.fill(audio, progressbar=False))
    waiting[0].join()
    assert counts == [3, 0]


def test_the_digest_knows_settings_and_weights():
    assert digest(stages()) == digest(stages())
    assert digest(stages(n_mels=80)) != digest(stages())
    changed = stages()
    changed[0].register_buffer("more", torch.zeros(1))
    with_zero = digest(changed)
    changed[0].more += 1
    assert digest(changed) != with_zero != digest(stages())


STAGE = """
from korser import Stage
from mypackage.helper import scale

class Mine(Stage):
    def __init__(self):
        super().__init__(output_size=1, frame_rate=16000)

    def forward(self, x, lengths):
        return x[..., None] * scale, lengths
"""


def test_the_digest_knows_a_helper_beside_the_stage(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lonely_stage.py").write_text(STAGE.replace("mypackage.helper", "lonely_helper"))
    digests = []
    for scale in ("1.0", "2.0"):
        (tmp_path / "lonely_helper.py").write_text(f"scale = {scale}\n")
        for name in ("lonely_stage", "lonely_helper"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        linecache.clearcache()
        digests.append(digest([importlib.import_module("lonely_stage").Mine()]))
    assert digests[0] != digests[1]


def test_the_digest_knows_the_code_and_what_it_imports(tmp_path, monkeypatch):
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "stage.py").write_text(STAGE)
    (package / "helper.py").write_text("scale = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    def current():
        importlib.invalidate_caches()
        for name in [n for n in sys.modules if n.startswith("mypackage")]:
            del sys.modules[name]
        linecache.clearcache()
        return digest([importlib.import_module("mypackage.stage").Mine()])

    first = current()
    assert current() == first
    (package / "helper.py").write_text("scale = 2.0\n")
    second = current()
    assert second != first, "a helper that the stage uses was edited"
    (package / "stage.py").write_text((package / "stage.py").read_text().replace("* scale", "* scale * 1"))
    assert current() != second, "the stage was edited"


@pytest.mark.parametrize("model", ["mel_mtl", "wav2vec_mtl"])
def test_cached_and_uncached_training_agree(tiny, tmp_path, model):
    tiny = {**tiny, "n_epochs": "1"}
    cached = run(tiny, model=model)
    uncached = run({**tiny, "use_cache": "false"}, model=model)
    a, b = (read_csv(d / "test.csv") for d in (cached, uncached))
    columns = [c for c in a if "_prob_" in c]
    np.testing.assert_allclose(a[columns], b[columns], rtol=2e-3, atol=2e-4)
    assert json.loads((cached / "run.json").read_text())["frozen"]


def test_epochs_after_the_first_do_not_run_the_encoder(tiny, tmp_path):
    hparams = load_hparams(HPARAMS / "wav2vec_mtl.yaml", tiny)
    prepare(hparams, tmp_path / "run")
    model = SpeechEmotionModel(frontend=hparams["frontend"], backbone=torch.nn.Identity(), head=torch.nn.Identity())
    manifest = read_csv(tmp_path / "run" / "manifest.csv")
    read, skip_prefix = make_reader(hparams, model, manifest)
    assert skip_prefix
    model.prefix[0].forward = None  # calling it now would fail
    row = manifest.iloc[0]
    assert read(row["audio_path"], row["digest"]).shape[1] == model.prefix[0].output_size


def test_waveform_augmentation_switches_the_cache_off(tiny, tmp_path, caplog):
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", tiny)
    prepare(hparams, tmp_path / "run")
    hparams["wav_augment"] = lambda x, lengths: (x, lengths)
    model = SpeechEmotionModel(frontend=hparams["frontend"], backbone=torch.nn.Identity(), head=torch.nn.Identity())
    read, skip_prefix = make_reader(hparams, model, read_csv(tmp_path / "run" / "manifest.csv"))
    assert not skip_prefix
    assert "the cache of frozen features is off" in caplog.text
