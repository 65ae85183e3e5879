"""What a release consists of: versions, workflows, image, citation, address of the repository."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
PINNED = re.compile(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)")


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def jobs_of(workflow):
    return yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()


def test_the_version_is_the_same_everywhere(project):
    changelog = re.search(r"^## \[(.+)\] - ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert project["project"]["version"] == CITATION["version"] == changelog[1]
    assert project["project"]["license"] == CITATION["license"]


def test_the_address_of_the_repository_is_the_same_everywhere(project):
    notebook = (ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8")
    address = re.search(r'REPOSITORY = \\"(https://.+?)\\"', notebook)[1]
    assert {*project["project"].get("urls", {}).values(), CITATION.get("repository-code", address)} == {address}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_use_pinned_actions_and_files_that_exist(workflow):
    steps = [step for job in jobs_of(workflow) for step in job.get("steps", ())]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used and [name for name in used if not PINNED.fullmatch(name)] == []
    files = [job["uses"] for job in jobs_of(workflow) if "uses" in job]
    for command in (step["run"] for step in steps if "run" in step):
        files += re.findall(r"(?:recipes|hparams|notebooks)/\S+\.\w+|\w+\.(?:toml|md)\b", command)
    assert files and [file for file in files if not (ROOT / file).is_file()] == []


def test_continuous_integration_does_what_the_script_does(project):
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    for command in ("ruff check .", "ruff format --check .", "codespell", "mkdocs build --quiet --strict", "-m slow"):
        assert command in script and command.removeprefix("-m ") in workflow
    (versions,) = (job["strategy"]["matrix"]["python"] for job in jobs_of(WORKFLOWS[0]) if "strategy" in job)
    assert versions == ["3.10", "3.11", "3.12", "3.13"] and project["project"]["requires-python"] == ">=3.10,<3.14"
    installed = re.search(r"pip install (codespell mkdocs-material ruff)", workflow)[1].split()
    assert set(installed) <= {*project["project"]["optional-dependencies"]["dev"], "mkdocs-material"}


def test_the_image_has_what_the_wheel_is_built_from_and_nothing_else(project):
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    folders = project["tool"]["setuptools"]["package-dir"].values()
    assert "*" in rules and allowed == {*folders, "pyproject.toml", "README.md", *project["project"]["license-files"]}


def test_the_image_is_not_run_as_root_and_keeps_what_it_writes_in_a_volume():
    values = dict(line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and line[0] not in "# ")
    assert values["USER"].isdecimal() and int(values["USER"]) > 0
    assert values["WORKDIR"] == values["VOLUME"] == "/workspace"
    assert json.loads(values["ENTRYPOINT"]) == ["korser"]


def test_the_image_installs_the_dependencies_of_the_project(project):
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)
    code = re.search(r'python -c "(.+?)" > ', DOCKERFILE)[1].replace("$EXTRAS", extras).replace("/tmp/", "")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    optional = project["project"]["optional-dependencies"]
    expected = [*project["project"]["dependencies"], *(name for extra in extras.split(",") for name in optional[extra])]
    assert done.stdout.splitlines() == expected


def test_every_extra_is_on_the_page_about_installation(project):
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE))
    assert listed == set(project["project"]["optional-dependencies"]) - {"test", "docs", "dev"}
