"""Masks, objective, data and weights of pretraining."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import HPARAMS
from helpers import TINY_WAV2VEC
from torch.nn import functional as F
from transformers import Wav2Vec2ForPreTraining, Wav2Vec2Model
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from korser.corpora import load_corpus
from korser.pretraining import load_settings
from korser.pretraining.data import AudioPool, CropPlan, find_audio, hold_out, read_sources, validation_batches
from korser.pretraining.masking import draw_masks, draw_negatives, masked_frames
from korser.pretraining.model import PretrainingModel, perplexity
from korser.pretraining.reconstruction import Reconstruction
from korser.pretraining.weights import build_model, export
from korser.probing import load_settings as load_probe
from korser.utils.errors import UserError


# -- masks and negatives ---------------------------------------------------------------------------------------------
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


# -- the objective ---------------------------------------------------------------------------------------------------
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


# -- data ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    """Six files of growing length in two folders, one hidden, one text."""
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "speech" / ("a" if i % 2 else "b") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(4000 * (i + 1)), 16000)
    (tmp_path / "speech" / "a" / ".hidden.wav").write_bytes(b"")
    (tmp_path / "speech" / "notes.txt").write_text("none")
    return tmp_path / "speech"


def test_a_folder_gives_its_audio_files(folder):
    assert [path[-7:-4] for path in find_audio(folder)] == ["a/1", "a/3", "a/5", "b/0", "b/2", "b/4"]


@pytest.mark.parametrize(
    "sources, message",
    [
        ([], r"sources is \[\]: list at least one"),
        (3, "sources is 3: list at least one"),
        ([{"corpus": "csv"}], "write {data_folder: my/speech}"),
        ([{"data_folder": 3}], "write {data_folder: my/speech}"),
        ([{"data_folder": "x", "wieght": 1}], "did you mean 'weight'"),
        ([{"data_folder": "x", "weight": 0}], r"sources\[0\].weight is 0"),
        ([{"data_folder": "nowhere"}], "is no folder"),
        ([{"data_folder": "x", "weight": float("inf")}], r"sources\[0\].weight is inf"),
        ([{"data_folder": "x", "split": {"test_speakers": ["a"]}}], "needs a corpus"),
        ([{"data_folder": "x", "corpus": 3}], r"sources\[0\].corpus is 3"),
    ],
)
def test_a_source_described_wrongly_is_refused(sources, message):
    with pytest.raises(UserError, match=message):
        read_sources(sources)


def test_of_a_split_the_training_part_alone_is_read(tiny_corpus):
    source = {"data_folder": str(tiny_corpus), "corpus": "csv"}
    split = {"test_speakers": ["s0", "s1"]}
    table, _ = read_sources([source, {**source, "split": split}])
    assert set(table["speaker"][table["source"] == 0]) == {f"s{i}" for i in range(6)}
    assert set(table["speaker"][table["source"] == 1]) == {"s2", "s3", "s4", "s5"}
    for wrong, message in (
        ({"test_speaker": ["s0"]}, "split.test_speaker'.*did you mean 'test_speakers'"),
        ({"test_speakers": ["s9"]}, "has no speaker 's9'"),
        (["s0"], "write a mapping"),
    ):
        with pytest.raises(UserError, match=message):
            read_sources([{**source, "split": wrong}])


def test_the_continued_nano_reads_nothing_of_the_tests_that_its_yaml_names(tmp_path):
    for speaker in "abcdeklmno":
        for sentence in (e + i for e in (0, 100, 200, 300) for i in range(1, 6)):
            (tmp_path / "emotiontts").mkdir(exist_ok=True)
            (tmp_path / "emotiontts" / f"ne{speaker}{sentence:05d}.wav").touch()
    for actor in range(1, 19):
        for emotion in range(1, 9):
            (tmp_path / "ravdess" / f"Actor_{actor:02d}").mkdir(parents=True, exist_ok=True)
            name = f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav"
            (tmp_path / "ravdess" / f"Actor_{actor:02d}" / name).touch()
    yaml = (HPARAMS / "pretrain_nano_continued.yaml").read_text()
    sources = load_settings(HPARAMS / "pretrain_nano_continued.yaml")["sources"]
    for corpus in ("emotiontts", "ravdess"):
        command = next(line for line in yaml.splitlines() if f"--corpus={corpus}" in line).split()[2:]
        overrides = dict(part.removeprefix("--").replace("'", "").split("=") for part in command)
        settings = load_probe(HPARAMS / "probe.yaml", {**overrides, "corpus": corpus})
        data = load_corpus(corpus, tmp_path / corpus, corpus_options={}).data
        tested = settings.corpora[0].split(data)
        tested = tested[tested["split"] == "test"]
        source = next(source for source in sources if source["corpus"] == corpus)
        read, _ = read_sources([{**source, "data_folder": str(tmp_path / corpus)}])
        assert len(read) and len(tested) and set(read["speaker"]).isdisjoint(tested["speaker"])
        if corpus == "emotiontts":
            sentences = set(data["sentence"][data["path"].isin(read["path"])])
            assert sentences.isdisjoint(tested["sentence"])
            assert tested["emotion"].value_counts().tolist() == [10] * 4


def to_hold_out(**changes):
    table = pd.DataFrame({"source": 0, "speaker": list("aabbccdd") * 5, "samples": 16000})
    return table.assign(**{"digest": [f"{i:04x}" for i in range(len(table))], **changes})


def test_whole_speakers_are_held_out_where_they_are_known():
    table = to_hold_out()
    held = hold_out(table, 0.2)
    assert set(table["speaker"][held]).isdisjoint(table["speaker"][~held])
    assert 0.1 < held.mean() < 0.4
    assert 0.1 < hold_out(to_hold_out(speaker=None), 0.2).mean() < 0.35
    assert not hold_out(table.iloc[:1], 0.2).any() and not hold_out(table, 0).any()


def test_no_speaker_with_much_of_the_audio_is_held_out():
    table = to_hold_out(speaker=["much"] * 20 + [f"s{i}" for i in range(20)])
    held = hold_out(table, 0.02)
    assert 0 < held.mean() < 0.1 and "much" not in set(table["speaker"][held])
    assert 0 < hold_out(to_hold_out(speaker=["one"] * 20 + ["two"] * 20), 0.02).mean() < 0.1  # by files


def test_copies_of_a_file_are_on_one_side():
    table = to_hold_out(speaker=None, digest=[f"{i // 2:04x}" for i in range(40)])
    held = hold_out(table, 0.3)
    assert held.any() and (held[::2] == held[1::2]).all()


def test_with_more_of_the_same_speech_the_same_is_held_out():
    names = [f"s{i}" for i in range(200)]
    table = pd.DataFrame({"source": 0, "speaker": names, "samples": 16000, "digest": names})
    some = table.iloc[::2]
    held = dict(zip(names, hold_out(table, 0.1)))
    assert 0 < sum(held.values()) < 40
    assert hold_out(some.reset_index(drop=True), 0.1).tolist() == [held[name] for name in some["speaker"]]


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


def test_crops_are_the_audio_from_memory_and_from_disk(folder, tmp_path):
    from korser.data.audio import read_audio
    from korser.data.audio_cache import scan_audio

    paths = find_audio(folder)
    table = scan_audio(paths, tmp_path / "cache").reset_index(drop=True)
    for max_bytes in (2**30, 0):
        pool = AudioPool(table, "cpu", max_bytes, tmp_path / "cache")
        x = pool.crops(torch.tensor([1, 4]), torch.tensor([100, 0]), 2000)
        for row, path, start in zip(x, (paths[1], paths[4]), (100, 0)):
            torch.testing.assert_close(row, read_audio(path)[start : start + 2000], atol=2e-5, rtol=0)


# -- weights ---------------------------------------------------------------------------------------------------------
def test_an_exported_folder_is_loaded_by_transformers_as_float32(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=True, encoder_only=False, card="# card\n")
    loaded = Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "out")
    for (name, a), b in zip(loaded.state_dict().items(), model.state_dict().values()):
        assert a.dtype == torch.float32, name
        torch.testing.assert_close(a, b.half().float())
    assert (tmp_path / "out" / "README.md").read_text() == "# card\n"
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["do_normalize"] is True


@pytest.mark.parametrize("encoder_only", [False, True])
def test_the_frontend_loads_it(tmp_path, encoder_only):
    from korser.plugins.frontends.wav2vec.wav2vec import Wav2Vec

    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    for _ in range(2):  # the second takes the place of the first
        export(model, preprocessor, tmp_path / "out", half=False, encoder_only=encoder_only, card="")
    frontend = Wav2Vec(source=str(tmp_path / "out"))
    assert frontend.pretrained
    x = torch.randn(1, 8000)
    normalized = (x - x.mean()) / x.std(correction=0)
    expected = model.eval().wav2vec2(normalized).last_hidden_state
    torch.testing.assert_close(frontend(x, torch.tensor([8000]))[0], expected, rtol=1e-4, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_checkpoint_is_gone_on_from_with_its_quantizer(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=False, encoder_only=False, card="")
    again, _ = build_model(str(tmp_path / "out"), TINY_WAV2VEC, {"mask_time_prob": 0.3})
    assert again.config.mask_time_prob == 0.3 and again.config.num_negatives == 5
    for a, b in zip(again.state_dict().values(), model.state_dict().values()):
        assert a.equal(b)


def test_a_checkpoint_without_quantizer_gets_a_new_one_and_says_so(tmp_path, caplog):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=False, encoder_only=True, card="")
    again, _ = build_model(str(tmp_path / "out"), {}, {})
    assert "has no quantizer: a new one" in caplog.text
    assert all(a.equal(b) for a, b in zip(again.wav2vec2.state_dict().values(), model.wav2vec2.state_dict().values()))


def test_what_is_no_wav2vec2_checkpoint_is_refused(tmp_path):
    from transformers import HubertConfig

    with pytest.raises(UserError, match="is no folder"):
        build_model("./nowhere", {}, {})
    with pytest.raises(UserError, match="has no config that can be read"):
        build_model("nobody/nothing", {}, {})
    HubertConfig().save_pretrained(tmp_path / "hubert")
    with pytest.raises(UserError, match="only wav2vec 2.0"):
        build_model(str(tmp_path / "hubert"), {}, {})
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    del model.wav2vec2.encoder.layers[1]
    export(model, preprocessor, tmp_path / "short", half=False, encoder_only=False, card="")
    with pytest.raises(UserError, match="lacks .* tensors"):
        build_model(str(tmp_path / "short"), {}, {})
    with pytest.raises(UserError, match="other sizes than its config with {'hidden_size': 32"):
        build_model(str(tmp_path / "short"), {}, {"hidden_size": 32, "num_hidden_layers": 1})


def test_a_checkpoint_of_old_names_is_read(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "new", half=False, encoder_only=False, card="")
    state = {}
    for name, tensor in model.state_dict().items():  # as torch spelled weight norm before 2.0, pickled
        for i, old in enumerate(("weight_g", "weight_v")):
            name = name.replace(f"parametrizations.weight.original{i}", old)
        state[name] = tensor
    (tmp_path / "new" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "new" / "pytorch_model.bin")
    again, _ = build_model(str(tmp_path / "new"), {}, {})
    assert all(a.equal(b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"hiden_size": 3}, "did you mean 'hidden_size'"),
        ({"mask_time_prob": 0.0}, "config.mask_time_prob is 0.0: it must be a number of at least 0.001"),
        ({"mask_time_length": "x"}, "expected int, got str"),
        ({"num_negatives": 0}, "config.num_negatives is 0"),
        ({"conv_dim": [8, 8]}, "transformers cannot make"),
        ([1], "write a mapping"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        build_model(None, {}, config)


def test_weights_are_those_of_a_plain_encoder_too(tmp_path):
    model, preprocessor = build_model(None, TINY_WAV2VEC, {})
    export(model, preprocessor, tmp_path / "out", half=True, encoder_only=True, card="")
    loaded = Wav2Vec2Model.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float32
