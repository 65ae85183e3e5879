"""Low-rank adapters (LoRA) in a frozen encoder, by the package peft."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from korser.plugins.frontends.encoder.families.base import EncoderFamily
from korser.utils.errors import UserError

__all__ = ["add_adapters"]

MARK = "lora_"  # of the names of adapters in peft


def add_adapters(
    encoder: EncoderFamily,
    source: str,
    *,
    rank: int = 8,
    alpha: float = 16,
    target_modules: Sequence[str] = ("q_proj", "v_proj"),
    dropout: float = 0.0,
) -> None:
    """Freeze an encoder and add adapters to linear layers, in place.

    The output of a layer becomes ``W x + (alpha / rank) B A x``, with ``B = 0`` at the start (Hu et al. 2022, "LoRA:
    Low-Rank Adaptation of Large Language Models", arXiv 2106.09685).

    Parameters
    ----------
    source : str
        Named in errors.
    target_modules : sequence of str
        Last parts of the names of the adapted layers.
    dropout : float
        Of the input of the adapters, in training.

    Raises
    ------
    UserError
        If peft is not installed, or the encoder has no such layers.
    """
    for name, value, valid, expected in (
        ("rank", rank, isinstance(rank, int) and rank > 0, "an integer above 0"),
        ("alpha", alpha, isinstance(alpha, (int, float)) and alpha > 0, "a number above 0"),
        ("dropout", dropout, isinstance(dropout, (int, float)) and 0 <= dropout < 1, "a number from 0, below 1"),
        ("target_modules", target_modules, isinstance(target_modules, (list, tuple)) and target_modules, "names"),
    ):
        if not valid:
            raise UserError(f"lora.{name}={value!r}: expected {expected}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("lora needs the package peft: pip install 'korser[lora]'") from None
    linear = {name.rpartition(".")[2] for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    adaptable = linear - set(encoder.not_adaptable)
    for name in target_modules:
        if name not in adaptable:
            raise UserError(
                f"lora.target_modules: {name!r}: expected linear layers of {source} that can be adapted: "
                f"{', '.join(sorted(adaptable))}"
            )
    encoder.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(target_modules), lora_dropout=dropout)
    inject_adapter_in_model(config, encoder)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(MARK in name)
