"""Every job has one result, which names what happened, whatever dies in between."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from conftest import HPARAMS, ROOT
from helpers import assert_same_run, run

from korser import UserError, load_hparams
from korser.runs.directory import RunDirectory, run_folder
from korser.training.brain import Pruned
from korser.utils.files import locked, read_csv
from korser.utils.importable import make_importable
from korser.workers import Job, open_workers, processes, run_jobs
from korser.workers.job import perform, train_job

# -- targets in place of training; the yaml of a job names one ------------------------------------------------------


def nothing(job, on_epoch):
    pass


def prints(job, on_epoch):
    print("a print")
    logging.getLogger("plugins.mine").info("a note")
    warnings.warn("a warning", stacklevel=1)
    subprocess.run(["echo", "a child"])


def is_pruned(job, on_epoch):
    raise Pruned("stopped after epoch 3")


def runs_out_of_memory(job, on_epoch):
    raise MemoryError("no more")


def runs_out_of_gpu_memory(job, on_epoch):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def finds_a_library_without_memory(job, on_epoch):
    raise RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED")


def asks_for_too_much(job, on_epoch):
    torch.empty(2**60)


def blames_a_setting_for_memory(job, on_epoch):
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        raise UserError("a run option is wrong") from error


def makes_a_mistake(job, on_epoch):
    raise UserError("no such folder: give another")


def breaks(job, on_epoch):
    raise ValueError("two\nlines")


def dies(job, on_epoch):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_twice(job, on_epoch):
    if attempts(job) < 3:
        dies(job, on_epoch)


def waits_to_be_pruned(job, on_epoch):
    for epoch in range(1, 1000):
        if on_epoch(epoch, 0.5):
            raise Pruned(f"stopped after epoch {epoch}")
        time.sleep(0.02)


def prints_environment(job, on_epoch):
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    print(*(f"{name}={os.environ.get(name)}" for name in names), f"threads={torch.get_num_threads()}")


def imports_the_package(job, on_epoch):
    from korser import Task  # noqa: F401  of which a namespace package has none


def never_ends(job, on_epoch):
    with locked(job.run_dir):
        print("locked", flush=True)
        x = torch.rand(500, 500)
        while True:
            x = (x @ x).softmax(0)


def act(job, on_epoch):
    globals()[job.yaml](job, on_epoch)


def attempts(job):
    """How often a worker began a job."""
    return (Path(job.run_dir) / "worker.log").read_text().count("worker: process ")


@pytest.fixture(scope="module")
def shared():
    with open_workers(2, target=act) as workers:
        yield workers


@pytest.fixture
def two(shared):
    """Two workers shared by many tests; no test leaves a pending job."""
    yield shared
    assert shared.pending == 0


def job_for(action, folder, name=None):
    return Job(action.__name__, {}, str(folder / (name or action.__name__)))


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


# -- results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "state", "message"),
    [
        (nothing, "complete", ""),
        (is_pruned, "pruned", "stopped after epoch 3"),
        (runs_out_of_memory, "out of memory", "no more"),
        (runs_out_of_gpu_memory, "out of memory", "CUDA out of memory. Tried to allocate 2 GiB"),
        (finds_a_library_without_memory, "out of memory", "CUFFT_ALLOC_FAILED"),
        (asks_for_too_much, "out of memory", "allocate"),
        (blames_a_setting_for_memory, "out of memory", "a run option is wrong"),
        (makes_a_mistake, "refused", "no such folder: give another"),
        (breaks, "failed", "ValueError: two lines (test_workers.py, line "),
    ],
)
def test_the_result_names_what_happened(tmp_path, action, state, message):
    job = job_for(action, tmp_path)
    result = perform(job, act)
    assert (result.job, result.state) == (job, state)
    assert message in result.message and "\n" not in result.message
    assert bool(result.message) == bool(message)
    traceback_kept = "Traceback" in (tmp_path / action.__name__ / "worker.log").read_text()
    assert traceback_kept == (state not in ("complete", "pruned"))


def test_an_error_while_memory_is_freed_does_not_change_the_result(tmp_path, monkeypatch):
    def fail():
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert perform(job_for(nothing, tmp_path), act).state == "complete"


@pytest.mark.filterwarnings("ignore:a warning")
def test_all_output_of_a_run_is_in_its_log(tmp_path, capfd):
    perform(job_for(prints, tmp_path), act)
    log = (tmp_path / "prints" / "worker.log").read_text()
    assert [text for text in ("a note", "a child") if text not in log] == []
    print("after")  # pytest holds sys.stdout and sys.stderr themselves, so only descriptors can be seen here
    assert "after" in capfd.readouterr().out and "after" not in log


def test_a_planted_log_is_not_followed(tmp_path):
    job = job_for(prints, tmp_path)
    (tmp_path / "private").write_text("private")
    log = RunDirectory(job.run_dir).worker_log
    log.parent.mkdir(parents=True, exist_ok=True)
    log.symlink_to(tmp_path / "private")
    assert perform(job, act).state == "refused"
    assert (tmp_path / "private").read_text() == "private"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    result = perform(Job("nothing", {}, str(tmp_path / "file" / "run")), act)
    assert result.state == "refused" and "change output_folder" in result.message


def test_the_lock_of_a_dying_process_is_waited_for(tmp_path):
    held, free = threading.Event(), threading.Event()

    def dying():
        with locked(tmp_path / "run"):
            held.set()
            free.wait()

    thread = threading.Thread(target=dying)
    thread.start()
    held.wait()
    job = Job(str(HPARAMS / "mel_stl.yaml"), {}, str(tmp_path / "run"))
    seen = []
    assert perform(job, lambda job, on_epoch: seen.append(free.is_set()), patience=0.1).state == "complete"
    threading.Timer(0.5, free.set).start()
    assert perform(job, lambda job, on_epoch: seen.append(free.is_set()), patience=30).state == "complete"
    assert seen == [False, True]  # patience ran out (training then says who holds the folder); the folder came free
    thread.join()


# -- processes -------------------------------------------------------------------------------------------------------


def test_each_job_runs_once_and_results_come_in_order(two, tmp_path, caplog):
    jobs = [job_for(nothing, tmp_path, f"run{i}") for i in range(6)]
    with caplog.at_level(logging.INFO):
        results = run_jobs([*jobs, jobs[0]], two)
    assert [o.job for o in results] == jobs and {o.state for o in results} == {"complete"}
    assert [attempts(job) for job in jobs] == [1] * 6
    assert sum("complete" in message for message in caplog.messages) == 6


def test_nothing_is_printed_to_the_terminal(two, tmp_path, capfd):
    run_jobs([job_for(prints, tmp_path)], two)
    log = (tmp_path / "prints" / "worker.log").read_text()
    assert [text for text in ("a print", "a note", "a warning", "a child") if text not in log] == []
    assert capfd.readouterr() == ("", "")


def test_a_job_whose_worker_dies_is_run_again(two, tmp_path):
    jobs = [job_for(dies_twice, tmp_path), *(job_for(nothing, tmp_path, f"run{i}") for i in range(4))]
    assert {o.state for o in run_jobs(jobs, two)} == {"complete"}
    assert [attempts(job) for job in jobs] == [3, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_job_that_always_kills_its_worker_fails(two, tmp_path):
    results = run_jobs([job_for(dies, tmp_path), job_for(nothing, tmp_path)], two)
    assert [o.state for o in results] == ["failed", "complete"]
    assert "died 3 times" in results[0].message and "SIGKILL" in results[0].message
    assert attempts(results[0].job) == 3


@pytest.mark.slow
def test_an_idle_worker_that_died_is_replaced(two, tmp_path):
    run_jobs([job_for(nothing, tmp_path, f"run{i}") for i in range(2)], two)
    for worker in filter(None, two._workers):
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()
    assert [o.state for o in run_jobs([job_for(nothing, tmp_path, "later")], two)] == ["complete"]


def test_pruning(two, tmp_path):
    stale, kept = job_for(waits_to_be_pruned, tmp_path, "stale"), job_for(nothing, tmp_path)
    (tmp_path / "stale").mkdir()
    (tmp_path / "stale" / "stop").touch()  # of a search that was killed: nobody wants this run to stop now
    two.submit(stale)
    assert two.next(timeout=1) is None
    two.prune(stale)
    two.prune(kept)  # is not pending: nothing happens
    assert two.next().state == "pruned"
    assert not (tmp_path / "stale" / "stop").exists() and not Path(kept.run_dir).exists()


def test_waiting_and_counting(two, tmp_path):
    assert two.next() is None
    job = job_for(waits_to_be_pruned, tmp_path)
    two.submit(job)
    with pytest.raises(ValueError, match="is already pending"):
        two.submit(job_for(waits_to_be_pruned, tmp_path))
    assert two.pending == 1 and two.next(timeout=0) is None
    two.prune(job)
    assert two.next().job == job and two.pending == 0 and two.next() is None


def test_a_worker_has_one_thread_and_its_own_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["5", "7"])
    before = dict(os.environ)
    job = job_for(prints_environment, tmp_path)
    with open_workers(target=act) as workers:
        assert workers.n == 2
        run_jobs([job], workers)
    assert dict(os.environ) == before
    log = (tmp_path / "prints_environment" / "worker.log").read_text()
    assert "OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=5 threads=1" in log


def test_a_clone_beside_the_settings_does_not_hide_the_package(tmp_path, monkeypatch):
    (tmp_path / "korser").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_importable(tmp_path)
    with open_workers(target=act, workers=1) as workers:
        (result,) = run_jobs([job_for(imports_the_package, tmp_path)], workers)
    assert (result.state, str(tmp_path) in sys.path) == ("complete", True), result


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({"workers": 3}, ["5", "7", "5"]),
        ({"gpus_per_trial": 0.5}, ["5", "7", "5", "7"]),
        ({"workers": 2, "gpus_per_trial": 0}, ["", ""]),
    ],
)
def test_gpus_are_shared_evenly(monkeypatch, options, gpus):
    monkeypatch.setattr(processes, "visible_gpus", lambda: ["5", "7"])
    with open_workers(**options) as workers:
        assert workers._gpus == gpus


def test_gpus_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-abc")
    assert processes.visible_gpus() == ["2", "GPU-abc"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert processes.visible_gpus() == ["0", "1"]


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"workers": True},
        {"gpus_per_trial": 2},
        {"gpus_per_trial": -1},
        {"gpus_per_trial": "half"},
        {"gpus_per_trial": 1},  # there is no GPU
        {"cluster": True},
    ],
)
def test_invalid_options_are_refused(monkeypatch, options):
    monkeypatch.setattr(processes, "visible_gpus", lambda: [])
    with pytest.raises(UserError, match="^(workers|gpus_per_trial|cluster)="):
        open_workers(**options)


COORDINATOR = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with it ignored
from korser import cli
from korser.workers import Job, open_workers, run_jobs
from test_workers import act

def main(arguments):
    with open_workers(1, cluster=arguments[1] or None, target=act) as workers:
        run_jobs([Job("never_ends", {}, arguments[0])], workers)

if __name__ == "__main__":
    cli.run(main)
"""


