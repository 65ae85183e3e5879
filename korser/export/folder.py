"""A folder with a trained model that others load without korser, and korser without the run directory.

============================ ========================================================================================
config.json                  tasks, labels and limits, as transformers reads them
preprocessor_config.json     16 kHz mono, not normalised
model.onnx                   the computation from waveform to predictions; its weights are those of model.safetensors
model.safetensors            all weights
modeling_korser.py           runs model.onnx for ``transformers.pipeline("audio-classification")``
README.md                    model card
hparams.yaml, run.json,      what :func:`korser.load` builds the model from, without paths of this machine;
metrics.json, manifest.csv   the manifest has only digests, durations and splits of recordings
encoders/                    configurations of encoders, whose weights are in model.safetensors
============================ ========================================================================================

The computation is an ONNX graph since it is data, not code: loading it unpickles nothing, and its format stays readable
by later versions of onnxruntime, which programs of ``torch.export`` and TorchScript do not promise.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from korser.config.nodes import Dumper, compose, get_value, nodes, set_value, value_node
from korser.export.card import model_card
from korser.export.graph import NotExportable, check_graph, link_weights, require, to_onnx
from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.frontend.tree import leaves
from korser.inference.load import SETTINGS
from korser.inference.predict import TrainedModel
from korser.runs.directory import RunDirectory
from korser.runs.trust import signature
from korser.utils.errors import UserError
from korser.utils.files import atomic, write_csv, write_json, write_text
from korser.utils.huggingface import quiet_huggingface
from korser.utils.text import one_line

__all__ = ["ENCODERS", "check_destination", "export_folder", "export_graph", "push"]

logger = logging.getLogger(__name__)

ENCODERS = ("include", "reference")
GRAPH = "model.onnx"
LARGEST = 2**31 - 2**24  # bytes of weights in one ONNX file
CODE = "modeling_korser.py"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
ENCODER_FILES = ("config.json", "preprocessor_config.json", "processor_config.json")
RECORDED = (  # of run.json; the rest is about the machine
    *("model", "corpus", "synthetic", "identified_by_folder", "protocol", "split", "speaker_independent"),
    *("searched_on", "warnings", "seed", "fold", "tasks", "pretrained", "code", "files", "frozen", "initialised_from"),
)
PREPROCESSOR = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "sampling_rate": SAMPLE_RATE,
    "padding_value": 0.0,
    "do_normalize": False,
    "return_attention_mask": True,
}


def check_destination(folder: str | Path, repository: str | None = None) -> None:
    """Raise a UserError unless a folder is missing or empty, and a repository's name valid."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out: {folder} exists already: choose another folder, or delete it")
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise UserError(f"--push: '{repository}': expected USER/NAME, such as jo/wav2vec-leaf-emotion")


def export_graph(trained: TrainedModel, folder: str | Path) -> float:
    """Write ``model.onnx`` with its weights; return the largest difference between torch and onnxruntime.

    Raises
    ------
    UserError
        See :func:`korser.export.graph.to_onnx` and :func:`korser.export.graph.check_graph`.
    """
    onnx_ir = require("onnx_ir")
    with _folder_beside(Path(folder).resolve()) as made:
        graph = to_onnx(trained)
        if sum(value.const_value.nbytes for value in graph.graph.initializers.values()) > LARGEST:
            raise UserError("--onnx: the weights are larger than the 2 GB of an ONNX file: leave it out")
        onnx_ir.save(graph, made / GRAPH)
        difference = check_graph(made / GRAPH, trained)
    return difference


def export_folder(
    trained: TrainedModel, folder: str | Path, *, encoder: str = "include", name: str | None = None
) -> float | None:
    """Write the folder that is described at the top of this module.

    Parameters
    ----------
    trained : TrainedModel
        On a CPU.
    folder : str or Path
        Missing or empty.
    encoder : {"include", "reference"}
        Whether frozen weights are part of the folder. With ``reference`` they are loaded from their source, a hub id;
        there is no graph then, and only korser loads the folder.
    name : str, optional
        By which the model card loads the model, such as that of a repository; default: that of the folder.

    Returns
    -------
    float or None
        The largest difference of predictions between torch and onnxruntime; None without a graph, if the model has an
        operation that cannot be exported, which is logged.
    """
    check_destination(folder)
    folder, included = Path(folder).resolve(), encoder == "include"
    with _folder_beside(folder) as made:
        _write_run(trained, made, included)
        weights = {k: v.contiguous() for k, v in trained.model.trained_state(frozen=included).items()}
        with atomic(made / "model.safetensors") as file:
            safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
        difference = _write_graph(trained, made) if included else None
        with_graph = difference is not None
        write_json(made / "config.json", _config(trained, with_graph))
        write_json(made / "preprocessor_config.json", PREPROCESSOR)
        card = model_card(trained, name or folder.name, with_graph=with_graph, included=included)
        write_text(made / "README.md", card)
    return difference


@contextlib.contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces a missing or empty one unless an error occurs."""
    with _refused(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.")
    with temporary:
        made = Path(temporary.name) / "made"
        made.mkdir()
        yield made
        with _refused(folder):
            if folder.exists():
                folder.rmdir()  # empty
            made.rename(folder)


@contextlib.contextmanager
def _refused(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--out={folder}: {error.strerror}; choose another folder") from error


def push(folder: str | Path, repository: str) -> str:
    """Upload a folder to a model repository of the Hugging Face hub, a private one if it is new; return its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Model exported by korser")
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise UserError(
            f"--push: cannot upload {folder} to {repository} ({one_line(error, 200)}): log in by `hf auth login`, and "
            "check name and network; the folder is complete"
        ) from error
    return str(address)


