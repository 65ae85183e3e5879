"""One run: from settings to a complete run directory."""

import dataclasses
import hashlib
import json
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import safetensors.torch
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process, infer_device, run_on_main

from korser.audio import read_audio, scan_audio
from korser.audio_store import AudioStore
from korser.brain import EmotionBrain, require_own_device, seed_everything
from korser.checkpoints import AtomicCheckpointer, History, TrainedState
from korser.contract import dry_run, some
from korser.corpora import load_corpus
from korser.cost import PeakMemory, macs_per_second
from korser.data import KeepInMemory, bucketed_batches, class_index, collate, make_dataset, sorted_batches
from korser.errors import UserError
from korser.evaluation import evaluate_predictions
from korser.features import FeatureCache, code_digest, encoder_configs, own_classes, weights_digest
from korser.losses import balanced_weights
from korser.model import SpeechEmotionModel
from korser.resident import AheadLoader, Memory, Resident
from korser.rundir import atomic, environment, locked, read_csv, read_json, write_csv, write_json, write_text
from korser.settings import check_settings
from korser.splits import ATTRIBUTES, BALANCED, WORDS_TELL, check_splits, speaker_independent, words_tell
from korser.stages import SAMPLE_RATE, split_frozen

logger = logging.getLogger(__name__)

MOST_LEVELS = 20  # of a scale with fractions, such as ratings in halves
SPLITS = ("train", "valid", "test")
PLACES = {"device": "the GPU's memory", "locked": "page-locked host memory", "map": "a memory map"}


def train(hparams, run_dir, on_epoch=None):
    """Train, evaluate and record one model; what is in the run directory already is not done again.

    Parameters
    ----------
    hparams : korser.hparams.HParams
        From :func:`korser.hparams.load_hparams`.
    run_dir : str or Path
        Made if it is not there (:func:`korser.rundir.run_folder` names it by the settings). A complete one is left
        as it is, an interrupted one is gone on with and ends in the same numbers as if nothing had happened.
    on_epoch : callable, optional
        ``(epoch, score) -> bool``, called after each epoch, once its checkpoint is there, with the validation UAR of
        the main task (NaN where nothing is validated on). True stops the training.

    Returns
    -------
    dict
        The contents of ``metrics.json``.

    Raises
    ------
    UserError
        If data or settings are at fault; before any training starts.
    korser.brain.Pruned
        If ``on_epoch`` stopped it.
    """
    run_dir = Path(run_dir)
    check_settings(hparams)
    require_own_device(hparams["device"])
    if (run_dir / "metrics.json").exists():
        require_same(hparams, run_dir)
        logger.info("%s is complete", run_dir)
        return read_json(run_dir / "metrics.json")
    if not if_main_process():
        return _train(hparams, run_dir, on_epoch)
    with locked(run_dir):
        return _train(hparams, run_dir, on_epoch)


