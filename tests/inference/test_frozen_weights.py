"""A model is not used with other frozen weights than those of its training."""

import json

import pytest
from helpers import run

from korser import UserError
from korser.inference.load import load_trained_model


@pytest.mark.parametrize("key", ["weights", "config"])
def test_a_stage_without_a_checkpoint_is_named_by_its_class(tiny, key):
    run_dir = run({**tiny, "n_epochs": "1"}, model="mel_stl")
    info = json.loads((run_dir / "run.json").read_text())
    info["frozen"][0][key] = "0"
    (run_dir / "run.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"of korser\.plugins\.frontends\.mel\.Mel ha(s|ve) changed since") as error:
        load_trained_model(run_dir)
    assert "None" not in str(error.value)
