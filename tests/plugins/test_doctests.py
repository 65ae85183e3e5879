"""The examples in the docstrings of the plugins, which pytest would import under another name than korser does."""

import doctest
import importlib
import pkgutil

import pytest

import korser.plugins

MODULES = [module.name for module in pkgutil.walk_packages(korser.plugins.__path__, "korser.plugins.")]


@pytest.mark.parametrize("name", [name for name in MODULES if "triton" not in name])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
