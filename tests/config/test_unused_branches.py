"""Settings of the backbone that a model does not use have no effect: they are refused, and not in the name of a run."""

import sys

import pytest
from conftest import HPARAMS

from korser import UserError, load_hparams
from korser.config.branches import unused_branches
from korser.config.hparams import load_resolved, resolve_hparams
from korser.config.layers import merge_layers
from korser.config.names import check_shared_overrides
from korser.config.usage import keep_used

MEL, LEAF, ENCODER, ON_STATES = (
    HPARAMS / f"{name}.yaml" for name in ("mel_stl", "leaf_stl", "wav2vec_stl", "wav2vec_leaf_stl")
)
STATES, BANDS = "backbone.states.dropout", "backbone.bands.dropout"


@pytest.mark.parametrize(
    ("path", "unused"), [(MEL, "states"), (LEAF, "states"), (ENCODER, "bands"), (ON_STATES, "bands")]
)
def test_the_unused_backbone_of_shipped_models(path, unused):
    (branch,) = unused_branches(merge_layers(path, {}).root)
    assert branch.key == f"backbone.{unused}"


def test_a_setting_of_the_unused_backbone_is_refused(tmp_path):
    said = f"'{STATES}' has no effect on mel_stl, whose frontend has channels ordered by frequency, so that backbone.ba"
    with pytest.raises(UserError, match=said):
        load_hparams(MEL, {STATES: 0.3})
    (tmp_path / "mine.yaml").write_text(f"base: wav2vec_stl.yaml\n{BANDS}: 0.3\n")
    with pytest.raises(UserError, match=rf"mine.yaml: '{BANDS}' has no effect on mine, .* without an order, so that"):
        load_hparams(tmp_path / "mine.yaml")


def test_a_setting_of_the_unused_backbone_is_not_in_the_name_of_a_run(tmp_path):
    plain = tmp_path / "shared.yaml"
    names = []
    for dropout in 0.1, 0.3:
        plain.write_text(f"base: mel_stl.yaml\n{STATES}: {dropout}\n")
        (tmp_path / "mine.yaml").write_text("base: shared.yaml\n")
        names.append(resolve_hparams(tmp_path / "mine.yaml").run_name)
        loaded = load_hparams(tmp_path / "mine.yaml")
        assert loaded.run_name == names[-1] and "states:" not in loaded.text
    assert names[0] == names[1] != resolve_hparams(tmp_path / "mine.yaml", {BANDS: 0.3}).run_name


def test_settings_that_models_share_reach_those_that_use_them():
    overrides = {STATES: 0.3, "lr": 0.1}
    assert keep_used(MEL, overrides) == {"lr": 0.1} and keep_used(ENCODER, overrides) == overrides
    check_shared_overrides([MEL, ENCODER], overrides)
    with pytest.raises(UserError, match=f"'overrides.{STATES}' has no effect on mel_stl"):
        check_shared_overrides([MEL, LEAF], {STATES: 0.3})


def test_recorded_settings_are_loaded_again_without_trust():
    hparams = load_hparams(MEL, {"backbone.parameters": 110_000})
    again = load_resolved(hparams.text, name="mel_stl", folders=[], source="hparams.yaml", trusted=False)
    assert again["backbone"].width == hparams["backbone"].width


def test_one_backbone_for_all_frontends():
    hparams = load_hparams(MEL, {"backbone": "!new:korser.plugins.backbones.blstm.BLSTM {in_channels: 40}"})
    assert type(hparams["backbone"]).__name__ == "BLSTM"
    hparams = load_hparams(MEL, {"backbone.bands": "!name:korser.plugins.backbones.linear_pool.LinearPool {width: 7}"})
    assert hparams["backbone"].width == 7
    with pytest.raises(UserError, match="unknown setting 'backbone.bands.dropuot': .*did you mean 'dropout'"):
        load_hparams(MEL, {"backbone.bands.dropuot": 0.1})


SOURCE = """
import korser
from korser import Frontend
from korser.plugins.frontends.mel import Mel

class Plain(Frontend):
    def __init__(self, *, size=4):
        super().__init__(output_size=size, frame_rate=100.0)
class Filters(korser.Frontend):
    def __init__(self, *, size=4):
        super().__init__(output_size=size, frame_rate=100.0, frequency_axis=True)
class Inherits(Filters):
    pass
class Renamed(Mel):
    pass
class Depends(Frontend):
    def __init__(self, *, in_channels=None):
        super().__init__(output_size=4, frame_rate=100.0, frequency_axis=in_channels is None)
class Computed(Frontend):
    def __init__(self, *, n=4):
        super().__init__(output_size=n, frame_rate=100.0, frequency_axis=n > 8)
class Keywords(Frontend):
    def __init__(self, **sizes):
        super().__init__(**sizes)
class Later(Frontend):
    def __init__(self):
        super().__init__(output_size=4, frame_rate=100.0)
        self.frequency_axis = True
"""


@pytest.mark.parametrize(
    ("frontend", "unused"),
    [
        ("!new:axes_of_mine.Plain", "bands"),
        ("!new:axes_of_mine.Filters {size: 8}", "states"),
        ("!new:axes_of_mine.Inherits", "states"),
        ("!new:axes_of_mine.Renamed", "states"),
        ("!new:axes_of_mine.Depends {in_channels: null}", "states"),
        ("!new:axes_of_mine.Depends {in_channels: 3}", "bands"),
        (
            "!new:korser.Chain [!new:axes_of_mine.Filters {size: 3}, !new:axes_of_mine.Plain {size: 3}]",
            "bands",
        ),
        ("!new:axes_of_mine.Computed", None),
        ("!new:axes_of_mine.Keywords {output_size: 3, frame_rate: 1.0}", None),
        ("!new:axes_of_mine.Later", None),
        ("!new:axes_of_mine.Missing", None),
        ("!ref <lr>", None),
        ("!ref <frontend>", None),
    ],
)
def test_what_the_source_of_a_frontend_declares(tmp_path, monkeypatch, frontend, unused):
    (tmp_path / "axes_of_mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"base: mel_stl.yaml\nfrontend: {frontend}\n")
    found = unused_branches(merge_layers(tmp_path / "mine.yaml", {}).root)
    assert [branch.key for branch in found] == ([f"backbone.{unused}"] if unused else [])
    assert "axes_of_mine" not in sys.modules, "nothing is imported"
