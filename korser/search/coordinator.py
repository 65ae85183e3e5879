"""The one process that asks Optuna for settings, gives runs to workers and tells Optuna what came of them.

What has been done is read from the storage and from the run directories, so that it can be killed at any moment: the
same command goes on. Optuna's own GridSampler counts a failed cell as visited (optuna issues 3256, 6283), and its
samplers draw from generators whose state dies with the process. Here each cell that has no result is enqueued, and each
draw has a sampler of its own, seeded by its number.
"""

import hashlib
import logging
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import TrialState
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from korser.runs.directory import SEARCH_FILE, RunDirectory
from korser.search.plan import make_plan
from korser.search.report import summary, write_results
from korser.utils.errors import UserError
from korser.utils.files import locked, read_json
from korser.workers import Job

POLL = 0.5  # seconds between looks at the logs of running trials, where there is a pruner
FINAL = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}  # never run again

logger = logging.getLogger(__name__)


@dataclass
class Cell:
    """One choice of settings.

    Parameters
    ----------
    index : int
        Its place in the grid, or the number of its draw.
    values : dict
    run : str
        Name of the run's folder.
    state : str
        ``waiting``, ``running``, ``complete``, ``pruned``, ``out of memory``, ``refused`` or ``failed``.
    message : str
    result : dict
        Of a complete one: ``valid_uar``, ``low``, ``high``, ``best_epoch``, ``seconds``.
    """

    index: int
    values: dict
    run: str
    state: str = "waiting"
    message: str = ""
    result: dict = field(default_factory=dict)


def search(settings, workers, say=None):
    """Search for the best settings of each model; what has been done is not done again.

    Parameters
    ----------
    settings : korser.search.settings.SearchSettings
    workers : korser.workers.Workers
        From :func:`korser.workers.open_workers`, with nothing pending.
    say : callable, optional
        Takes what there is to print about a model as soon as its search has ended.

    Returns
    -------
    list of str
        The same.

    Raises
    ------
    UserError
        If a setting, the data or the storage are at fault: before the first trial of any model. At the end, if a model
        has no trial with a result.
    """
    plans = [make_plan(settings, yaml) for yaml in settings.models]
    texts = []
    for plan in plans:
        texts.append(Searcher(plan, settings, workers).run())
        if say is not None:
            say(texts[-1] + "\n")
    empty = [plan.model for plan in plans if not read_json(plan.folder / SEARCH_FILE)["n_complete"]]
    if empty:
        raise UserError(f"no trial of {', '.join(empty)} has a result: trials.csv in its search's folder says why")
    return texts


