"""Schedules of torch and SpeechBrain."""

import functools

import pytest
import torch
from helpers import Killed, assert_same_run, kill_at, run
from speechbrain.nnet import schedulers
from torch.optim import lr_scheduler

from korser import UserError
from korser.training.brain import EmotionBrain
from korser.training.schedules import make_schedule
from korser.utils.files import read_csv


def optimizer(lr=0.5):
    return torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=lr)


def made(factory, **options):
    return make_schedule(factory, optimizer(), **{"lr": 0.5, "warmup": 10, "total": 100, **options})


@pytest.mark.parametrize(
    ("name", "expected"),  # each has an order of its own
    [
        ("LinearWarmupScheduler", {"lr0": 0.5, "num_warmup_steps": 10, "num_training_steps": 100}),
        ("CyclicCosineScheduler", {"initial_lr": 0.5, "n_warmup_steps": 10, "total": 100}),
        ("WarmAndExpDecayLRSchedule", {"base_lr": 0.5, "n_warmup_steps": 10, "decay_steps": 90}),
        ("NoamScheduler", {"lr_initial": 0.5, "n_warmup_steps": 10}),
    ],
)
def test_schedules_get_what_they_name(name, expected):
    schedule = made(getattr(schedulers, name)).schedule
    assert {key: getattr(schedule, key) for key in expected} == expected


def test_what_the_yaml_states_is_used():
    factory = functools.partial(schedulers.LinearWarmupScheduler, num_warmup_steps=3)
    assert made(factory).schedule.num_warmup_steps == 3


def rates(factory, losses=(3.0, 3.01, 3.02), steps=2):
    """Return the learning rate of the last step of each epoch."""
    schedule, found = made(factory, warmup=1, total=steps * len(losses)), []
    for epoch, loss in enumerate(losses, start=1):
        for i in range(steps):
            schedule.before_step((epoch - 1) * steps + i + 1)
            schedule.optimizer.step()
            schedule.after_step()
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.after_epoch(epoch, loss, 1 / loss)
    return found


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (functools.partial(lr_scheduler.StepLR, step_size=1, gamma=0.1), [0.5, 0.05, 0.005]),
        (functools.partial(lr_scheduler.CosineAnnealingLR, T_max=2), [0.5, 0.25, 0.0]),
        (functools.partial(lr_scheduler.ReduceLROnPlateau, patience=0), [0.5, 0.5, 0.05]),
        (functools.partial(lr_scheduler.ReduceLROnPlateau, patience=0, mode="max"), [0.5, 0.5, 0.05]),
        (functools.partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch)), [0.5, 0.25, 0.5 / 3]),
        (schedulers.NewBobScheduler, [0.5, 0.5, 0.25]),
        (schedulers.NewBobScheduler(initial_value=0.5, annealing_factor=0.1), [0.5, 0.5, 0.05]),
        (functools.partial(schedulers.LinearScheduler, final_value=0.1, epoch_count=3), [0.5, 0.3, 0.1]),
        (schedulers.ReduceLROnPlateau(patience=0, dont_halve_until_epoch=1), [0.5, 0.5, 0.25]),
    ],
)
def test_schedules_by_epoch(factory, expected):
    assert rates(factory) == pytest.approx(expected)


def test_schedules_by_step():
    warm = functools.partial(schedulers.WarmCoolDecayLRSchedule, lr=0.5, warmup=2, cooldown=2, total_steps=6)
    assert rates(warm)[0] == 0.5 > rates(warm)[2]
    one_cycle = rates(lr_scheduler.OneCycleLR, losses=(1.0,) * 10)
    assert max(one_cycle) > one_cycle[0] and one_cycle[-1] < 0.01
    cyclic = functools.partial(lr_scheduler.CyclicLR, base_lr=0.1, step_size_up=2, cycle_momentum=False)
    assert rates(cyclic) == pytest.approx([0.5, 0.1, 0.5])


class OfMine:
    def __call__(self, optimizer):
        pass


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lr_scheduler.StepLR,
            "lr_scheduler: torch.optim.lr_scheduler.StepLR: missing argument 'step_size': set it in the YAML",
        ),
        (OfMine, "lr_scheduler: test_schedules.OfMine cannot be saved in checkpoints"),
    ],
)
def test_what_cannot_be_used_is_refused(factory, message):
    with pytest.raises(UserError, match=message):
        made(factory)


def test_a_run_with_torchs_schedule(tiny):
    settings = {"lr_scheduler": "!name:torch.optim.lr_scheduler.StepLR {step_size: 1, gamma: 0.5}", "lr": "0.002"}
    assert read_csv(run({**tiny, **settings}, model="mel_stl") / "log.csv")["lr"].tolist() == [0.002, 0.001]


@pytest.mark.parametrize("name", ["ExponentialLR {gamma: 0.5}", "OneCycleLR"])
def test_a_schedule_of_torch_is_resumed(tiny, tmp_path, monkeypatch, name):
    settings = {**tiny, "lr_scheduler": f"!name:torch.optim.lr_scheduler.{name}", "ckpt_interval_minutes": "0"}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "on_fit_batch_start", 6)  # within the second epoch
        run({**settings, "ckpt_interval_steps": "1"}, run_dir=tmp_path / "resumed")
    resumed = run({**settings, "ckpt_interval_steps": "1"}, run_dir=tmp_path / "resumed")
    assert_same_run(run(settings, run_dir=tmp_path / "whole"), resumed)