def set_arithmetic():
    """Make numbers repeatable: the same seed on the same machine gives the same."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32: predictions on a CPU are those of the test
    torch.backends.cuda.matmul.allow_tf32 = False


def _train(hparams, run_dir, on_epoch):
    set_arithmetic()
    seed_everything(hparams["seed"])
    if hparams["dry_run"]:
        dry_run(hparams["frontend"])
    run_on_main(prepare, args=[hparams, run_dir])
    info = read_json(run_dir / "run.json")
    names = [task["name"] for task in info["tasks"]]
    manifest = read_csv(run_dir / "manifest.csv", dict.fromkeys([*BALANCED, *names]))  # labels that are not trained too
    tasks = tasks_of(hparams, info)
    model = build_model(hparams, tasks, manifest)
    parts = {split: manifest[manifest["split"] == split] for split in SPLITS}

    read, skip_prefix = make_reader(hparams, model, manifest)
    datasets = {split: make_dataset(part, tasks, read) for split, part in parts.items() if len(part)}
    history, checkpointer = History(), AtomicCheckpointer(run_dir / "checkpoints")
    checkpointer.add_recoverables(
        {"weights": TrainedState(model), "history": history, "epoch_counter": hparams["epoch_counter"]}
    )
    brain = EmotionBrain(
        model=model,
        tasks=tasks,
        hparams=hparams,
        skip_prefix=skip_prefix,
        history=history,
        log_file=run_dir / "log.csv",
        checkpointer=checkpointer,
        tensorboard=open_tensorboard(hparams, run_dir),
        on_epoch=on_epoch,
    )
    if hparams["resident"]:
        labels = [task.name for task in tasks]
        datasets = make_resident(datasets, labels, read.stored, brain.device, hparams["memory_gb"])
    memory, initial = PeakMemory(brain.device), learned(model)
    fit(brain, datasets)
    peak_memory, peak_memory_of = memory.measure()
    peak_memory -= sum(data.nbytes for data in datasets.values() if getattr(data, "place", None) == "device")
    ddp_barrier()
    best = checkpointer.find_checkpoint(max_key="score")
    model.load_trained_state(safetensors.torch.load_file(best.paramfiles["weights"]))
    logger.info("best epoch: %d", best.meta["epoch"])
    predictions, embeddings = {}, {}
    for split in [s for s in SPLITS[1:] if s in datasets]:
        loader = evaluation_batches(hparams, datasets[split])
        probabilities, embeddings[split] = brain.predict(loader)
        predictions[split] = predictions_table(parts[split], tasks, probabilities)
    metrics = {split: evaluate_predictions(table, tasks) for split, table in predictions.items()}
    metrics["best_epoch"] = best.meta["epoch"]
    ddp_barrier()
    if if_main_process():
        with atomic(run_dir / "model.safetensors") as temporary:
            safetensors.torch.save_file({k: v.contiguous().cpu() for k, v in model.trained_state().items()}, temporary)
        brain.write_log()
        for split, table in predictions.items():
            write_csv(run_dir / f"{split}.csv", table)
        if "test" in predictions:
            rows = np.stack([embeddings["test"][name] for name in predictions["test"]["id"]])
            with atomic(run_dir / "test_embeddings.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, rows.astype(np.float16))
        write_json(run_dir / "learned.json", _changed(initial, learned(model)))
        n_parameters, n_trained = model.count_parameters()
        cost = {
            "parameters": n_parameters,
            "trainable_parameters": n_trained,
            "macs_per_second": _macs_per_second(model.cpu()),
            "train_seconds": round(sum(row["seconds"] for row in history.epochs), 1),
            "peak_memory_bytes": peak_memory,
            "peak_memory_of": peak_memory_of,
            "device": torch.cuda.get_device_name() if brain.device.startswith("cuda") else "cpu",
        }
        write_json(run_dir / "cost.json", cost)
        write_json(run_dir / "metrics.json", metrics)
        shutil.rmtree(run_dir / "checkpoints")
    return metrics


def _macs_per_second(model):
    """None for a model that does not run on a CPU, which is no reason to lose the run."""
    try:
        return macs_per_second(model)
    except Exception as error:
        logger.warning("operations cannot be counted on the CPU: %s", " ".join(str(error).split())[:200])
        return None


def learned(model):
    """What the trained stages say about themselves (:meth:`korser.stages.Stage.learned`).

    Returns
    -------
    list of (str, dict)
        ``(class name, {quantity: (unit, list of float)})`` for each stage that has something to say.
    """
    said = [(type(stage).__name__, stage.learned()) for stage in model.rest]
    return [
        (name, {k: (unit, values.detach().double().cpu().tolist()) for k, (unit, values) in quantities.items()})
        for name, quantities in said
        if quantities
    ]


def _changed(initial, trained):
    """``learned.json``: what stages said before and after training."""
    return [
        {
            "stage": name,
            "quantities": {
                quantity: {"unit": unit, "initial": start[quantity][1], "trained": values}
                for quantity, (unit, values) in end.items()
            },
        }
        for (name, start), (_, end) in zip(initial, trained)
    ]


def fit(brain, datasets):
    """Run the epochs on length-bucketed batches, from the latest checkpoint if there is one."""
    loader = training_batches(brain, datasets["train"])
    brain.validates = "valid" in datasets
    brain.fit(
        brain.settings["epoch_counter"],
        loader,
        evaluation_batches(brain.settings, datasets["valid"]) if brain.validates else None,
        progressbar=False,  # the brain has its own bar, with the losses of every task
    )
    brain.graphs = None  # and their memory


def training_batches(brain, dataset):
    """SpeechBrain's loader of the training split, whose position goes into the brain's checkpoints."""
    hparams = brain.settings
    sampler = bucketed_batches(
        dataset, batch_size=hparams["batch_size"], n_buckets=hparams["n_buckets"], seed=hparams["seed"]
    )
    brain.train_sampler = sampler  # or the order would repeat from the second epoch on
    loader = brain.make_dataloader(
        dataset,
        sb.Stage.TRAIN,
        batch_sampler=sampler,
        num_workers=_readers(hparams, dataset),
        collate_fn=collate(dataset),
    )
    if getattr(dataset, "place", None) == "locked":
        loader.__class__ = AheadLoader  # SpeechBrain makes its own kind only
    brain.n_train_batches = len(loader)
    return loader


def evaluation_batches(hparams, dataset):
    """Loader of a split for validation and test; it reads as that of training does."""
    return sorted_batches(dataset, hparams["batch_size"], _readers(hparams, dataset))


def _readers(hparams, dataset):
    """Processes that read; none where all is in memory."""
    return 0 if isinstance(dataset, Resident) else hparams["num_workers"]


# -- data ------------------------------------------------------------------------------------------------------------
def prepare(hparams, run_dir):
    """Check the data and write ``manifest.csv``, ``hparams.yaml`` and ``run.json``.

    Parameters
    ----------
    hparams : korser.hparams.HParams
    run_dir : Path

    Raises
    ------
    UserError
        If anything about the data is at fault, or the data have changed since an interrupted run began.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    split = hparams["split"].keywords
    protocol = split["protocol"]
    corpus, manifest = divide(hparams)
    columns = ["audio_path", "digest", "samples", "duration"]
    manifest[columns] = scan_audio(manifest["path"].tolist(), hparams["cache_folder"])[columns].to_numpy()
    tasks = labelled_tasks(hparams["tasks"], corpus, manifest)
    validates = (manifest["split"] == "valid").any()  # or the last epoch is kept, as when all was chosen before
    parts = ("train", *(["valid"] if validates else []), *(["test"] if hparams["evaluate_test"] else []))
    check_splits(manifest, protocol, tasks=[task.name for task in tasks], parts=parts)
    _check_durations(manifest, hparams["frontend"])
    # a search leaves its best settings beside its record
    searches = [read_json(file) for folder in hparams.folders if (file := Path(folder) / "search.json").exists()]
    where = (corpus.name, hparams["data_folder"])
    info = {
        "model": hparams.name,
        "yaml_folders": hparams.folders,
        "corpus": corpus.name,
        "synthetic": corpus.synthetic,
        "protocol": protocol,
        "speaker_independent": speaker_independent(protocol),
        "searched_on": sorted({s for search in searches for s in searched_speakers(search, *where, manifest)}),
        "words_tell": words_tell(manifest, tasks[0].name),
        "split": json.loads(json.dumps(split)),
        "seed": hparams["seed"],
        "fold": split.get("fold", 0) if protocol == "speaker_kfold" else split.get("fold"),
        "tasks": json.loads(json.dumps([dataclasses.asdict(task) for task in tasks])),
        "pretrained": pretrained(hparams["frontend"]),
        "dry_run": hparams["dry_run"],
        **made_by(hparams),
        "environment": environment(),
    }
    if info["searched_on"]:
        logger.warning("!!! settings searched on speakers whom this run tests (%s)", some(info["searched_on"]))
    if info["words_tell"]:
        logger.warning("!!! %s", WORDS_TELL)
    if info["pretrained"] is False:
        logger.warning("NOT PRETRAINED: the wav2vec encoder of this run has random weights")
    # without a checkpoint nothing is lost by beginning anew, so what was at fault may have been mended
    if (run_dir / "run.json").exists() and any((run_dir / "checkpoints").glob("*")):
        begun = read_json(run_dir / "run.json")
        _require_same_data(manifest, run_dir, [task.name for task in tasks], ["digest"])
        if begun["tasks"] != info["tasks"]:
            raise UserError(f"the classes have changed since {run_dir} was begun: delete it or change output_folder")
        _require_same_code(begun, run_dir, info)
        then, now = begun.get("environment", {}), info["environment"]
        if any(then.get(key) != now[key] for key in ("versions", "korser_source")):
            logger.warning("!!! %s was begun by another version of korser or of its libraries", run_dir)
    write_csv(run_dir / "manifest.csv", manifest)
    write_text(run_dir / "hparams.yaml", hparams.text)
    write_json(run_dir / "run.json", info)


