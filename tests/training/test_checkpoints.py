"""Checkpoints; that interrupted saves leave complete ones is tested by runs that are killed, in test_train.py."""

import torch

from korser.training.checkpoints import AtomicCheckpointer


def test_the_cost_of_saving_does_not_grow_with_the_number_of_saves(tmp_path, monkeypatch):
    searches = []
    find = AtomicCheckpointer.find_checkpoints
    monkeypatch.setattr(
        AtomicCheckpointer, "find_checkpoints", lambda *args, **keys: searches.append(keys) or find(*args, **keys)
    )
    counts = []
    for run in ("a", "b"):  # in one process, as the runs of a comparison
        checkpointer = AtomicCheckpointer(tmp_path / run, recoverables={"model": torch.nn.Linear(1, 1)})
        for score in (0.5, 0.3, 0.4):
            searches.clear()
            checkpointer.save_and_keep_only(meta={"score": score}, max_keys=["score"])
            counts.append(len(searches))
        assert {each.meta["score"] for each in checkpointer.list_checkpoints()} == {0.4, 0.5}  # the latest and the best
    assert len(set(counts)) == 1
