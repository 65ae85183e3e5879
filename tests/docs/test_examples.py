"""The examples of README and docs, followed to the letter, in a folder outside the repository."""

import re
import shlex
import shutil
import sys

import pytest
from conftest import ROOT

from korser import cli
from korser.config.usage import keep_used

PAGES = {
    "README.md": "## Add a frontend",
    "docs/extending/backbone.md": "# Adding a backbone",
    "docs/extending/head.md": "# Adding a head",
    "docs/extending/corpus.md": "# Adding a corpus",
    "docs/classical.md": "## Other frontends",
}


def read_section(page, heading):
    """Return the text of a page from a heading to the next one of the same level."""
    text = (ROOT / page).read_text(encoding="utf-8").split(heading)[1]
    return text.split("\n## ")[0] if heading.startswith("## ") else text


def write_files(section, folder):
    """Write the files named in the first line of a block."""
    for language, text in re.findall(r"```(python|yaml)\n(.*?)```", section, flags=re.DOTALL):
        name = re.match(r"# (\S+\.(?:py|yaml))", text)
        if name:
            (folder / name[1]).write_text(text, encoding="utf-8")
        else:
            pytest.fail(f"a {language} block does not name its file: {text[:60]}")


def read_commands(section):
    """Return the commands of the bash blocks, as lists of words."""
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_example(page, tiny, tiny_corpus, tmp_path, monkeypatch, capsys):
    section = read_section(page, PAGES[page])
    write_files(section, tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in tmp_path.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])  # the command has no current folder
    shutil.copytree(tiny_corpus, tmp_path / "data")
    settings = {key: value for key, value in tiny.items() if key not in ("corpus", "data_folder")}
    commands = read_commands(section)
    assert any(words[1] == "train" for words in commands)
    for _, command, *arguments in commands:
        if command == "train":
            given = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--"))
            own_data = "corpus" in given
            given = {**keep_used(arguments[0], settings), **given, "data_folder": str(tmp_path / "data")} | (
                {} if own_data else {"corpus": "csv"}
            )
            arguments = [arguments[0], *(f"--{key}={value}" for key, value in given.items())]
        if command == "describe":
            folder = f"--data_folder={tmp_path / 'data'}"
            arguments = [folder if word.startswith("--data_folder=") else word for word in arguments]
        assert cli.main([command, *arguments]) in (None, 0)
    output = capsys.readouterr().out
    assert "recall joy" in output and "FAIL" not in output
