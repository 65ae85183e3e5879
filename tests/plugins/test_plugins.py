"""The contract, for every frontend under plugins/ and every YAML under hparams/: they are found, not listed."""

import copy

import pytest
import torch
import transformers
import yaml
from conftest import HPARAMS, ROOT
from helpers import failed_checks

from korser import load_hparams
from korser.plugins.frontends.encoder import PretrainedEncoder
from korser.testing import check_frontend
from korser.testing.inputs import mixed_batch

YAMLS = sorted(p for p in HPARAMS.glob("*.yaml") if "\nfrontend:" in p.read_text(encoding="utf-8") and p.stem != "base")
PLUGINS = sorted(p for p in (ROOT / "plugins/frontends").glob("*.py") if "(Frontend):" in p.read_text(encoding="utf-8"))


@pytest.fixture
def load(tiny_whisper):
    """Load a model's YAML, with a checkpoint that is on this machine in place of one that is not."""
    return lambda path: load_hparams(path, {"whisper_source": str(tiny_whisper)} if "whisper" in path.stem else None)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_contract(path, load):
    frontend = load(path)["frontend"]
    assert failed_checks(lambda: copy.deepcopy(frontend)) == {}


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_contract_of_newly_built_frontends(path, load):
    """The checks that compare two frontends, which copies would pass."""
    for check in check_frontend(lambda: load(path)["frontend"]):
        if check.name in ("same_seed_same_weights", "state_dict_round_trip"):
            check()


def test_every_yaml_loads_and_every_plugin_has_one(load):
    used = ""
    for path in sorted(HPARAMS.glob("*.yaml")):
        hparams = load(path) if path.stem != "base" else {}
        if "frontend" in hparams:  # a model, and not a search or a comparison
            used += hparams.text
            assert hparams["backbone"] is not None
    assert [p.stem for p in PLUGINS if f"korser.plugins.frontends.{p.stem}." not in used] == []


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_the_frozen_frontend_of_the_docs(tmp_path, norm):
    text = (
        (ROOT / "docs/extending/frontend.md").read_text(encoding="utf-8").split("# my_frozen.py\n")[1].split("```")[0]
    )
    namespace = {"__name__": "my_frozen"}
    exec(text, namespace)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    position = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    config = transformers.HubertConfig(**sizes, **position, conv_dim=[8] * 7, feat_extract_norm=norm)
    transformers.HubertModel(config).save_pretrained(tmp_path)
    do_normalize = norm == "layer"
    transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(tmp_path)
    frontend = namespace["Frozen"](source=tmp_path)
    assert frontend.frozen and frontend.do_normalize == do_normalize
    batch = mixed_batch(frontend)
    torch.testing.assert_close(
        frontend(*batch)[0], PretrainedEncoder(source=str(tmp_path))(*batch)[0], rtol=1e-4, atol=1e-4
    )
    named = {"accepts_the_shortest", "same_alone_as_in_a_batch", "nan_in_the_padding_ignored", "frozen_stays_in_eval"}
    for check in check_frontend(lambda: namespace["Frozen"](source=tmp_path)):
        if do_normalize or check.name in named:
            check()


def test_single_and_multitask_models_differ_in_their_tasks_alone():
    for path in HPARAMS.glob("*_stl.yaml"):
        own = yaml.compose(path.read_text(encoding="utf-8")).value
        assert [key.value for key, _ in own] == ["base", "tasks"]


def test_korser_never_imports_plugins():
    for path in (ROOT / "korser").rglob("*.py"):
        assert not [
            line
            for line in path.read_text().splitlines()
            if line.strip().startswith(("import plugins", "from plugins"))
        ]
