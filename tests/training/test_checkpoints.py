"""Checkpoints; that interrupted saves leave complete ones is tested by runs that are killed, in test_train.py."""

import re

import pytest
import torch

from korser import UserError
from korser.training.checkpoints import AtomicCheckpointer, History


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


@pytest.mark.parametrize("name", ["CKPT.yaml", "weights.ckpt", "history.ckpt"])
@pytest.mark.parametrize("content", ["", "null", "[]", "{}", "\0", None])
def test_a_damaged_checkpoint_is_named(tmp_path, name, content):
    parts = {"weights": torch.nn.Linear(1, 1), "history": History()}
    checkpointer = AtomicCheckpointer(tmp_path, recoverables=parts)
    file = checkpointer.save_checkpoint().path / name
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    with pytest.raises(
        UserError, match=rf"^{re.escape(str(file.parent))} is damaged \(.*\): delete this folder"
    ) as said:
        checkpointer.recover_if_possible()
    assert "\n" not in str(said.value)


def test_a_checkpoint_without_a_file_is_not_loaded_in_part(tmp_path):
    parts = {"weights": torch.nn.Linear(1, 1), "dataloader-TRAIN": History()}
    checkpointer = AtomicCheckpointer(tmp_path, recoverables=parts)
    (checkpointer.save_checkpoint().path / "dataloader-TRAIN.ckpt").unlink()
    with pytest.raises(UserError, match=r"is damaged \(no dataloader-TRAIN.ckpt\)"):
        checkpointer.recover_if_possible()
