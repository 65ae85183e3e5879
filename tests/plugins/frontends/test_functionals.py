"""openSMILE functionals: the package's own values, one vector per utterance."""

import sys

import numpy as np
import opensmile
import pytest
import torch

from korser import UserError
from korser.plugins.frontends.functionals import Functionals, _extractor


def test_features_are_those_of_the_package():
    x = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    features, lengths = Functionals()(x, torch.tensor([16000, 9000]))
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    assert features.shape == (2, 1, 88) and lengths.tolist() == [1, 1]
    np.testing.assert_array_equal(features[1, 0], smile.process_signal(x[1, :9000].numpy(), 16000).to_numpy()[0])


def test_the_shortest_input_is_not_padded_with_nan():
    n = Functionals().min_length
    x = 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(0)).numpy()
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    assert np.isfinite(smile.process_signal(x, 16000).to_numpy()).all()
    with pytest.warns(UserWarning, match="too short"):
        smile.process_signal(x[:-1], 16000)


def test_unknown_set():
    with pytest.raises(UserError, match="expected one of .*did you mean 'eGeMAPSv02'"):
        Functionals(feature_set="eGeMAPSv2")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    _extractor.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'korser\[opensmile\]'"):
        Functionals()
