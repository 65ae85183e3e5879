"""Values of the settings of a model's YAML file."""

import functools

import pytest
import speechbrain as sb
from conftest import HPARAMS
from speechbrain.utils.epoch_loop import EpochCounter

from korser import Task
from korser.config.fields import check
from korser.config.hparams import load_hparams
from korser.config.schema import UNSUPPORTED_RUN_OPTIONS, RunOptions, TrainSettings, check_settings
from korser.utils.errors import UserError


@pytest.fixture(scope="module")
def mel():
    return load_hparams(HPARAMS / "mel_stl.yaml")


def errors_of(hparams, **changes):
    try:
        check(TrainSettings, {**hparams, **changes}, "mel_stl.yaml")
    except UserError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("batch_size", 0, "mel_stl.yaml: batch_size=0: expected an integer >= 1"),
        ("batch_size", 2.0, "batch_size=2.0: expected an integer >= 1"),
        ("seed", True, "seed=true: expected an integer >= 0"),
        ("lr", "fast", "lr=fast: expected a number >= 0"),
        ("lr", float("inf"), "lr=.inf: expected a number >= 0"),
        ("warmup", 1.5, "warmup=1.5: expected a number from 0 to 1"),
        ("extraction_seconds", 0, "extraction_seconds=0: expected a number > 0 or null"),
        ("cache_dtype", "fp16", "cache_dtype=fp16: expected float32 or float16 or bfloat16"),
        ("class_weights", "equal", "class_weights=equal: expected balanced or null"),
        ("output_folder", "", "output_folder='': expected the path of a folder"),
        ("label_map", None, "label_map=null: expected a mapping ({} for none)"),
        ("check_contract", 1, "check_contract=1: expected true or false"),
        ("head", None, "head=null: expected an object (!new:my.Class) or a function"),
        ("split", {"protocol": "speaker_kfold"}, "write 'split.protocol: speaker_kfold'"),
        ("tasks", ["emotion"], "tasks=[emotion]: expected a list of korser.Task objects"),
        (
            "tasks",
            [Task("gender"), Task("emotion"), Task("gender")],
            "expected each task once, got gender, emotion, ",
        ),
        ("device", "gpu0", "device=gpu0: cannot use this device: "),
        ("device", "meta", "device=meta: expected cpu, cuda, cuda:N or mps, as far as this machine has them"),
        ("ckpt_interval_steps", 3, "ckpt_interval_steps=3: expected 0, since ckpt_interval_minutes is set"),
        ("debug_epochs", 0, "debug_epochs=0: expected an integer >= 1"),
        ("split", functools.partial(print), "split=partial: expected !name:korser.data.splits.assign_splits {protocol"),
        ("opt_class", functools.partial(print, lr=1), "opt_class.lr is replaced by the setting lr"),
        ("epoch_counter", 3, "epoch_counter=3: expected one of SpeechBrain's epoch counters"),
        ("epoch_counter", EpochCounter(limit=3), "epoch_counter.limit=3, but n_epochs=30"),
        ("precision", "fp8", "precision=fp8: expected fp32 or fp16 or bf16"),
    ],
)
def test_a_wrong_value(mel, key, value, message):
    (line,) = errors_of(mel, **{key: value})
    assert message in line


@pytest.mark.parametrize("key", ["lr_scheduler", "augment", "wav_augment", "extraction_seconds", "device"])
def test_settings_that_may_be_null(mel, key):
    assert errors_of(mel, **{key: None}) == []


def test_all_wrong_values_are_reported_together(mel):
    lines = errors_of(mel, batch_size=0, lr=-1, frontend=3, device="gpu0")
    assert len(lines) == 4 and all(line.startswith("mel_stl.yaml: ") for line in lines)


def test_missing_settings_are_reported_in_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("frontend: !new:korser.plugins.frontends.mel.Mel {}\nbatch_size: 0\n")
    with pytest.raises(UserError) as error:
        check_settings(load_hparams(tmp_path / "mine.yaml"))
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert any("mine.yaml: missing device, " in line and "add 'base: base.yaml'" in line for line in lines)


@pytest.mark.parametrize(
    "name, value, message", [("in_channels", 3, "takes features at"), ("input_rate", 8000, "input_rate=8000")]
)
def test_a_frontend_that_does_not_take_waveforms_at_16_khz(name, value, message):
    hparams = load_hparams(HPARAMS / "mel_stl.yaml")
    setattr(hparams["frontend"], name, value)
    with pytest.raises(UserError, match=message):
        check_settings(hparams)


def test_a_frontend_with_lazy_layers(tmp_path):
    (tmp_path / "lazy_frontend.py").write_text(
        "import torch\nfrom korser import Frontend\n\nclass Lazy(Frontend):\n    def __init__(self):\n"
        "        super().__init__(output_size=8, frame_rate=100)\n        self.conv = torch.nn.LazyConv1d(8, 400)\n"
    )
    (tmp_path / "my.yaml").write_text("base: mel_stl.yaml\nfrontend: !new:lazy_frontend.Lazy\n")
    with pytest.raises(UserError, match="conv.weight has no size yet"):
        check_settings(load_hparams(tmp_path / "my.yaml"))


def test_run_options_are_those_of_speechbrain():
    options = sb.RunOptions.__dataclass_fields__
    own = {"param_file", "overridden_args"}  # SpeechBrain's bookkeeping
    assert {*RunOptions.model_fields, *UNSUPPORTED_RUN_OPTIONS} == {*options} - own
    defaults = sb.RunOptions()
    for name, field in RunOptions.model_fields.items():
        if not field.is_required() and name != "tqdm_barcolor":
            assert field.default == getattr(defaults, name), name


def test_base_yaml_states_every_setting(mel):
    assert {key for key, field in TrainSettings.model_fields.items() if field.is_required()} <= {*mel}


def test_all_wrong_types_ranges_and_names_of_a_file_are_reported_before_anything_is_built(tmp_path):
    (tmp_path / "my.yaml").write_text("base: mel_stl.yaml\nbatch_size: 0\nfrontend.n_mel: 3\n")
    with pytest.raises(UserError) as error:
        load_hparams(tmp_path / "my.yaml", {"lr": -1, "seed": "two", "gender_weight": 0.5})
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    for name in (
        "batch_size=0",
        "frontend.n_mel",
        "lr=-1",
        "seed=two",
        "'gender_weight' has no",
    ):
        assert sum(name in line for line in lines) == 1, name
