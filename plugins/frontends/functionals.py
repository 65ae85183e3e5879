"""openSMILE functionals: one vector per utterance, the features of the classical baselines.

Shape legend: ``B`` utterances, ``T`` samples, ``C`` functionals.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

__all__ = ["Functionals"]

MIN_LENGTH = 960  # 60 ms, the longest window of openSMILE's sets; of less it extracts nothing


class Functionals(Frontend):
    """Functionals of an openSMILE feature set, such as the 88 of eGeMAPS or the 6,373 of ComParE.

    Computed by the package ``opensmile`` (``pip install 'korser[opensmile]'``), whose licence allows research and
    teaching but no commercial use. There is nothing to train, and the only frame of an utterance is its vector. The
    values differ by orders of magnitude: standardise them, and cache them as float32.

    Parameters
    ----------
    feature_set : str
        A name of ``opensmile.FeatureSet``: ``eGeMAPSv02`` (88 functionals), ``ComParE_2016`` (6,373), ``emobase`` ...

    Raises
    ------
    UserError
        If ``opensmile`` is not installed, or the set is unknown.

    References
    ----------
    Eyben et al. 2016, "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for Voice Research and Affective
    Computing", IEEE Transactions on Affective Computing 7(2), 190. Schuller et al. 2016, "The INTERSPEECH 2016
    Computational Paralinguistics Challenge".

    Examples
    --------
    >>> features, lengths = Functionals()(torch.zeros(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths
    (torch.Size([2, 1, 88]), tensor([1, 1]))
    """

    def __init__(self, *, feature_set: str = "eGeMAPSv02") -> None:
        n_features = _extractor(feature_set).num_features
        super().__init__(output_size=n_features, frame_rate=None, min_length=MIN_LENGTH)
        self.feature_set = feature_set

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """See :meth:`korser.Frontend.output_lengths`: 1 for every utterance."""
        return torch.ones_like(lengths)

    @torch.no_grad()
    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`korser.Frontend.forward`."""
        rows = zip(x.float().cpu().numpy(), lengths.tolist())
        features = np.stack([self._functionals(row[:n]) for row, n in rows])  # (B, C)
        return torch.from_numpy(features).to(x)[:, None], self.output_lengths(lengths)

    def _functionals(self, x: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too short segments
            y = _extractor(self.feature_set).process_signal(x, SAMPLE_RATE).to_numpy(np.float32)[0]
        return np.nan_to_num(y)  # functionals of no frame, such as of the voiced ones of silence


@functools.cache  # outside of the frontend, since it cannot be copied or saved
def _extractor(feature_set: str) -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise UserError("openSMILE is not installed: pip install 'korser[opensmile]'") from error
    names = [each.name for each in opensmile.FeatureSet]
    if feature_set not in names:
        raise UserError(
            f"feature_set={feature_set!r}: expected one of {', '.join(names)}{did_you_mean(str(feature_set), names)}"
        )
    level = opensmile.FeatureLevel.Functionals
    return opensmile.Smile(feature_set=opensmile.FeatureSet[feature_set], feature_level=level)