def divide(hparams):
    """The corpus, and its rows that take part, each with its split; no audio is read."""
    corpus = load_corpus(
        hparams["corpus"],
        hparams["data_folder"],
        label_map=hparams["label_map"],
        corpus_options=hparams["corpus_options"],
    )
    manifest = hparams["split"](corpus.data.reset_index(drop=True)).reset_index(drop=True)
    if not hparams["evaluate_test"]:
        manifest = manifest[manifest["split"] != "test"].reset_index(drop=True)  # nothing of it is read
    return corpus, manifest


def searched_speakers(search, corpus, data_folder, table):
    """Speakers of the test part on whom settings were searched.

    Parameters
    ----------
    search : dict
        The search's ``search.json``.
    corpus : str
    data_folder : str or Path
    table : pandas.DataFrame
        With ``speaker`` and ``split``.

    Returns
    -------
    list of str
    """

    def home(path):  # a manifest may be named, or the folder that it lies in
        path = Path(path).resolve()
        return path.parent if path.suffix == ".csv" else path

    if search["corpus"] != corpus:
        return []
    if corpus == "csv" and home(search["data"]["data_folder"]) != home(data_folder):
        return []  # the name says nothing, any corpus may be read by it
    return sorted(set(table.loc[table["split"] == "test", "speaker"].dropna()) & set(search["speakers"]))


