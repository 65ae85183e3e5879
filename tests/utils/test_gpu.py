"""GPUs of several processes, and random generators of a GPU that is not in use."""

import pytest
import torch

from korser import UserError
from korser.utils.gpu import require_own_device
from korser.utils.seeding import seed_everything


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_under_torchrun_each_process_has_a_gpu_of_its_own(monkeypatch, device):
    require_own_device(device)
    monkeypatch.setenv("RANK", "0")
    require_own_device(None)
    require_own_device("cpu")
    with pytest.raises(UserError, match="under torchrun"):
        require_own_device(device)


def test_without_a_gpu_in_use_seeding_leaves_it_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("it would queue a call at every step"))
    seed_everything(1, 2, 3)
