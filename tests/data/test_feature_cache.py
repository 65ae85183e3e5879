"""The cache of frozen features: equal to the uncached path, and never stale."""

import json
import logging
import multiprocessing
import threading
import time

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import HPARAMS
from helpers import run

from korser import Frontend, load_hparams
from korser.data.audio import read_audio as decode
from korser.data.audio_cache import AudioStore
from korser.data.feature_cache import FeatureCache, computed_with, cut_batch
from korser.data.frozen_prefix import FrozenPrefix
from korser.frontend.lengths import mask_padding
from korser.inference.load import load_trained_model
from korser.nn.model import SpeechEmotionModel
from korser.plugins.frontends.encoder.encoder import PretrainedEncoder
from korser.plugins.frontends.mel import Mel
from korser.training.datasets import make_readers
from korser.training.prepare import prepare_data
from korser.utils.errors import UserError
from korser.utils.files import read_csv


@pytest.fixture
def wave(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(8000) * 0.1, 16000)
    return str(tmp_path / "a.wav")


def read_audio(path, digest=None):
    return decode(path)


def stages(**settings):
    return [Mel(**settings)]


@pytest.fixture
def audio(tmp_path):
    """Twenty utterances of many lengths, in no order."""
    rng = np.random.default_rng(0)
    rows = []
    for i, samples in enumerate(rng.permutation(np.arange(20) * 300 + 2000)):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, rng.standard_normal(samples) * 0.1, 16000)
        rows.append({"path": str(path), "digest": f"d{i:02d}", "samples": samples})
    return pd.DataFrame(rows)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("korser.data.feature_cache.SHARD_ARRAYS", 4)


def contents(cache):
    return {file.name: file.read_bytes() for file in cache.store.folder.iterdir() if file.name != ".lock"}


def shards(cache):
    return sorted(cache.store.folder.glob("*.bin"))


def test_what_is_read_is_what_was_computed(tmp_path, wave):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    computed = cache.read(wave, "d1")
    cache.read_audio = None  # the second time nothing is computed
    assert cache.read(wave, "d1").equal(computed)
    expected, _ = stages()[0](read_audio(wave)[None], torch.tensor([8000]))
    torch.testing.assert_close(computed, expected[0])


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_in_batches_it_is_what_it_is_alone(tmp_path, audio, monkeypatch, dtype, tolerance):
    on_a_gpu(monkeypatch)
    wav2vec = PretrainedEncoder(source="nano-random")
    cache = FeatureCache([wav2vec], tmp_path / "cache", read_audio, dtype=dtype, seconds=1)
    assert cache.fill(audio, progressbar=False) == len(audio)
    cache.read_audio = None
    for row in audio.itertuples():
        features = cache.read(row.path, row.digest)
        assert str(features.dtype) == f"torch.{dtype}"
        with torch.no_grad():
            alone, _ = wav2vec(read_audio(row.path)[None], torch.tensor([row.samples]))
        torch.testing.assert_close(features.float(), alone[0], rtol=tolerance, atol=tolerance)


def on_a_gpu(monkeypatch):
    """Cut batches as on a GPU."""
    monkeypatch.setattr(
        "korser.data.feature_cache.cut_batch", lambda rows, _, s: cut_batch(rows, torch.device("cuda"), s)
    )


def test_batches_are_of_one_length_and_no_longer_than_allowed(tmp_path, audio, monkeypatch):
    class Recording(Mel):
        sizes = []

        def forward(self, x, lengths):
            self.sizes.append((x.shape[0], x.shape[1], int(lengths.sum())))
            return super().forward(x, lengths)

    on_a_gpu(monkeypatch)
    FeatureCache([Recording()], tmp_path / "cache", read_audio, seconds=1).fill(audio, progressbar=False)
    assert [size[1] for size in Recording.sizes] == sorted((size[1] for size in Recording.sizes), reverse=True)
    assert all(n * longest <= 16000 for n, longest, _ in Recording.sizes)
    assert sum(n * longest for n, longest, _ in Recording.sizes) < 1.1 * audio["samples"].sum()


def test_bf16_computes_under_autocast(tmp_path, audio):
    wav2vec = PretrainedEncoder(source="nano-random")
    exact, fast = (
        FeatureCache([wav2vec], tmp_path / "cache", read_audio, precision=precision) for precision in ("fp32", "bf16")
    )
    row = audio.iloc[0]
    a, b = (cache.read(row.path, row.digest) for cache in (exact, fast))
    assert not a.equal(b)
    assert (a - b).norm() < 0.02 * a.norm()


