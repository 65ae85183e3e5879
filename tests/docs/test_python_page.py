"""The code of docs/python.md, run from the top to the bottom in one namespace, as in a notebook."""

import re
import shutil
import sys

from conftest import ROOT

from korser.runs.load import load_runs


def test_the_page_runs(tiny_corpus, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    shutil.copytree(tiny_corpus, tmp_path / "data")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        file = re.match(r"# (\S+\.py)\n", block)
        if file:
            (tmp_path / file[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, "docs/python.md", "exec"), names)
    monkeypatch.delitem(sys.modules, "my_parts")
    assert names["wider"]["frontend"].output_size == 64
    assert names["table"]["path"].tolist() == names["embeddings"].index.tolist() == names["files"]
    assert names["embeddings"].shape == (2, 16) and names["features"].shape[1] == 32
    assert names["why"].label == "joy" and names["why"].spectrum.shape[1] == 40
    assert {run.path.name for run in load_runs("results")} == {names["h"].run_name, names["own"].run_name}
