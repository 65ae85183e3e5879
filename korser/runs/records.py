"""The types of the values in the JSON files of runs, searches and comparisons.

:func:`korser.utils.files.read_json` refuses other types. A key that is not marked as required may be missing, and there
may be more keys: the files of other versions are read, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from typing_extensions import NotRequired, Required, TypedDict  # of typing: pydantic takes them from Python 3.12 on

__all__ = [
    "SEARCH_RESULTS",
    "ComparisonRecord",
    "ConditionRecord",
    "Cost",
    "Metrics",
    "RunInfo",
    "SearchRecord",
    "StageParameters",
    "TrackingRecord",
]


class Record(TypedDict):
    """A JSON object that may have more keys."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")


class NoteRecord(TypedDict):
    """A :class:`korser.utils.notes.Note`."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    code: str
    text: str


# -- run.json ----------------------------------------------------------------------------------------------------------
class TaskRecord(TypedDict):
    """A :class:`korser.nn.tasks.Task`."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    name: str
    weight: NotRequired[float]
    kind: Literal["classes", "ordinal", "number", "distribution"]
    classes: list[str]
    loss: NotRequired[Literal["ccc", "mse"] | None]
    scaling: NotRequired[list[float] | None]
    raters: NotRequired[list[str]]
    consensus: NotRequired[str | None]


class StageRecord(Record, total=False):
    """A frontend with weights of its own."""

    stage: str
    source: Required[str | None]
    config: Required[str | None]


class FrozenStageRecord(StageRecord):
    """A frozen frontend."""

    stage: Required[str]
    weights: Required[str]


class CheckpointRecord(Record):
    """A checkpoint of an encoder."""

    name: str
    revision: str | None
    version: str | None


class Environment(Record, total=False):
    """Machine and libraries."""

    python: str
    platform: str
    device: str
    threads: int
    command: list[str]
    versions: dict[str, str | None]
    korser_source: str


class CorpusRecord(Record):
    """One of several corpora of a run: utterances in each split, and a digest of the recordings."""

    train: int
    valid: int
    test: int
    recordings: str


class RunInfo(Record, total=False):
    """``run.json``."""

    model: str
    yaml_folders: list[str]
    working_folder: str
    corpus: str
    corpora: dict[str, CorpusRecord]
    synthetic: bool
    identified_by_folder: bool
    protocol: str
    split: dict[str, Any]
    speaker_independent: bool
    searched_on: list[str]
    warnings: list[NoteRecord]
    seed: int
    tasks: list[TaskRecord]
    pretrained: bool | None
    check_contract: bool
    settings: str
    settings_except_epochs: str
    code: dict[str, str]
    files: dict[str, str]
    frozen: list[FrozenStageRecord]
    initialised_from: list[StageRecord]
    checkpoints: list[CheckpointRecord]
    encoders: dict[str, str]
    environment: Environment
    signature: str | None


# -- metrics.json, cost.json and others --------------------------------------------------------------------------------
class Entry(Record, total=False):
    """A metric, or the recall of a class."""

    value: Required[float | None]
    low: Required[float | None]
    high: Required[float | None]
    note: str
    n: int
    n_speakers: int


class Scores(Record, total=False):
    """Metrics of a task."""

    accuracy: Entry
    uar: Entry
    macro_f1: Entry
    qwk: Entry
    mae_levels: Entry
    ccc: Entry
    pearson: Entry
    mae: Entry


class RatersRecord(Scores, total=False):
    """Metrics of each rater against the consensus of the others."""

    consensus: str
    n_raters: int
    n: int
    n_votes: int


class TaskMetrics(Scores, total=False):
    """What :func:`korser.metrics.evaluate.evaluate_predictions` returns for a task."""

    n: Required[int]
    n_speakers: Required[int]
    classes: list[str]
    confusion: list[list[int]]
    ece: Entry
    recall: dict[str, Entry]
    jsd: Entry
    cross_entropy: Entry
    raters: RatersRecord
    cautions: list[NoteRecord]


class Metrics(Record, total=False):
    """``metrics.json``."""

    valid: dict[str, TaskMetrics]
    test: dict[str, TaskMetrics]
    best_epoch: int | None
    warnings: list[NoteRecord]


class Cost(Record, total=False):
    """``cost.json``."""

    parameters: int
    trainable_parameters: int
    train_seconds: float
    peak_memory_bytes: int
    peak_memory_of: str
    device: str
    macs_per_second: float | None
    macs_not_counted: list[str]


class Quantity(Record):
    """A quantity of a frontend before and after training."""

    unit: str
    initial: list[float]
    trained: list[float]


class StageParameters(Record):
    """An entry of ``interpretable_parameters.json``."""

    stage: str
    quantities: dict[str, Quantity]


class ConditionRecord(Record):
    """An entry of ``robustness/conditions.json``."""

    name: str
    kind: str
    value: float | None
    unit: str
    made_from: str


class TrackingRecord(Record):
    """``tracking.json``."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


# -- search.json and comparison.json -----------------------------------------------------------------------------------
class RunnerUp(Record):
    """The second best trial of a search."""

    settings: dict[str, Any]
    valid_uar: NotRequired[float]
    valid_ccc: NotRequired[float]
    difference: float
    low: float | None
    high: float | None
    n_speakers: int
    verdict: str
    note: str


class SearchedData(Record):
    """The data of a search."""

    data_folder: str | dict[str, str]
    split: NotRequired[dict[str, Any]]


class SearchRecord(Record, total=False):
    """``search.json``."""

    model: str
    corpus: str
    synthetic: bool
    pretrained: bool | None
    data: SearchedData
    speakers: list[str]
    objective: str
    metric: Literal["uar", "ccc"]
    space: list[str]
    best: dict[str, Any]
    valid_uar: float | None  # what was maximised: one of these
    valid_ccc: float | None
    run_dir: str | None
    runner_up: RunnerUp | None
    complete: bool
    n_complete: int
    n_trials: int
    warnings: list[NoteRecord]


SEARCH_RESULTS = tuple(  # what every search writes
    key for key in SearchRecord.__annotations__ if key not in ("warnings", "valid_uar", "valid_ccc")
)


class PlannedRunRecord(Record):
    """A run of a comparison."""

    run: str
    failed: str | None
    searched_on_tested_speakers: list[str]


class ComparisonSettings(Record, total=False):
    """The settings of a comparison that its readers use."""

    metric: str | None
    questions: Required[list[Any] | None]


class ComparisonRecord(Record, total=False):
    """``comparison.json``."""

    settings: Required[ComparisonSettings]
    corpus: str
    protocol: str
    names: dict[str, str]  # of models in tables and figures
    runs: Required[list[PlannedRunRecord]]