def end_a_coordinator(tmp_path, sent, cluster="", patience=10):
    """Start a script whose job never ends, end it by a signal, and see that its run can be taken up at once."""
    script, run_dir = tmp_path / "coordinator.py", tmp_path / "run"
    script.write_text(COORDINATOR)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests/workers")])}
    with open(tmp_path / "said", "w+") as said:
        coordinator = subprocess.Popen(
            [sys.executable, script, run_dir, cluster], env=environment, stderr=said, start_new_session=True
        )
        try:
            log = run_dir / "worker.log"
            wait_until(lambda: log.exists() and "locked" in log.read_text())
            with pytest.raises(UserError, match="in use"), locked(run_dir):
                pass
            if sent == signal.SIGINT:
                os.killpg(coordinator.pid, sent)  # as a terminal does on Ctrl-C
            else:
                coordinator.send_signal(sent)
            coordinator.wait(timeout=30)
            again = perform(Job("nothing", {}, str(run_dir)), act, patience)  # the command is given again
            with locked(run_dir):  # and its job has waited long enough
                assert again.state == "complete"
            ends = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
            if sent in ends:
                code, line = ends[sent]
                assert coordinator.returncode == code
                said.seek(0)
                assert said.read() == f"{line}; run the same command again to resume\n"
        finally:  # it would compute for ever
            coordinator.kill()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_the_coordinator(tmp_path, sent):
    end_a_coordinator(tmp_path, sent)