@pytest.mark.parametrize("damage", ["values", "index", "gone"])
def test_a_damaged_shard_is_made_again(tmp_path, audio, small_shards, damage):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    cache.fill(audio, progressbar=False)
    good = contents(cache)
    file = shards(cache)[2]
    if damage == "gone":
        file.unlink()
    else:
        file = file if damage == "values" else file.with_suffix(".json")
        file.write_bytes(file.read_bytes()[:-100])
    again = FeatureCache(stages(), tmp_path / "cache", read_audio)
    if damage != "index":  # which is seen at once
        bad = [row for row in audio.itertuples() if json.dumps(row.digest) in file.with_suffix(".json").read_text()]
        again.store.missing(audio["digest"])
        with pytest.raises(KeyError):
            again.store.read(bad[0].digest)
    assert again.fill(audio, progressbar=False) == 4
    assert contents(again) == good


def test_what_is_damaged_while_training_is_computed(tmp_path, audio):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    cache.fill(audio, progressbar=False)
    row = audio.iloc[0]
    good = cache.read(row.path, row.digest).clone()
    for file in shards(cache):
        file.write_bytes(bytes(file.stat().st_size))
    again = FeatureCache(stages(), tmp_path / "cache", read_audio)
    assert again.read(row.path, row.digest).equal(good)
    again.read_audio = None
    assert again.read(row.path, row.digest).equal(good)


def test_only_what_is_missing_is_computed(tmp_path, audio):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    row = audio.iloc[3]
    cache.read(row.path, row.digest)
    twice = pd.concat([audio, audio])  # recordings of the same samples
    assert cache.fill(twice, progressbar=False) == len(audio) - 1
    assert cache.fill(twice, progressbar=False) == 0
    assert FeatureCache(stages(), tmp_path / "cache", None).fill(audio, progressbar=False) == 0


@pytest.mark.parametrize("after", [1, 9])
def test_an_interrupted_extraction_ends_in_the_same_bytes(tmp_path, audio, small_shards, monkeypatch, after):
    on_a_gpu(monkeypatch)
    whole = FeatureCache(
        [PretrainedEncoder(source="nano-random")], tmp_path / "whole", read_audio, dtype="float16", seconds=1
    )
    whole.fill(audio, progressbar=False)
    left = [after]

    def interrupted(path, digest):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return read_audio(path)

    cache = FeatureCache(
        [PretrainedEncoder(source="nano-random")], tmp_path / "cache", interrupted, dtype="float16", seconds=1
    )
    with pytest.raises(KeyboardInterrupt):
        cache.fill(audio, progressbar=False)
    done = contents(cache)
    assert done.items() <= contents(whole).items()
    cache = FeatureCache(
        [PretrainedEncoder(source="nano-random")], tmp_path / "cache", read_audio, dtype="float16", seconds=1
    )
    assert cache.fill(audio, progressbar=False) == len(audio) - 2 * len(done)
    assert contents(cache) == contents(whole)


@pytest.fixture
def start(tmp_path, audio, small_shards, monkeypatch):
    """Start extractions in processes of their own; what still runs in the end is ended."""
    context, started = multiprocessing.get_context("fork"), []  # ready at once, as a worker of a DataLoader
    together, counts = context.Event(), context.SimpleQueue()
    threads = torch.get_num_threads()  # in the name of the folder

    def fill(stops_after):
        torch.set_num_threads(threads)
        reads = []

        def read(path, digest):
            reads.append(path)
            time.sleep(60 if len(reads) > stops_after else 0.02)
            return read_audio(path)

        together.wait(30)
        counts.put(FeatureCache(stages(), tmp_path / "cache", read).fill(audio, progressbar=False))

    def start(n, stops_after=100):
        started.extend(context.Process(target=fill, args=[stops_after], daemon=True) for _ in range(n))
        for process in started:
            process.start()
        together.set()
        return started, counts

    yield start
    for process in started:
        process.kill()
        process.join()


def test_of_processes_that_start_together_one_computes(tmp_path, audio, start):
    processes, counts = start(4)
    for process in processes:
        process.join(30)
    assert sorted(counts.get() for _ in processes) == [0, 0, 0, len(audio)]
    assert len(list((tmp_path / "cache" / "features").glob("*/*.bin"))) == 5


