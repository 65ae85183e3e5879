"""A run is what its settings, code, files, checkpoints and data make it; a change of any is noticed."""

import importlib
import logging
import shutil
import sys

import numpy as np
import pytest
from conftest import HPARAMS

from korser import load_hparams, train
from korser.config.hparams import resolve_hparams
from korser.plugins.frontends.encoder import PretrainedEncoder
from korser.plugins.frontends.encoder.checkpoint import NANO_FOLDER
from korser.runs.complete import find_complete_run
from korser.runs.directory import RunDirectory, run_folder
from korser.runs.provenance import require_same_checkpoints
from korser.utils.errors import UserError

FRONTEND = '''"""A frozen frontend."""

import numpy as np
from korser import Frontend
from korser.frontend.lengths import mask_padding


class Mine(Frontend):
    """Frames of 10 ms minus a mean."""

    def __init__(self, *, stats):
        super().__init__(output_size=160, frame_rate=100, min_length=160)
        self.mean = np.load(stats)

    def output_lengths(self, lengths):
        return lengths // 160

    def forward(self, x, lengths):
        y = x[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160)) - float(self.mean)
        lengths = self.output_lengths(lengths)
        return mask_padding(y, lengths), lengths
'''


@pytest.fixture
def project(tmp_path, tiny, monkeypatch):
    """A user's folder with a frontend, statistics and a YAML; ``project(code)`` starts a process that trains there."""
    monkeypatch.syspath_prepend(tmp_path)
    np.save(tmp_path / "stats.npy", np.float64(0.01))
    text = f"base: base.yaml\nfrontend: !new:frontend_of_mine.Mine {{stats: {tmp_path / 'stats.npy'}}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    settings = {**tiny, "n_epochs": "1"}

    def run(code=FRONTEND):
        (tmp_path / "frontend_of_mine.py").write_text(code)
        monkeypatch.delitem(sys.modules, "frontend_of_mine", raising=False)
        importlib.invalidate_caches()
        name = resolve_hparams(tmp_path / "mine.yaml", settings).run_name
        assert "frontend_of_mine" not in sys.modules, "the name is known without importing the plugin"
        found = find_complete_run(tmp_path / "mine.yaml", settings)
        assert "frontend_of_mine" not in sys.modules and (found is None or found.name == name)
        hparams = load_hparams(tmp_path / "mine.yaml", settings)
        run_dir = run_folder(hparams)
        assert run_dir.name == name
        train(hparams, run_dir)
        return run_dir

    run.features = lambda: len(list((tmp_path / "cache" / "features").iterdir()))
    run.folder = tmp_path
    return run


def test_a_change_of_code_or_files_trains_a_new_run_and_a_comment_does_not(project, caplog):
    caplog.set_level(logging.INFO)
    first = project()
    commented = FRONTEND.replace("    def forward", "    # a comment\n\n    def forward").replace(
        "A frozen", "My frozen"
    )
    caplog.clear()
    assert project(commented) == first and f"{first} is complete" in caplog.messages
    assert project.features() == 1
    doubled = FRONTEND.replace("- float(self.mean)", "- 2 * float(self.mean)")
    changed = project(doubled)
    assert changed != first and RunDirectory(first).complete and RunDirectory(changed).complete
    said = f"the code of frontend_of_mine.Mine changed since {first}: training a new run, {changed}"
    assert said in caplog.messages
    assert project.features() == 2
    np.save(project.folder / "stats.npy", np.float64(0.5))
    other_file = project(doubled)
    assert other_file not in (first, changed) and project.features() == 3
    said = f"{project.folder / 'stats.npy'} changed since {changed}: training a new run, {other_file}"
    assert said in caplog.messages
    with pytest.raises(UserError, match=f"Mine and .*stats.npy changed since {first} was begun: train in another"):
        train(load_hparams(project.folder / "mine.yaml", {"output_folder": "elsewhere"}), first)


def test_a_complete_run_is_verified_without_its_model(tiny, tmp_path, monkeypatch, caplog):
    checkpoint = shutil.copytree(NANO_FOLDER, tmp_path / "checkpoint")
    overrides = {**tiny, "n_epochs": "1", "wav2vec_source": str(checkpoint)}
    yaml = HPARAMS / "wav2vec_stl.yaml"
    hparams = load_hparams(yaml, overrides)
    assert find_complete_run(yaml, overrides) is None
    run_dir = run_folder(hparams)
    train(hparams, run_dir)
    monkeypatch.setattr(PretrainedEncoder, "__init__", None)  # building one would fail
    assert find_complete_run(yaml, overrides).path == run_dir
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights + b" ")
    assert find_complete_run(yaml, overrides) is None, "a folder that the settings name is in the run's name"
    with pytest.raises(UserError, match=f"the checkpoint {checkpoint} has changed since {run_dir} was begun"):
        require_same_checkpoints(RunDirectory(run_dir).info(), run_dir)
    shutil.rmtree(checkpoint)
    require_same_checkpoints(RunDirectory(run_dir).info(), run_dir)


@pytest.mark.parametrize("commit, refused", [("a" * 40, False), ("b" * 40, True), (None, False)])
def test_another_commit_of_a_hub_checkpoint_is_noticed(monkeypatch, commit, refused):
    cached = f"/hub/snapshots/{commit}/config.json" if commit else None
    monkeypatch.setattr("korser.runs.provenance.try_to_load_from_cache", lambda name, file, revision: cached)
    info = {"checkpoints": [{"name": "facebook/base", "revision": None, "version": "a" * 40}]}
    if refused:
        with pytest.raises(UserError, match="the checkpoint facebook/base has changed"):
            require_same_checkpoints(info, "results/run")
    else:
        require_same_checkpoints(info, "results/run")