# -- real runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_by_workers_equal_those_of_this_process(tiny, tmp_path):
    """Also one whose worker is killed in the middle."""
    settings = {**tiny, "n_epochs": "4", "ckpt_interval_minutes": "0", "ckpt_interval_steps": "2"}
    yaml = str(HPARAMS / "mel_stl.yaml")
    jobs = [Job(yaml, {**settings, "seed": seed}, str(tmp_path / f"seed{seed}")) for seed in (1, 2, 3)]
    victim = tmp_path / "seed1"
    with open_workers(2) as workers:
        for job in jobs:
            workers.submit(job)
        wait_until(lambda: (victim / "log.csv").exists() and len(read_csv(victim / "log.csv")) >= 1)
        pid = next(w.process.pid for w in workers._workers if w.job == jobs[0])
        os.kill(pid, signal.SIGKILL)
        results = [workers.next() for _ in jobs]
        assert workers.pending == 0
    assert sorted((o.job.run_dir, o.state) for o in results) == [(job.run_dir, "complete") for job in jobs]
    assert [attempts(job) for job in jobs] == [2, 1, 1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for job in jobs[:1] + jobs[2:]:  # the killed one, and one by a worker that had done another before
            alone = run(job.overrides, model="mel_stl", run_dir=tmp_path / "alone" / Path(job.run_dir).name)
            assert_same_run(alone, Path(job.run_dir))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_run_is_pruned_and_a_mistake_is_named(tiny, tmp_path):
    yaml = str(HPARAMS / "mel_stl.yaml")
    endless = Job(yaml, {**tiny, "n_epochs": "100000", "patience": "100000"}, str(tmp_path / "endless"))
    mistaken = Job(yaml, {**tiny, "lerning_rate": "1"}, str(tmp_path / "mistaken"))
    with open_workers(1) as workers:
        workers.submit(mistaken)
        workers.submit(endless)
        refused = workers.next()
        wait_until(lambda: (tmp_path / "endless" / "log.csv").exists())
        workers.prune(endless)
        pruned = workers.next(timeout=60)
    assert refused.state == "refused" and "lerning_rate" in refused.message
    assert pruned.state == "pruned" and not (tmp_path / "endless" / "metrics.json").exists()


def test_a_yaml_that_was_changed_meanwhile_is_refused(tiny, tmp_path):
    # runs of the same name would have been made with other settings
    path = tmp_path / "mine.yaml"
    path.write_text("base: mel_stl.yaml\n")
    overrides = dict(tiny)
    job = Job(str(path), overrides, str(run_folder(load_hparams(path, overrides))))
    path.write_text("base: mel_stl.yaml\nwarmup: 0.5\n")
    with pytest.raises(UserError, match="was changed while runs were being made"):
        train_job(job, None)
