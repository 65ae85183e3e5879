"""Runs in trackers: in training, sent later, and with trackers that fail. Nothing is sent to a network."""

import http.server
import json
import os
import struct
import sys
import threading

import pandas as pd
import pytest
from conftest import HPARAMS, tiny_overrides
from helpers import Killed, assert_same_run, kill_at, run
from made_runs import write_run

from korser import UserError
from korser.config.hparams import resolve_hparams
from korser.runs.directory import RunDirectory
from korser.runs.groups import label_runs
from korser.runs.load import load_runs
from korser.tracking import loggers
from korser.tracking.live import LiveLogger, live_logger
from korser.tracking.record import describe_run
from korser.training.brain import EmotionBrain
from korser.utils.files import read_csv, read_json, write_csv, write_json

STARTED = 1_700_000_000.0


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Trackers wait for nothing, find no account, and keep what they write in the test's folder."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "WANDB_MODE": "offline",
        "WANDB_CONFIG_DIR": str(tmp_path / "wandb_config"),
        "WANDB_CACHE_DIR": str(tmp_path / "wandb_cache"),
        "WANDB_DATA_DIR": str(tmp_path / "wandb_data"),
        "NETRC": str(tmp_path / "netrc"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # or it keeps the environment of its first run


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory):
    """The address of one database for all tests: making it takes seconds."""
    pytest.importorskip("mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(mlflow_uri, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    return mlflow.MlflowClient(mlflow_uri)


@pytest.fixture(scope="module")
def untracked(tiny_corpus, tmp_path_factory):
    """Overrides and directory of a run without a tracker."""
    overrides = tiny_overrides(tiny_corpus, tmp_path_factory.mktemp("untracked"))
    return overrides, run(overrides)


def made_run(folder, model="mel_stl", **options):
    """Write a complete run with a log of three epochs, each of ten seconds, and metrics."""
    path = write_run(folder, model, **options)
    epochs = [1, 2, 3]
    log = {
        "epoch": epochs,
        "lr": [0.1, 0.05, 0.0],
        "train_loss": [3.0, 2.0, 1.0],
        "valid_emotion_uar": [0.5, None, 0.7],
    }
    times = {"seconds": 10.0, "time": [STARTED + 10 * epoch for epoch in epochs]}
    write_csv(path / "log.csv", pd.DataFrame({**log, **times}))
    uar = {"value": 0.6, "low": 0.5, "high": None}
    emotion = {"n": 9, "n_speakers": 3, "uar": uar, "recall": {"기쁨 (joy)": uar}, "confusion": [[1]]}
    write_json(path / "metrics.json", {"best_epoch": 3, "test": {"emotion": emotion}})
    return path


def runs_of(client, experiment):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def history(client, run, metric):
    return [(m.step, m.timestamp / 1000, m.value) for m in client.get_metric_history(run.info.run_id, metric)]


def read_wandb(folder):
    """Return history, summary and the other records of the only offline run in a folder."""
    import wandb
    from wandb.proto import wandb_internal_pb2 as pb

    wandb.teardown()  # its process writes the end of the file

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, position, part, records = file.read_bytes(), 7, b"", []
    while position + 7 <= len(data):  # LevelDB's log: blocks of 32 KiB, records that may be divided
        if 2**15 - position % 2**15 < 7:
            position += 2**15 - position % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        part += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            records.append(pb.Record.FromString(part))
            part = b""

    def plain(items):
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    rows = [plain(record.history.item) for record in records if record.HasField("history")]
    summary = {k: v for record in records for k, v in plain(record.summary.update).items()}
    return rows, summary, {kind: getattr(r, kind) for r in records for kind in ("run", "artifact") if r.HasField(kind)}


# -- in training -------------------------------------------------------------------------------------------------------
def test_a_killed_training_continues_the_run_in_mlflow(untracked, tmp_path, client, monkeypatch, call):
    overrides, run_dir = untracked
    tracked = {**overrides, "logger": "mlflow", "comparison": "my_compare"}
    assert resolve_hparams(HPARAMS / "mel_mtl.yaml", tracked).run_name == run_dir.name
    folder = tmp_path / run_dir.name
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LiveLogger, "finish", lambda *args, **options: None)  # as a kill
        kill_at(patch, EmotionBrain, "validation_row", 4)  # of the second epoch; the rehearsals call it twice
        run(tracked, run_dir=folder)
    (begun,) = runs_of(client, "my_compare")
    assert begun.info.status == "RUNNING" and len(history(client, begun, "train_loss")) == 1
    run(tracked, run_dir=folder)
    assert_same_run(run_dir, folder)
    (found,) = runs_of(client, "my_compare")
    assert (found.info.status, found.info.run_name) == ("FINISHED", run_dir.name)
    log = read_csv(folder / "log.csv")
    for column in "lr", "train_loss", "train_gender_loss", "valid_emotion_uar":
        assert history(client, found, column) == list(zip(log["epoch"], log["time"], log[column]))
    tags = {"model": "mel_mtl", "frontend": "Mel", "corpus": "csv", "protocol": "speaker_holdout", "seed": "1"}
    assert {**tags, "comparison": "my_compare"}.items() <= found.data.tags.items()
    assert found.data.params["opt_class.weight_decay"] == "0.05"
    uar = read_json(folder / "metrics.json")["test"]["emotion"]["uar"]
    assert found.data.metrics["test/emotion/uar"] == uar["value"]

    code, out, err = call("log", folder, "--to=mlflow", "--files")
    assert (code, out) == (0, f"{run_dir.name}: updated, experiment my_compare in {client.tracking_uri}\n"), err
    (again,) = runs_of(client, "my_compare")
    for metric in "train_loss", "test/emotion/uar":
        assert history(client, again, metric) == history(client, found, metric)
    assert again.info.end_time == found.info.end_time
    artifacts = [each.path for each in client.list_artifacts(again.info.run_id)]
    assert artifacts == ["cost.json", "hparams.yaml", "log.csv", "metrics.json", "test.csv", "valid.csv"]


