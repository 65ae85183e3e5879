"""An interrupted comparison ends with the same tables.

    python tests/comparison/test_comparison_interrupted.py KILLS FOLDER hparams/compare.yaml [--key=value ...]

makes the comparison once undisturbed and once with KILLS kills at random moments, and compares the tables.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from made_comparison import COMPARE

MEASURED = ["train_seconds", "peak_memory_bytes"]  # by a clock and by the operating system


def start(arguments, log):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "recipes" / "compare.py"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def kill_and_repeat(arguments, moments, folder):
    """Start a comparison again and again, kill its coordinator (SIGKILL) after each of some seconds, then let it end.

    Returns
    -------
    int
        How many of the kills met it alive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    killed = 0
    with open(folder / "killed.log", "w", encoding="utf-8") as log:
        for seconds in moments:
            process = start(arguments, log)
            time.sleep(seconds)
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert start(arguments, log).wait() == 0, (folder / "killed.log").read_text(encoding="utf-8")[-3000:]
    return killed


def tables_of(folder):
    """Every table of a comparison, without what was measured by a clock and by the operating system."""
    return {
        path.name: pd.read_csv(path, encoding="utf-8-sig", dtype=str).drop(columns=MEASURED, errors="ignore")
        for path in sorted((Path(folder) / "compare").glob("*.csv"))
    }


def whole_and_killed(arguments, kills, folder, seed=0):
    """Compare a comparison undisturbed with one killed at random moments.

    Returns
    -------
    names : list of str
        Of the tables, which are equal.
    met : int
        How many of the kills met it alive.
    """
    whole, killed = folder / "whole", folder / "killed"

    def placed(name):
        return [*arguments, f"--output_folder={folder / name}", f"--cache_folder={folder / f'cache-{name}'}"]

    begun = time.monotonic()
    kill_and_repeat(placed("whole"), [], whole)
    seconds = time.monotonic() - begun
    draw = random.Random(seed)
    moments = [draw.uniform(0.2, 0.9) * seconds for _ in range(kills)]
    met = kill_and_repeat(placed("killed"), moments, killed)
    expected, found = tables_of(whole), tables_of(killed)
    assert list(expected) == list(found)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(table, found[name], obj=name)
    return list(expected), met


@pytest.mark.slow
def test_kills_do_not_change_the_tables(tmp_path, tiny_corpus):
    arguments = [
        str(COMPARE),
        "--models=[mel_stl.yaml, mel_mtl.yaml]",
        "--seeds=[1]",
        "--folds=3",
        "--workers=2",
        "--robustness=[noise_10dB]",
        "--overrides.corpus=csv",
        f"--overrides.data_folder={tiny_corpus}",
        "--overrides.n_epochs=6",
        "--overrides.batch_size=8",
        "--overrides.n_buckets=2",
    ]
    names, met = whole_and_killed(arguments, 3, tmp_path)
    assert "models.csv" in names and met


if __name__ == "__main__":
    kills, folder, *arguments = sys.argv[1:]
    print(whole_and_killed(arguments, int(kills), Path(folder).resolve(), seed=int(kills)))
