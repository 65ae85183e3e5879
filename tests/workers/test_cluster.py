"""The same interface on a Ray cluster of two CPUs on this machine, one of whose workers is killed."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import HPARAMS
from helpers import assert_same_run, run
from test_workers import (
    act,
    attempts,
    breaks,
    dies,
    end_a_coordinator,
    job_for,
    makes_a_mistake,
    nothing,
    runs_out_of_memory,
    wait_until,
    waits_to_be_pruned,
)

from korser import UserError
from korser.utils.files import read_csv, read_json
from korser.workers import Job, open_workers, run_jobs

if os.environ.get("KORSER_CI"):
    import ray
else:
    ray = pytest.importorskip("ray", reason="needs pip install 'korser[cluster]'")


@pytest.fixture(scope="module")
def cluster():
    """Ray takes some seconds to start: these workers keep it up for all tests here."""
    with open_workers(2, cluster="local", target=act) as workers:
        yield workers


def test_each_job_runs_once_and_its_result_is_named(cluster, tmp_path):
    actions = [nothing, makes_a_mistake, runs_out_of_memory, breaks]
    results = run_jobs([job_for(action, tmp_path) for action in actions], cluster)
    assert [o.state for o in results] == ["complete", "refused", "out of memory", "failed"]
    assert results[1].message == "no such folder: give another"
    assert results[3].message.startswith("ValueError: two lines (test_workers.py, line ")
    assert [attempts(o.job) for o in results] == [1, 1, 1, 1]


def test_a_task_has_one_thread_and_a_relative_folder_is_found(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_workers(cluster="local", target=act) as workers:  # joins the Ray that runs, and leaves it running
        assert workers.n == 2
        assert [o.state for o in run_jobs([Job("prints_environment", {}, "here")], workers)] == ["complete"]
    assert ray.is_initialized()
    assert "OMP_NUM_THREADS=1" in (log := (tmp_path / "here" / "worker.log").read_text()) and "threads=1" in log


@pytest.mark.slow
def test_a_job_that_always_kills_its_worker_fails(cluster, tmp_path):
    results = run_jobs([job_for(dies, tmp_path), job_for(nothing, tmp_path)], cluster)
    assert [o.state for o in results] == ["failed", "complete"]
    message = "its worker died 3 times; the last one was lost with its process or node (WorkerCrashedError)"
    assert results[0].message == message
    assert [attempts(o.job) for o in results] == [3, 1]


def test_pruning_and_waiting(cluster, tmp_path):
    assert cluster.next() is None
    job = job_for(waits_to_be_pruned, tmp_path)
    cluster.submit(job)
    assert cluster.next(timeout=0.5) is None and cluster.pending == 1
    cluster.prune(job)
    assert cluster.next().state == "pruned" and cluster.pending == 0
    assert not (Path(job.run_dir) / "stop").exists()


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_counts_nothing_twice(cluster, tiny, tmp_path):
    settings = {**tiny, "n_epochs": "4", "ckpt_interval_minutes": "0", "ckpt_interval_steps": "2"}
    yaml = str(HPARAMS / "mel_stl.yaml")
    jobs = [Job(yaml, {**settings, "seed": seed}, str(tmp_path / f"seed{seed}")) for seed in (1, 2, 3)]
    victim = tmp_path / "seed1"
    with open_workers(2, cluster="local") as workers:
        for job in jobs:
            workers.submit(job)
        wait_until(lambda: (victim / "log.csv").exists() and len(read_csv(victim / "log.csv")) >= 1, seconds=300)
        pid = int(re.search(r"worker: process (\d+) ", (victim / "worker.log").read_text())[1])
        os.kill(pid, signal.SIGKILL)
        results = [workers.next() for _ in jobs]
        assert workers.pending == 0
    assert sorted((o.job.run_dir, o.state) for o in results) == [(job.run_dir, "complete") for job in jobs]
    assert [attempts(job) for job in jobs] == [2, 1, 1]
    assert read_json(victim / "run.json")["environment"]["command"][1:] == sys.argv[1:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert_same_run(run(settings, model="mel_stl", run_dir=tmp_path / "alone"), victim)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_tasks_end_with_the_coordinator(tmp_path):
    end_a_coordinator(tmp_path, signal.SIGKILL, "local", patience=30)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_an_address_where_no_cluster_is(monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=f"cannot reach the Ray cluster '{address}'"):
        open_workers(cluster=address)


def test_a_cluster_that_is_not_there(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("no\nsuch cluster")))
    with pytest.raises(UserError, match="Ray cluster 'auto' .no such cluster.: start it with 'ray start --head'"):
        open_workers(cluster="auto")


def test_a_gpu_that_no_node_has(cluster):
    with pytest.raises(UserError, match="2 CPUs and 0 GPUs, and a run needs 1 and 0.5"):
        open_workers(cluster="local", gpus_per_trial=0.5)
    assert ray.is_initialized()


def test_without_ray_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'korser\[cluster\]'"):
        open_workers(cluster="auto")
