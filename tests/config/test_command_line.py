"""Command lines of settings files: SpeechBrain's run options and overrides."""

import tempfile
from pathlib import Path

import pytest
import speechbrain

from korser.config.command_line import RUN_OPTIONS, parse_arguments
from korser.config.shipped import SHIPPED, find_settings_file
from korser.utils.errors import UserError


def test_run_options_are_parsed_as_by_speechbrain():
    options = ["--grad_accumulation_factor=2", "--device", "cpu", "--precision=bf16", "--compile"]
    options += ["--max_grad_norm", "-1", "--compile_module_keys", "model", "--test_only", "--nonfinite_patience=2"]
    _, expected, _ = speechbrain.parse_arguments(["mel_stl.yaml", *options])
    path, overrides = parse_arguments(["mel_stl.yaml", *options])
    assert path == Path("mel_stl.yaml")
    assert overrides == {name: expected[name] for name in expected.overridden_args} and len(overrides) == 8
    assert overrides.keys() <= RUN_OPTIONS


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["--lr=0.1", "--backbone.bands.dropout", "0.3"], {"lr": "0.1", "backbone.bands.dropout": "0.3"}),
        (["--data_folder=/data/a=b", "--label_map={emotion: {a b: c}}"], None),
        (["--lr", "-1", "--seed=2"], {"lr": "-1", "seed": "2"}),
        (["--skip_nonfinite_grads=false", "--noprogressbar"], {"skip_nonfinite_grads": "false", "noprogressbar": True}),
        (["--grad_accum=2"], {"grad_accum": "2"}),  # names are not abbreviated: an unknown setting
    ],
)
def test_overrides(arguments, overrides):
    if overrides is None:
        overrides = {"data_folder": "/data/a=b", "label_map": "{emotion: {a b: c}}"}
    assert parse_arguments(["my.yaml", *arguments]) == (Path("my.yaml"), overrides)


def test_the_file_may_follow_the_options():
    assert parse_arguments(["--compile", "--lr=1", "my.yaml"]) == (Path("my.yaml"), {"compile": True, "lr": "1"})


def test_debugging_writes_to_a_temporary_folder():
    _, overrides = parse_arguments(["my.yaml", "--debug"])
    assert overrides["debug"] is True and Path(overrides["output_folder"]).parent == Path(tempfile.gettempdir())
    folder = Path(overrides["output_folder"])
    folder.rmdir()
    folder.symlink_to("/")
    with pytest.raises(UserError, match="is a link"):
        parse_arguments(["my.yaml", "--debug"])
    folder.unlink()
    assert parse_arguments(["my.yaml", "--debug", "--output_folder=here"])[1]["output_folder"] == "here"
    assert "output_folder" not in parse_arguments(["my.yaml", "--debug", "--debug_persistently"])[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr=0.1", "--seed", "2", "--lr", "0.2"], "--lr is given twice"),
        (["--device=cpu", "--device=cuda"], "--device is given twice"),
        (["--frontend.n_mels=40", "--frontend=!new:a.B"], "--frontend.n_mels is replaced by --frontend, .* first"),
        (["--precision=fp17"], "argument --precision: invalid choice: 'fp17'"),
        (["--grad_accumulation_factor"], "argument --grad_accumulation_factor: expected one argument"),
        (["--seed"], "--seed has no value"),
        (["lr=3"], "argument 'lr=3'"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        parse_arguments(["my.yaml", *arguments])


def test_shipped_files_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_settings_file("mel_stl.yaml") == SHIPPED / "mel_stl.yaml"
    (tmp_path / "mel_stl.yaml").touch()
    assert find_settings_file("mel_stl.yaml") == Path("mel_stl.yaml"), "a file of the working directory comes first"
    with pytest.raises(UserError, match="hparams/mel_stl.yaml: no such file"):
        find_settings_file("hparams/mel_stl.yaml")
