"""Messages about a round of pretraining: its numbers, and whether something goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from korser.utils.notes import Note

__all__ = ["find_problem", "round_summary"]

MIN_CODEBOOK_USE = 0.1  # share of the codebook's entries below which it has collapsed
MIN_ACCURACY = 1.2  # times chance


def find_problem(row: dict[str, float], hparams: Mapping[str, Any], info: dict[str, Any]) -> Note | None:
    """Return a warning if a row of the log says that the codebook has collapsed or nothing is learnt, else None.

    Its code is ``collapse`` or ``nothing_learnt``; ``info`` is the content of ``run.json``.
    """
    if row["step"] < max(hparams["warmup"], 0.1) * hparams["n_steps"]:
        return None  # too early to tell
    split = "valid" if "valid_accuracy" in row else "train"
    perplexity, accuracy = row[f"{split}_perplexity"], row[f"{split}_accuracy"]
    chance = 1 / (info["n_negatives"] + 1)
    if perplexity / info["entries"] < MIN_CODEBOOK_USE:
        return Note(
            "collapse",
            f"COLLAPSE at step {row['step']}: {perplexity:.0f} of {info['entries']} codebook entries are in use, so "
            "the checkpoint is of little use: lower lr, raise warmup or config.diversity_loss_weight",
        )
    if accuracy < MIN_ACCURACY * chance:
        return Note(
            "nothing_learnt",
            f"NOTHING LEARNT by step {row['step']}: contrastive accuracy {accuracy:.3f}, chance is {chance:.3f}: lower "
            "lr, raise warmup or batch_seconds",
        )
    return None


def round_summary(row: dict[str, float], n_steps: int) -> str:
    """Return one line for the terminal."""
    speed = row["audio_seconds"] / max(row["seconds"], 1e-9)
    text = (
        f"step {row['step']}/{n_steps}: {speed:.0f} audio s/s, loss {row['train_contrastive_loss']:.3f}, "
        f"accuracy {row['train_accuracy']:.3f}, perplexity {row['train_perplexity']:.0f}"
    )
    if "valid_accuracy" in row:
        text += (
            f"; validation: loss {row['valid_contrastive_loss']:.3f}, accuracy {row['valid_accuracy']:.3f}, "
            f"perplexity {row['valid_perplexity']:.0f}"
        )
    return text