def _require_same_data(manifest, run_dir, names, columns=()):
    names = list(dict.fromkeys([*names, *(name for name in ATTRIBUTES if name in manifest)]))
    columns = ["id", "split", "speaker", *names, *columns]
    old = read_csv(run_dir / "manifest.csv", names)
    if not (set(columns) <= set(old) and set(columns) <= set(manifest)) or not _text(old[columns]).equals(
        _text(manifest[columns])
    ):
        raise UserError(f"the data have changed since {run_dir} was begun: delete it or change output_folder")


def made_by(hparams):
    """What a run's numbers depend on beside its settings: code that is not korser's own, and frozen weights."""
    prefix, rest = split_frozen(hparams["frontend"])
    head = getattr(hparams["head"], "func", hparams["head"])
    parts = (*prefix, *rest, hparams["backbone"])
    classes = {head}.union(*({type(part), *own_classes(part)} for part in parts))
    return {
        "code": {f"{c.__module__}.{c.__qualname__}": code_digest(c, korser=False) for c in sorted(classes, key=str)},
        "frozen": [
            {
                "stage": f"{type(stage).__module__}.{type(stage).__qualname__}",
                "source": getattr(stage, "source", None),
                "weights": weights_digest(stage),
                "checkpoint": _checkpoint_digest(stage),
            }
            for stage in prefix
        ],
        "begun_with": [
            {"source": str(stage.source), "files": _files_digest(stage.source), "checkpoint": _checkpoint_digest(stage)}
            for stage in rest
            if getattr(stage, "source", None)
        ],
    }


def _files_digest(source):
    """Digest of the files of a checkpoint that is trained on; None where it is no folder (a hub's is its revision)."""
    if not Path(source).is_dir():
        return None
    sha = hashlib.sha256()
    for path in sorted(p for p in Path(source).iterdir() if p.suffix in (".json", ".safetensors", ".bin")):
        sha.update(f"{path.name} {path.stat().st_size};".encode() + path.read_bytes())
    return sha.hexdigest()[:16]


