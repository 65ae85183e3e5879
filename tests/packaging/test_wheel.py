"""The wheel: what it contains, and that it works outside the clone."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from korser.config.shipped import SHIPPED

PARTS = {"korser": "korser", "korser.plugins": "plugins", "korser.hparams": "hparams", "korser.recipes": "recipes"}


def test_every_package_is_listed():
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == PARTS
    found = set()
    for package, folder in PARTS.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    assert sorted(settings["packages"]) == sorted(found)


def test_every_module_is_in_a_package():
    folders = {path.parent for part in PARTS.values() for path in (ROOT / part).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the tracked files, so that no build folder is left in the clone."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(dist)], cwd=source, check=True, capture_output=True)
    (path,) = dist.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_contains_everything(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"korser", f"{wheel.name.split('-py3')[0]}.dist-info"}
    expected = {"korser/py.typed"}
    for package, part in PARTS.items():
        inside = package.replace(".", "/")
        for path in (ROOT / part).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                expected.add(f"{inside}/{path.relative_to(ROOT / part).as_posix()}")
    assert expected - names == set()
    assert {name for name in names if name.startswith("korser/")} - expected == set()


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Install the wheel into a new environment that has the dependencies of this one, and nothing of the clone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))  # the .pth files in those folders are not read
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return folder / "bin" / "korser"


@pytest.mark.slow
def test_the_wheel_trains_outside_the_clone(environment, tiny_corpus, tmp_path):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def korser(*arguments):
        done = subprocess.run([environment, *arguments], cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    settings = ["--corpus=csv", f"--data_folder={tiny_corpus}", "--n_epochs=1", "--noprogressbar"]
    assert "Everything is in results/mel_stl-" in korser("train", "mel_stl.yaml", *settings)
    (run_dir,) = (tmp_path / "results").glob("mel_stl-*")
    assert "wav2vec_stl-" in korser("train", "wav2vec_stl.yaml", *settings), "the shipped encoder is found"
    assert "joy" in korser("predict", run_dir, tiny_corpus / "s0_joy_1.wav")
    code = "import korser.plugins, korser.hparams, korser; print(*korser.plugins.__path__, korser.__file__)"
    python = environment.with_name("python")
    where = subprocess.run([python, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True).stdout
    assert len(where.split()) == 2 and all(str(environment.parents[1]) in path for path in where.split())
    assert {path.name for path in tmp_path.iterdir()} == {"results", "cache"}, "runs and caches are written here"
    assert Path(SHIPPED) == ROOT / "hparams", "this process uses the clone"