class Searcher:
    """The search of one model.

    Parameters
    ----------
    plan : korser.search.plan.SearchPlan
    settings : korser.search.settings.SearchSettings
    workers : korser.workers.Workers
    """

    def __init__(self, plan, settings, workers):
        self.plan, self.settings, self.workers = plan, settings, workers
        self.runs = plan.folder / "runs"
        self.distributions = {axis.name: axis.distribution for axis in plan.axes}
        self.cells = {}  # by run, in the order of their index
        self.waiting = deque()
        self.running = {}  # run: (job, its trials, epochs reported)
        self.n_drawn = 0
        self.bar = None
        self.refusals = set()

    def run(self):
        """Search to the end; gives what to print.

        Raises
        ------
        UserError
            If the storage fails, or all settings are refused for one reason.
        """
        try:
            return self._run()
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            raise UserError(
                f"the storage failed ({' '.join(str(error.__cause__ or error).split())}): is its disk full, or another "
                "search in it? The same command goes on from here"
            ) from error

    def _run(self):
        with locked(self.plan.folder):
            self.study = open_study(self.settings, self.plan)
            self.resume()
            self.write()
            with logging_redirect_tqdm(), self.make_bar() as self.bar:
                while True:
                    while self.workers.pending < self.workers.n and self.start_next():
                        pass
                    if not self.running:
                        break
                    outcome = self.workers.next(timeout=POLL if self.settings.pruner else None)
                    if self.settings.pruner:
                        self.report_epochs()
                    if outcome is not None:
                        self.finish(outcome)
            results = self.write()
        return summary(
            self.plan, self.cells.values(), results, storage_url(self.settings, self.plan, hide_password=True)
        )

    # -- what has been done ------------------------------------------------------------------------------------------
    def resume(self):
        """Take up what the storage and the run directories say; trials of a killed coordinator have failed."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
        while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.tell(self.study.ask(), state=TrialState.FAIL)  # enqueued, and killed before it was asked for
        trials = [trial for trial in self.study.get_trials(deepcopy=False) if "cell" in trial.user_attrs]
        if self.settings.sampler is None:
            for index, (run, values) in enumerate(self.plan.cells().items()):
                self.cells[run] = Cell(index, values, run)
        else:
            drawn = [trial for trial in trials if trial.params.keys() == self.distributions.keys()]
            for trial in sorted(drawn, key=lambda trial: trial.user_attrs["cell"]):
                run = trial.user_attrs["run"]
                values = {name: trial.params[name] for name in self.distributions}
                self.cells.setdefault(run, Cell(trial.user_attrs["cell"], values, run))
            self.n_drawn = len({trial.user_attrs["cell"] for trial in trials})
        for trial in trials:
            if trial.state in FINAL:
                self.take_up(self.cells[trial.user_attrs["run"]], trial)
        self.waiting.extend(cell for cell in self.cells.values() if cell.state == "waiting")
        self.untouched = not any(cell.state in FINAL.values() for cell in self.cells.values())

    def take_up(self, cell, trial):
        """What a trial of an earlier invocation came to, unless its run directory has been deleted since."""
        if trial.state is TrialState.PRUNED:
            cell.state, cell.message = "pruned", trial.user_attrs.get("message", "")
        elif RunDirectory(self.runs / cell.run).complete:
            cell.state, cell.result = "complete", read_result(self.runs / cell.run, self.plan.main_task)

    # -- trials ------------------------------------------------------------------------------------------------------
    def start_next(self):
        """Start the next trial; False if there is none."""
        if self.waiting:
            cell = self.waiting.popleft()
            self.study.enqueue_trial(cell.values, user_attrs={"run": cell.run, "cell": cell.index})
            trial = self.study.ask(self.distributions)
        elif self.settings.sampler is not None and self.n_drawn < self.settings.n_trials:
            cell, trial = self.draw()
        else:
            return False
        if cell.run in self.running:  # drawn twice
            self.running[cell.run][1].append(trial)
        elif cell.state != "waiting":
            self.tell(trial, cell)
            self.bar.update()
        else:
            cell.state = "running"
            job = Job(str(self.plan.yaml), {**self.plan.fixed, **cell.values}, str(self.runs / cell.run))
            self.running[cell.run] = job, [trial], set()
            self.workers.submit(job)
        return True

    def draw(self):
        """Ask the sampler; its seed is the draw's number, so that it does not matter what was interrupted before."""
        digest = hashlib.sha256(f"{self.settings.seed} {self.n_drawn}".encode()).digest()
        self.study.sampler = self.settings.sampler(seed=int.from_bytes(digest[:4], "big"))
        trial = self.study.ask(self.distributions)
        values = {name: trial.params[name] for name in self.distributions}
        run = self.plan.run(values)
        trial.set_user_attr("run", run)
        trial.set_user_attr("cell", self.n_drawn)  # the last: without it the draw is made again
        cell = self.cells.setdefault(run, Cell(self.n_drawn, values, run))
        self.n_drawn += 1
        return cell, trial

    def report_epochs(self):
        """Tell the pruner of epochs that have ended, and stop the runs that it gives up."""
        for run, (job, trials, reported) in self.running.items():
            for epoch, uar in read_epochs(self.runs / run, self.plan.main_task):
                if epoch in reported:
                    continue
                reported.add(epoch)
                for trial in trials:
                    trial.report(uar, epoch)
                if trials[0].should_prune():
                    self.workers.prune(job)

    def finish(self, outcome):
        """Record how a run ended."""
        run = self.runs.joinpath(outcome.job.run_dir).name
        cell = self.cells[run]
        cell.state, cell.message = outcome.state, outcome.message
        if outcome.state == "complete":
            cell.result = read_result(self.runs / run, self.plan.main_task)
            if cell.result["valid_uar"] is None:
                cell.state, cell.message = "failed", f"the validation UAR of {self.plan.main_task} is undefined"
        _, trials, _ = self.running.pop(run)
        for trial in trials:
            self.tell(trial, cell)
            self.bar.update()
        self.write()
        if cell.state == "refused" and self.untouched:
            reason = cell.message.replace(cell.run, "")
            if reason in self.refusals or not (self.waiting or self.running):  # not this setting's own fault
                raise UserError(cell.message)
            self.refusals.add(reason)
        else:
            self.untouched = False
        if cell.state not in FINAL.values():
            logger.warning("trial %d (%s): %s: %s", cell.index, _written(cell.values), cell.state, cell.message)

    def tell(self, trial, cell):
        """Tell Optuna the state of a cell that has ended."""
        if cell.message:
            trial.set_user_attr("message", cell.message)
        trial.set_user_attr("state", cell.state)
        if cell.state == "complete":
            self.study.tell(trial, cell.result["valid_uar"])
        else:
            self.study.tell(trial, state=TrialState.PRUNED if cell.state == "pruned" else TrialState.FAIL)

    # -- what is shown -----------------------------------------------------------------------------------------------
    def write(self):
        """Bring the tables up to date; gives what ``search.json`` holds."""
        cells = sorted(self.cells.values(), key=lambda cell: cell.index)
        drawn = self.settings.sampler is None or self.n_drawn >= self.settings.n_trials
        results = write_results(
            self.plan, cells, complete=drawn and not any(c.state in ("waiting", "running") for c in cells)
        )
        if results["best"] and self.bar is not None:
            self.bar.set_postfix_str(f"best UAR {results['valid_uar']:.3f}: {_written(results['best'])}")
        return results

    def make_bar(self):
        """One bar over trials."""
        todo = len(self.waiting) + (self.settings.n_trials - self.n_drawn if self.settings.sampler else 0)
        done = sum(cell.state in FINAL.values() for cell in self.cells.values())
        return tqdm(
            total=done + max(0, todo), initial=done, desc=f"search {self.plan.model}", unit="trial", dynamic_ncols=True
        )