def test_a_killed_extraction_ends_in_the_same_bytes(tmp_path, audio, start):
    (process,), _ = start(1, stops_after=10)
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    end = time.monotonic() + 30
    while not list(cache.store.folder.glob("*.json")) and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.join()
    done = len(list(cache.store.folder.glob("*.json")))
    assert 0 < done < 5
    assert cache.fill(audio, progressbar=False) == len(audio) - 4 * done
    whole = FeatureCache(stages(), tmp_path / "whole", read_audio)
    whole.fill(audio, progressbar=False)
    left = contents(cache)
    assert left.items() >= contents(whole).items()
    assert all(name.endswith(".tmp") or name in contents(whole) for name in left), "but for what the kill cut short"


class SmallMemory(Mel):
    """On a GPU of little memory."""

    most = 18_000  # samples
    tried = []
    error = torch.cuda.OutOfMemoryError("as a GPU says it")

    def forward(self, x, lengths):
        self.tried.append(x.numel())
        if x.numel() > self.most:
            raise self.error
        return super().forward(x, lengths)


@pytest.mark.parametrize("error", [SmallMemory.error, RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED")])
def test_a_batch_that_does_not_fit_is_halved(tmp_path, audio, monkeypatch, caplog, error):
    on_a_gpu(monkeypatch)
    monkeypatch.setattr(SmallMemory, "tried", [])
    monkeypatch.setattr(SmallMemory, "error", error)
    cache = FeatureCache([SmallMemory()], tmp_path / "small", read_audio, seconds=2)
    with caplog.at_level(logging.WARNING):
        assert cache.fill(audio, progressbar=False) == len(audio)
    assert [message for message in caplog.messages if "GPU memory is short" in message] == caplog.messages[:1]
    tried = [n > SmallMemory.most for n in SmallMemory.tried]
    assert tried[0] and sum(tried) <= 3, "the first batch and what was loaded ahead, then it has learnt"
    whole = FeatureCache(stages(), tmp_path / "whole", read_audio)
    for row in audio.itertuples():
        assert cache.read(None, row.digest).equal(whole.read(row.path, row.digest))


def test_an_utterance_that_does_not_fit_is_named(tmp_path, audio, monkeypatch):
    monkeypatch.setattr(SmallMemory, "most", 0)
    longest = audio.loc[audio["samples"].idxmax(), "path"]
    with pytest.raises(UserError, match=rf"out of GPU memory: {longest} \(0 s\) .*: split"):
        FeatureCache([SmallMemory()], tmp_path / "cache", read_audio).fill(audio, progressbar=False)


def test_another_error_is_passed_on(tmp_path, audio, monkeypatch):
    monkeypatch.setattr(SmallMemory, "most", 0)
    monkeypatch.setattr(SmallMemory, "error", RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        FeatureCache([SmallMemory()], tmp_path / "cache", read_audio).fill(audio, progressbar=False)


class Louder(Frontend):
    """The waveform as one channel, much enlarged."""

    def __init__(self, factor):
        super().__init__(output_size=1, frame_rate=16000)
        self.factor = factor

    def forward(self, x, lengths):
        return x[..., None] * self.factor, lengths


def test_what_float16_does_not_hold_is_an_error(tmp_path, audio):
    loudest = max(audio["path"], key=lambda path: read_audio(path).abs().max())
    factor = 65600 / float(read_audio(loudest).abs().max())
    cache = FeatureCache([Louder(factor)], tmp_path / "cache", read_audio, dtype="float16")
    with pytest.raises(UserError, match=f"{loudest}: .*cache_dtype to bfloat16 or float32"):
        cache.fill(audio, progressbar=False)
    with pytest.raises(UserError, match="cache_dtype"):
        cache.read(loudest, "d")
    with pytest.raises(UserError, match="cache_dtype"):
        cache.prefix(read_audio(loudest)[None], torch.tensor([len(read_audio(loudest))]))
    assert not shards(cache)
    cache = FeatureCache([Louder(factor)], tmp_path / "cache", read_audio, dtype="bfloat16")
    cache.fill(audio, progressbar=False)
    assert all(cache.read(None, name).isfinite().all() for name in audio["digest"])
    largest = FeatureCache([Louder(factor * 65500 / 65600)], tmp_path / "cache", read_audio, dtype="float16")
    assert largest.read(loudest, "d").abs().max() == 65504


def test_a_file_of_another_length_than_it_was_checked_with_is_refused(tmp_path, audio):
    changed = audio["path"][3]
    soundfile.write(changed, np.zeros(1600), 16000)
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio)
    with pytest.raises(UserError, match=f"{changed} has changed since it was checked"):
        cache.fill(audio, progressbar=False)


def test_nan_is_an_error_that_names_the_file(tmp_path, audio):
    cache = FeatureCache([Louder(float("nan"))], tmp_path / "cache", read_audio)
    with pytest.raises(UserError, match="wav: .*NaN"):
        cache.fill(audio, progressbar=False)


def test_a_folder_that_cannot_be_written_in_is_named(tmp_path, audio):
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=f"cannot write in {tmp_path / 'cache'}.*cache_folder"):
        FeatureCache(stages(), tmp_path / "cache", read_audio).fill(audio, progressbar=False)


@pytest.mark.parametrize("setting", [{"dtype": "int16"}, {"precision": "fp16"}])
def test_an_unknown_setting_is_an_error(tmp_path, setting):
    with pytest.raises(UserError, match="expected one of"):
        FeatureCache(stages(), tmp_path, read_audio, **setting)


def test_the_frozen_prefix_rounds_as_the_cache(tmp_path, wave):
    cache = FeatureCache(stages(), tmp_path / "cache", read_audio, dtype="float16")
    x, lengths = FrozenPrefix(*stages(), dtype="float16").eval()(read_audio(wave)[None], torch.tensor([8000]))
    assert x.dtype == torch.float32 and x[0, : lengths.item()].equal(cache.read(wave, "d1").float())


def test_what_changes_bits_is_in_the_name(tmp_path):
    """Dtype, precision and number of threads; not the length of batches, which a CPU does not make."""

    def folder(**choice):
        return FeatureCache(stages(), tmp_path, read_audio, **choice).store.folder

    folders = [folder(**choice) for choice in ({}, {"dtype": "float16"}, {"dtype": "bfloat16"}, {"precision": "bf16"})]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        folders.append(folder())
    finally:
        torch.set_num_threads(threads)
    assert len(set(folders)) == 5
    assert folder(seconds=16) == folders[0]


def test_on_a_gpu_the_length_of_batches_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU")
    assert computed_with(torch.device("cuda"), 16) == {"device": "GPU", "batch_seconds": 16.0}


class Alone(Mel):
    """Sees how many utterances it is given, which changes its output as batches change roundings."""

    def forward(self, x, lengths):
        x, lengths = super().forward(x, lengths)
        return x + len(x), lengths


def test_features_do_not_depend_on_other_utterances(tmp_path, audio):
    whole, part = (FeatureCache([Alone()], tmp_path / name, read_audio) for name in ("whole", "part"))
    whole.fill(audio, progressbar=False)
    part.fill(audio[::3], progressbar=False)
    part.fill(audio, progressbar=False)
    for row in audio.itertuples():
        expected = whole.read(None, row.digest)
        assert part.read(None, row.digest).equal(expected)
        x, lengths = part.prefix(read_audio(row.path)[None], torch.tensor([row.samples]))
        assert x[0].equal(expected), "as in prediction"


class Normalised(Frontend):
    """The waveform minus a mean that is read from a file."""

    def __init__(self, *, stats, factor=1.0):
        super().__init__(output_size=1, frame_rate=16000)
        self.mean = np.load(stats)

    def forward(self, x, lengths):
        return mask_padding(x[..., None] - float(self.mean), lengths), lengths


def test_features_are_computed_again_if_a_file_that_an_argument_names_has_changed(tmp_path, wave):
    stats = tmp_path / "stats.npy"
    read = []
    for mean in (0.0, 0.5, 0.5):
        np.save(stats, np.float64(mean))
        cache = FeatureCache([Normalised(stats=str(stats))], tmp_path / "cache", read_audio)
        read.append(cache.read(wave, "d1").clone())
        assert torch.allclose(read[-1][:, 0], read_audio(wave) - mean)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


class WithLock(Normalised):
    """Holds something whose content cannot be read."""

    def __init__(self, *, stats):
        super().__init__(stats=stats)
        self.lock = threading.Lock()


def test_what_cannot_be_fingerprinted_is_not_cached(tiny, tmp_path, caplog):
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", tiny)
    prepare_data(hparams, tmp_path / "run")
    np.save(tmp_path / "stats.npy", np.float64(0))
    frontend = WithLock(stats=str(tmp_path / "stats.npy"))
    model = SpeechEmotionModel(frontend=frontend, backbone=torch.nn.Identity(), head=torch.nn.Identity())
    (read,), skip_frozen = make_readers(hparams, model, read_csv(tmp_path / "run" / "manifest.csv"))
    assert not skip_frozen and isinstance(read.stored, AudioStore)
    (message,) = [message for message in caplog.messages if "not cached" in message]
    assert message.startswith("frozen features are not cached: WithLock.lock is a lock (cannot pickle")


@pytest.mark.parametrize("model, dtypes", [("mel_mtl", ["float16"]), ("wav2vec_mtl", ["float32", "float16"])])
def test_cached_and_uncached_training_agree(tiny, model, dtypes):
    tiny = {**tiny, "n_epochs": "1"}
    uncached = run({**tiny, "use_cache": "false"}, model=model)
    for dtype in dtypes:
        cached = run({**tiny, "cache_dtype": dtype}, model=model)
        tolerance = {"float32": 2e-4, "float16": 2e-3}[dtype]
        for part in ("valid", "test"):
            a, b = (read_csv(d / f"{part}.csv") for d in (cached, uncached))
            columns = [c for c in a if "_prob_" in c]
            np.testing.assert_allclose(a[columns], b[columns], rtol=10 * tolerance, atol=tolerance)
        a, b = (read_csv(d / "log.csv") for d in (cached, uncached))
        losses = [c for c in a if c.startswith("valid") and "loss" in c]
        assert losses
        np.testing.assert_allclose(a[losses], b[losses], rtol=10 * tolerance)
        assert json.loads((cached / "run.json").read_text())["frozen"]


@pytest.mark.parametrize(
    "settings, tolerance",
    [({"cache_dtype": "float16"}, 1e-5), ({"cache_dtype": "bfloat16"}, 1e-5), ({"extraction_precision": "bf16"}, 1e-3)],
)
def test_single_files_are_predicted_from_features_as_they_were_kept(tiny, settings, tolerance):
    run_dir = run({**tiny, **settings}, model="wav2vec_mtl")
    table, trained = read_csv(run_dir / "test.csv", ["gender", "intensity"]), load_trained_model(run_dir)
    single = trained.predict_files(table["path"])
    columns = [c for c in table if "_prob_" in c]
    np.testing.assert_allclose(single[columns], table[columns], rtol=tolerance, atol=tolerance)
    (prefix,) = trained.model.frozen_stages
    x = read_audio(table["path"][0])
    with torch.no_grad():
        features, _ = prefix(x[None], torch.tensor([len(x)]))
    dtype = getattr(torch, settings.get("cache_dtype", "float16"))
    assert features.dtype == torch.float32 and features.equal(features.to(dtype).float())


def test_without_a_cache_nothing_is_rounded(tiny):
    run_dir = run({**tiny, "n_epochs": "1", "use_cache": "false"}, model="mel_stl")
    assert [type(stage) for stage in load_trained_model(run_dir).model.frozen_stages] == [Mel]


def test_epochs_after_the_first_do_not_run_the_encoder(tiny, tmp_path):
    hparams = load_hparams(HPARAMS / "wav2vec_mtl.yaml", tiny)
    prepare_data(hparams, tmp_path / "run")
    model = SpeechEmotionModel(frontend=hparams["frontend"], backbone=torch.nn.Identity(), head=torch.nn.Identity())
    manifest = read_csv(tmp_path / "run" / "manifest.csv")
    (read,), skip_frozen = make_readers(hparams, model, manifest)
    assert skip_frozen
    model.frozen_stages[0].forward = None  # calling it now would fail
    row = manifest.iloc[0]
    assert read(row["path"], row["digest"]).shape[1] == model.frozen_stages[0].output_size


def test_waveform_augmentation_switches_the_cache_off(tiny, tmp_path, caplog):
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", tiny)
    prepare_data(hparams, tmp_path / "run")
    hparams = {**hparams, "wav_augment": lambda x, lengths: (x, lengths)}
    model = SpeechEmotionModel(frontend=hparams["frontend"], backbone=torch.nn.Identity(), head=torch.nn.Identity())
    (read,), skip_frozen = make_readers(hparams, model, read_csv(tmp_path / "run" / "manifest.csv"))
    assert not skip_frozen
    assert "frozen features are not cached" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision, tolerance", [("fp32", 2e-3), ("bf16", 5e-2)])
def test_a_gpu_fills_the_cache_as_the_cpu_does(tmp_path, audio, small_shards, monkeypatch, precision, tolerance):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    caches = [
        FeatureCache(
            [PretrainedEncoder(source="nano-random").to(device)], tmp_path / device, read_audio, "float16", precision, 1
        )
        for device in ("cpu", "cuda")
    ]
    for cache in caches:
        cache.fill(audio, progressbar=False)
    for row in audio.itertuples():
        cpu, gpu = (cache.read(None, row.digest).float() for cache in caches)
        assert (cpu - gpu).norm() < tolerance * cpu.norm()
