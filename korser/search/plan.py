"""What the search of one model will do, checked before the first trial."""

import logging
from dataclasses import dataclass
from pathlib import Path

from korser.config.hparams import load_hparams, run_name
from korser.config.schema import check_settings
from korser.data.load_split import load_split
from korser.search.space import check_values, grid_cells, has_effect, make_axis
from korser.training.prepare import has_pretrained_encoders
from korser.training.tasks import labelled_tasks
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchPlan:
    """The search of one model.

    Parameters
    ----------
    yaml : Path
        The model's YAML file.
    folder : Path
        Of the search: storage, tables, and the runs' folders under ``runs``.
    overrides : dict
        What the user set for all trials.
    fixed : dict
        The same with what the search itself sets.
    axes : list of korser.search.space.Axis
    main_task : str
        Whose validation UAR is the objective.
    corpus : dict
        ``corpus``, ``synthetic``, ``pretrained``, ``data`` (what divided it), ``speakers`` (of the training and validation parts).
    study : str
        The study's name in the storage; another space, model, sampler or code is another study.
    """

    yaml: Path
    folder: Path
    overrides: dict
    fixed: dict
    axes: list
    main_task: str
    corpus: dict
    study: str

    @property
    def model(self):
        return self.yaml.stem

    def run(self, values):
        """The name of the run's folder with some values of the axes."""
        return run_name(self.yaml, {**self.fixed, **values})

    def cells(self):
        """Every cell of the grid, as ``{run: values}``; cells that are the same run are there once."""
        runs = {}
        for values in grid_cells(self.axes):
            runs.setdefault(self.run(values), values)
        return runs


def make_plan(settings, yaml):
    """Check everything that the search of a model needs.

    Parameters
    ----------
    settings : korser.search.settings.SearchSettings
    yaml : Path

    Returns
    -------
    SearchPlan

    Raises
    ------
    UserError
        If a setting of the space is unknown or one of its values cannot be, or there is nothing to validate on.
    """
    fixed = {
        "seed": settings.seed,
        **settings.overrides,
        "cache_folder": settings.cache_folder,
        "output_folder": settings.output_folder,
        "evaluate_test": False,
        "noprogressbar": True,
    }
    hparams = load_hparams(yaml, fixed)
    check_settings(hparams)
    corpus, tasks, table = _read_corpus(hparams)
    axes = [make_axis(name, values) for name, values in settings.space.items()]
    trained = [task.name for task in tasks]
    idle = [axis.name for axis in axes if not has_effect(axis.name, hparams, trained)]
    if idle:
        logger.info("%s is searched without %s: it trains %s alone", yaml.stem, ", ".join(idle), ", ".join(trained))
    axes = [axis for axis in axes if axis.name not in idle]
    if not axes:
        raise UserError(f"space: {yaml.stem} has nothing to search, since it trains {', '.join(trained)} alone")
    made = check_values(yaml, fixed, axes, {task.name: task.classes for task in tasks})
    if settings.sampler is None:
        for axis in axes:
            axis.grid()  # refuses a range without steps
    space = {axis.name: repr(axis.distribution) for axis in axes}
    data = table[["id", "speaker", "split", *trained]].to_csv(index=False)
    identity = [hparams.digest(), made, data, space, settings.method, settings.seed]
    if settings.storage is not None:  # the lock is that of the folder
        identity.append(str(Path(settings.output_folder).resolve()))
    return SearchPlan(
        yaml=yaml,
        folder=Path(settings.output_folder) / "search" / yaml.stem,
        overrides=dict(settings.overrides),
        fixed=fixed,
        axes=axes,
        main_task=trained[0],
        corpus=corpus,
        study=f"{yaml.stem}-{digest(identity, length=8)}",
    )


def _read_corpus(hparams):
    """What a search's results say about the corpus, and the tasks that can be trained on it; no audio is read."""
    corpus, table = load_split(hparams)  # a search does not evaluate the test part, so it is not there
    protocol = hparams["split"].keywords["protocol"]
    if not (table["split"] == "valid").any():
        raise UserError(
            f"split protocol {protocol}: the validation part is empty, and a search chooses by validation UAR: "
            "--overrides.split.valid=0.15, or another protocol"
        )
    tasks = labelled_tasks(hparams["tasks"], corpus, table)
    described = {
        "corpus": corpus.name,
        "synthetic": corpus.synthetic,
        "pretrained": has_pretrained_encoders(hparams["frontend"]),
        "data": {
            "data_folder": hparams["data_folder"],
            "corpus_options": hparams["corpus_options"],
            "label_map": hparams["label_map"],
            "split": hparams["split"].keywords,
        },
        "speakers": sorted(table["speaker"].dropna().unique()),
    }
    return described, tasks, table
