"""Packages import only those above them in the table of docs/architecture.md."""

import ast
import re

from conftest import ROOT

PACKAGES = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
SUBPACKAGE = re.compile(r"korser\.(\w+)")


def imported(tree):
    """Yield the modules that are imported, except for annotations only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        else:
            yield from imported(node)


def test_every_package_is_in_the_table():
    folders = {path.parent.name for path in (ROOT / "korser").glob("*/__init__.py")}
    assert folders == set(PACKAGES) & folders and len(PACKAGES) >= len(folders)


def test_packages_import_one_way():
    wrong = []
    for path in (ROOT / "korser").glob("*/**/*.py"):
        own = path.relative_to(ROOT / "korser").parts[0]
        for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
            match = SUBPACKAGE.match(module)
            if match and match[1] in PACKAGES and PACKAGES.index(match[1]) > PACKAGES.index(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_no_file_names_the_folder_of_the_repository():
    folder = f"{ROOT.parent}/"
    texts = [path for name in ("*.py", "*.md", "*.yaml", "*.toml") for path in ROOT.rglob(name)]
    own = [path for path in texts if not {".venv", "results", "cache", "data"} & set(path.relative_to(ROOT).parts[:1])]
    assert own and not [path for path in own if folder != "//" and f'"{folder}' in path.read_text(encoding="utf-8")]