class Contacts(http.server.BaseHTTPRequestHandler):
    def handle(self):
        self.server.contacts += 1


def test_wandb_offline_contacts_no_server_and_changes_no_number(untracked, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    overrides, run_dir = untracked
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Contacts) as server:
        server.contacts = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        run({**overrides, "logger": "wandb", "comparison": "my_compare"}, run_dir=tmp_path / "run")
        server.shutdown()
        assert server.contacts == 0
    assert_same_run(run_dir, tmp_path / "run")
    rows, summary, records = read_wandb(tmp_path)
    log = read_csv(tmp_path / "run" / "log.csv")
    assert [(row["_step"], row["_timestamp"], row["train_loss"]) for row in rows] == list(
        zip(log["epoch"], log["time"], log["train_loss"])
    )
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert summary["test/emotion/uar"] == metrics["test"]["emotion"]["uar"]["value"]
    about = records["run"]
    assert about.run_id == read_json(tmp_path / "run" / "tracking.json")["id"]
    assert (about.project, about.run_group, about.display_name) == ("korser", "my_compare", "run")
    assert {"model: mel_mtl", "frontend: Mel", "seed: 1"} <= set(about.tags)
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert (config["lr"], config["seed"], config["frontend.n_mels"]) == (0.003, 1, 40)


def test_a_resumed_run_is_whole_in_tensorboard(untracked, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    overrides, run_dir = untracked
    tracked = {**overrides, "logger": "tensorboard"}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "validation_row", 4)
        run(tracked, run_dir=tmp_path / "run")
    run(tracked, run_dir=tmp_path / "run")
    assert_same_run(run_dir, tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    log = read_csv(tmp_path / "run" / "log.csv")
    shown = [(event.step, event.wall_time) for event in events.Scalars("valid_emotion_uar")]
    assert shown == list(zip(log["epoch"], log["time"]))
    assert events.Scalars("test/emotion/uar") and events.Tags()["distributions"] == []
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"opt_class.weight_decay" in hparams


def test_a_fitted_model_has_results_but_no_epochs(tmp_path, client):
    path = made_run(tmp_path, "egemaps_svm_stl")
    (path / "log.csv").unlink()
    with live_logger("mlflow", path):
        pass
    (found,) = runs_of(client, "korser")
    assert found.info.status == "FINISHED" and found.data.metrics["test/emotion/uar"] == 0.6


# -- trackers that fail ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["mlflow", "wandb"])
def test_a_tracker_out_of_reach_is_one_warning(tmp_path, monkeypatch, caplog, kind):
    pytest.importorskip(kind)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")  # without an account
    path = made_run(tmp_path)
    with live_logger(kind, path) as tracker:
        tracker.log([{"epoch": 1, "time": STARTED}])
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("korser")]
    assert warning.startswith(f"!!! logger: {kind} failed (") and "\n" not in warning
    assert warning.endswith(f"training goes on, and korser log {path} --to {kind} sends the run later")


