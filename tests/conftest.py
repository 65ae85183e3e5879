"""A tiny corpus and tiny settings, with which a run takes a second or two."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # what tests compute is small: threads would only disturb each other

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from made_runs import utterances, write_run

from korser import cli
from korser.comparison.compare import compare
from korser.runs.load import load_runs
from korser.utils.seeding import set_arithmetic

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a request to a hub fails at once
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="korser-state-")  # the key that run directories are signed with

ROOT = Path(__file__).parent.parent
HPARAMS = ROOT / "hparams"
SHARED = Path(os.environ.get("KORSER_SHARED_DATA", ROOT.parent / "shared" / "data"))  # real speech, beside the clone
PITCH = {"joy": 400, "sadness": 150, "neutral": 220, "anger": 300}  # Hz

set_arithmetic()  # as every entry point does: a GPU's results are compared with a CPU's


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def write_tiny_corpus(folder, n_speakers=6):
    """Write tones with the pitch of their emotion and the timbre of their speaker, and a manifest.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for speaker in range(n_speakers):
        for emotion, pitch in PITCH.items():
            for intensity in ("1", "2"):
                t = np.arange(int(16000 * rng.uniform(0.3, 0.6))) / 16000
                x = 0.1 * np.sin(2 * np.pi * pitch * (1 + 0.03 * speaker) * t) * (1 + float(intensity))
                x += 0.02 * rng.standard_normal(len(t))
                name = f"s{speaker}_{emotion}_{intensity}.wav"
                soundfile.write(folder / name, x, 16000)
                rows.append(
                    {
                        "id": Path(name).stem,
                        "path": name,
                        "speaker": f"s{speaker}",
                        "emotion": emotion,
                        "gender": "female" if speaker % 2 else "male",
                        "intensity": intensity if emotion != "neutral" else "",
                    }
                )
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """A folder with 48 utterances of six speakers."""
    return write_tiny_corpus(tmp_path_factory.mktemp("tiny"))


def tiny_overrides(tiny_corpus, folder):
    """Overrides that make a run on the tiny corpus take about a second, with all its output in a folder."""
    return {
        "corpus": "csv",
        "data_folder": str(tiny_corpus),
        "output_folder": str(folder / "results"),
        "cache_folder": str(folder / "cache"),
        "n_epochs": "2",
        "batch_size": "8",
        "n_buckets": "2",
        "noprogressbar": "true",
    }


BASE_YAML = """
seed: 1
__set_seed: !apply:torch.manual_seed [!ref <seed>]
weights: {emotion: 1.0, gender: 0.5}
label_map: {}
output_folder: here
layer: !new:torch.nn.Linear
    in_features: 4
    out_features: !ref <width>
width: 3
other: !ref <layer.out_features>
function: !name:torch.nn.functional.dropout
"""


@pytest.fixture
def yaml_folder(tmp_path):
    """A folder with a small base.yaml and a model.yaml over it, which build layers of torch."""
    (tmp_path / "base.yaml").write_text(BASE_YAML)
    (tmp_path / "model.yaml").write_text("base: base.yaml\nwidth: 5\n")
    return tmp_path


@pytest.fixture
def tiny(tiny_corpus, tmp_path):
    """See :func:`tiny_overrides`, in a folder of its own."""
    return tiny_overrides(tiny_corpus, tmp_path)


@pytest.fixture
def two_corpora(tiny_corpus, tmp_path):
    """Overrides: corpora ``a`` and ``b`` have three speakers of the same names, and not the same labels."""
    table = pd.read_csv(tiny_corpus / "manifest.csv", dtype=str)
    table["path"] = [str(tiny_corpus / path) for path in table["path"]]
    number = table["speaker"].str[1:].astype(int)
    table["speaker"] = [f"0{n % 3 + 1}" for n in number]
    table["id"] = table["speaker"] + table["id"].str[2:]
    other = table[number >= 3].drop(columns="intensity").replace({"emotion": {"anger": "rage", "neutral": "fear"}})
    for name, rows in (("a", table[number < 3]), ("b", other)):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    return {
        "corpus": "{a: csv, b: csv}",
        "data_folder": f"{{a: '{tmp_path}/a.csv', b: '{tmp_path}/b.csv'}}",
        "label_map": "{b: {emotion: {rage: anger}}}",
    }


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the korser command in this process: ``call("train", "mel_stl.yaml")`` -> (exit code, stdout, stderr)."""

    def run(*arguments):
        arguments = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["korser", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture(scope="session")
def four_models(tmp_path_factory):
    """Runs of four models with three seeds, three folds and nine speakers; wav2vec_leaf is much better than leaf."""
    folder = tmp_path_factory.mktemp("runs")
    table = utterances(n_speakers=9)
    for model, right in (("leaf_stl", 0.4), ("leaf_mtl", 0.42), ("wav2vec_leaf_stl", 0.85), ("wav2vec_leaf_mtl", 0.88)):
        for seed in (1, 2, 3):
            for fold in (0, 1, 2):
                write_run(folder, model, seed=seed, fold=fold, right=right, table=table)
    return load_runs(folder)


@pytest.fixture(scope="session")
def comparison(four_models):
    return compare(four_models)


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory):
    """The folder of a Whisper checkpoint."""
    from helpers import save_whisper

    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def comparison_overrides(tiny_corpus, tmp_path):
    """A comparison of one model, mel_stl, with two seeds on three folds of the tiny corpus."""
    return {
        "models": "[mel_stl.yaml]",
        "seeds": "[1, 2]",
        "folds": "3",
        "output_folder": str(tmp_path / "results"),
        "cache_folder": str(tmp_path / "cache"),
        "overrides.corpus": "csv",
        "overrides.data_folder": str(tiny_corpus),
        "overrides.n_epochs": "1",
        "overrides.batch_size": "8",
        "overrides.n_buckets": "2",
        "overrides.split.folds": "consecutive",
    }
