"""Crops of speech for pretraining."""

import numpy as np
import pytest
import torch

from korser.data.audio import read_audio
from korser.data.audio_cache import scan_audio
from korser.pretraining.data import AudioPool, CropPlan, validation_batches
from korser.pretraining.sources import find_audio


def plan(**changes):
    samples = np.arange(1000, 9000, 100)
    options = {"batch_samples": 40000, "max_samples": 5000, "n_groups": 4, "seed": 3, "rank": 0}
    return samples, CropPlan(samples, np.ones(len(samples)), **{**options, **changes})


def test_a_step_draws_equally_long_crops_inside_their_utterances():
    samples, crops = plan()
    for step in range(200):
        utterances, offsets, length = crops[step]
        assert length <= 5000 and 0.8 * 40000 < len(utterances) * length <= 40000
        assert (offsets >= 0).all() and (offsets.numpy() + length <= samples[utterances]).all()


def test_a_steps_draw_depends_on_seed_step_and_rank_alone():
    def draw(step, **changes):
        return [x.tolist() if torch.is_tensor(x) else x for x in plan(**changes)[1][step]]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8) and draw(7) != draw(7, seed=4) and draw(7) != draw(7, rank=1)


def test_each_second_is_drawn_equally_often_times_its_weight():
    samples = np.full(40, 4000)
    samples[:20] = 8000
    weights = np.ones(40)
    weights[20:] = 3.0
    crops = CropPlan(samples, weights, batch_samples=80000, max_samples=4000, n_groups=1, seed=0)
    counts = sum(np.bincount(crops[step][0], minlength=40) for step in range(400))
    ratio = (counts[20:].mean() / 4000) / (counts[:20].mean() / 8000)
    assert ratio == pytest.approx(3, rel=0.05)


def test_validation_covers_each_utterance_once():
    samples = np.array([3000, 9000, 4000, 5000])
    batches = validation_batches(samples, 8000, 5000)
    assert sorted(torch.cat([b[0] for b in batches]).tolist()) == [0, 1, 2, 3]
    assert all((offsets + length <= torch.from_numpy(samples)[u]).all() for u, offsets, length in batches)


def test_crops_are_the_audio_from_memory_and_from_disk(tiny_corpus, tmp_path):
    paths = find_audio(tiny_corpus)
    table = scan_audio(paths, tmp_path / "cache").reset_index(drop=True)
    for max_bytes in (2**30, 0):
        pool = AudioPool(table, "cpu", max_bytes, tmp_path / "cache")
        x = pool.crops(torch.tensor([1, 4]), torch.tensor([100, 0]), 2000)
        for row, path, start in zip(x, (paths[1], paths[4]), (100, 0)):
            torch.testing.assert_close(row, read_audio(path)[start : start + 2000], atol=2e-5, rtol=0)