def test_a_tracker_that_fails_in_training_changes_nothing(untracked, tmp_path, monkeypatch, caplog):
    def fails(*args):
        raise ConnectionError("the server\nis gone")

    overrides, run_dir = untracked
    monkeypatch.setattr(loggers.TensorBoardLogger, "write", fails)
    run({**overrides, "logger": "tensorboard"}, run_dir=tmp_path / "run")
    assert_same_run(run_dir, tmp_path / "run")
    assert caplog.text.count("logger: tensorboard failed (the server is gone)") == 1


def test_a_tracker_that_is_not_installed(monkeypatch, tmp_path, call):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    expected = "logger wandb is not installed: pip install 'korser[wandb]'\n"
    assert call("train", "mel_stl.yaml", "--logger=wandb") == (2, "", f"error: mel_stl.yaml: {expected}")
    assert call("log", tmp_path, "--to=wandb") == (2, "", f"error: {expected}")


def test_a_training_that_fails_is_a_failed_run(tmp_path, client):
    path = made_run(tmp_path)
    with pytest.raises(UserError), live_logger("mlflow", path):
        raise UserError("no loss was finite")
    assert [found.info.status for found in runs_of(client, "korser")].count("FAILED") == 1


# -- sent later --------------------------------------------------------------------------------------------------------
def test_a_folder_is_sent_once(tmp_path, client, call):
    paths = [made_run(tmp_path / "results", seed=seed, fold=fold) for seed in (1, 2) for fold in (0, 1)]
    write_run(tmp_path / "results", "leaf_stl", complete=False)
    for state in "new", "updated":
        code, out, err = call("log", tmp_path / "results", "--to", "mlflow", "--experiment", "later")
        assert code == 0, err
        expected = [f"{path.name}: {state}, experiment later in {client.tracking_uri}" for path in paths]
        assert sorted(out.splitlines()) == sorted(expected)
        found = runs_of(client, "later")
        assert len(found) == 4
        for each in found:
            assert history(client, each, "train_loss") == [(k, STARTED + 10 * k, 4.0 - k) for k in (1, 2, 3)]
            assert history(client, each, "valid_emotion_uar") == [(1, STARTED + 10, 0.5), (3, STARTED + 30, 0.7)]
            assert history(client, each, "test/emotion/uar") == [(3, STARTED + 30, 0.6)]
            assert (each.info.start_time, each.info.end_time) == (1000 * STARTED, 1000 * (STARTED + 30))
    metrics = found[0].data.metrics
    assert metrics["test/emotion/uar_low"] == metrics["test/emotion/recall/기쁨 _joy__low"] == 0.5
    assert metrics["best_epoch"] == 3 and metrics["parameters"] == 94_371_712
    assert "test/emotion/uar_high" not in metrics and "test/emotion/n" not in metrics
    assert {each.data.tags["fold"] for each in found} == {"0", "1"}


