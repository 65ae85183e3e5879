"""Features of openSMILE, equal to those of its own interface."""

import sys

import opensmile
import pytest
import torch
from helpers import failed_checks

from korser import UserError
from korser.data.fingerprint import stages_digest
from korser.plugins.frontends.opensmile import OpenSmile
from korser.testing import quick_check


@pytest.mark.parametrize("level", ["descriptors", "functionals"])
def test_features_are_those_of_the_package(level):
    frontend = OpenSmile(level=level)
    x, lengths = 0.1 * torch.randn(2, 16_000), torch.tensor([16_000, 9_999])
    features, frames = frontend(x, lengths)
    name = {"descriptors": "LowLevelDescriptors", "functionals": "Functionals"}[level]
    smile = opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel[name])
    for i, n in enumerate(lengths.tolist()):
        expected = torch.from_numpy(smile.process_signal(x[i, :n].numpy(), 16_000).to_numpy())
        assert torch.equal(features[i, : frames[i]], expected)


def test_lengths():
    frontend = OpenSmile()
    for n in (960, 1039, 1040, 1119, 1120, 15_999, 16_000):
        assert len(frontend.one(torch.zeros(n))) == frontend.output_lengths(torch.tensor(n))


@pytest.mark.parametrize("feature_set, level", [("eGeMAPSv02", "descriptors"), ("ComParE_2016", "functionals")])
def test_the_check_before_training_passes(feature_set, level):
    quick_check(OpenSmile(feature_set=feature_set, level=level))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["descriptors", "functionals"])
@pytest.mark.parametrize("feature_set", ["eGeMAPSv02", "ComParE_2016"])
def test_contract(feature_set, level):
    assert failed_checks(lambda: OpenSmile(feature_set=feature_set, level=level)) == {}


def test_features_are_cached():
    frontend = OpenSmile()
    assert frontend.frozen
    before = stages_digest([frontend])
    frontend(torch.randn(1, 8000), torch.tensor([8000]))
    assert stages_digest([frontend]) == before == stages_digest([OpenSmile()])
    assert before != stages_digest([OpenSmile(feature_set="ComParE_2016")])


def test_mistakes(monkeypatch):
    with pytest.raises(UserError, match="level='lld': expected eGeMAPSv02 or ComParE_2016, and descriptors or func"):
        OpenSmile(level="lld")
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(UserError, match=r"pip install 'korser\[opensmile\]'"):
        OpenSmile()
