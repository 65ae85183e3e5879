"""What is probed: the checkpoints, and the floor beside them."""

from dataclasses import dataclass
from pathlib import Path

from korser.data.fingerprint import FingerprintError, stages_digest
from korser.frontend.base import Frontend
from korser.probing.settings import require_waveforms
from korser.utils.errors import UserError

CHOSEN, ALL = "chosen", "all"  # among the names of layers: the one that was chosen, and all of them side by side


@dataclass(frozen=True)
class Encoder:
    """Something whose frozen features are probed.

    Parameters
    ----------
    label : str
        In tables and file names.
    stage : korser.Frontend
    digest : str
        Of all that its features depend on, the audio apart.
    """

    label: str
    stage: Frontend
    digest: str

    @property
    def layers(self):
        """Names of its ``L`` layers."""
        n = getattr(self.stage, "n_layers", 1)
        return [str(i) for i in range(n)] if n > 1 else [str(getattr(self.stage, "layer", "features"))]

    @property
    def probed(self):
        """Names of what is predicted from."""
        return [*self.layers, *([ALL] if len(self.layers) > 1 else []), CHOSEN]

    @property
    def pretrained(self):
        """Whether its weights are pretrained; None if it has none that could be."""
        return getattr(self.stage, "pretrained", None)


def make_encoders(settings):
    """The floor and the encoders of all sources, loaded before anything is computed: a wrong name then costs nothing.

    Raises
    ------
    UserError
        If a checkpoint cannot be had.
    """
    stages = dict(settings.floor)
    for label, source in zip(short_names(settings.sources), settings.sources):
        if label in stages:
            raise UserError(f"floor.{label} and the source {source} have one name: rename the former")
        stages[label] = settings.encoder(source=source)
        require_waveforms(stages[label], "encoder")
    return [Encoder(label, stage.eval(), _digest(label, stage)) for label, stage in stages.items()]


def _digest(label, stage):
    try:
        return stages_digest([stage])
    except FingerprintError as error:
        raise UserError(f"{label}: cannot recognise its features again, since {error}: take it out") from error


def short_names(sources):
    """Hub ids as they are, folders by as many of their last parts as tell them apart.

    Example
    -------
    >>> short_names(["facebook/wav2vec2-base", "/a/first/last", "/a/second/last", "/b/nano"])
    ['facebook/wav2vec2-base', 'first/last', 'second/last', 'nano']
    """
    paths = {
        s: Path(s).expanduser().resolve().parts
        for s in sources
        if Path(s).expanduser().is_absolute() or Path(s).is_dir()
    }
    names = {s: s for s in sources}
    for source, parts in paths.items():
        others = [p for s, p in paths.items() if s != source]
        n = next((n for n in range(1, len(parts)) if all(p[-n:] != parts[-n:] for p in others)), len(parts))
        names[source] = "/".join(parts[-n:])
    return [names[s] for s in sources]
