"""Chromium over its DevTools protocol, by pipes: JSON messages that end with a zero byte."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
FLAGS += ["--disable-component-update", "--remote-debugging-pipe"]
FLAGS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a microphone that beeps
WAIT = "new Promise((done, failed) => { const start = Date.now(); (function look() { const found = %s; if (found) "
WAIT += "done(found); else if (Date.now() - start > %d) failed('waited in vain'); else setTimeout(look, 50); })(); })"


class Tab:
    """A page; ``events`` lists what the browser has reported."""

    def __init__(self, read, write):
        self.read, self.write = read, write
        self.numbers, self.events, self.buffer, self.session = itertools.count(1), [], b"", {}
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        """Send a command and return its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters, **self.session}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self, seconds=60):
        while b"\0" not in self.buffer:
            assert select.select([self.read], [], [], seconds)[0], "Chromium does not answer"
            read = os.read(self.read, 2**20)
            assert read, "Chromium has ended"
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        done = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait_for(self, expression, seconds=40):
        """Return the value of an expression as soon as it is true."""
        return self.evaluate(WAIT % (expression, 1000 * seconds))

    def upload(self, selector, path):
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path, width=1280):
        metrics = {"deviceScaleFactor": 1, "mobile": False, "width": width}
        self("Emulation.setDeviceMetricsOverride", height=900, **metrics)
        height = self.evaluate("document.documentElement.scrollHeight")
        self("Emulation.setDeviceMetricsOverride", height=height, **metrics)
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot")["data"]))

    def requests(self):
        """Return the addresses that were asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def errors(self):
        """Return exceptions and error messages of the console."""
        found = [e["params"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        return found + [entry for entry in logged if entry["level"] == "error"]


def _above_the_fourth(descriptor):
    """Move a file descriptor, since Chromium expects its pipes at 3 and 4, which the others must not have."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return moved


@contextlib.contextmanager
def open_tab():
    """Start Chromium and yield a :class:`Tab`."""
    browser = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if browser is None:
        reason = "no Chromium: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("KORSER_CI") else pytest.skip(reason)
    (commands, write), (read, answers) = os.pipe(), os.pipe()
    commands, answers = (_above_the_fourth(end) for end in (commands, answers))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = f'exec "$@" 3<&{commands} 4>&{answers} 2> /dev/null'
        command = ["bash", "-c", shell, "bash", browser, *FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, pass_fds=(commands, answers))
        os.close(commands)
        os.close(answers)
        try:
            yield Tab(read, write)
        finally:
            os.close(write)  # which ends it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            os.close(read)
