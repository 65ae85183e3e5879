"""The contract, for every frontend under plugins/ and every YAML under hparams/: they are found, not listed."""

import pytest
import yaml
from conftest import HPARAMS, ROOT

from korser import load_hparams
from korser.testing import check_frontend

YAMLS = sorted(p for p in HPARAMS.glob("*.yaml") if "\nfrontend:" in p.read_text(encoding="utf-8") and p.stem != "base")
PLUGINS = sorted(p for p in (ROOT / "plugins/frontends").glob("*.py") if not p.stem.startswith("_"))


def checks():
    for path in YAMLS:
        for check in check_frontend(lambda path=path: load_hparams(path)["frontend"]):
            yield pytest.param(check, id=f"{path.stem}-{check.name}")


@pytest.mark.parametrize("check", checks())
def test_contract(check):
    check()


def test_every_yaml_loads_and_every_plugin_has_one():
    used = ""
    for path in sorted(HPARAMS.glob("*.yaml")):
        hparams = load_hparams(path) if path.stem != "base" else {}
        if "frontend" in hparams:  # a model, and not a search or a comparison
            used += hparams.text
            assert hparams["backbone"] is not None
    assert [p.stem for p in PLUGINS if f"plugins.frontends.{p.stem}." not in used] == []


def test_single_and_multitask_models_differ_in_their_tasks_alone():
    for path in HPARAMS.glob("*_stl.yaml"):
        own = yaml.compose(path.read_text(encoding="utf-8")).value
        assert [key.value for key, _ in own] == ["base", "tasks"]


def test_korser_never_imports_plugins():
    for path in (ROOT / "korser").rglob("*.py"):
        assert not [line for line in path.read_text().splitlines() if line.strip().startswith(("import plugins", "from plugins"))]
