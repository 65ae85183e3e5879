"""The README's example of adding a frontend, followed to the letter, in a folder outside the tree."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from korser.utils.files import read_csv


@pytest.fixture
def example(tmp_path):
    """Write the files that the README's section shows, and give its commands."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Add a frontend")[1].split("\n## ")[0]
    blocks = re.findall(r"```(python|yaml|bash)\n(.*?)```", section, flags=re.DOTALL)
    commands = []
    for language, text in blocks:
        if language == "bash":
            commands += [line for line in text.splitlines() if line and not line.startswith("#")]
        else:
            (name,) = re.findall(r"^# (\S+\.(?:py|yaml))", text)
            (tmp_path / name).write_text(text, encoding="utf-8")
    assert {p.suffix for p in tmp_path.iterdir()} == {".py", ".yaml"}
    return tmp_path, commands


def run(command, folder, *more):
    words = [*command.split(), *more]
    assert words[0] == "python"
    words = [sys.executable, *(str(ROOT / w) if w.startswith("recipes/") else w for w in words[1:])]
    words = [str(folder / w) if w.endswith("my_frontend.yaml") else w for w in words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_readme_example(example, tiny):
    folder, (check, train) = example
    checked = run(check, folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "same_alone_as_in_a_batch" in checked.stdout
    trained = run(train, folder, *(f"--{k}={v}" for k, v in tiny.items()))
    assert trained.returncode == 0, trained.stderr
    assert "recall joy" in trained.stdout
    (log,) = (folder / "results" if "output_folder" not in tiny else folder).rglob("my_frontend-*/log.csv")
    assert len(read_csv(log)) == 2
