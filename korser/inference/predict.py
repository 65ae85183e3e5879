"""A trained model from its run directory, and what it says about audio."""

import json
import logging
from pathlib import Path

import pandas as pd
import safetensors
import safetensors.torch
import torch
from tqdm import tqdm

from korser.config.hparams import load_resolved
from korser.corpora import load_corpus
from korser.corpora.table import closest_label
from korser.data.audio import read_audio, scan_audio
from korser.data.frozen_prefix import FrozenPrefix
from korser.frontend.base import SAMPLE_RATE
from korser.metrics.evaluate import evaluate_predictions
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.runs.provenance import changed_sources, provenance
from korser.training.build import build_model, predictions_table
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_json
from korser.utils.fingerprint import digest

logger = logging.getLogger(__name__)


class TrainedModel:
    """The model of a complete run directory.

    Parameters
    ----------
    run_dir : str or Path
    device : str

    Attributes
    ----------
    model : korser.nn.model.SpeechEmotionModel
        In eval mode; its frozen prefix rounds as the cache did that it was trained on.
    tasks : list of korser.Task
    info : dict
        The contents of ``run.json``.
    warnings : list of str
        What a reader of the predictions must know: which of the model's parts have other code than in training.

    Raises
    ------
    UserError
        If the run is not complete, its code or its weights are not at hand, or the frozen weights are no longer those
        it was trained with.
    """

    def __init__(self, run_dir, device="cpu"):
        run_dir = Path(run_dir)
        self.directory = RunDirectory(run_dir)
        self.info = self.directory.info()
        self.directory.metrics()  # written last: without it the run is not complete
        self.run_dir = run_dir
        hparams = load_resolved(
            self.directory.settings_text(),
            name=self.info["model"],
            folders=self.info["yaml_folders"],
        )
        self.tasks = [Task(**{**task, "classes": tuple(task["classes"])}) for task in self.info["tasks"]]
        self.model = build_model(hparams, self.tasks)
        self.min_length = hparams["frontend"].min_length
        now = provenance(hparams)
        if len(now["frozen"]) != len(self.info["frozen"]):
            raise UserError(
                f"the frozen stages are not those that {run_dir} was trained with ({len(self.info['frozen'])}, now "
                f"{len(now['frozen'])}): restore the code, or train again"
            )
        for stage, recorded in zip(now["frozen"], self.info["frozen"]):
            if stage["weights"] != recorded["weights"]:
                raise UserError(
                    f"the frozen weights of {recorded['stage']} from '{recorded['source']}' are not those that "
                    f"{run_dir} was trained with: restore them, or train again"
                )
        recorded = self.info["frozen"] + self.info["initialised_from"]
        for stage, old in zip(now["frozen"] + now["initialised_from"], recorded):
            if stage["config"] != old["config"]:
                raise UserError(
                    f"config.json or preprocessor_config.json of '{old['source']}' is not what {run_dir} was trained "
                    "with: restore it, or train again"
                )
        changed = changed_sources(self.info, now)
        self.warnings = []
        if changed:  # not refused: the edit may be harmless
            self.warnings.append(
                f"CHANGED CODE OR FILES: {changed} changed after {run_dir} was trained, so these may not be its results: "
                "restore what changed, or train again"
            )
            logger.warning("!!! %s", self.warnings[0])
        if (
            len(self.model.frozen_stages) and hparams["use_cache"] and hparams["wav_augment"] is None
        ):  # as training read it
            kept = {
                "dtype": hparams["cache_dtype"],
                "precision": hparams["extraction_precision"],
            }
            self.model.frozen_stages = torch.nn.ModuleList([FrozenPrefix(*self.model.frozen_stages, **kept)])
        try:
            state = safetensors.torch.load_file(self.directory.weights_file)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"cannot read {self.directory.weights_file} ({error}): train again") from error
        try:
            self.model.load_trained_state(state)
        except RuntimeError as error:
            why = " ".join(str(error).split())
            raise UserError(
                f"the weights of {run_dir} do not fit what its code now makes: restore the code, or train again "
                f"({why[:300]})"
            ) from error
        self.model.eval().to(device)
        self.device = device

    @torch.no_grad()
    def probabilities(self, waveform):
        """Probabilities of every task for one utterance.

        Parameters
        ----------
        waveform : torch.Tensor
            ``(T,)`` at 16 kHz in [-1, 1].

        Returns
        -------
        dict of str to numpy.ndarray
            ``{task: (K,)}``.
        """
        x = waveform[None].to(self.device)
        logits, _ = self.model(x, torch.tensor([x.shape[1]], device=self.device))
        return {name: scores[0].float().softmax(-1).cpu().numpy() for name, scores in logits.items()}

    def predict_files(self, paths):
        """Classes and probabilities for audio files.

        Parameters
        ----------
        paths : list of str or Path
            Anything that :func:`korser.data.audio.read_audio` reads.

        Returns
        -------
        pandas.DataFrame
            Columns ``path``, and for each task ``T_pred`` and ``T_prob_<class>``.

        Raises
        ------
        UserError
            If a file cannot be read or is too short; all are checked first.
        """
        waveforms = [read_audio(path) for path in paths]
        for path, waveform in zip(paths, waveforms):
            self._require_length(path, len(waveform))
        rows = []
        for path, waveform in zip(paths, waveforms):
            row = {"path": str(path)}
            for name, p in self.probabilities(waveform).items():
                classes = next(task.classes for task in self.tasks if task.name == name)
                row[f"{name}_pred"] = classes[p.argmax()]
                row |= {f"{name}_prob_{label}": float(value) for label, value in zip(classes, p)}
            rows.append(row)
        return pd.DataFrame(rows)

    def evaluate_corpus(self, *, corpus, data_folder, label_map=None, corpus_options=None, cache_folder="cache", out):
        """Measure the model on a whole corpus that it was not trained on.

        Parameters
        ----------
        corpus, data_folder, label_map, corpus_options
            See :func:`korser.corpora.load_corpus`; labels are mapped to the model's classes.
        cache_folder : str or Path
            For converted audio.
        out : str or Path
            Folder for predictions (CSV) and metrics (JSON), named by the corpus and a digest of folder and options.

        Returns
        -------
        metrics, info : dict
            For :func:`korser.metrics.evaluate.summary_table`.

        Raises
        ------
        UserError
            If the corpus has a label that the model does not know, or shares no task with it.
        """
        loaded = load_corpus(corpus, data_folder, label_map=label_map, corpus_options=corpus_options)
        manifest = loaded.data.reset_index(drop=True)
        for task in self.tasks:
            if task.name not in manifest:
                manifest[task.name] = None
            for label in manifest[task.name].dropna().unique():
                if label not in task.classes:
                    raise UserError(
                        f"corpus '{loaded.name}' has {task.name} '{label}', which the model does not know"
                        f"{closest_label(label, task.classes)}: map it, --label_map='{{{task.name}: {{{label}: ...}}}}', "
                        "or leave it out by null"
                    )
        if not manifest[[task.name for task in self.tasks]].notna().any().any():
            raise UserError(f"corpus '{loaded.name}' has no label of any of the model's tasks")
        audio = scan_audio(manifest["path"].tolist(), cache_folder)
        columns = ["audio_path", "digest", "samples", "duration"]
        manifest[columns] = audio[columns].to_numpy()
        manifest["split"] = "test"
        for row in manifest.itertuples():
            self._require_length(row.path, row.samples)
        probabilities = {
            row.id: self.probabilities(read_audio(row.audio_path))
            for row in tqdm(list(manifest.itertuples()), desc="predict", dynamic_ncols=True)
        }
        table = predictions_table(manifest, self.tasks, probabilities)
        metrics = evaluate_predictions(table, self.tasks)
        seen = self.directory.manifest()
        seen = seen[seen["split"].isin(["train", "valid"])]
        shared = int(manifest["digest"].isin(seen["digest"]).sum())
        warnings = list(self.warnings)
        if shared:
            warnings.append(
                f"{shared} of {len(manifest)} recordings were used in training or validation: these are no figures for "
                "new data"
            )
            logger.warning("%s", warnings[-1])
        elif known := self._known(manifest, seen, loaded.name):
            warnings.append(known)
            logger.warning("%s", known)
        info = {
            **self.info,
            "corpus": loaded.name,
            "data_folder": str(data_folder),
            "synthetic": loaded.synthetic,
            "protocol": f"trained on {self.info['corpus']}",
            "speaker_independent": len(warnings) == len(self.warnings),
            "lexical_leakage": False,
            "recordings_trained_on": shared,
            "warnings": warnings,
            "label_map": label_map,
        }
        which = json.dumps([str(Path(data_folder).resolve()), label_map, corpus_options], ensure_ascii=False)
        name = f"{loaded.name}-{digest(which, length=8)}"
        write_csv(Path(out) / f"{name}.csv", table)
        write_json(Path(out) / f"{name}.json", {"info": info, "metrics": metrics})
        return metrics, info

    def _require_length(self, path, samples):
        if samples < self.min_length:
            raise UserError(
                f"{path} is too short: {samples / SAMPLE_RATE:.3f} s, and the model needs "
                f"{self.min_length / SAMPLE_RATE:.3f} s"
            )

    def _known(self, manifest, seen, corpus):
        """What to say where names of training come back with other recordings, such as degraded copies of the same."""
        ids = int(manifest["id"].isin(seen["id"]).sum())
        speakers = set(manifest["speaker"].dropna())
        known = speakers & set(seen["speaker"].dropna())
        if corpus != self.info["corpus"] or not (ids or known) or (corpus == "csv" and not ids):
            return None  # any corpus may be read as csv, and in each there may be a speaker 1
        return (
            f"{ids} of {len(manifest)} utterances have the ids, and {len(known)} of {len(speakers)} speakers the "
            "names, of some in training or validation: if they are the same, these are no figures for new data"
        )