def _written(values):
    return ", ".join(f"{name}={value}" for name, value in values.items())


# -- files ------------------------------------------------------------------------------------------------------------
def read_result(run_dir, main_task):
    """What a complete run's directory says of its validation part."""
    directory = RunDirectory(run_dir)
    metrics = directory.metrics()
    uar = metrics["valid"][main_task]["uar"]
    return {
        "valid_uar": uar["value"],
        "low": uar["low"],
        "high": uar["high"],
        "best_epoch": metrics["best_epoch"],
        "seconds": directory.cost()["train_seconds"],
    }


def read_epochs(run_dir, main_task):
    """Epoch and validation UAR of every epoch that a run has logged."""
    directory = RunDirectory(run_dir)
    if not directory.log_file.exists():
        return []
    log = directory.log()
    rows = zip(log["epoch"].tolist(), log[f"valid_{main_task}_uar"].tolist())
    return [(int(epoch), uar) for epoch, uar in rows if np.isfinite(uar)]


# -- Optuna -----------------------------------------------------------------------------------------------------------
def storage_url(settings, plan, hide_password=False):
    """The URL of the storage: the one asked for, or of a file in the search's folder."""
    if settings.storage is None:
        url = sqlalchemy.URL.create("sqlite", database=str(plan.folder / "search.db"))
    else:
        url = sqlalchemy.make_url(settings.storage)
    return url.render_as_string(hide_password=hide_password)


def open_study(settings, plan):
    """Open the storage and the study in it.

    Raises
    ------
    UserError
        If the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        url = storage_url(settings, plan)
        patient = {"connect_args": {"timeout": 100}} if url.startswith("sqlite") else {}  # while a dashboard reads
        storage = optuna.storages.RDBStorage(url, engine_kwargs=patient)
        return optuna.create_study(
            storage=storage,
            study_name=plan.study,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),  # draws nothing: every cell of a grid is enqueued
            pruner=settings.pruner or optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, OSError, ValueError) as error:
        where = "storage" if settings.storage else str(plan.folder / "search.db")
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(
            f"{where} cannot be opened ({reason}): check the URL and its driver, free some space, or move a damaged "
            "file away: what is in the run directories is not lost"
        ) from error
