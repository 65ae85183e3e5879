"""The page, by its requests: predictions, warnings and mistakes; nothing that was uploaded is kept."""

import json
import os
import shutil
import signal
import socket

import numpy as np
import pytest
import soundfile
import torch
from fastapi.testclient import TestClient
from helpers import run
from torch import nn

from korser.data.audio import read_audio
from korser.demo import analysis, page
from korser.export.folder import export_folder
from korser.inference.load import load_trained_model
from korser.inference.predict import TrainedModel
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError
from korser.utils.notes import Note


class Loudness(nn.Module):
    """Outputs of three tasks that depend on the loudness; one frame per recording."""

    frequency_axis = False

    def features(self, x, lengths):
        return x.abs().mean(1)[:, None, None], lengths

    def forward(self, x, lengths):
        loud = x.abs().mean(1)
        two = torch.stack([loud, -loud], 1)
        return {"emotion": two, "vote": two, "arousal": 100 * loud[:, None]}, None


@pytest.fixture
def stub(tmp_path):
    """A model with a task of each kind, from somewhere that nothing may be written to."""
    tasks = [Task("emotion", classes=("joy", "<i>anger")), Task("arousal", kind="number")]
    tasks.append(Task("vote", kind="distribution", classes=("yes", "no")))
    model = Loudness()
    return TrainedModel(
        model=model,
        tasks=tasks,
        min_length=8000,
        piece_length=160000,
        directory=RunDirectory(tmp_path / "stub"),
        info={"synthetic": True, "protocol": "folds", "speaker_independent": True, "pretrained": None},
        warnings=[Note("changed_code", "CHANGED <CODE>")],
        parts={"frontend": model},
    )


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Restore what the page sets, and put its folder into one of the test; nothing is asked of another machine."""
    asked = []

    def connect(*address, **options):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    for name in (*page.GRADIO_SETTINGS, "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "as before")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    yield tmp_path / "tmp"
    assert asked == []


@pytest.fixture
def ask(environment):
    """Send a file to a page with some models; return its message and the further values."""
    clients = []

    def answer(models, path, window=2, hop=0.5):
        if not clients:
            clients.append(TestClient(page.build_app(models, str(environment))))
            clients[0].__enter__()
        (client,) = clients
        file = None
        if path is not None:
            with open(path, "rb") as content:
                (uploaded,) = client.post("/gradio_api/upload", files={"files": (path.name, content)}).json()
            file = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
        event = client.post("/gradio_api/call/predict", json={"data": [file, window, hop]}).json()["event_id"]
        stream = client.get(f"/gradio_api/call/predict/{event}").text
        assert "event: complete" in stream, stream
        message, *values = json.loads(stream.partition("data: ")[2].splitlines()[0])
        return message, values

    yield answer
    clients[0].__exit__(None, None, None)
    assert not (environment / "gradio").exists()  # where gradio would write otherwise


def noise(path, seconds, level=0.1):
    soundfile.write(path, level * np.random.default_rng(0).standard_normal(round(16000 * seconds)), 16000)
    return path


def test_tasks_of_each_kind(stub, ask, tmp_path):
    path = noise(tmp_path / "a &.wav", 2.5)
    message, (emotion, arousal, vote, figures) = ask({"stub": stub}, path)
    assert message == '<p class="" role="status">a &amp;.wav</p>'
    expected = stub.predict_files(str(path)).iloc[0]
    assert emotion["label"] == "joy" and [c["label"] for c in emotion["confidences"]] == ["joy", "<i>anger"]
    assert emotion["confidences"][0]["confidence"] == pytest.approx(expected["emotion_prob_joy"])
    assert vote["confidences"][1]["confidence"] == pytest.approx(expected["vote_prob_no"])
    assert arousal["label"] == f"{expected['arousal_pred']:.3f}" and not arousal["confidences"]
    assert figures.count('src="data:image/png;base64,iVBOR') == 2
    assert not stub.directory.path.joinpath("evaluations", "predict-bad-recordings.csv").exists()


def test_what_is_wrong_is_one_line_on_the_page(stub, ask, tmp_path, monkeypatch):
    models = {"stub": stub}
    nothing = [{}, {}, {}, ""]
    (tmp_path / "notes.wav").write_text("no audio")
    (tmp_path / "a b.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    monkeypatch.setattr(analysis, "LONGEST", 3)
    for path, window, said in (
        (None, 2, "Record or upload speech."),
        (tmp_path / "notes.wav", 2, "notes.wav: not a readable audio file (Format not recognised)"),
        (noise(tmp_path / "short.wav", 0.2), 2, "short.wav: too short: 0.200 s, but stub needs 0.500 s: leave it out"),
        (noise(tmp_path / "long.wav", 3.5), 2, "long.wav: longer than the 3 s that the page takes: cut it, or use "),
        (noise(tmp_path / "a.wav", 2), 0.3, "--window=0.3: the model needs at least 0.5 s"),
        (tmp_path / "a b.m4a", 2, "convert it by `ffmpeg -i &#x27;a b.m4a&#x27; &#x27;a b.wav&#x27;`"),
    ):
        message, values = ask(models, path, window, 0.2)
        assert said in message and message.count("<p") == 1 and str(tmp_path) not in message, message
        assert values == nothing and ('class="error"' in message) == (path is not None)


def test_silence_is_said_to_be_silent(stub, ask, tmp_path):
    message, values = ask({"stub": stub}, noise(tmp_path / "silence.wav", 1, level=0))
    assert "silent: the largest sample is 0; what is predicted below says nothing about a voice" in message
    assert 'class="warning"' in message and values[0]["label"]
    assert not stub.directory.path.exists()  # where predict would list it


def test_a_run_and_an_exported_folder_side_by_side(tiny, tiny_corpus, ask, tmp_path):
    run_dir = run({**tiny, "n_epochs": "1"}, model="mel_mtl")
    trained = load_trained_model(run_dir)
    export_folder(trained, tmp_path / "exported", encoder="reference")
    models = page.load_models([str(run_dir), f"{tmp_path / 'exported'}/"])
    assert list(models) == [run_dir.name, "exported"]
    path = tiny_corpus / "s0_joy_1.wav"
    message, values = ask(models, path, 0.2, 0.1)
    assert "s0_joy_1.wav" in message and len(values) == 8
    expected = trained.predict_files(str(path)).iloc[0]
    for labels in (values[:3], values[4:7]):
        for task, label in zip(trained.tasks, labels):
            found = {c["label"]: c["confidence"] for c in label["confidences"]}
            assert found == pytest.approx({name: expected[f"{task.name}_prob_{name}"] for name in task.classes})
    np.testing.assert_array_equal(trained.waveform_features(read_audio(path)), trained.features(path))
    shutil.copytree(tmp_path / "exported", tmp_path / "other" / "exported")
    both = [str(tmp_path / "exported"), str(tmp_path / "other" / "exported")]
    assert list(page.load_models(both)) == both
    with pytest.raises(UserError, match="exported is given 2 times: name each run once"):
        page.load_models([both[0], f"{both[0]}/"])


def test_the_page_names_runs_and_their_warnings(stub, environment):
    with TestClient(page.build_app({"<my run>": stub}, str(environment))) as client:
        text = json.dumps(client.get("/config").json(), ensure_ascii=False)
        assert "<h2>&lt;my run&gt;</h2>" in text and "CHANGED &lt;CODE&gt;" in text and "SYNTHETIC speech" in text
        assert "arousal (a number)" in text and "vote (share of raters)" in text
        assert "fonts.googleapis" not in client.get("/theme.css").text
        assert client.get("/gradio_api/app_id").status_code == 200
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


@pytest.mark.parametrize("early", [True, False])
def test_a_signal_before_the_server_is_up_leaves_no_folder(stub, environment, monkeypatch, early):
    def end(*args, **options):
        assert len(list(environment.iterdir())) == 1
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(page, "_build_page", end) if early else monkeypatch.setattr("uvicorn.Server.run", end)
    said = []
    before = signal.signal(signal.SIGTERM, lambda *_: said.append(list(environment.iterdir())))
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(SystemExit) as stop:
        page.serve({"stub": stub}, listening)
    signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 128 + signal.SIGTERM and said == [[]]


def test_command_line(call, monkeypatch, tmp_path, caplog):
    served = []
    monkeypatch.setattr(page, "require_gradio", lambda: None)
    monkeypatch.setattr(page, "serve", lambda models, listening: served.append(models))
    monkeypatch.setattr(page, "load_trained_model", lambda path, trust: (path, trust))
    code, out, _ = call("demo", tmp_path, "--port=0", "--trust")
    assert code == 0 and out.startswith("http://127.0.0.1:") and "Ctrl-C" in out and not caplog.records
    assert served == [{tmp_path.name: (str(tmp_path), True)}]
    code, out, _ = call("demo", tmp_path, "--port=0", "--host=0.0.0.0")
    assert code == 0 and "whoever reaches this machine can use the page, without a password" in caplog.text
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, error = call("demo", tmp_path, f"--port={port}")
    assert code == 2 and f"--port={port}: Address already in use; choose another address or port, or --port=0" in error
    code, _, error = call("demo", tmp_path, "--port=70000")
    assert code == 2 and "--port=70000: expected an integer >= 0 and < 65536" in error and len(served) == 2


def test_without_gradio(call, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    code, _, error = call("demo", tmp_path)
    assert (code, error) == (2, "error: korser demo needs gradio: pip install 'korser[demo]'\n")
