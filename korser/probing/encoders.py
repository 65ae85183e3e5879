"""The encoders to probe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from korser.classical.selection import layer_names
from korser.data.fingerprint import FingerprintError, stages_digest
from korser.frontend.base import Frontend
from korser.probing.settings import require_waveforms
from korser.utils.errors import UserError

if TYPE_CHECKING:
    from korser.probing.settings import ProbeSettings

__all__ = ["ALL", "CHOSEN", "Encoder", "make_encoders"]

CHOSEN, ALL = "chosen", "all"  # names besides those of layers: the chosen layer, and all layers concatenated


@dataclass(frozen=True)
class Encoder:
    """An encoder whose frozen features are probed.

    Parameters
    ----------
    label : str
        Its name in tables and file names.
    digest : str
        Digest of everything that its features depend on, except for the audio.
    """

    label: str
    frontend: Frontend
    digest: str

    @property
    def layers(self) -> list[str]:
        """Return the names of its ``L`` layers."""
        return layer_names(self.frontend)

    @property
    def probed(self) -> list[str]:
        """Return the names of everything that labels are predicted from."""
        return [*self.layers, ALL, CHOSEN] if len(self.layers) > 1 else [*self.layers, CHOSEN]

    @property
    def pretrained(self) -> bool | None:
        """Return whether its weights are pretrained; None if it has no weights to pretrain."""
        return self.frontend.pretrained


def make_encoders(settings: ProbeSettings) -> list[Encoder]:
    """Load the baseline frontends and the encoders of all sources.

    Raises
    ------
    UserError
        If a checkpoint is missing or invalid.
    """
    frontends = dict(settings.floor)
    for label, source in zip(_short_names(settings.sources), settings.sources):
        if label in frontends:
            raise UserError(f"floor.{label} and the source {source} have the same name: rename floor.{label}")
        frontends[label] = settings.encoder(source=source)
        require_waveforms(frontends[label], "encoder")
    return [Encoder(label, frontend.eval(), _digest(label, frontend)) for label, frontend in frontends.items()]


def _digest(label: str, frontend: Frontend) -> str:
    try:
        return stages_digest([frontend])
    except FingerprintError as error:
        raise UserError(f"{label}: its features cannot be cached, since {error}: leave it out") from error


def _short_names(sources: Sequence[str]) -> list[str]:
    """Return hub ids unchanged, and of each folder the fewest last parts that distinguish it from the others.

    Examples
    --------
    >>> _short_names(["facebook/wav2vec2-base", "/a/first/last", "/a/second/last", "/b/nano"])
    ['facebook/wav2vec2-base', 'first/last', 'second/last', 'nano']
    """
    folders = {}
    for source in sources:
        path = Path(os.path.expanduser(source))
        if path.is_absolute() or Path(source).is_dir():
            folders[source] = path.resolve().parts
    names = dict(zip(sources, sources))
    for source, parts in folders.items():
        others = [other for name, other in folders.items() if name != source]
        n = 1
        while n < len(parts) and any(other[-n:] == parts[-n:] for other in others):
            n += 1
        names[source] = "/".join(parts[-n:])
    return [names[source] for source in sources]
