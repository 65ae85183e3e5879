"""Batches are the same from SpeechBrain's loader and from memory."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from speechbrain.dataio.sampler import DynamicBatchSampler
from torch.utils.data import DataLoader

from korser.data.audio import to_float
from korser.data.batches import BucketSampler, CachedReader, collate, make_dataset, sorted_batches
from korser.data.resident import InMemorySplit, MemoryBudget, PrefetchLoader, StoredArrays
from korser.data.store import ArrayStore
from korser.nn.losses import MISSING
from korser.nn.tasks import Task
from korser.utils.errors import UserError

TASKS = [
    Task(name="emotion", weight=1.0, classes=("joy", "anger")),
    Task(name="gender", weight=1.0, classes=("f", "m")),
]


class Stored:
    """Arrays of any dtype with the interface of a cache."""

    def __init__(self, folder, arrays):
        self.store = ArrayStore(folder)
        self.arrays = arrays
        self.filled = 0

    def read(self, path, digest):
        return self.store.read(digest)

    def fill(self, audio, progressbar=True):
        missing = self.store.missing(audio["digest"])
        self.store.write((key, self.arrays[key]) for key in missing)
        self.filled += 1
        return len(missing)


def made(folder, kinds, n=13):
    """Utterances of the given kinds in turn, stored, and their manifest."""
    generator = torch.Generator().manual_seed(0)
    arrays, rows = {}, []
    for i in range(n):
        length = int(torch.randint(1, 60, (), generator=generator))
        dtype, channels = kinds[i % len(kinds)]
        if dtype == torch.int16:
            x = torch.randint(-32768, 32768, (length, *channels), generator=generator, dtype=dtype)
        else:
            x = torch.randn(length, *channels, generator=generator).to(dtype)
        arrays[f"d{i}"] = x
        labels = {"emotion": ["joy", "anger", None][i % 3], "gender": ["f", "m"][i % 2]}
        rows.append({"id": f"u{i}", "path": f"{i}.wav", "digest": f"d{i}", "samples": length, **labels})
    stored = Stored(folder, arrays)
    manifest = pd.DataFrame(rows)
    stored.fill(manifest)
    return stored, manifest


class Packed(MemoryBudget):
    """Treats CPU memory as GPU memory."""

    def place(self, nbytes):
        return "device"


KINDS = {
    "16-bit audio": [(torch.int16, ())],
    "float audio": [(torch.float32, ())],
    "both": [(torch.int16, ()), (torch.float32, ())],
    "float16 features": [(torch.float16, (5,))],
    "bfloat16 features": [(torch.bfloat16, (3,))],
}


@pytest.mark.parametrize("memory", [MemoryBudget, Packed])
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_batches_from_memory_are_those_of_speechbrain(tmp_path, monkeypatch, kinds, memory):
    monkeypatch.setattr("korser.data.resident.BLOCK_BYTES", 100)  # bytes: blocks of one utterance and of several
    stored, manifest = made(tmp_path, kinds)
    dataset = make_dataset(manifest, TASKS, CachedReader(stored))
    resident = InMemorySplit(dataset, ["emotion", "gender"], stored, memory("cpu", 0))
    assert resident.dtype == (kinds[0][0] if len(kinds) == 1 else torch.float32)
    for indices in ([0], [3, 1, 12], list(range(13)), [5, 5]):
        (expected,) = DataLoader(dataset, batch_sampler=[indices], collate_fn=collate(dataset))
        (batch,) = DataLoader(resident, batch_sampler=[indices], collate_fn=collate(resident))
        batch = batch.to("cpu")
        assert batch.id == expected.id
        assert batch.x.data.dtype == resident.dtype
        assert torch.equal(to_float(batch.x.data), expected.x.data)
        assert torch.equal(batch.x.lengths, expected.x.lengths)
        assert torch.equal(batch.frames, expected.frames) and batch.frames.dtype == torch.int64
        for task in TASKS:
            assert torch.equal(batch[task.name], expected[task.name])
    assert (resident.columns["emotion"] == MISSING).sum() == 4


def test_memory_is_reserved_once(monkeypatch):
    assert MemoryBudget("cpu", 10**9).place(1) == "store"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    memory = MemoryBudget("cuda", 500)
    assert freed, "memory cached by the allocator counts as free"
    assert [memory.place(n) for n in (400, 300, 100, 300)] == ["device", "locked", "device", "store"]


def test_damaged_arrays_are_made_again(tmp_path):
    stored, manifest = made(tmp_path, KINDS["float16 features"])
    (shard,) = tmp_path.glob("*.bin")
    shard.write_bytes(b"x" * shard.stat().st_size)
    rows = manifest.to_dict("records")
    again = Stored(tmp_path, stored.arrays)
    for row, x in zip(rows, StoredArrays(again, rows)):
        assert torch.equal(x, stored.arrays[row["digest"]])
    assert again.filled == 1


@pytest.mark.parametrize("damage", ["overwritten", "truncated", "a bit", "removed"])
def test_damage_while_batches_are_read_changes_nothing(tmp_path, caplog, damage):
    """Of one of two shards, in a file that is open."""
    stored, manifest = made(tmp_path, KINDS["float16 features"])
    more, _ = made(tmp_path / "more", KINDS["16-bit audio"])
    stored.store.write((f"more{key}", x) for key, x in more.arrays.items())
    dataset = make_dataset(manifest, TASKS, CachedReader(stored))
    resident = InMemorySplit(dataset, ["emotion"], stored, MemoryBudget("cpu", 0))
    expected = resident.collate(list(range(13))).x.data
    shard = next(file for file in tmp_path.glob("*.json") if '"d0"' in file.read_text()).with_suffix(".bin")
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        os.truncate(shard, len(content) // 2)
    elif damage == "removed":
        for file in (shard, shard.with_suffix(".json")):
            file.unlink()
    else:
        with open(shard, "r+b") as file:  # in place: what is open sees it
            file.write(bytes(len(content)) if damage == "overwritten" else bytes([content[0] ^ 1]))
    assert torch.equal(resident.collate(list(range(13))).x.data, expected)
    assert len(caplog.messages) == (damage != "removed"), "what is open can still be read"
    assert torch.equal(stored.store.read("mored3"), more.arrays["d3"])


def test_a_disk_that_never_returns_what_was_written(tmp_path):
    stored, manifest = made(tmp_path, KINDS["float audio"])
    stored.store.read = {}.__getitem__  # a KeyError, as for whatever is damaged
    with pytest.raises(UserError, match="are read back damaged"):
        StoredArrays(stored, manifest.to_dict("records"))[0]


@pytest.mark.parametrize("n_buckets", [1, 4])
@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (37, 1), (500, 8), (500, 1000)])
def test_the_batches_are_those_of_speechbrains_sampler(n, batch_size, n_buckets):
    rng = np.random.default_rng(n)
    for samples in (rng.integers(1, 90000, n), rng.integers(1, 5, n)):  # the second: many equal lengths
        ours = BucketSampler(samples, batch_size=batch_size, n_buckets=n_buckets, seed=3)
        inner = np.quantile(samples, np.linspace(0, 1, n_buckets + 1)[1:-1], method="higher")
        theirs = DynamicBatchSampler(
            range(n),
            lengths_list=samples.tolist(),
            max_batch_length=batch_size * int(samples.max()),
            bucket_boundaries=sorted({*map(int, inner), int(samples.max())}),
            max_batch_ex=batch_size,
            seed=3 * 100_003,
        )
        for epoch in (0, 1, 2):
            ours.set_epoch(epoch)
            theirs.set_epoch(epoch)
            assert len(ours) == len(theirs)
            assert list(ours) == list(theirs)
            assert list(ours) == list(ours)  # repeated iterations of an epoch


@pytest.mark.parametrize(("n", "batch_size", "n_buckets"), [(33, 16, 2), (5, 2, 1), (9, 4, 4), (6, 4, 6), (2, 16, 2)])
def test_no_batch_has_a_single_utterance(n, batch_size, n_buckets):
    samples = np.arange(n) + 1
    sampler = BucketSampler(samples, batch_size=batch_size, n_buckets=n_buckets, seed=3)
    lengths = {len(sampler)}
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(n))
        assert 2 <= min(map(len, batches)) and max(map(len, batches)) <= max(batch_size, 3)
        lengths.add(len(batches))
        again = BucketSampler(samples, batch_size=batch_size, n_buckets=n_buckets, seed=3)
        again.set_epoch(epoch)
        assert list(again) == batches
    assert len(lengths) == 1  # the schedule counts on it


@pytest.mark.parametrize(("sizes", "batch_size"), [((5, 40), 4), ((7, 7, 23), 8)])
def test_balanced_groups_have_equally_many_utterances_in_every_epoch(sizes, batch_size):
    groups = np.repeat(np.array(list("abc")[: len(sizes)]), sizes)
    samples = np.random.default_rng(0).integers(1, 90000, len(groups))
    options = {"batch_size": batch_size, "n_buckets": 3, "seed": 3, "groups": groups}
    sampler, drawn, lengths = BucketSampler(samples, **options), [], set()
    for epoch in range(1, 1 + len(sizes)):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        drawn.append(np.concatenate(batches))
        lengths.add(len(batches))
        assert len(drawn[-1]) == len(groups) and max(map(len, batches)) <= batch_size
        assert np.ptp(np.unique(groups[drawn[-1]], return_counts=True)[1]) <= 1
        again = BucketSampler(samples, **options)
        again.set_epoch(epoch)
        assert list(again) == batches  # of (seed, epoch) alone
    assert len(lengths) == 1 and not np.array_equal(drawn[0], drawn[1])
    everywhere = np.unique(groups[np.concatenate(drawn)], return_counts=True)[1]
    assert np.ptp(everywhere) == 0  # over as many epochs as groups
    small = np.bincount(drawn[0], minlength=len(groups))[groups == "a"]
    assert small.min() >= 1 and np.ptp(small) <= 1  # each is repeated equally often


def test_evaluation_batches_are_sorted_by_length(tmp_path):
    stored, manifest = made(tmp_path, KINDS["16-bit audio"])
    dataset = make_dataset(manifest, TASKS, CachedReader(stored))
    batches = [list(zip(batch.id, batch.frames.tolist())) for batch in sorted_batches(dataset, 4)]
    assert [len(batch) for batch in batches] == [4, 4, 4, 1]
    assert [n for batch in batches for _, n in batch] == sorted(manifest["samples"])


def test_the_prefetch_loader_yields_and_counts_the_same_batches(tmp_path):
    made_of = []

    def make(indices):
        made_of.append(indices)
        return indices

    batches = [[0, 1], [2], [3, 4]]
    loader = PrefetchLoader(range(5), batch_sampler=batches, collate_fn=make)
    seen = []
    for n, batch in enumerate(loader, start=1):
        assert len(made_of) == min(n + 1, 3)  # the next one is under way
        loader._speechbrain_save(tmp_path / "position")
        assert int((tmp_path / "position").read_text()) == n
        seen.append(batch)
    assert seen == batches and list(loader) == batches

    (tmp_path / "position").write_text("1")
    resumed = PrefetchLoader(range(5), batch_sampler=batches, collate_fn=make)
    resumed._speechbrain_load(tmp_path / "position", end_of_epoch=False)
    assert list(resumed) == batches[1:]
    assert list(resumed) == batches


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["device", "locked", "store"])
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_batches_from_memory_on_a_gpu(tmp_path, kinds, place):
    stored, manifest = made(tmp_path, kinds, n=200)
    memory = MemoryBudget("cuda", 2**30)
    for other in {"device": (), "locked": ("device",), "store": ("device", "locked")}[place]:
        memory.left[other] = 0
    dataset = make_dataset(manifest, TASKS, CachedReader(stored))
    resident = InMemorySplit(dataset, ["emotion", "gender"], stored, memory)
    assert resident.place == place
    batches = torch.arange(200).view(-1, 8).tolist()
    expected = DataLoader(dataset, batch_sampler=batches, collate_fn=collate(dataset))
    for batch, there in zip(PrefetchLoader(resident, batch_sampler=batches, collate_fn=collate(resident)), expected):
        batch = batch.to("cuda")
        assert torch.equal(to_float(batch.x.data).cpu(), there.x.data)
        assert torch.equal(batch.frames.cpu(), there.frames)
        assert torch.equal(batch.x.lengths.cpu(), there.x.lengths)
        assert torch.equal(batch["emotion"].cpu(), there["emotion"])
