import doctest
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import korser.training.train

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if "\nif __name__ ==" in path.read_text(encoding="utf-8"))
SCRIPTS = [path for path in SCRIPTS if path.stem != "grid"]  # its small form takes a quarter of an hour


@pytest.fixture(scope="module", autouse=True)
def folder_of_scripts():
    """Scripts import each other."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def timing():
    import timing

    return timing


@pytest.fixture(scope="module")
def grid():
    import grid

    return grid


def test_cases_take_turns_after_the_warmup(timing):
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timing.interleaved(cases, repeats=3, warmup=2)
    assert "".join(calls) == "ab" * 5
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_the_clock_measures_the_call(timing):
    seconds = timing.interleaved({"sleep": lambda: time.sleep(0.02)}, repeats=2)
    assert all(0.02 <= s < 0.5 for s in seconds["sleep"])


def test_a_table_has_medians_ranges_throughput_and_ratios(timing, capsys, tmp_path):
    out = tmp_path / "new" / "tables.md"
    rows = {"slow": [0.2, 1.0, 0.4], "fast": [0.1, 0.1, 0.3]}
    columns = {"peak memory": {"slow": "1 GiB"}}
    text = timing.report("title", rows, "slow", ("utterances", 8), notes=["a note"], extra=columns, out=out)
    assert capsys.readouterr().out.strip() == text.strip()
    assert out.read_text(encoding="utf-8") == text
    assert "### title" in text and "a note" in text and "torch " in text and "thread" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "| case | median of 3 | spread | utterances per second | ratio to slow | peak memory |",
        "|---|--:|--:|--:|--:|--:|",
        "| slow | 400 ms | 200 - 1,000 ms | 20.0 | 1.00 | 1 GiB |",
        "| fast | 100 ms | 100 - 300 ms | 80.0 | 4.00 |  |",
    ]


def test_a_table_may_have_amounts_of_its_cases_and_no_baseline(timing):
    text = timing.report("title", {"a": [2.0], "b": [2.0]}, units=("GB", {"a": 1, "b": 3}))
    assert "| a | 2.00 s | 2.00 - 2.00 s | 0.50 |\n| b | 2.00 s | 2.00 - 2.00 s | 1.50 |" in text
    with pytest.raises(ValueError, match="baseline='c': expected one of"):
        timing.report("title", {"a": [2.0]}, "c")


def test_a_ratio_is_of_the_same_amount(timing):
    text = timing.report("title", {"a": [2.0], "b": [2.0]}, "a", ("GB", {"a": 1, "b": 3}))
    assert "| b | 2.00 s | 2.00 - 2.00 s | 1.50 | 3.00 |" in text


def test_times_are_in_their_own_unit(timing):
    words = [timing.in_words(s) for s in (2e-5, 0.02, 2, 200, 20000)]
    assert words == ["20.0 us", "20.0 ms", "2.00 s", "3.33 min", "5.56 h"]


def test_options(timing):
    values = timing.arguments("what it is", argv=["--device=cpu"])
    assert (values.small, values.device, values.repeats, values.out) == (True, "cpu", 5, None)
    own = [("--minutes", {"type": float, "default": 50})]
    values = timing.arguments("it", options=own, argv=["--full", "--device=cpu", "--out=t.md", "--minutes=2"])
    assert (values.small, values.out, values.minutes) == (False, Path("t.md"), 2)
    with pytest.raises(SystemExit):
        timing.arguments("it", argv=["--repeats=0"])


def test_memory_of_a_call_is_measured(timing):
    def hold():
        return bytearray(os.urandom(1)) * (64 << 20)

    assert (48 << 20) < timing.peak_bytes(hold) < (200 << 20)


def test_examples(timing):
    failed, tried = doctest.testmod(timing)
    assert tried and not failed


def test_the_grid_scales_what_it_measured(grid):
    assert grid.divided(68_000) == (52_000, 8_000)
    part = grid.proportional("epoch", [1.0, 3.0, 2.0], 26, 52, times=10)
    assert (part.once, part.total(), part.total(3.0), part.basis) == (4.0, 40.0, 120.0, "from 26 to 52")
    assert grid.proportional("epoch", [2.0], 52, 52).basis == "measured"


def test_what_does_not_grow_is_not_scaled(grid):
    part = grid.straight_line("start", (100, [2.0]), (1_100, [3.0, 3.0, 9.0]), times=2)
    assert part.once == pytest.approx(3.0 + 66.9)  # a second more for each thousand utterances
    assert part.total(5.0) == part.total() == pytest.approx(2 * 69.9)  # nor does it know how long they are
    assert grid.straight_line("start", (100, [2.0]), (68_000, [3.0])).once == 3.0
    assert grid.straight_line("start", (100, [5.0]), (1_100, [3.0])).once == 3.0  # noise makes nothing faster


def test_as_many_utterances_as_there_is_time_for(grid):
    def epochs(model, n):
        return 10

    data = {"corpus": [1.0], "features": [1.0]}  # 0.02 s an utterance
    trials = {("leaf_stl", 128): ([0.9], [0.1], 5.0)}  # 0.01 s an utterance and epoch, 7 for all batch sizes, ten
    assert grid.affordable(15.0 + 0.72 * 5_000.5, 100, 68_000, epochs, trials, data) == 5_000
    assert grid.affordable(15.0 + 0.7 * 5_000.5, 100, 68_000, epochs, trials) == 5_000
    assert grid.affordable(1e9, 100, 68_000, epochs, trials, data) == 68_000
    assert grid.affordable(-60.0, 100, 68_000, epochs, trials, data) < 0


def test_what_the_grid_has_measured_is_kept_at_once(grid, tmp_path, capsys):
    out = tmp_path / "new" / "tables.md"
    for line in "one", "two":
        grid.Grid.say(SimpleNamespace(args=SimpleNamespace(out=out)), line)
    assert capsys.readouterr().err == "one\ntwo\n" and out.read_text(encoding="utf-8") == "- one\n- two\n"


def flags():
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return products.allow_tf32, cudnn.allow_tf32, cudnn.deterministic


@pytest.fixture
def strict(monkeypatch):
    """As :func:`korser.utils.seeding.set_arithmetic` leaves it; restored afterwards."""
    before = flags()
    korser.training.train.set_arithmetic()
    yield flags()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
    torch.backends.cudnn.deterministic = before[2]


def test_stock_libraries_compute_with_their_defaults(strict):
    import stock

    assert strict == (False, False, True)
    seen = stock.arithmetic(matmul=False)(flags)
    assert [seen(), seen(), flags()] == [(False, True, False)] * 2 + [strict]
    with stock.training():
        korser.training.train.set_arithmetic()
        assert flags() == (True, True, False)
    assert flags() == strict


def test_an_epoch_is_measured_as_it_is_trained(strict, monkeypatch):
    import epoch

    seen = []
    monkeypatch.setattr(epoch.EmotionBrain, "_fit_train", lambda *args: seen.append(flags()))
    for kind in epoch.EmotionBrain, epoch.StockBrain:
        hparams, tasks = epoch.settings("cpu")
        table = epoch.manifest([16000] * 4, tasks)
        epoch.epoch(epoch.make_dataset(table, tasks, None), hparams, tasks, skip_frozen=False, kind=kind)()
    assert seen == [strict, (True, True, False)]


def test_the_digest_of_an_encoder_is_taken_outside_the_clock(monkeypatch, tmp_path):
    import extraction

    made, filled = [], []

    class Cache:
        def __init__(self, stages, folder, read, **settings):
            made.append(folder)

        def fill(self, audio, progressbar):
            filled.append(len(made))

    def interleaved(cases, repeats, device):
        for case in cases.values():
            for _ in range(1 + repeats):  # with the warmup
                case()
        return {name: [1.0] for name in cases}

    monkeypatch.setattr(extraction, "FeatureCache", Cache)
    monkeypatch.setattr(extraction, "interleaved", interleaved)
    args = SimpleNamespace(small=True, device="cpu", repeats=2, source="nano-random", out=None)
    extraction.cache(args, "nano-random", tmp_path)
    assert filled == [6] * 6 and len(set(made)) == 6


def test_the_sum_of_the_grid(grid):
    def part(name, once, times=1, audio=True):
        return grid.Part(name, [once], once, "measured", times, audio)

    shared = [part("making the corpus", 10.0, audio=False), part("features", 20.0)]
    ours = {model: [part(model, 1.0, times=5)] for model in grid.MODELS}
    theirs = {model: [part(model, 4.0, times=50)] for model in grid.MODELS}
    *rows, total = grid.sums(shared, part("process", 0.5, audio=False), ours, theirs, 2.0)
    assert rows[0][1:] == ["10.0 s"] * 4 + ["1.00"]
    assert rows[1][1:3] == ["20.0 s", "40.0 s"]
    assert rows[2][1] == "500 ms" and rows[2][3] == "54.0 s"  # 108 trials, a process each
    assert total[1:] == [f"**{text}**" for text in ("50.5 s", "90.5 s", "14.4 min", "27.7 min", "17.1")]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_a_script_prints_and_appends_its_tables(script, tmp_path):
    out = tmp_path / "tables.md"
    command = [sys.executable, str(script), "--small", "--repeats=1", "--device=cpu", f"--out={out}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, check=False, cwd=tmp_path, env=environment, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tables = re.findall(r"### (.+)\n\n(\|.+\n\|---.*\n(?:\|.+\n)+)", done.stdout)
    assert tables and "torch " in done.stdout
    for title, table in tables:
        head, _, *rows = table.splitlines()
        assert rows and all(row.count("|") == head.count("|") for row in rows), title
        assert f"### {title}\n\n{table}" in out.read_text(encoding="utf-8")
