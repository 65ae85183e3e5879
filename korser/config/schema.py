"""The settings of a model's YAML file: the only place, besides the default in base.yaml, that declares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, ValidationInfo

from korser.config.fields import (
    Device,
    Effect,
    Factory,
    FiniteNumber,
    Folder,
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    Proportion,
    Settings,
    Text,
    check,
    checked_by,
    keys_with,
)
from korser.utils.errors import UserError

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = [
    "SAME_MODEL",
    "UNSUPPORTED_RUN_OPTIONS",
    "WITHOUT_EFFECT",
    "RunOptions",
    "TrainSettings",
    "check_settings",
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
    jit: bool = False
    jit_module_keys: list[Text] | None = None
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
    tqdm_barcolor: Annotated[dict[str, str] | None, Effect.NONE] = None


# run options that korser does not pass on to SpeechBrain, and what to use in their place
UNSUPPORTED_RUN_OPTIONS = {
    "test_only": "evaluate a trained run with `korser evaluate`",
    "data_parallel_backend": "train on several GPUs with torchrun",
    "data_parallel_count": "train on several GPUs with torchrun",
    "distributed_launch": "it is set by torchrun",
    "auto_mix_prec": "write precision: fp16",
    "bfloat16_mix_prec": "write precision: bf16",
    "remove_vector_weight_decay": "vectors never have weight decay",
    "log_config": "korser configures logging itself",
    "profile_training": "use torch.profiler",
    "profile_warmup": "use torch.profiler",
    "profile_steps": "use torch.profiler",
}


def _require_backbone(backbone: Any) -> None:
    if not isinstance(getattr(backbone, "output_size", None), int):
        named = backbone if isinstance(backbone, type) else type(backbone)
        raise UserError(
            f"backbone: {named.__module__}.{named.__qualname__} has no integer output_size: expected !new: of an "
            "nn.Module that sets it to the size E of its embeddings (B, E)"
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


def _require_tasks(tasks: list) -> list:
    from korser.nn.tasks import Task

    if not tasks or not all(isinstance(task, Task) for task in tasks):
        raise ValueError("expected a list of korser.Task objects, such as [!ref <emotion>, !ref <gender>]")
    return tasks


class TrainSettings(RunOptions):
    """The settings of a model's YAML file, which may state keys of its own, too."""

    model_config = ConfigDict(extra="ignore")
    base_file = "base.yaml"

    seed: Annotated[NonNegativeInt, Effect.SAME_MODEL]

    # data
    corpus: Text
    data_folder: Annotated[Folder, Effect.SAME_MODEL]
    corpus_options: dict
    label_map: dict
    split: Annotated[Factory, Effect.SAME_MODEL]
    evaluate_test: Annotated[bool, Effect.SAME_MODEL]
    output_folder: Annotated[Folder, Effect.NONE]
    cache_folder: Annotated[Folder, Effect.NONE]

    # tasks
    tasks: Annotated[list, AfterValidator(_require_tasks)]
    class_weights: Literal["balanced"] | None
    label_smoothing: Proportion

    # model
    frontend: Annotated[Any, checked_by(_require_frontend)]
    backbone: Annotated[Factory, checked_by(_require_backbone)]
    head: Factory

    # training
    batch_size: PositiveInt
    lr: NonNegativeNumber
    n_epochs: PositiveInt
    patience: PositiveInt
    warmup: Proportion
    n_buckets: PositiveInt
    opt_class: Factory
    lr_scheduler: Factory | None  # null: a constant learning rate
    epoch_counter: Any
    augment: Factory | None
    wav_augment: Factory | None

    # how it runs
    check_contract: Annotated[bool, Effect.NONE]
    num_workers: Annotated[NonNegativeInt, Effect.NONE]
    memory_gb: Annotated[NonNegativeNumber, Effect.SAME_MODEL]
    cuda_graphs: Annotated[bool, Effect.NONE]
    resident: Annotated[bool, Effect.NONE]
    use_cache: Annotated[bool, Effect.SAME_MODEL]
    cache_dtype: Literal["float32", "float16", "bfloat16"]
    extraction_precision: Literal["fp32", "bf16"]
    extraction_seconds: Annotated[PositiveNumber | None, Effect.NONE]
    tensorboard: Annotated[bool, Effect.NONE]


WITHOUT_EFFECT = keys_with(TrainSettings, Effect.NONE)
# what may differ between runs of one model; __set_seed is the key of base.yaml that seeds the initial weights
SAME_MODEL = keys_with(TrainSettings, Effect.NONE, Effect.SAME_MODEL) | {"__set_seed"}


def check_settings(hparams: HParams) -> None:
    """Check the values of all settings of a model's YAML file.

    Raises
    ------
    UserError
        All that is wrong, one line each.
    """
    check(TrainSettings, hparams, f"{hparams.name}.yaml")
