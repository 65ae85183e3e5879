"""The objective of pretraining."""

import pytest
import torch
from helpers import TINY_WAV2VEC
from torch.nn import functional as F

from korser.pretraining.masking import draw_masks, draw_negatives, masked_frames
from korser.pretraining.model import PretrainingModel, perplexity
from korser.pretraining.reconstruction import Reconstruction
from korser.pretraining.weights import build_model


def tiny_model(**config):
    torch.manual_seed(0)
    return build_model(None, TINY_WAV2VEC, config)[0]


def their_indices(index, negatives, frames):
    """Negatives as transformers takes them: ``(B, T, K)`` indices into the flattened batch."""
    batch, _, n = negatives.shape
    full = torch.zeros(batch, frames, n, dtype=torch.long)
    positions = index.gather(1, negatives.flatten(1)).view_as(negatives)
    for b in range(batch):
        full[b, index[b]] = positions[b] + b * frames
    return full


def straight_through(logits, tau, hard):
    soft = (logits / tau).softmax(-1)
    one = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return one - soft.detach() + soft


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_losses_and_gradients_are_those_of_transformers(monkeypatch, norm, training):
    monkeypatch.setattr(F, "gumbel_softmax", straight_through)  # or the two would draw in another order
    config = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    theirs = tiny_model(**config).train(training)
    ours = PretrainingModel(tiny_model(**config)).train(training)
    ours.model.load_state_dict(theirs.state_dict())
    torch.manual_seed(1)
    x = torch.randn(3, 8000)
    mask = draw_masks(3, ours.frames(8000), 0.65, 4)
    index, valid = masked_frames(mask)
    negatives = draw_negatives(valid, 5)

    outcome = ours(x, mask, negatives)
    out = theirs(x, mask_time_indices=mask, sampled_negative_indices=their_indices(index, negatives, mask.shape[1]))
    assert int(outcome.frames) == int(mask.sum())
    torch.testing.assert_close(outcome.contrastive, out.contrastive_loss)
    torch.testing.assert_close(outcome.diversity * outcome.frames, out.diversity_loss)
    torch.testing.assert_close(outcome.perplexity(), out.codevector_perplexity)
    if training:
        out.loss.backward()
        (outcome.contrastive + 0.1 * outcome.diversity * outcome.frames).backward()
        for (name, a), b in zip(ours.model.named_parameters(), theirs.parameters()):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_accuracy_counts_frames_told_from_all_their_negatives():
    model = PretrainingModel(tiny_model()).eval()
    torch.manual_seed(2)
    x = torch.randn(2, 8000)
    mask = draw_masks(2, model.frames(8000), 0.65, 4)
    index, valid = masked_frames(mask)
    negatives = draw_negatives(valid, 5)
    outcome = model(x, mask, negatives)
    out = model.model(x, mask_time_indices=mask)
    context, target = out.projected_states, out.projected_quantized_states
    told = 0
    for b in range(2):
        for m in range(int(valid[b].sum())):
            own = target[b, index[b, m]]
            others = target[b, index[b, negatives[b, m]]]
            others = others[(others != own).any(1)]
            similar = torch.cosine_similarity(context[b, index[b, m]], others)
            mine = torch.cosine_similarity(context[b, index[b, m]], own, dim=0)
            told += bool(len(others)) and bool((mine > similar).all())
    assert int(outcome.correct) == told


def test_a_collapsed_codebook_tells_nothing():
    transformer = tiny_model()
    with torch.no_grad():
        transformer.quantizer.weight_proj.weight.zero_()
        transformer.quantizer.weight_proj.bias.copy_(torch.arange(12.0) % 6)
    model = PretrainingModel(transformer).eval()
    mask = draw_masks(2, model.frames(8000), 0.65, 4)
    outcome = model(torch.randn(2, 8000), mask, draw_negatives(masked_frames(mask)[1], 5))
    assert int(outcome.correct) == 0
    assert float(outcome.perplexity()) == pytest.approx(2)


def test_an_entry_that_is_never_used_has_a_gradient():
    probabilities = torch.tensor([[0.5, 0.5, 0.0]], requires_grad=True)
    value = perplexity(probabilities)
    assert value.item() == pytest.approx(2)
    value.backward()
    assert probabilities.grad.isfinite().all()


def test_the_auxiliary_task_aims_at_the_spectrum_of_what_each_frame_sees():
    transformer = tiny_model()
    task = Reconstruction(transformer.config)
    model = PretrainingModel(transformer)
    x = torch.randn(2, 8000)
    target = task.target(x)
    assert target.shape == (2, model.frames(8000), 40)
    changed = x.clone()
    changed[:, 320 * 5 + 400 : 320 * 5 + 700] += 1.0  # behind what frame 5 sees: only the level of the whole changes
    difference = (task.target(changed) - target).std(-1)
    assert (difference[:, [3, 5]] < 0.5 * difference[:, 6:7]).all()
    assert target.mean((1, 2)).abs().max() < 1e-4 and (target.std((1, 2)) - 1).abs().max() < 1e-3


def test_the_auxiliary_task_teaches_convolutions_and_transformer():
    transformer = tiny_model()
    model = PretrainingModel(transformer, Reconstruction(transformer.config))
    mask = draw_masks(2, model.frames(8000), 0.65, 4)
    outcome = model(torch.randn(2, 8000), mask, draw_negatives(masked_frames(mask)[1], 5))
    assert outcome.reconstruction > 0
    outcome.reconstruction.backward()
    assert transformer.wav2vec2.feature_extractor.conv_layers[0].conv.weight.grad.abs().sum() > 0
    assert transformer.wav2vec2.encoder.layers[0].feed_forward.output_dense.weight.grad.abs().sum() > 0
    assert not any(name.startswith("reconstruction") for name in transformer.state_dict())  # is not exported
