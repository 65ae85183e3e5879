"""The model card of a pretrained checkpoint."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Wav2Vec2FeatureExtractor

    from korser.config.hparams import HParams

__all__ = ["model_card"]

CARD = """---
license: {licence}
library_name: transformers
tags:
- wav2vec2
- speech
- pretraining
---

# {name}

wav2vec 2.0 ({parameters:.2f} M parameters{quantizer}), pretrained by korser's `recipes/pretrain.py` {origin}.

| | |
|---|---|
| speech | {description} |
| amount | {hours:.2f} h in {files} files{synthetic}; {held:.2f} h of them for validation{held_speakers} |
| sources | {sources} |
| objective | contrastive with {n_negatives} negatives + {diversity:g} x diversity{auxiliary} |
| augmentation | {augment} |
| steps | {step} of {n_steps}, {batch_seconds:g} s of audio per batch{processes}, {audio_hours:.1f} h of audio |
| compute | {compute_hours:.2f} h of steps on {device}, {precision} |
| validation | {validation} |
| licence | {licence} |

Created by

    {command}

with korser {korser}, transformers {transformers} and torch {torch}; see `log.csv` and `hparams.yaml` of the run.
Waveforms at 16 kHz{normalized}. As a frontend of korser: `--wav2vec_source=<this folder>`.
"""


def model_card(
    hparams: HParams,
    info: dict[str, Any],
    row: dict[str, float],
    *,
    parameters: int,
    preprocessor: Wav2Vec2FeatureExtractor,
) -> str:
    """Return Markdown that describes how a checkpoint with a number of parameters was created.

    ``info`` is the content of ``run.json``, ``row`` that of the log at the step of the checkpoint.
    """
    versions, processes = info["environment"]["versions"], info["processes"]
    program, *arguments = info["environment"]["command"]
    launcher = f"torchrun --nproc_per_node={processes}" if processes > 1 else "python"
    if program == "pretrain.py":
        command = f"{launcher} recipes/{shlex.join([program, *arguments])}"
    elif program == "korser":
        command = shlex.join([program, *arguments])
    else:
        command = "korser.pretraining.pretrain with the settings in hparams.yaml"
    weight, auxiliary = hparams["reconstruction_weight"], ""
    if weight:
        auxiliary = f" + {weight:g} x log-mel reconstruction (an auxiliary task of korser, not part of wav2vec 2.0)"
    n_negatives = info["n_negatives"]
    validation = "none"
    if "valid_accuracy" in row:
        validation = (
            f"the right one of {n_negatives + 1} candidates chosen for {100 * row['valid_accuracy']:.1f} % of masked "
            f"frames (chance: at least {100 / (n_negatives + 1):.1f} %, more where candidates are equal); "
            f"{row['valid_perplexity']:.0f} of {info['entries']} codebook entries in use"
        )
    return CARD.format(
        name=hparams.name,
        licence=hparams["licence"],
        parameters=parameters / 1e6,
        quantizer=", without quantizer" if hparams["encoder_only"] else " with quantizer",
        origin=f"from {hparams['source']}" if hparams["source"] else "from scratch",
        description=hparams["description"],
        hours=info["seconds"] / 3600,
        held=info["held_seconds"] / 3600,
        held_speakers=", of other speakers than those of training" if info["speakers_held"] else "",
        sources="; ".join(map(_describe_source, hparams["sources"])),
        n_negatives=n_negatives,
        diversity=info["diversity_loss_weight"],
        auxiliary=auxiliary,
        augment="none" if hparams["augment"] is None else type(hparams["augment"]).__name__,
        files=info["n_files"],
        synthetic=", synthetic" if info["synthetic"] else "",
        step=row["step"],
        n_steps=hparams["n_steps"],
        batch_seconds=hparams["batch_seconds"],
        processes=f" on each of {processes} processes" if processes > 1 else "",
        audio_hours=row["audio_seconds"] / 3600,
        compute_hours=row["seconds"] / 3600,
        device=(f"{processes} x " if processes > 1 else "") + info["environment"]["device"],
        precision=hparams["precision"],
        validation=validation,
        command=command,
        normalized=", scaled to zero mean and unit variance" if preprocessor.do_normalize else "",
        **{name: versions[name] or "from its source" for name in ("korser", "transformers", "torch")},
    )


def _describe_source(source: dict[str, Any]) -> str:
    """Return the name of a source's folder and what was read of it."""
    details = [str(source["corpus"])] if source.get("corpus") else []
    for key in ("corpus_options", "split", "weight"):
        if source.get(key):
            details.append(f"{key} {json.dumps(source[key], ensure_ascii=False)}")
    if source.get("split"):
        details.append("training split only")
    return Path(source["data_folder"]).name + (f" ({', '.join(details)})" if details else "")
