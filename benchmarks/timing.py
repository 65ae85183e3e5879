"""Command line, clock and tables of the scripts in this folder."""

import argparse
import gc
import importlib.metadata
import multiprocessing
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

LIBRARIES = ("torch", "torchaudio", "speechbrain", "transformers")


def arguments(description, *, options=(), argv=None):
    """Read the command line of a benchmark.

    Parameters
    ----------
    description : str
        Shown by ``--help``; usually the module's docstring.
    options : sequence of (str, dict)
        Further options of a script: ``("--minutes", {"type": float, "default": 50})``.
    argv : list of str, optional
        Default: those of this process.

    Returns
    -------
    argparse.Namespace
        ``small`` (bool), ``device`` ("cpu" or "cuda"), ``out`` (Path or None), ``repeats`` (int), and ``options``.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", default=None, help="seconds to minutes; the default on a CPU")
    size.add_argument("--full", dest="small", action="store_false", help="the paper's scale; the default on a GPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--repeats", type=_at_least_one, default=5, help="calls per case (default: 5)")
    parser.add_argument("--out", type=Path, help="file to which tables are appended")
    for name, settings in options:
        parser.add_argument(name, **settings)
    values = parser.parse_args(argv)
    available = torch.cuda.is_available()
    values.device = values.device or ("cuda" if available else "cpu")
    if values.device == "cuda" and not available:
        parser.error("--device=cuda: PyTorch finds no GPU on this machine")
    if values.small is None:
        values.small = values.device == "cpu"
    return values


def _at_least_one(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected an integer >= 1")
    return int(text)


def interleaved(cases, repeats=5, warmup=1, device="cpu", clock=time.perf_counter):
    """Time several cases in turns, so that a machine that slows down slows all of them.

    Parameters
    ----------
    cases : dict of str to callable
        Called without arguments.
    repeats : int
        Timed calls per case.
    warmup : int
        Untimed calls per case before: they fill caches, select and compile kernels.
    device : str or torch.device
        A GPU is synchronised before the clock is read.
    clock : callable
        ``time.process_time`` measures CPU time, which depends less on what else the machine computes.

    Returns
    -------
    dict of str to list of float
        Seconds per timed call.

    Example
    -------
    >>> seconds = interleaved({"sleep": lambda: time.sleep(0.01), "nothing": lambda: None}, repeats=3)
    >>> min(seconds["sleep"]) > 0.009 and len(seconds["nothing"]) == 3
    True
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for _ in range(warmup):
        for case in cases.values():
            case()
    wait()
    seconds = {name: [] for name in cases}
    enabled = gc.isenabled()
    gc.disable()  # garbage of one case would be collected in the time of another
    try:
        for _ in range(repeats):
            for name, case in cases.items():
                gc.collect()
                wait()
                start = clock()
                case()
                wait()
                seconds[name].append(clock() - start)
    finally:
        if enabled:
            gc.enable()
    return seconds


def peak_bytes(case, device="cpu"):
    """Return the peak memory of a call in bytes, without what was in use before.

    Parameters
    ----------
    case : callable
        Called once, without arguments. Call it once before, so that libraries are loaded and caches filled.
    device : str or torch.device
        On a GPU: what PyTorch allocates. On a CPU: the growth of the resident set, which misses memory that the
        allocator had kept; a new process (:func:`in_child`) is more precise.

    Returns
    -------
    int
    """
    from korser.utils.gpu import PeakMemory

    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
    memory = PeakMemory(device)
    if torch.device(device).type == "cpu":
        before = memory.measure()[0]  # PeakMemory has just reset the peak to the current size
    case()
    return max(memory.measure()[0] - before, 0)


