"""The settings of a model's YAML file: the only place, besides the default in base.yaml, that declares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, ValidationInfo

from korser.config.fields import (
    Device,
    DisplayName,
    Effect,
    Factory,
    FiniteNumber,
    Folder,
    Logger,
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    Proportion,
    Settings,
    Text,
    check,
    checked_by,
    complete_error,
    find_errors,
    keys_with,
)
from korser.config.layers import Layers
from korser.config.nodes import build_entries, keys_of, nodes
from korser.utils.errors import UserError
from korser.utils.text import shorten
from korser.utils.user_code import import_path

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = [
    "SAME_MODEL",
    "UNSUPPORTED_RUN_OPTIONS",
    "WITHOUT_EFFECT",
    "RunOptions",
    "TrainSettings",
    "check_settings",
    "find_invalid_values",
    "is_fitted",
]


def _require_one_interval(steps: int, info: ValidationInfo) -> int:
    if steps and info.data.get("ckpt_interval_minutes"):
        raise ValueError("expected 0, since ckpt_interval_minutes is set: set only one of them")
    return steps


class RunOptions(Settings):
    """SpeechBrain's run options (:class:`speechbrain.RunOptions`), which its Brain reads.

    Those without a default are stated by korser's base files; the defaults of the others are SpeechBrain's.
    """

    device: Annotated[Device | None, Effect.NONE]
    distributed_backend: Annotated[Literal["nccl", "gloo", "mpi"], Effect.NONE]
    precision: Literal["fp32", "fp16", "bf16"]
    max_grad_norm: FiniteNumber  # negative: no clipping
    nonfinite_patience: NonNegativeInt
    noprogressbar: Annotated[bool, Effect.NONE]
    ckpt_interval_minutes: Annotated[NonNegativeNumber, Effect.NONE]
    ckpt_interval_steps: Annotated[NonNegativeInt, Effect.NONE, AfterValidator(_require_one_interval)]

    debug: bool = False
    debug_batches: PositiveInt = 2
    debug_epochs: PositiveInt = 2
    debug_persistently: Annotated[bool, Effect.NONE] = False
    find_unused_parameters: bool = False
    compile: bool = False
    compile_module_keys: list[Text] | None = None
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    compile_using_fullgraph: bool = False
    compile_using_dynamic_shape_tracing: bool = False
    eval_precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    skip_nonfinite_grads: bool = False
    grad_accumulation_factor: PositiveInt = 1
    optimizer_step_limit: PositiveInt | None = None
    tqdm_colored_bar: Annotated[bool, Effect.NONE] = False
    tqdm_barcolor: Annotated[dict[Literal["train", "valid", "test"], str], Effect.NONE] = {}


# run options that korser does not pass on to SpeechBrain, and what to use in their place
UNSUPPORTED_RUN_OPTIONS = {
    "test_only": "evaluate a trained run with `korser evaluate`",
    "data_parallel_backend": "train on several GPUs with torchrun",
    "data_parallel_count": "train on several GPUs with torchrun",
    "distributed_launch": "it is set by torchrun",
    "jit": "use compile: true",
    "jit_module_keys": "use compile: true",
    "auto_mix_prec": "write precision: fp16",
    "bfloat16_mix_prec": "write precision: bf16",
    "remove_vector_weight_decay": "vectors never have weight decay",
    "log_config": "korser configures logging itself",
    "profile_training": "use torch.profiler",
    "profile_warmup": "use torch.profiler",
    "profile_steps": "use torch.profiler",
}


def _require_corpora(corpus: Any) -> None:
    from korser.corpora.union import adapters_by_name  # here: settings are declared and named without pandas

    adapters_by_name(corpus)


def _refuse_for_one_corpus(value: bool, info: ValidationInfo) -> bool:
    if value and isinstance(info.data.get("corpus"), str):
        raise ValueError("expected false, since there is one corpus; several are a list, corpus: [ravdess, emodb]")
    return value


def _require_backbone(backbone: Any) -> None:
    from torch import nn  # here: settings are declared and named without torch

    if not isinstance(backbone, nn.Module) or not isinstance(getattr(backbone, "output_size", None), int):
        raise UserError(
            f"backbone: {import_path(backbone)} has no integer output_size: expected !new: of an nn.Module that sets "
            "it to the size E of its embeddings (B, E)"
        )


def _require_frontend(frontend: Any) -> None:
    from korser.frontend.base import SAMPLE_RATE  # here: settings are declared and named without torch
    from korser.frontend.validation import require_frontend

    require_frontend(frontend)
    if frontend.in_channels is not None:
        raise UserError(
            f"frontend takes features at {frontend.input_rate:g} Hz: expected one that takes waveforms at "
            f"{SAMPLE_RATE} Hz, the rate of all audio"
        )


def is_fitted(head: Any) -> bool:
    """Return whether a head, or what the setting names, is fitted to embeddings rather than trained by gradients."""
    return hasattr(getattr(head, "func", head), "fit")


def _require_fit(head: Any, info: ValidationInfo) -> Any:
    if not is_fitted(head):
        return head
    for key in "frontend", "backbone":
        part = info.data.get(key)
        names = [name for name, p in part.named_parameters() if p.requires_grad] if part is not None else []
        if names:
            raise complete_error(
                f"head: {import_path(head)} is fitted to fixed embeddings, but {key} has trained parameters "
                f"({shorten(names)}): freeze it, or use a head that is trained, as in base.yaml"
            )
    return head


def _refuse_if_fitted(value: Any, info: ValidationInfo) -> Any:
    if value not in (None, False) and is_fitted(info.data.get("head")):
        expected = "false" if value is True else "null"
        raise ValueError(f"expected {expected}, since the head is fitted once, to all embeddings, without batches")
    return value


def _require_split(split: Any) -> Any:
    if "protocol" not in getattr(split, "keywords", {}):
        raise ValueError("expected !name:korser.data.splits.assign_splits {protocol: ...}")
    return split


def _refuse_lr(opt_class: Any) -> Any:
    if "lr" in getattr(opt_class, "keywords", {}):
        raise complete_error("opt_class.lr is replaced by the setting lr: set that one")
    return opt_class


def _require_limit(counter: Any, info: ValidationInfo) -> Any:
    n_epochs = info.data.get("n_epochs")
    if not isinstance(getattr(counter, "limit", None), int):
        raise ValueError("expected one of SpeechBrain's epoch counters, as in base.yaml")
    if n_epochs not in (None, counter.limit):
        raise complete_error(
            f"epoch_counter.limit={counter.limit}, but n_epochs={n_epochs}: write limit: !ref <n_epochs>"
        )
    return counter


def _require_tasks(tasks: list) -> list:
    from korser.nn.tasks import Task

    if not tasks or not all(isinstance(task, Task) for task in tasks):
        raise ValueError("expected a list of korser.Task objects, such as [!ref <emotion>, !ref <gender>]")
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each task once, got {', '.join(names)}")
    return tasks


class TrainSettings(RunOptions):
    """The settings of a model's YAML file, which may state keys of its own, too."""

    model_config = ConfigDict(extra="ignore")
    base_file = "base.yaml"

    seed: Annotated[NonNegativeInt, Effect.SAME_MODEL]
    label: Annotated[DisplayName | None, Effect.NONE] = None
    searched_in: Annotated[list[Text], Effect.NONE] = []  # folders of searches; written by the search
    comparison: Annotated[Text | None, Effect.NONE] = None  # its name; written by the comparison

    # data
    corpus: Annotated[Any, checked_by(_require_corpora)]  # a name, a list, or {name: adapter}
    data_folder: Annotated[Folder | dict[str, Folder], Effect.SAME_MODEL]  # of several corpora: {name: folder}
    corpus_options: dict
    label_map: dict
    common_classes: Annotated[bool, AfterValidator(_refuse_for_one_corpus)] = False
    split: Annotated[Factory, Effect.SAME_MODEL, AfterValidator(_require_split)]
    evaluate_test: Annotated[bool, Effect.SAME_MODEL]
    output_folder: Annotated[Folder, Effect.NONE]
    cache_folder: Annotated[Folder, Effect.NONE]

    # tasks
    tasks: Annotated[list, AfterValidator(_require_tasks)]
    class_weights: Literal["balanced"] | None
    label_smoothing: Annotated[Proportion, Effect.REFERENCED] = 0.0  # missing if nothing refers to it

    # model
    frontend: Annotated[Any, checked_by(_require_frontend)]
    backbone: Annotated[Factory, checked_by(_require_backbone)]
    head: Annotated[Factory, AfterValidator(_require_fit)]

    # training
    batch_size: PositiveInt
    lr: NonNegativeNumber
    n_epochs: PositiveInt
    patience: Annotated[PositiveInt, Effect.REFERENCED] = 1  # missing if nothing refers to it
    warmup: Proportion
    n_buckets: PositiveInt
    balance_corpora: Annotated[bool, AfterValidator(_refuse_if_fitted), AfterValidator(_refuse_for_one_corpus)] = False
    opt_class: Annotated[Factory, AfterValidator(_refuse_lr)]
    lr_scheduler: Factory | None  # null: a constant learning rate
    epoch_counter: Annotated[Any, AfterValidator(_require_limit)]
    augment: Factory | None
    wav_augment: Annotated[Factory | None, AfterValidator(_refuse_if_fitted)]

    # how it runs
    check_contract: Annotated[bool, Effect.NONE]
    num_workers: Annotated[NonNegativeInt, Effect.NONE]
    memory_gb: Annotated[NonNegativeNumber, Effect.NONE]
    cuda_graphs: Annotated[bool, Effect.NONE]
    resident: Annotated[bool, Effect.NONE]
    use_cache: Annotated[bool, Effect.SAME_MODEL]
    cache_dtype: Literal["float32", "float16", "bfloat16"]
    extraction_precision: Literal["fp32", "bf16"]
    extraction_seconds: Annotated[PositiveNumber | None, Effect.NONE]
    logger: Annotated[Logger | None, Effect.NONE]


WITHOUT_EFFECT = keys_with(TrainSettings, Effect.NONE)
# what may differ between runs of one model; __set_seed is the key of base.yaml that seeds the initial weights
SAME_MODEL = keys_with(TrainSettings, Effect.NONE, Effect.SAME_MODEL) | {"__set_seed"}


def check_settings(hparams: HParams) -> None:
    """Check the values of all settings of a model's YAML file; raise one UserError for all that is wrong."""
    check(TrainSettings, hparams, f"{hparams.name}.yaml")


def find_invalid_values(layers: Layers) -> list[str]:
    """Find settings of a model that are missing, or of a wrong type or range and no objects, before any is built."""
    keys = keys_of(layers.root)
    known = [(key, value) for key, value in layers.root.value if key.value in TrainSettings.model_fields]
    values = [(key, value) for key, value in known if not any(n.tag.startswith("!") for n in nodes(value))]
    if "frontend" not in keys or not values:  # a frontend alone can be checked, but not trained
        return []
    try:
        loaded = build_entries(values)
    except Exception:  # whatever ruamel refuses: reported when the settings are resolved
        return []
    return [f"{layers.path.name}: {line}" for line in find_errors(TrainSettings, loaded, keys)]
