"""Every file of a run directory damaged in several ways, for every command: one line that names it, no traceback.

The quick selection takes some kinds of damage for each file; ``KORSER_FUZZ=all`` takes all of them.
"""

import os
import shutil

import pytest
from conftest import HPARAMS, tiny_overrides
from helpers import RUN_FILES, run

DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "null": lambda path: path.write_text("null"),
    "list": lambda path: path.write_text("[1, 2]"),
    "mapping": lambda path: path.write_text('{"a": {"b": []}}'),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
}
PER_FILE = len(DAMAGE) if os.environ.get("KORSER_FUZZ") == "all" else 2


@pytest.fixture(scope="module")
def complete(tiny_corpus, tmp_path_factory):
    """Overrides and directory of a complete run."""
    overrides = {**tiny_overrides(tiny_corpus, tmp_path_factory.mktemp("complete")), "n_epochs": "1"}
    return overrides, run(overrides, model="leaf_mtl")


def commands(overrides, run_dir, recording, folder):
    options = [f"--{key}={value}" for key, value in overrides.items()]
    return {
        "train": ["train", HPARAMS / "leaf_mtl.yaml", *options],
        "predict": ["predict", run_dir, recording],
        "evaluate": ["evaluate", run_dir, "--corpus=csv", f"--data_folder={recording.parent}"],
        "plot": ["plot", run_dir, f"--out={folder / 'figures'}"],
        "compare": [
            "compare",
            "compare.yaml",
            "--models=[]",
            f"--runs=[{run_dir}]",
            f"--output_folder={folder / 'out'}",
        ],
        "compare robustness": [
            "compare",
            "compare.yaml",
            "--models=[]",
            f"--runs=[{run_dir}]",
            "--robustness=[noise_10dB]",
            f"--output_folder={folder / 'out'}",
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_FILES)
def test_a_damaged_file_is_one_line_that_names_it(call, complete, tiny_corpus, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    overrides, run_dir = complete
    backup = shutil.copytree(run_dir, tmp_path / "backup")
    faults, counts = [], {"refused": 0, "accepted": 0}
    first = RUN_FILES.index(name)
    kinds = [list(DAMAGE)[(PER_FILE * first + i) % len(DAMAGE)] for i in range(PER_FILE)]
    for kind in kinds:
        for command, arguments in commands(overrides, run_dir, tiny_corpus / "s0_joy_1.wav", tmp_path).items():
            DAMAGE[kind](run_dir / name)
            try:
                code, _, err = call(*arguments)
                counts["refused" if code == 2 else "accepted"] += 1
                if code not in (0, 2) or "Traceback" in err:
                    faults.append(f"{command}, {kind} {name}: exit code {code}: {err[-200:]}")
                elif code == 2 and name not in err:
                    faults.append(f"{command}, {kind} {name}: does not name the file: {err[:300]}")
            except Exception as error:
                faults.append(f"{command}, {kind} {name}: {type(error).__name__}: {str(error)[:200]}")
            shutil.rmtree(run_dir)
            shutil.copytree(backup, run_dir)
    print(f"{name}: {counts}", *faults, sep="\n")
    assert not faults, f"{len(faults)} of {sum(counts.values())} cases"