def in_child(function, *args):
    """Call a function in a new process, to measure peak memory or imports.

    Parameters
    ----------
    function : callable
        Defined at the top level of a module or a script with ``if __name__ == "__main__"``.
    args
        Picklable values.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork inherits memory and threads
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *args).result()


def device_line(device):
    """Return the line below a table: device, threads and versions."""
    names = []
    for name in LIBRARIES:
        try:
            names.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    where = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else _cpu_name()
    threads = torch.get_num_threads()
    threads = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{where}, {threads}; Python {platform.python_version()}, {', '.join(names)}"


def _cpu_name():
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU {line.partition(':')[2].strip()}"
    return f"CPU {platform.processor() or platform.machine()}"


def report(title, rows, baseline=None, units=None, *, device="cpu", notes=(), extra=None, out=None):
    """Print the measurements of :func:`interleaved` as a Markdown table.

    Parameters
    ----------
    title : str
        With sizes, dtype and batch.
    rows : dict of str to list of float
        Seconds per case.
    baseline : str, optional
        Case with which the others are compared; a ratio above 1 means faster for the same amount.
    units : (str, float) or (str, dict of str to float), optional
        Unit and amount that a call processes, for the column "per second": ``("audio s", 576.0)``.
    device : str or torch.device
    notes : sequence of str
        Lines below the table.
    extra : dict of str to dict of str to str, optional
        Further columns: ``{"peak memory": {"Leaf": "1.2 GiB"}}``.
    out : str or Path, optional
        File to append to (``--out``).

    Returns
    -------
    str
        The text that was printed.

    Raises
    ------
    ValueError
        If the baseline is not among the rows.

    Example
    -------
    >>> text = report("sum", {"slow": [0.4, 0.5, 0.6], "fast": [0.2, 0.25, 0.3]}, "slow", ("items", 10))
    ... # doctest: +ELLIPSIS
    <BLANKLINE>
    ### sum
    <BLANKLINE>
    | case | median of 3 | spread | items per second | ratio to slow |
    |---|--:|--:|--:|--:|
    | slow | 500 ms | 400 - 600 ms | 20.0 | 1.00 |
    | fast | 250 ms | 200 - 300 ms | 40.0 | 2.00 |
    <BLANKLINE>
    ...
    """
    if baseline is not None and baseline not in rows:
        raise ValueError(f"baseline='{baseline}': expected one of {list(rows)}")
    extra = extra or {}
    unit, amounts = units or (None, None)
    repeats = {len(seconds) for seconds in rows.values()}
    head = ["case", f"median of {repeats.pop()}" if len(repeats) == 1 else "median", "spread"]
    head += [f"{unit} per second"] if unit else []
    head += [f"ratio to {baseline}"] if baseline else []
    speed = {
        name: (amounts[name] if isinstance(amounts, dict) else amounts or 1) / statistics.median(seconds)
        for name, seconds in rows.items()
    }
    body = []
    for name, seconds in rows.items():
        cells = [name, in_words(statistics.median(seconds)), in_words(min(seconds), max(seconds))]
        if unit:
            cells.append(figure(speed[name]))
        if baseline:
            cells.append(figure(speed[name] / speed[baseline]))
        body.append(cells + [column.get(name, "") for column in extra.values()])
    return write(title, [*head, *extra], body, device=device, notes=notes, out=out)


def write(title, head, body, *, device="cpu", notes=(), out=None):
    """Print a Markdown table under a heading, with the line of versions; append it to ``out`` if given."""
    lines = ["", f"### {title}", "", *markdown(head, body), ""]
    lines += [line for note in notes for line in (note, "")]
    lines.append(device_line(device))
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    append(out, text)
    return text


def append(out, text):
    """Append to the file of ``--out``, if given."""
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with open(out, "a", encoding="utf-8") as file:
            file.write(text)


def markdown(head, body):
    """Return the lines of a Markdown table; all columns but the first are aligned to the right."""
    head, *rows = ("| " + " | ".join(map(str, row)) + " |" for row in [head, *body])
    return [head, "|---|" + "--:|" * (head.count("|") - 2), *rows]


def in_words(*seconds):
    """Return seconds as text, in the unit of their median: ``"500 ms"``, ``"0.40 - 0.60 s"``, ``"2.50 h"``."""
    scales = ((1e-3, 1e6, "us"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min"), (float("inf"), 1 / 3600, "h"))
    factor, unit = next(scale[1:] for scale in scales if statistics.median(seconds) < scale[0])
    return " - ".join(figure(value * factor) for value in seconds) + f" {unit}"


def figure(value):
    """Return a number with three significant digits."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
