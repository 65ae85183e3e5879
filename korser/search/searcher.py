"""Run a search: ask Optuna for trials, give their runs to workers, tell Optuna the results.

All state is in the storage and in the run directories, so that the process can be killed at any moment; the same
command resumes. Optuna's own GridSampler counts a failed trial as visited (optuna issues 3256, 6283), and the state of
its samplers is lost with the process. Here every configuration without a result is enqueued, and each draw has its own
sampler, seeded by the number of the draw.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from optuna.trial import Trial, TrialState
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from korser.config.names import check_shared_overrides
from korser.metrics.scores import TITLES
from korser.runs.directory import RunDirectory
from korser.search.configuration import FINAL_STATES, Configuration, read_epochs, read_result, values_text
from korser.search.plan import SearchPlan, make_plan
from korser.search.report import write_results
from korser.search.settings import SearchSettings
from korser.search.storage import damage_named, open_study, storage_failures, storage_url
from korser.search.summary import score_column, summary
from korser.utils.errors import UserError
from korser.utils.files import locked
from korser.utils.text import number
from korser.workers import Job
from korser.workers.base import Workers
from korser.workers.job import JobResult

__all__ = ["Searcher", "search"]

POLL_SECONDS = 0.5  # between two readings of the logs of running trials, for a pruner
MAX_FIRST_REFUSALS = 3  # configurations; if the first ones are all refused, the cause is not their values

logger = logging.getLogger(__name__)


def search(settings: SearchSettings, workers: Workers, show: Callable[[str], None] | None = None) -> list[str]:
    """Search for the best settings of each model; completed trials of an interrupted search are kept.

    The workers have no pending jobs. Return a summary of each model; ``show`` receives it when its search has ended.

    Raises
    ------
    UserError
        If a setting, the data or the storage is invalid: before the first trial of any model. At the end, if a model
        has no complete trial.
    """
    check_shared_overrides(settings.models, settings.overrides)
    searchers = [Searcher(make_plan(settings, yaml), settings, workers) for yaml in settings.models]
    texts = []
    for searcher in searchers:
        texts.append(searcher.run())
        if show is not None:
            show(texts[-1] + "\n")
    empty = [each.plan for each in searchers if not any(c.state == "complete" for c in each.configurations.values())]
    if empty:
        names = ", ".join(plan.model for plan in empty)
        raise UserError(f"no trial of {names} is complete: see the messages in {empty[0].folder / 'trials.csv'}")
    return texts


@dataclass
class _Running:
    """A run in progress, its Optuna trials, and the epochs that were reported to the pruner."""

    job: Job
    trials: list[Trial]
    reported: set[int] = field(default_factory=set)


class Searcher:
    """The search of one model."""

    def __init__(self, plan: SearchPlan, settings: SearchSettings, workers: Workers) -> None:
        self.plan, self.settings, self.workers = plan, settings, workers
        self.distributions = {dimension.name: dimension.distribution for dimension in plan.dimensions}
        self.configurations: dict[str, Configuration] = {}  # by run
        self.waiting: deque[Configuration] = deque()
        self.running: dict[str, _Running] = {}  # by run
        self.n_drawn = 0
        self.n_first_refusals: int | None = 0  # None once a configuration ended in another state

    def run(self) -> str:
        """Search to the end, and return a summary.

        Raises
        ------
        UserError
            If the storage fails, or the first configurations are all refused.
        """
        with storage_failures(), locked(self.plan.folder):
            self.study = open_study(self.settings, self.plan)
            with damage_named(self.settings, self.plan):
                self.resume()
            results = self.write()
            with logging_redirect_tqdm(), self.make_bar() as self.bar:
                while True:
                    while self.workers.pending < self.workers.n and self.start_next():
                        pass
                    if not self.running:
                        break
                    outcome = self.workers.next(timeout=POLL_SECONDS if self.settings.pruner else None)
                    if self.settings.pruner:
                        self.report_epochs()
                    if outcome is not None:
                        results = self.finish(outcome)
        configurations = self.configurations.values()
        return summary(self.plan, configurations, results, storage_url(self.settings, self.plan, hide_password=True))

    # -- resuming ------------------------------------------------------------------------------------------------------
    def resume(self) -> None:
        """Read the storage and the run directories; trials that were interrupted have failed."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
        while self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.tell(self.study.ask(), state=TrialState.FAIL)  # enqueued, but never asked for
        trials = [t for t in self.study.get_trials(deepcopy=False) if "configuration" in t.user_attrs]
        if self.settings.sampler is None:
            for index, (run, values) in enumerate(self.plan.grid().items()):
                self.configurations[run] = Configuration(index, values, run)
        else:
            drawn = [trial for trial in trials if trial.params.keys() == self.distributions.keys()]
            for trial in sorted(drawn, key=lambda trial: trial.user_attrs["configuration"]):
                run, index = trial.user_attrs["run"], trial.user_attrs["configuration"]
                values = {name: trial.params[name] for name in self.distributions}
                if run != self.plan.run_name(values):  # a folder anywhere
                    raise ValueError(f"the run of trial {trial.number} is '{run}'")
                self.configurations.setdefault(run, Configuration(index, values, run))
            self.n_drawn = len({trial.user_attrs["configuration"] for trial in trials})
        for trial in trials:
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self.restore(self.configurations[trial.user_attrs["run"]], trial)
        self.waiting.extend(c for c in self.configurations.values() if c.state == "waiting")
        if any(c.state in FINAL_STATES for c in self.configurations.values()):
            self.n_first_refusals = None

    def restore(self, configuration: Configuration, trial: optuna.trial.FrozenTrial) -> None:
        """Take over the result of a finished trial, unless its run directory was deleted."""
        folder = self.plan.run_dir(configuration.run)
        if trial.state is TrialState.PRUNED:
            configuration.state, configuration.message = "pruned", trial.user_attrs.get("message", "")
        elif RunDirectory(folder).complete:
            configuration.state, configuration.result = "complete", read_result(folder, *self.plan.target)

    # -- trials --------------------------------------------------------------------------------------------------------
    def start_next(self) -> bool:
        """Start the next trial; return False if there is none."""
        if self.waiting:
            configuration = self.waiting.popleft()
            attributes = {"run": configuration.run, "configuration": configuration.index}
            self.study.enqueue_trial(configuration.values, user_attrs=attributes)
            trial = self.study.ask(self.distributions)
        elif self.settings.sampler is not None and self.n_drawn < self.settings.n_trials:
            configuration, trial = self.draw()
        else:
            return False
        if configuration.run in self.running:  # drawn twice
            self.running[configuration.run].trials.append(trial)
        elif configuration.state != "waiting":
            self.tell(trial, configuration)
        else:
            configuration.state = "running"
            overrides = {**self.plan.fixed, **configuration.values}
            job = Job(str(self.plan.yaml), overrides, str(self.plan.run_dir(configuration.run)))
            self.running[configuration.run] = _Running(job, [trial])
            self.workers.submit(job)
        return True

    def draw(self) -> tuple[Configuration, Trial]:
        """Draw a configuration; the sampler is seeded by the number of the draw, whatever was interrupted before."""
        digest = hashlib.sha256(f"{self.settings.seed} {self.n_drawn}".encode()).digest()
        self.study.sampler = self.settings.sampler(seed=int.from_bytes(digest[:4], "big"))
        trial = self.study.ask(self.distributions)
        values = {name: trial.params[name] for name in self.distributions}
        run = self.plan.run_name(values)
        trial.set_user_attr("run", run)
        trial.set_user_attr("configuration", self.n_drawn)  # last: without it the draw is repeated
        configuration = self.configurations.setdefault(run, Configuration(self.n_drawn, values, run))
        self.n_drawn += 1
        return configuration, trial

    def report_epochs(self) -> None:
        """Report finished epochs to the pruner, and stop the runs that it rejects."""
        for run, running in self.running.items():
            for epoch, score in read_epochs(self.plan.run_dir(run), *self.plan.target):
                if epoch in running.reported:
                    continue
                running.reported.add(epoch)
                for trial in running.trials:
                    trial.report(score, epoch)
                if running.trials[0].should_prune():
                    self.workers.prune(running.job)

    def finish(self, outcome: JobResult) -> dict:
        """Record how a run ended, and return the content of ``search.json``."""
        folder = self.plan.run_dir(RunDirectory(outcome.job.run_dir).name)
        configuration = self.configurations[folder.name]
        configuration.state, configuration.message = outcome.state, outcome.message
        if outcome.state == "complete":
            configuration.result = read_result(folder, *self.plan.target)
            if configuration.result.score is None:
                configuration.state = "failed"
                configuration.message = f"the {self.plan.objective} is undefined"
        for trial in self.running.pop(folder.name).trials:
            self.tell(trial, configuration)
        results = self.write()
        if results["best"]:
            score = f"{TITLES[self.plan.metric]} {number(results[score_column(results)])}"
            self.bar.set_postfix_str(f"best {score}: {values_text(results['best'])}")
        self.stop_if_all_are_refused(configuration)
        if configuration.state not in FINAL_STATES:
            values = values_text(configuration.values)
            message = (configuration.index, values, configuration.state, configuration.message)
            logger.warning("trial %d (%s): %s: %s", *message)
        return results

    def stop_if_all_are_refused(self, configuration: Configuration) -> None:
        """Raise a UserError if the first configurations were all refused: other values would not help."""
        if self.n_first_refusals is None or configuration.state != "refused":
            self.n_first_refusals = None
            return
        self.n_first_refusals += 1
        if self.n_first_refusals == MAX_FIRST_REFUSALS or not (self.waiting or self.running):
            raise UserError(configuration.message)

    def tell(self, trial: Trial, configuration: Configuration) -> None:
        """Tell Optuna the result of a configuration."""
        if configuration.message:
            trial.set_user_attr("message", configuration.message)
        trial.set_user_attr("state", configuration.state)
        if configuration.state == "complete":
            self.study.tell(trial, configuration.result.score)
        else:
            self.study.tell(trial, state=TrialState.PRUNED if configuration.state == "pruned" else TrialState.FAIL)
        self.bar.update()

    # -- output --------------------------------------------------------------------------------------------------------
    def write(self) -> dict:
        """Write the tables, and return the content of ``search.json``."""
        ordered = sorted(self.configurations.values(), key=lambda configuration: configuration.index)
        all_drawn = self.settings.sampler is None or self.n_drawn >= self.settings.n_trials
        ended = not any(configuration.state in ("waiting", "running") for configuration in ordered)
        return write_results(self.plan, ordered, complete=all_drawn and ended)

    def make_bar(self) -> tqdm:
        """Return a progress bar over trials."""
        done = sum(configuration.state in FINAL_STATES for configuration in self.configurations.values())
        todo = len(self.waiting)
        if self.settings.sampler is not None:
            todo += max(0, self.settings.n_trials - self.n_drawn)
        name = f"search {self.plan.model}"
        return tqdm(total=done + todo, initial=done, desc=name, unit="trial", dynamic_ncols=True)
