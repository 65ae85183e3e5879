"""The page in a browser: upload, microphone, errors, no request to another machine; and how the server ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
import soundfile
from devtools import open_tab
from helpers import run

SILENCE = "document.querySelector('#message').innerText.includes('silent')"
PICTURES = "[...document.querySelectorAll('.run img')].map(image => image.naturalWidth)"
NAMES = "[...document.querySelectorAll('.run .prose h2')].map(title => title.innerText)"
CLEAR = "document.querySelector('button[aria-label=\"Clear\"]')?.click()"
LABELS = "[...document.querySelectorAll('.run [data-testid=\"label-output-value\"]')].map(label => label.innerText)"


@pytest.fixture
def address(tiny, tmp_path):
    """The address of a page with two runs; it ends without leaving a file."""
    runs = [run({**tiny, "n_epochs": "1"}, model=model) for model in ("mel_mtl", "leaf_mtl")]
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}  # not for Chromium: too long for a socket
    command = [sys.executable, "-m", "korser.cli", "demo", *runs, "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + process.stdout.read()
        yield line.split()[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert "Traceback" not in process.stdout.read()
        assert list((tmp_path / "tmp").glob("korser-demo-*")) == []
    finally:
        process.kill()


@pytest.mark.slow
def test_page_in_a_browser(address, tiny_corpus, tmp_path):
    soundfile.write(tmp_path / "silence.wav", [0.0] * 16000, 16000)
    (tmp_path / "notes.wav").write_text("no audio")
    (tmp_path / "notes.txt").write_text("no audio")
    with open_tab() as tab:
        tab("Page.navigate", url=address)

        def upload(path, expected):
            tab.evaluate(CLEAR)
            tab.wait_for("document.querySelector('input[type=file]')")
            tab.upload("input[type=file]", path)
            return tab.wait_for(expected)

        upload(tiny_corpus / "s0_joy_1.wav", f"{PICTURES}.length == 4 && {PICTURES}.every(width => width == 700)")
        assert tab.evaluate("document.querySelector('#message').innerText.trim()") == "s0_joy_1.wav"
        assert [name.partition("-")[0] for name in tab.evaluate(NAMES)] == ["mel_mtl", "leaf_mtl"]
        emotion, gender, intensity, *others = tab.evaluate(LABELS)
        assert emotion in ("joy", "sadness", "neutral", "anger") and gender in ("male", "female") and len(others) == 3
        tab.screenshot(tmp_path / "two-runs.png")
        upload(tmp_path / "silence.wav", f"{SILENCE} && {PICTURES}.length == 4")
        tab.screenshot(tmp_path / "silence.png")
        upload(tmp_path / "notes.wav", f"document.querySelector('#message .error') && {PICTURES}.length == 0")
        upload(tmp_path / "notes.txt", "document.body.innerText.includes('Invalid file type: notes.txt')")
        tab.screenshot(tmp_path / "text.png")
        tab.evaluate("document.querySelector('button[aria-label=\"Record audio\"]').click()")
        tab.wait_for("document.querySelector('.record-button')")
        tab.evaluate("document.querySelector('.record-button').click()")
        tab.wait_for("getComputedStyle(document.querySelector('.stop-button')).display != 'none'")
        time.sleep(1)
        tab.evaluate("document.querySelector('.stop-button').click()")
        assert tab.wait_for(f"{PICTURES}.length == 4")
        assert tab.errors() == []
        asked = [url for url in tab.requests() if not url.startswith((address, "data:", f"blob:{address}"))]
        assert asked == []
