"""Masks and negatives of pretraining."""

import numpy as np
import pytest
import torch
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from korser.pretraining.masking import draw_masks, draw_negatives, masked_frames


@pytest.mark.parametrize("probability, length, frames", [(0.65, 10, 159), (0.4, 4, 30), (0.9, 10, 25)])
def test_masks_are_distributed_as_those_of_transformers(probability, length, frames):
    torch.manual_seed(0)
    np.random.seed(0)
    n = 300
    ours = torch.cat([draw_masks(8, frames, probability, length) for _ in range(n)]).double()
    theirs = torch.from_numpy(
        np.concatenate([_compute_mask_indices((8, frames), probability, length) for _ in range(n)])
    ).double()
    assert ours.mean() == pytest.approx(theirs.mean().item(), abs=0.01)
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 6 * (0.25 / n / 8 * 2) ** 0.5 + 0.02  # frame by frame
    assert ours.sum(1).std() == pytest.approx(theirs.sum(1).std().item(), rel=0.1, abs=0.3)


def test_spans_are_whole_and_inside():
    torch.manual_seed(0)
    mask = draw_masks(50, 40, probability=0.3, length=6)
    runs = ["".join("x" if m else " " for m in row).split() for row in mask]
    assert all(len(run) >= 6 for row in runs for run in row)


def test_at_least_one_span_is_masked():
    assert (draw_masks(20, 12, probability=0.01, length=10).sum(1) == 10).all()


def test_negatives_are_masked_frames_of_the_same_utterance_evenly_drawn():
    torch.manual_seed(0)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, [1, 4, 5, 8]] = True
    mask[1, [0, 2]] = True
    index, valid = masked_frames(mask)
    assert index.tolist()[0] == [1, 4, 5, 8] and index.tolist()[1][:2] == [0, 2]
    assert valid.tolist() == [[True] * 4, [True, True, False, False]]
    negatives = draw_negatives(valid, 30000)
    counts = torch.stack([torch.bincount(row, minlength=4) for row in negatives[0]]) / 30000
    expected = (1 - torch.eye(4)) / 3
    assert (counts - expected).abs().max() < 0.02 and (counts.diagonal() == 0).all()
    assert (negatives[1, 0] == 1).all() and (negatives[1, 1] == 0).all()


def test_negatives_are_distributed_as_those_of_transformers():
    torch.manual_seed(0)
    np.random.seed(0)
    mask = np.zeros((1, 12), dtype=bool)
    mask[0, 2:9] = True
    theirs = _sample_negative_indices((1, 12), 20000, mask)[0, 2:9]
    index, valid = masked_frames(torch.from_numpy(mask))
    ours = index[0][draw_negatives(valid, 20000)[0]]
    for a, b in zip(ours, theirs):
        difference = np.bincount(a, minlength=12) - np.bincount(b, minlength=12)
        assert np.abs(difference).max() < 0.02 * 20000
