"""Steps replayed from CUDA graphs: when, and with the same results. On a CPU with a stand-in for the graph itself."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import HPARAMS, tiny_overrides
from helpers import WAV_AUGMENT, Killed, kill_at, run

from korser import load_hparams
from korser.frontend.lengths import mask_padding
from korser.plugins.frontends.leaf.leaf import Leaf
from korser.plugins.heads.linear import LinearHeads
from korser.training import cuda_graphs
from korser.training.brain import EmotionBrain
from korser.training.build import build_model
from korser.training.cuda_graphs import CapturedStep, StepGraphs, StepInputs, padded_length, why_not
from korser.training.logged_brain import LoggedBrain
from korser.training.tasks import recorded_tasks
from korser.utils.files import read_csv

CLASSES = {"emotion": ["joy", "anger", "neutral"], "gender": ["female", "male"], "intensity": ["1", "2"]}
# Adam amplifies rounding: on a CPU, noise of 1e-5 in each gradient changes the losses by 1e-2 within 39 steps.
CALM = {"opt_class": "!name:torch.optim.SGD {momentum: 0.0}", "lr": "0.003"}
MODELS = sorted(path.stem for path in HPARAMS.glob("*_[ms]tl.yaml") if "svm" not in path.stem)  # are not trained


class StandIn:
    """Runs a step again instead of replaying it, into the tensors of the first time as a graph does."""

    def __init__(self, step, values, gradients):
        self.step, self.values, self.gradients = step, values, gradients
        self.replays = 0

    def replay(self):
        self.replays += 1
        for parameter, _ in self.gradients:
            parameter.grad = None
        self.values.copy_(self.step())
        for parameter, gradient in self.gradients:
            gradient.copy_(parameter.grad)


class Replays(StepGraphs):
    """On a CPU."""

    def __init__(self, brain):
        super().__init__(brain)
        self.events = []

    def _max_bytes(self):
        return math.inf

    def _run(self, inputs):
        self.events.append("run")
        return self._gradients(inputs)

    def _capture(self, inputs):
        self.events.append("capture")
        norms = [module for module in self.brain.raw_model.modules() if hasattr(module, "running_mean")]
        kept = [buffer.clone() for norm in norms for buffer in norm.buffers()]
        state = torch.get_rng_state()
        values = self._gradients(inputs)
        for buffer, old in zip([buffer for norm in norms for buffer in norm.buffers()], kept):
            buffer.copy_(old)  # a capture computes nothing
        torch.set_rng_state(state)
        gradients = [(p, p.grad.clone()) for p in self.parameters if p.grad is not None]
        values = torch.full_like(values, math.nan)
        stand_in = StandIn(lambda: self._gradients(inputs), values, gradients)
        return CapturedStep(stand_in, inputs, values, gradients)


@pytest.fixture
def replays(monkeypatch):
    """Training on a CPU as if it had graphs; the list of the StepGraphs that were made."""
    made = []

    def on_fit_start(self):
        LoggedBrain.on_fit_start(self)
        self.run_step = Replays(self)
        made.append(self.run_step)

    monkeypatch.setattr(EmotionBrain, "on_fit_start", on_fit_start)
    return made


STEPS = {"n_epochs": "3", "augment.mixup_alpha": "0.2", "batch_size": "4", **CALM}


@pytest.fixture(scope="module")
def launched(tiny_corpus, tmp_path_factory):
    """The log of mel_mtl, its steps launched one by one."""
    folder = tmp_path_factory.mktemp("launched")
    return read_log(run({**tiny_overrides(tiny_corpus, folder), **STEPS}))


def read_log(run_dir):
    return read_csv(run_dir / "log.csv").drop(columns=["seconds", "time"])


def make_brain(overrides=None, model="mel_mtl", skip_frozen=True):
    hparams = load_hparams(HPARAMS / f"{model}.yaml", {"device": "cpu", "noprogressbar": "true", **(overrides or {})})
    tasks = recorded_tasks(
        hparams, {"tasks": [{"name": name, "classes": classes} for name, classes in CLASSES.items()]}
    )
    return EmotionBrain(model=build_model(hparams, tasks), tasks=tasks, hparams=hparams, skip_frozen=skip_frozen)


def test_the_grid_is_coarse_and_reaches_every_length():
    times = range(1, 5000)
    assert all(n <= padded_length(n) <= math.ceil(n * 2 ** (1 / cuda_graphs.LENGTHS_PER_OCTAVE)) for n in times)
    assert len({padded_length(n) for n in range(1025, 2049)}) == cuda_graphs.LENGTHS_PER_OCTAVE
    assert all(padded_length(padded_length(n)) == padded_length(n) for n in times)
    assert [padded_length(n) for n in times] == sorted(padded_length(n) for n in times)


@pytest.mark.parametrize("model", MODELS)
def test_shipped_models_can_be_captured(model, tiny_whisper):
    overrides = {"whisper_source": str(tiny_whisper)} if "whisper" in model else None
    assert why_not(make_brain(overrides, model)) is None


def test_what_keeps_steps_from_being_captured():
    def reason(overrides=None, skip_frozen=True, model="mel_mtl", **attributes):
        brain = make_brain(overrides, model, skip_frozen)
        for name, value in attributes.items():
            setattr(brain, name, value)
        return why_not(brain)

    assert "distributed" in reason(distributed_launch=True)
    assert "accumulated" in reason(grad_accumulation_factor=2)
    assert "fp16" in reason(scaler=SimpleNamespace(is_enabled=lambda: True))
    assert "wav_augment" in reason({"wav_augment": WAV_AUGMENT})
    assert "HiddenStates" in reason(skip_frozen=False, model="wav2vec_mtl")
    assert reason(skip_frozen=False) is None


def test_a_subclass_must_define_cuda_graph_key_itself():
    class Other(LinearHeads):
        def loss(self, *args):
            return super().loss(*args)

    class Same(LinearHeads):
        def cuda_graph_key(self):
            return ()

    brain = make_brain()
    head = brain.raw_model.head
    brain.raw_model.head = Other(in_features=256, tasks=brain.tasks)
    assert "Other" in why_not(brain)
    brain.raw_model.head = Same(in_features=256, tasks=brain.tasks)
    assert why_not(brain) is None
    brain.raw_model.head = head
    assert why_not(brain) is None


def test_replayed_steps_train_the_same(tiny, replays, launched):
    replayed = read_log(run({**tiny, **STEPS, "resident": "false"}))
    (made,) = replays
    assert made.events.count("capture") == len(made.graphs) >= 2
    assert sum(captured.graph.replays for captured in made.graphs.values()) > len(made.graphs)
    pd.testing.assert_frame_equal(replayed, launched, rtol=2e-3, atol=1e-5)


def test_replayed_steps_of_leaf_train_the_same(tiny, tmp_path, replays, monkeypatch):
    tiny |= {**STEPS, "n_epochs": "2", "frontend.n_filters": "2", "frontend.implementation": "reference"}
    replayed = read_log(run(tiny, "leaf_stl"))
    assert replays[0].graphs
    monkeypatch.undo()
    expected = read_log(run(tiny, "leaf_stl", run_dir=tmp_path / "launched"))
    pd.testing.assert_frame_equal(replayed, expected, rtol=2e-3, atol=1e-5)


class Policy(Replays):
    """Without a model."""

    def __init__(self, state=((),)):
        self.said = state
        self.parts = [SimpleNamespace(cuda_graph_key=lambda: self.said[0])]
        augment = SimpleNamespace(draw=lambda n: (torch.rand(2, n),))
        tasks = [SimpleNamespace(name="emotion")]
        self.brain = SimpleNamespace(device="cpu", tasks=tasks, augment=augment)
        self.brain.gradients = self.sums
        self.brain.seed_step = lambda: self.events.append("seed")
        self.parameters, self.events = [], []
        self.state, self.failed, self.pool, self.graphs, self.seen = None, False, None, {}, cuda_graphs.Counter()

    def _capture(self, inputs):
        self.events.append("capture")
        values = self._gradients(inputs)
        return CapturedStep(StandIn(lambda: self._gradients(inputs), values, []), inputs, values, [])

    def sums(self, batch):
        return torch.stack([mask_padding(batch.x.data, batch.frames).sum(), batch.labels["emotion"].sum()])

    def step(self, time, n=2, value=1.0):
        x = torch.full((n, time), value)
        lengths = torch.full((n,), time)
        batch = cuda_graphs.Batch([], cuda_graphs.PaddedData(x, None), lengths, {"emotion": lengths})
        self.events.clear()
        values = self(batch)
        assert values.tolist() == [x.sum(), n * time]
        return self.events[0] if self.events else "replay"


def test_a_shape_is_captured_when_it_has_come_twice():
    policy = Policy()
    assert [policy.step(100) for _ in range(4)] == ["run", "run", "capture", "replay"]
    assert policy.step(102) == policy.step(98, value=0.0) == "replay"  # the same place of the grid
    assert [policy.step(100, n=1), policy.step(110)] == ["run", "run"]
    assert len(policy.graphs) == 1


def test_there_are_only_so_many_graphs(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 1)
    policy = Policy()
    assert [policy.step(100) for _ in range(3)] == ["run", "run", "capture"]
    assert [policy.step(200) for _ in range(4)] == 4 * ["run"]
    assert policy.step(100) == "replay"


def test_their_inputs_take_only_so_much_memory(monkeypatch):
    policy = Policy()
    monkeypatch.setattr(policy, "_max_bytes", lambda: 2 * padded_length(100) * 4)  # two utterances of 100 numbers
    assert [policy.step(100) for _ in range(4)] == ["run", "run", "capture", "replay"]
    assert [policy.step(50) for _ in range(4)] == ["run"] * 4


def test_graphs_are_made_anew_when_a_part_says_something_else():
    policy = Policy()
    policy.said = [None]
    assert [policy.step(100) for _ in range(4)] == 4 * ["run"]
    policy.said = [(30, 160)]
    assert [policy.step(100) for _ in range(4)] == ["run", "run", "capture", "replay"]
    policy.said = [(60, 160)]
    assert [policy.step(100) for _ in range(4)] == ["run", "run", "capture", "replay"]


def test_a_capture_that_fails_is_the_last(monkeypatch, caplog):
    def fail(self, inputs):
        self.events.append("failed")
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Policy, "_capture", fail)
    policy = Policy()
    assert [policy.step(100) for _ in range(3)] == ["run", "run", "failed"]
    policy._inputs = None  # not even those are made any more
    assert [policy.step(100) for _ in range(2)] == ["replay", "replay"] and not policy.graphs
    assert "not permitted" in caplog.text and len(caplog.records) == 1


FULL = [
    torch.cuda.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", FULL)
def test_graphs_give_way_where_memory_is_short(monkeypatch, caplog, error):
    policy = Policy()
    assert [policy.step(100) for _ in range(4)] == ["run", "run", "capture", "replay"]

    def fail(inputs):
        policy.brain.batch_losses = {"loss": inputs.batch.x.data.sum()}
        raise error

    monkeypatch.setattr(policy, "_run", fail)
    assert [policy.step(200) for _ in range(3)] == ["seed", "replay", "replay"]  # no graph, but the brain itself
    assert policy.failed and not policy.graphs and policy.pool is None and policy.brain.batch_losses == {}
    assert len(caplog.records) == 1 and "cuda_graphs: false" in caplog.text


@pytest.mark.parametrize("error", [*FULL, RuntimeError("shapes do not fit")])
def test_other_errors_are_errors(monkeypatch, error):
    policy = Policy()
    if error not in FULL:  # of which graphs are to blame only where there are some
        assert [policy.step(100) for _ in range(3)] == ["run", "run", "capture"]

    def fail(inputs):
        raise error

    monkeypatch.setattr(policy, "_run", fail)
    with pytest.raises(type(error)):
        policy.step(200)


def test_a_step_that_is_repeated_draws_the_same(tiny, replays, launched, monkeypatch):
    original = Replays._run

    def sometimes_full(self, inputs):
        if self.graphs:
            torch.rand(3)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return original(self, inputs)

    monkeypatch.setattr(Replays, "_run", sometimes_full)
    repeated = read_log(run({**tiny, **STEPS}))
    assert replays[0].failed
    pd.testing.assert_frame_equal(repeated, launched, rtol=1e-4, atol=1e-6)


class Unfinished:
    """A capture that fails."""

    def __enter__(self):
        pass

    def __exit__(self, *args):
        raise RuntimeError("the capture was invalidated")


@pytest.mark.parametrize("left_open", [True, False])
def test_a_failed_capture_leaves_the_allocator_as_it_was(monkeypatch, left_open):
    calls = []

    def end(device, pool):
        calls.append(("end", device, pool))
        if not left_open:
            raise RuntimeError("not currently recording")

    generator = SimpleNamespace(clone_state=lambda: "new", graphsafe_set_state=lambda state: calls.append(state))
    graph = SimpleNamespace(reset=lambda: calls.append("reset"))
    stand_ins = {
        "graph_pool_handle": lambda: (0, 1),
        "CUDAGraph": lambda: graph,
        "current_stream": lambda: None,
        "set_stream": lambda stream: None,
        "current_device": lambda: 0,
        "default_generators": [generator],
        "graph": lambda *args, **kwargs: Unfinished(),
        "Stream": object,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda device, pool: calls.append(("release", device, pool)))
    monkeypatch.setattr(cuda_graphs, "FAILED_GRAPHS", [])
    policy = Policy()
    policy.stream = None
    lengths = torch.ones(1, dtype=torch.long)
    batch = cuda_graphs.Batch([], cuda_graphs.PaddedData(torch.zeros(1, 1), None), lengths, {"emotion": lengths})
    with pytest.raises(RuntimeError, match="invalidated"):
        StepGraphs._capture(policy, StepInputs(batch, ()))
    release = [("release", 0, (0, 1))] if left_open else []
    assert calls == ["new", "reset", ("end", 0, (0, 1)), *release]


def test_leaf_watches_its_widths_also_where_torch_counts_no_change():
    class Reader:
        busy = False

        def start(self, values):
            self.values, self.busy = values.clone(), True

        def result(self):
            seen, self.busy = (self.values if self.busy else None), False
            return seen

        def drop(self):
            self.busy = False

    leaf, x, lengths = Leaf(), 0.1 * torch.randn(2, 4000), torch.tensor([4000, 3000])
    assert Leaf(in_channels=4, sample_rate=50).cuda_graph_key() == ()
    leaf.plan.reader = Reader()
    assert leaf.cuda_graph_key() is None  # the first step chooses the rates
    optimizer = torch.optim.AdamW([leaf.width], lr=0.5, fused=True)
    keys = set()
    for step in range(40):
        key = leaf.cuda_graph_key() if step % 20 else None  # replays for the most part
        if key is None or step % 4 == 0:
            energies = leaf._energies(leaf._carriers(x), lengths)
            assert energies.isfinite().all()
            (-leaf.width.sum() + 0 * energies.sum()).backward()
        else:
            leaf.width.grad = -torch.ones_like(leaf.width)
            keys.add(key)
        optimizer.step()
        optimizer.zero_grad()
    assert 1 < len(keys) < 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestOnAGpu:
    @pytest.mark.parametrize(
        ("model", "settings"),
        [
            ("mel_mtl", {}),
            ("mel_mtl", {"precision": "bf16", "resident": "false"}),
            ("leaf_mtl", {"frontend.n_filters": "8"}),
            ("wav2vec_leaf_mtl", {"augment.mixup_alpha": "0.2"}),
        ],
    )
    def test_replayed_steps_train_the_same(self, tiny, tmp_path, monkeypatch, model, settings):
        replayed = []
        original = CapturedStep.__call__
        monkeypatch.setattr(CapturedStep, "__call__", lambda self: replayed.append(self) or original(self))
        tiny |= {"device": "cuda", "n_epochs": "4", "batch_size": "4", **CALM, **settings}
        logs = [read_csv(run(tiny, model) / "log.csv")]
        assert len(replayed) > len(set(replayed)) > 1
        count = len(replayed)
        logs += [read_csv(run({**tiny, "cuda_graphs": "false"}, model, run_dir=tmp_path / "launched") / "log.csv")]
        assert len(replayed) == count
        losses = [log[["train_loss", "train_emotion_loss", "valid_loss"]] for log in logs]
        rounding = 0.02 if "precision" in settings else 0.002
        pd.testing.assert_frame_equal(*losses, rtol=rounding)

    def test_an_interrupted_run_goes_on(self, tiny, tmp_path, monkeypatch):
        tiny |= {"device": "cuda", "n_epochs": "4", "batch_size": "4", **CALM}
        tiny |= {"ckpt_interval_minutes": "0", "ckpt_interval_steps": "1"}
        whole = read_csv(run(tiny) / "log.csv")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, EmotionBrain, "on_fit_batch_start", len(whole) * 4)
            run(tiny, run_dir=tmp_path / "run")
        resumed = read_csv(run(tiny, run_dir=tmp_path / "run") / "log.csv")
        whole, resumed = (log[["train_loss", "valid_loss"]] for log in (whole, resumed))
        pd.testing.assert_frame_equal(whole, resumed, rtol=0.002)

    def test_a_failed_capture_leaves_training_as_it_was(self, tiny, tmp_path, monkeypatch, caplog):
        tiny |= {"device": "cuda", "n_epochs": "3", "batch_size": "4", **CALM}
        expected = read_csv(run({**tiny, "cuda_graphs": "false"}, run_dir=tmp_path / "launched") / "log.csv")
        original = EmotionBrain.compute_objectives

        def waits(self, *args):
            loss = original(self, *args)
            loss.item()
            return loss

        monkeypatch.setattr(EmotionBrain, "compute_objectives", waits)
        log = read_csv(run(tiny) / "log.csv")
        assert "without CUDA graphs" in caplog.text
        torch.cuda.empty_cache()  # which asserts that no capture is underway
        pd.testing.assert_frame_equal(log[["train_loss"]], expected[["train_loss"]], rtol=0.002)