def _checkpoint_digest(stage):
    """Digest of what a checkpoint's JSON files say, which its tensors do not tell."""
    said = json.dumps([encoder_configs(stage), getattr(stage, "do_normalize", None)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def require_same(hparams, run_dir, made=None):
    """Refuse to report a complete run that other code, other frozen weights or other data made.

    Parameters
    ----------
    hparams : korser.hparams.HParams
    run_dir : Path
    made : dict, optional
        What :func:`made_by` gives, where it is known already.

    Raises
    ------
    UserError
        Names what has changed. Where the corpus is not at hand, nothing is known of the data, and the run says so.
    """
    info = read_json(run_dir / "run.json")
    _require_same_code(info, run_dir, made or made_by(hparams))
    names = [task["name"] for task in info["tasks"]]
    try:
        manifest = divide(hparams)[1]
    except UserError as error:
        logger.warning("whether the data are those of the run cannot be told: %s", error)
        return
    _require_same_data(manifest, run_dir, names)
    try:
        manifest["digest"] = scan_audio(manifest["path"].tolist(), hparams["cache_folder"])["digest"].to_numpy()
    except UserError as error:
        logger.warning("whether the recordings are those of the run cannot be told: %s", error)
        return
    _require_same_data(manifest, run_dir, names, ["digest"])


def _require_same_code(begun, run_dir, now):
    for name, code in now["code"].items():
        if begun["code"].get(name) != code:
            raise UserError(
                f"the code of {name} has changed since {run_dir} was begun: delete it or change output_folder"
            )
    same = len(begun["frozen"]) == len(now["frozen"])
    # older runs do not say all of it
    same &= all(old.items() <= new.items() for old, new in zip(begun["frozen"], now["frozen"]))
    same &= begun.get("begun_with", now["begun_with"]) == now["begun_with"]
    if not same:
        raise UserError(
            f"the encoder's weights or configuration have changed since {run_dir} was begun: delete it or change "
            "output_folder"
        )


def _text(table):
    return table.astype(object).where(table.notna(), "").astype(str).reset_index(drop=True)


def labelled_tasks(tasks, corpus, manifest):
    """The tasks that can be trained on a corpus, with their classes.

    A task that the corpus has no labels for is left out, and the run says so.

    Raises
    ------
    UserError
        If the main task, the first, has no labels to train or to choose the best epoch by.
    """
    labelled = []
    for task in tasks:
        if task.name in manifest and task.name not in corpus.classes:
            known = ", ".join([*corpus.classes, task.name])
            how = "leave it out" if corpus.name != "csv" else f"name it by --corpus_options='{{tasks: [{known}]}}'"
            raise UserError(f"'{task.name}' is a column of corpus '{corpus.name}', but none of its tasks: {how}")
        missing = [
            split
            for split in SPLITS[:2]
            if task.name not in manifest
            or ((part := manifest["split"] == split).any() and not manifest.loc[part, task.name].notna().any())
        ]
        if missing and not labelled:
            raise UserError(
                f"corpus '{corpus.name}' has no labels for the main task '{task.name}' in its {missing[0]} split: name "
                f"another task first in 'tasks', or fill the column (there are {', '.join(corpus.classes)})"
            )
        if "train" in missing:
            logger.warning("corpus '%s' has no labels for task '%s': it is left out", corpus.name, task.name)
        else:
            classes = corpus.classes[task.name]
            if len(classes) > MOST_LEVELS and _numbers(classes) and any(float(c) % 1 for c in classes):
                raise UserError(
                    f"{task.name} has {len(classes)} different numbers, and korser classifies: give each a class, in "
                    "the corpus or by label_map"
                )
            if task.ordinal and task.name in corpus.sorted_tasks and len(classes) > 2 and not _numbers(classes):
                raise UserError(
                    f"the order of {task.name} ({', '.join(classes)}) is not known: give it, lowest first, by "
                    f"--corpus_options='{{classes: {{{task.name}: [...]}}}}'"
                )
            labelled.append(dataclasses.replace(task, classes=tuple(corpus.classes[task.name])))
    return labelled


def tasks_of(hparams, info):
    """The tasks that are trained, with their classes, as ``run.json`` recorded them."""
    classes = {task["name"]: tuple(task["classes"]) for task in info["tasks"]}
    return [dataclasses.replace(task, classes=classes[task.name]) for task in hparams["tasks"] if task.name in classes]


def build_model(hparams, tasks, manifest=None):
    """Frontend, backbone and head in one.

    Parameters
    ----------
    hparams : korser.hparams.HParams
    tasks : list of korser.Task
        With their classes.
    manifest : pandas.DataFrame, optional
        To weight the classes by, where ``class_weights`` asks for it.

    Returns
    -------
    korser.model.SpeechEmotionModel
    """
    weights = None
    if manifest is not None and hparams["class_weights"] == "balanced":
        labels = manifest[manifest["split"] == "train"]
        weights = {
            task.name: balanced_weights(
                torch.tensor([class_index(task, label) for label in labels[task.name]]), len(task.classes)
            )
            for task in tasks
        }
    head = hparams["head"](in_features=hparams["backbone"].output_size, tasks=tasks, class_weights=weights)
    return SpeechEmotionModel(frontend=hparams["frontend"], backbone=hparams["backbone"], head=head)


def make_reader(hparams, model, manifest):
    """How training reads an utterance: from the cache of the frozen prefix where there is one, else its decoded audio.

    Returns
    -------
    read : korser.data.KeepInMemory
        ``(audio_path, digest) -> torch.Tensor``.
    skip_prefix : bool
        Whether it gives the prefix's output instead of the waveform.
    """
    skip_prefix = bool(len(model.prefix) and hparams["wav_augment"] is None and hparams["use_cache"])
    if skip_prefix:
        model.prefix.to(hparams["device"] or infer_device())
        stored = FeatureCache(
            list(model.prefix),
            hparams["cache_folder"],
            read_audio,
            dtype=hparams["cache_dtype"],
            precision=hparams["extraction_precision"],
            seconds=hparams["extraction_seconds"],
        )
    else:
        if len(model.prefix) and hparams["wav_augment"] is not None:
            logger.warning("wav_augment changes the waveform: the cache of frozen features is off")
        stored = AudioStore(hparams["cache_folder"], read_audio)
    run_on_main(stored.fill, args=[manifest, not hparams["noprogressbar"]])
    return KeepInMemory(stored, int(hparams["memory_gb"] * 2**30)), skip_prefix


def make_resident(datasets, tasks, stored, device, memory_gb):
    """The splits in memory (:mod:`korser.resident`), each where it still fits.

    Parameters
    ----------
    datasets : dict of str to speechbrain.dataio.dataset.DynamicItemDataset
    tasks : list of str
    stored : korser.audio_store.AudioStore or korser.features.FeatureCache
    device : str
    memory_gb : float
        Of host memory to lock, where a GPU's does not suffice.

    Returns
    -------
    dict of str to korser.resident.Resident
    """
    memory = Memory(device, int(memory_gb * 2**30))
    resident = {split: Resident(dataset, tasks, stored, memory) for split, dataset in datasets.items()}
    for split, data in resident.items():
        logger.info("%s: %.2f GiB in %s", split, data.nbytes / 2**30, PLACES[data.place])
        if data.place == "map" and memory.device.type == "cuda":
            logger.warning("%s fits neither into the GPU's memory nor into memory_gb: raise that, or it is slow", split)
    return resident


def _numbers(classes):
    try:
        return all(math.isfinite(float(name)) for name in classes)
    except ValueError:
        return False


def _check_durations(manifest, frontend):
    short = manifest[manifest["samples"] < frontend.min_length]
    if len(short):
        raise UserError(
            f"{short.iloc[0]['path']} is too short: {short.iloc[0]['duration']:.3f} s, and the frontend needs "
            f"{frontend.min_length / SAMPLE_RATE:.3f} s ({len(short)} such files): take them out of the corpus"
        )


def pretrained(frontend):
    """Whether the frontend's encoders are pretrained; None if it has none."""
    flags = [m.pretrained for m in frontend.modules() if hasattr(m, "pretrained")]
    return all(flags) if flags else None


def predictions_table(manifest, tasks, probabilities):
    """One row an utterance: who and what it is, and for each task truth, prediction and probabilities.

    Parameters
    ----------
    manifest : pandas.DataFrame
    tasks : list of korser.Task
    probabilities : dict
        The first of :meth:`korser.brain.EmotionBrain.predict`.

    Returns
    -------
    pandas.DataFrame
        Columns ``id, path, speaker, split``, ``T``, ``T_pred``, ``T_prob_<class>`` for each task, and whatever else
        the manifest says (age, the labels of tasks that were not trained).
    """
    table = manifest.drop(columns=["audio_path", "digest", "samples"]).reset_index(drop=True)
    for task in tasks:
        p = [probabilities[name][task.name] for name in table["id"]]
        table[f"{task.name}_pred"] = [task.classes[row.argmax()] for row in p]
        for i, label in enumerate(task.classes):
            table[f"{task.name}_prob_{label}"] = [float(row[i]) for row in p]
    return table


def open_tensorboard(hparams, run_dir):
    if not hparams["tensorboard"] or not if_main_process():
        return None
    try:
        from speechbrain.utils.train_logger import TensorboardLogger

        return TensorboardLogger(run_dir / "tensorboard")
    except ImportError as error:
        raise UserError("tensorboard: true needs TensorBoard: pip install 'korser[tensorboard]'") from error
