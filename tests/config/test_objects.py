"""Objects of Python in settings: recorded as the YAML that builds them again, or refused."""

import functools
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from korser import Chain, FeatureAugment, Frontend, Task, UserError, load_hparams
from korser.config.hparams import load_resolved
from korser.config.objects import find_change, state_of
from korser.plugins.frontends.leaf import Leaf
from korser.plugins.frontends.mel import Mel
from korser.plugins.heads.linear import LinearHeads

PARTS = '''
import torch
from torch import nn
from korser import Frontend


class Conv(Frontend):
    """Any arguments."""

    def __init__(self, n_filters=8, size=(3, 5), *layers, inner=None, **more):
        super().__init__(output_size=n_filters, frame_rate=100)
        self.layers, self.size, self.inner, self.more = layers, size, inner, more
        self.conv = nn.Conv1d(1, n_filters, 400)
        self.norm = nn.BatchNorm1d(n_filters)


class Mean(nn.Module):
    def __init__(self, in_channels, size=8):
        super().__init__()
        self.linear, self.output_size = nn.Linear(in_channels, size), size


class Outer:
    class Inner(Conv):
        pass
'''


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A module beside a notebook."""
    (tmp_path / "parts_in_a_file.py").write_text(PARTS)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "parts_in_a_file", raising=False)
    yield importlib.import_module("parts_in_a_file")
    monkeypatch.delitem(sys.modules, "parts_in_a_file", raising=False)


def recorded(hparams):
    """Build recorded settings again."""
    return load_resolved(hparams.text, name=hparams.name, folders=hparams.folders, source="hparams.yaml", trusted=True)


@pytest.mark.parametrize(
    "args, keywords",
    [
        ((), {}),
        ((4, (1, "a: b", None, 2.5), "x"), {}),
        ((4,), {"size": ["1e-3", "true", "<a>", "(1, 2)", 1e-7, float("inf"), True], "other": np.int64(3)}),
        ((), {"size": {"a.b": [np.float32(0.5), {}], "기쁨": (1,)}, "other": ()}),
        ((), {"size": [torch.nn.functional.relu, torch.nn.ReLU, functools.partial(torch.nn.Linear, 3)]}),
        ((), {"inner": Mel(n_mels=3), "size": {"deeper": [Mel(n_mels=4), Task("age", classes=("old", "young"))]}}),
    ],
)
def test_a_frontend_is_recorded_by_its_class_and_arguments(parts, tmp_path, args, keywords):
    given = parts.Conv(*args, **keywords)
    hparams = load_hparams("base.yaml", frontend=given)
    assert hparams.folders == [str(tmp_path)]
    for built in hparams["frontend"], recorded(hparams)["frontend"]:
        assert built is not given and type(built) is parts.Conv
        assert find_change(state_of(built), state_of(given)) is None
    assert recorded(hparams)["frontend"].conv.weight.equal(hparams["frontend"].conv.weight), "drawn from the seed"
    assert load_hparams("base.yaml", frontend=parts.Conv(*args, **keywords)).run_name == hparams.run_name


def test_an_object_is_followed_by_what_depends_on_it_and_can_be_changed_again(parts):
    hparams = load_hparams("mel_stl.yaml", frontend=parts.Conv(4), backbone=functools.partial(parts.Mean, size=2))
    assert hparams["backbone"].linear.weight.shape == (2, 4)
    hparams = hparams.replace({"frontend.n_filters": 6})
    assert hparams["backbone"].linear.weight.shape == (2, 6)
    assert hparams.replace(frontend=parts.Conv(5), backbone=parts.Mean)["backbone"].linear.weight.shape == (8, 5)
    assert hparams.replace(backbone=functools.partial(parts.Mean, in_channels=3))["backbone"].linear.in_features == 3
    assert hparams.replace(frontend=parts.Outer.Inner())["frontend"].output_size == 8


def test_classes_functions_and_arguments_of_the_shipped_parts():
    hparams = load_hparams(
        "mel_mtl.yaml",
        frontend=Chain(Mel(n_mels=40), Leaf(in_channels=40, sample_rate=100)),
        head=functools.partial(LinearHeads, label_smoothing=0.1),
        augment=functools.partial(FeatureAugment, time_masks=1),
        opt_class=functools.partial(torch.optim.AdamW, weight_decay=0.1),
        tasks=[Task("emotion"), Task("age", weight=0.5)],
        lr=np.float64(0.01),
        data_folder=Path("data", "mini"),
    )
    assert hparams["head"].keywords == {"label_smoothing": 0.1} and hparams["opt_class"].func is torch.optim.AdamW
    assert hparams["augment"].time_masks == 1 and hparams["tasks"][1] == Task("age", weight=0.5)
    assert "!name:torch.optim.AdamW" in hparams.text, "its public name"
    assert recorded(hparams).run_name == hparams.run_name
    assert hparams.replace(head=LinearHeads)["head"] is LinearHeads


def in_a_function():
    class Local(Frontend):
        pass

    return Local


def test_what_cannot_be_recorded_is_refused(parts, monkeypatch):
    hparams = load_hparams("mel_stl.yaml")
    script = type("Mine", (parts.Conv,), {"__module__": "__main__"})
    old = parts.Conv
    for settings, said in (
        ({"frontend": script()}, "frontend: __main__.Mine: it is defined in a notebook, .* move it to .* a file"),
        ({"frontend": script}, "frontend: __main__.Mine: it is defined in a notebook"),
        ({"frontend": "!new:__main__.Mine"}, "'frontend': cannot import __main__.Mine: it is defined in a notebook"),
        ({"frontend": in_a_function()}, "in_a_function.<locals>.Local: it is defined in a .* function"),
        ({"frontend": old(inner=lambda x: x)}, "frontend.inner: .*<lambda>: it is defined in"),
        ({"frontend": old(inner=torch.zeros(3))}, "frontend.inner: which arguments this torch.Tensor .* not known"),
        ({"frontend": old(size=functools.partial(max, 3, key=abs))}, "frontend.size: max has arguments with and"),
        ({"frontend": old(8, 3, 1, inner=3)}, "frontend: Conv has arguments with and without names"),
        ({"backbone": hparams["backbone"]}, r"ConvNet was built with is not known: give functools.partial\(ConvNet,"),
        ({"frontend.n_mels": object()}, "frontend.n_mels: expected a value .* give 'frontend' as a whole"),
    ):
        with pytest.raises(UserError, match=said) as error:
            hparams.replace(settings)
        assert "\n" not in str(error.value)
    importlib.reload(parts)
    with pytest.raises(UserError, match="parts_in_a_file.Conv is no longer the Conv that was given: import it, and"):
        hparams.replace(frontend=old())
    assert hparams.replace(frontend=parts.Conv())["frontend"].output_size == 8


@pytest.mark.parametrize(
    "change, name",
    [
        (lambda f: f.requires_grad_(False), "conv.weight"),
        (lambda f: torch.nn.init.zeros_(f.conv.bias), "conv.bias"),
        (lambda f: f.load_state_dict(f.state_dict()), "conv.weight"),
        (lambda f: f.norm(torch.randn(2, 8)), "norm.num_batches_tracked"),
        (lambda f: setattr(f, "size", 4), "size"),
        (lambda f: setattr(f, "pretrained", False), "pretrained"),
        (lambda f: setattr(f, "norm", torch.nn.Identity()), "norm"),
        (lambda f: f.conv.register_forward_hook(print), "conv._forward_hooks.0"),
        (lambda f: f.double(), "conv.weight"),
    ],
)
def test_a_frontend_that_was_changed_after_it_was_built_is_refused(parts, change, name):
    given = parts.Conv()
    load_hparams("base.yaml", frontend=given)
    change(given)
    with pytest.raises(UserError, match=f"^frontend.{name} was changed after Conv was built, and only its class and"):
        load_hparams("base.yaml", frontend=given)


@pytest.mark.parametrize(
    "change, name",
    [
        (lambda h: h["split"].keywords.update(fold=1), "split.fold"),
        (lambda h: h["label_map"].update(emotion={}), "label_map"),
        (lambda h: h["tasks"].append(Task("age")), "tasks"),
        (lambda h: setattr(h["augment"], "time_masks", 9), "augment.time_masks"),
        (lambda h: setattr(h["epoch_counter"], "limit", 1), "epoch_counter.limit"),
        (lambda h: h["backbone"].requires_grad_(False), "backbone.*weight"),
    ],
)
def test_a_change_in_place_is_refused_before_training(change, name):
    hparams = load_hparams("mel_stl.yaml")
    hparams["backbone"].eval()  # set by training itself
    change(hparams)
    with pytest.raises(UserError, match=f"^{name} was changed after the settings were loaded, .* use replace"):
        hparams.with_unused_objects()
    hparams.replace().with_unused_objects()