def test_a_run_is_sent_to_wandb_and_tensorboard(tmp_path, call):
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    path = made_run(tmp_path)
    secret = tmp_path / "secret.csv"
    secret.write_text("not for others")
    (path / "valid.csv").symlink_to(secret)
    code, out, err = call("log", path, "--to=wandb", "--project=mine", "--files")
    assert code == 0 and out.startswith(f"{path.name}: new, {tmp_path}/wandb/offline-run-"), err
    rows, summary, records = read_wandb(tmp_path)
    assert [(row["_step"], row["_timestamp"], row["lr"]) for row in rows] == [
        (1, STARTED + 10, 0.1),
        (2, STARTED + 20, 0.05),
        (3, STARTED + 30, 0),
    ]
    assert summary["best_epoch"] == 3 and records["run"].project == "mine"
    sent = {entry.path for entry in records["artifact"].manifest.contents}
    assert sent == {"hparams.yaml", "metrics.json", "cost.json", "log.csv", "test.csv"}
    for state in "new", "updated":
        assert call("log", path, "--to=tensorboard")[1] == f"{path.name}: {state}, {path}/tensorboard\n"
    fault = "error: --to tensorboard has neither projects nor files: leave out --project and --files\n"
    assert call("log", path, "--to=tensorboard", "--files") == (2, "", fault)


def test_what_cannot_be_sent_is_one_line(tmp_path, monkeypatch, call):
    pytest.importorskip("mlflow")
    path = made_run(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, err = call("log", path, "--to=mlflow")
    assert (code, out) == (2, "") and err.startswith(f"error: cannot send {path} to mlflow: ") and err.count("\n") == 1
    write_json(path / "tracking.json", {"id": "x' or tags.a = 'b"})
    assert "tracking.json is damaged" in call("log", path, "--to=mlflow")[2]


def test_trials_of_a_search_are_one_experiment(tmp_path, client, call):
    pytest.importorskip("wandb")
    folder = tmp_path / "search" / "mel_stl"
    for lr in 0.001, 0.01:
        path = made_run(folder / "runs", lr=lr)
    (folder / "search.json").write_text("{}")
    assert call("log", tmp_path, "--to=mlflow")[0] == call("log", path, "--to=wandb")[0] == 0
    found = runs_of(client, "search mel_stl on made")
    assert len(found) == 2 and all(each.data.tags["search"] == "mel_stl" for each in found)
    about = read_wandb(path.parent)[2]["run"]
    assert about.run_group == "search mel_stl on made" and "search: mel_stl" in about.tags


def test_a_folder_that_no_database_can_be_in(tmp_path, call):
    pytest.importorskip("mlflow")
    for name in "50%20", "why?":
        path = made_run(tmp_path / name)
        code, _, err = call("log", path, "--to=mlflow")
        assert code == 2 and "its path contains ? or %: set MLFLOW_TRACKING_URI" in err
        assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_log_without_times_is_damaged(tmp_path, call):
    path = made_run(tmp_path)
    write_csv(path / "log.csv", read_csv(path / "log.csv").drop(columns="time"))
    assert "log.csv is damaged (no column epoch, time or seconds)" in call("log", path, "--to=tensorboard")[2]


def test_the_store_is_beside_the_runs(tmp_path, monkeypatch, call):
    opened = []
    monkeypatch.setattr("korser.tracking.send.open_logger", lambda *args: opened.append(args[2]) or 1 / 0)
    path = made_run(tmp_path / "results")
    for folder in path, tmp_path / "results":
        call("log", folder, "--to=tensorboard")
    assert opened == [tmp_path / "results"] * 2


# -- settings ----------------------------------------------------------------------------------------------------------
def test_a_tracker_is_no_other_model(tmp_path):
    for seed, more in (1, "logger: null\n"), (2, "logger: wandb\ncomparison: mine\n"):
        with open(write_run(tmp_path, "mel_stl", seed=seed) / "hparams.yaml", "a") as file:
            file.write(more)
    assert list(label_runs(load_runs(tmp_path))) == ["mel_stl"]


def test_the_frontend_of_a_chain_is_named_by_its_parts(tmp_path):
    path = write_run(tmp_path, "wav2vec_leaf_mtl")
    (path / "hparams.yaml").write_text(resolve_hparams(HPARAMS / "wav2vec_leaf_mtl.yaml").text)
    assert describe_run(RunDirectory(path)).tags["frontend"] == "Chain(PretrainedEncoder, LayerMix, Leaf)"
