"""Choose the backbone that fits a frontend, and its width for a number of parameters."""

from __future__ import annotations

import inspect
import logging
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.frontend.validation import check_sizes
from korser.utils.errors import UserError
from korser.utils.seeding import seeded
from korser.utils.user_code import import_path

__all__ = ["count_trained", "for_frontend", "width_for"]

logger = logging.getLogger(__name__)

LARGEST = 2**16  # of a width


def for_frontend(
    *,
    frontend: Frontend,
    bands: Callable[..., nn.Module] | None = None,
    states: Callable[..., nn.Module] | None = None,
    parameters: int | None = None,
) -> nn.Module:
    """Build the backbone for the kind of features that a frontend declares.

    Parameters
    ----------
    frontend : Frontend
        Its ``output_size`` is passed on as ``in_channels``, and its ``frame_rate`` to a class that takes it.
    bands : callable
        Class or function that is called if the channels are bands ordered by frequency
        (``frontend.frequency_axis``), as those of a filterbank.
    states : callable
        The same for channels without an order, as the hidden states of an encoder.
    parameters : int, optional
        Number of trained parameters of the backbone. Its ``width`` becomes the largest one that does not exceed it.
        None: the width is as given.

    Returns
    -------
    torch.nn.Module
        What the class returns. With ``parameters``, its attribute ``width`` is the chosen one; ``run.json`` records it.

    Raises
    ------
    korser.frontend.validation.ContractError
        If the frontend declares invalid sizes.
    UserError
        If the backbone for this kind of features is missing, or no width fits.

    Examples
    --------
    >>> from korser.plugins.backbones.convnet import ConvNet
    >>> from korser.plugins.backbones.temporal import TemporalNet
    >>> hidden = Frontend(output_size=512, frame_rate=50.0)
    >>> net = for_frontend(frontend=hidden, bands=ConvNet, states=TemporalNet, parameters=100_000)
    >>> type(net).__name__, net.width, count_trained(net) <= 100_000
    ('TemporalNet', 72, True)
    """
    check_sizes(frontend)
    key, chosen = ("bands", bands) if frontend.frequency_axis else ("states", states)
    if chosen is None:
        raise UserError(
            f"backbone.{key} is missing: {import_path(frontend)} declares frequency_axis={frontend.frequency_axis}"
        )
    build = partial(chosen, **_sizes(frontend, chosen))
    if parameters is None:
        return build()
    width = width_for(parameters, build)
    backbone = build(width=width)
    backbone.width = width
    message = "%s: width %d, %d trained parameters (at most %d)"
    logger.info(message, type(backbone).__name__, width, count_trained(backbone), parameters)
    return backbone


def width_for(parameters: int, build: Callable[..., nn.Module]) -> int:
    """Return the largest ``width`` of a backbone with at most so many trained parameters.

    ``build(width=...)`` returns a backbone, whose number of parameters grows with it. The width is a multiple of the
    class attribute ``width_step``, if the class has one. Candidates are built without memory for their weights, and the
    random generators are left unchanged.

    Raises
    ------
    UserError
        If there is no ``width``, or the narrowest backbone has more parameters.
    """
    function = build
    while isinstance(function, partial):
        function = function.func
    name = import_path(function)
    if "width" not in inspect.signature(build).parameters:
        raise UserError(f"backbone.parameters={parameters}: {name} has no argument 'width' that could be chosen")
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        raise UserError(f"backbone.parameters={parameters!r}: expected a positive number of trained parameters")
    step = getattr(function, "width_step", 1)

    def count(n: int) -> int:
        with seeded(0), torch.device("meta"):
            return count_trained(build(width=n * step))

    smallest = count(1)
    if smallest > parameters:
        raise UserError(
            f"backbone.parameters={parameters}: {name} has {smallest} trained parameters at width {step}, the "
            "smallest: expected at least as many"
        )
    high = 2
    while high * step <= LARGEST and count(high) <= parameters:
        high *= 2
    return (bisect_right(range(high), parameters, lo=high // 2, key=count) - 1) * step


def count_trained(module: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _sizes(frontend: Frontend, backbone: Callable[..., nn.Module]) -> dict[str, Any]:
    """Return the sizes of a frontend that a backbone takes and that it has not been given."""
    given = getattr(backbone, "keywords", {})
    sizes = {"in_channels": frontend.output_size}
    if "frame_rate" in inspect.signature(backbone).parameters:
        sizes["frame_rate"] = frontend.frame_rate
    return {name: value for name, value in sizes.items() if name not in given}