def _write_graph(trained: TrainedModel, folder: Path) -> float | None:
    """Write graph and code; return the largest difference, None if the graph cannot be made."""
    onnx_ir = require("onnx_ir")
    file = folder / GRAPH
    try:
        graph = to_onnx(trained)
        link_weights(graph, folder / "model.safetensors")
        onnx_ir.save(graph, file)
        difference = check_graph(file, trained)
    except NotExportable as error:
        file.unlink(missing_ok=True)
        logger.warning("no %s, so that only korser loads the folder: %s", GRAPH, error)
        return None
    shutil.copyfile(Path(__file__).parent / CODE, folder / CODE)
    return difference


def _config(trained: TrainedModel, with_graph: bool) -> dict[str, Any]:
    """Return ``config.json``: labels of the main task, and what the code in the folder needs."""
    main = trained.tasks[0]
    labels = main.classes or (main.name,)
    config = {
        "model_type": "korser",
        "problem_type": "single_label_classification" if main.classes else "regression",
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "tasks": [{"name": task.name, "kind": task.kind, "classes": list(task.classes)} for task in trained.tasks],
        "sampling_rate": SAMPLE_RATE,
        "shortest_input": trained.min_length,
        "longest_input": trained.piece_length,
        "korser_version": version("korser"),
    }
    if with_graph:
        kind = "KorserForAudioClassification"
        module = CODE.removesuffix(".py")
        config["architectures"] = [kind]
        config["auto_map"] = {
            "AutoConfig": f"{module}.KorserConfig",
            "AutoModelForAudioClassification": f"{module}.{kind}",
        }
    return config


# -- what korser loads ------------------------------------------------------------------------------------------------
def _write_run(trained: TrainedModel, folder: Path, included: bool) -> None:
    """Write settings, record, metrics and manifest, with what is needed of them and nothing about this machine."""
    run, made = trained.directory, RunDirectory(folder)
    info = copy.deepcopy({key: trained.info[key] for key in RECORDED if key in trained.info})
    sources = _write_encoders(trained, folder) if included else {}
    renamed = {source: name for source, (name, _) in sources.items()}
    for record in (*info["frozen"], *info["initialised_from"]):
        record["source"] = renamed.get(record["source"], record["source"])
    info["encoders"] = dict(sources.values())
    info["yaml_folders"] = []
    info["environment"] = {"versions": trained.info.get("environment", {}).get("versions", {})}
    settings = _settings(run, renamed)
    for kind in ("code", "files"):  # not of what only training uses
        info[kind] = {name: content for name, content in info[kind].items() if name in settings}
    write_text(made.settings_file, settings)
    write_json(made.info_file, {**info, "signature": signature(settings, info)})
    write_csv(made.manifest_file, _anonymous(run.manifest()))
    write_json(made.metrics_file, run.metrics())


def _settings(run: RunDirectory, renamed: dict[str, str]) -> str:
    """Return the settings that the model is built from; local folders of encoders have other names."""
    root = compose(run.settings_text(), run.settings_file)
    root.value = [(key, value) for key, value in root.value if key.value in SETTINGS]
    for node in nodes(root):
        if isinstance(node, yaml.ScalarNode) and node.value in renamed:
            node.value = renamed[node.value]
    changes = {"cache_folder": "cache"}
    if not get_value(root, "wav_augment").tag.endswith(":null"):  # whose files are not part of the model
        changes |= {"wav_augment": None, "use_cache": False}  # without the cache in any case
    for key, value in changes.items():
        set_value(root, key, value_node(key, value))
    return yaml.serialize(root, Dumper=Dumper, allow_unicode=True)


def _anonymous(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return what recognises a recording of training in an evaluation, without names."""
    known = {"id": manifest["digest"], "path": "", "speaker": None, "split": manifest["split"]}
    return pd.DataFrame({**known, "digest": manifest["digest"], "duration": manifest["duration"]})


def _write_encoders(trained: TrainedModel, folder: Path) -> dict[str, tuple[str, str]]:
    """Copy the configurations of encoders; return by source the name that the folder has for it, and where it is."""
    found: dict[str, tuple[str, str]] = {}
    for stage in leaves([trained.parts["frontend"]]):
        source = None if stage.source is None else str(stage.source)
        if source is None or source in found:
            continue
        for name, revision in _checkpoints(stage):
            place = f"encoders/{len(found)}"
            _copy_configuration(name, revision, folder / place)
            local = Path(source).expanduser().is_dir()
            found[source] = f"included-{len(found)}-{Path(source).name}" if local else source, place
            break
    return found


def _checkpoints(stage: Frontend) -> Iterable[tuple[str, str | None]]:
    """Yield name, or folder, and revision of the checkpoints of transformers that a stage consists of."""
    for module in stage.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig) and config._name_or_path:
            yield config._name_or_path, stage.config.get("revision")


@quiet_huggingface()
def _copy_configuration(name: str, revision: str | None, folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in ENCODER_FILES:
        found = cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            shutil.copyfile(found, folder / file)
