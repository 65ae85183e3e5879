"""Features of openSMILE, frozen.

Eyben et al., "openSMILE: the Munich versatile and fast open-source audio feature extractor", ACM Multimedia 2010;
eGeMAPS: Eyben et al., IEEE Transactions on Affective Computing 7(2), 2016; ComParE: Schuller et al., Interspeech 2016.

openSMILE is not part of korser. It belongs to audEERING GmbH and is free for private, research and educational use
only; commercial use needs a licence of audEERING (https://github.com/audeering/opensmile-python). Install it by
``pip install 'korser[opensmile]'``.

Shape legend: ``T`` samples, ``K`` frames, ``C`` features.
"""

from __future__ import annotations

import torch

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.foreign import OneAtATime
from korser.utils.errors import UserError

__all__ = ["OpenSmile"]

FEATURE_SETS = ("eGeMAPSv02", "ComParE_2016")
LEVELS = {"descriptors": "LowLevelDescriptors", "functionals": "Functionals"}
SHORTEST = 960  # samples; openSMILE gives NaN or constants below


class OpenSmile(OneAtATime):
    """Low-level descriptors or functionals of openSMILE.

    Parameters
    ----------
    feature_set : str
        "eGeMAPSv02" (25 descriptors, 88 functionals) or "ComParE_2016" (65 descriptors, 6,373 functionals).
    level : str
        "descriptors", a hundred frames per second; or "functionals", one frame per utterance.

    Raises
    ------
    UserError
        If an argument is invalid, or openSMILE is not installed.
    """

    def __init__(self, *, feature_set: str = "eGeMAPSv02", level: str = "descriptors") -> None:
        if feature_set not in FEATURE_SETS or level not in LEVELS:
            raise UserError(
                f"OpenSmile: feature_set={feature_set!r}, level={level!r}: expected {' or '.join(FEATURE_SETS)}, and "
                f"{' or '.join(LEVELS)}"
            )
        try:
            import opensmile
        except ImportError as error:
            raise UserError("OpenSmile needs openSMILE: pip install 'korser[opensmile]'") from error
        smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet[feature_set], feature_level=opensmile.FeatureLevel[LEVELS[level]]
        )
        super().__init__(
            output_size=smile.num_features, frame_rate=100 if level == "descriptors" else None, min_length=SHORTEST
        )
        self.smile = smile

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames of 60 ms every 10 ms as openSMILE counts them, or ones."""
        return super().output_lengths(lengths) if self.frame_rate is None else lengths // 160 - 4

    def one(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the features of a waveform ``(T,)`` on the CPU, ``(K, C)``."""
        (features,) = self.smile(x.float().cpu().numpy(), SAMPLE_RATE)  # (C, K)
        return torch.from_numpy(features).T.to(x.device)
