"""The model card of a pretrained checkpoint."""

import json
import shlex
from pathlib import Path

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
| amount | {hours:.2f} h in {files} files{synthetic}; {held:.2f} h of them held out for validation{held_speakers} |
| sources | {sources} |
| objective | contrastive with {n_negatives} negatives + {diversity:g} x diversity{auxiliary} |
| augmentation | {augment} |
| steps | {step} of {n_steps}, {batch_seconds:g} s of audio a batch{processes}, {audio_hours:.1f} h of audio in all |
| compute | {compute_hours:.2f} h of steps on {device}, {precision} |
| validation | {validation} |
| licence | {licence} |

Made by

    {command}

with korser {korser}, transformers {transformers} and torch {torch}; `log.csv` and `hparams.yaml` of the run hold the
rest. Waveforms at 16 kHz{normalized}. As a frontend of korser: `--wav2vec_source=<this folder>`.
"""


def model_card(hparams, info, row, *, parameters, preprocessor):
    """Markdown with what went into a checkpoint.

    Parameters
    ----------
    hparams : korser.config.hparams.HParams
    info : dict
        ``run.json``.
    row : dict
        Of the log, at the step of the checkpoint.
    parameters : int
        Of what is exported.
    preprocessor : transformers.Wav2Vec2FeatureExtractor

    Returns
    -------
    str
    """
    versions, processes = info["environment"]["versions"], info["processes"]
    program, *arguments = info["environment"]["command"]
    launcher = f"torchrun --nproc_per_node={processes}" if processes > 1 else "python"
    command = f"{launcher} recipes/{shlex.join([program, *arguments])}"
    if program != "pretrain.py":
        command = "korser.pretraining.pretrain with the settings in hparams.yaml"
    weight = hparams["reconstruction_weight"]
    auxiliary = f" + {weight:g} x log-mel reconstruction (an auxiliary task of korser's, no part of wav2vec 2.0)"
    n_negatives = info["n_negatives"]
    validation = "none"
    if "valid_accuracy" in row:
        validation = (
            f"the right one of {n_negatives + 1} told for {100 * row['valid_accuracy']:.1f} % of masked frames (by "
            f"chance {100 / (n_negatives + 1):.1f} %, or more where negatives are alike or its own copies); "
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
        held_speakers=", of speakers that are not trained on" if info["speakers_held"] else "",
        sources="; ".join(map(_source, hparams["sources"])),
        n_negatives=n_negatives,
        diversity=info["diversity_loss_weight"],
        auxiliary=auxiliary if weight else "",
        augment="none" if hparams["augment"] is None else type(hparams["augment"]).__name__,
        files=info["files"],
        synthetic=", synthetic" if info["synthetic"] else "",
        step=row["step"],
        n_steps=hparams["n_steps"],
        batch_seconds=hparams["batch_seconds"],
        processes=f" on each of {processes} processes" if processes > 1 else "",
        audio_hours=row["audio_seconds"] / 3600,
        compute_hours=row["seconds"] / 3600,
        device=f"{processes} x {info['environment']['device']}" if processes > 1 else info["environment"]["device"],
        precision=hparams["precision"],
        validation=validation,
        command=command,
        normalized=", scaled to zero mean and unit variance" if preprocessor.do_normalize else "",
        **{name: versions[name] or "from its source" for name in ("korser", "transformers", "torch")},
    )


def _source(source):
    """One source in words: its folder's name, and what was read of it."""
    told = [str(source["corpus"])] if source.get("corpus") else []
    for key in ("corpus_options", "split", "weight"):
        if source.get(key):
            told.append(f"{key} {json.dumps(source[key], ensure_ascii=False)}")
    if source.get("split"):
        told.append("its training part alone")
    return Path(source["data_folder"]).name + (f" ({', '.join(told)})" if told else "")
