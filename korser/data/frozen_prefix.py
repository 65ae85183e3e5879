"""The frozen stages of a frontend, computed and rounded as the feature cache keeps them.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

from __future__ import annotations

import torch

from korser.frontend.base import Chain, Frontend
from korser.utils.errors import UserError

__all__ = ["DTYPES", "OTHER_DTYPE", "PRECISIONS", "FrozenPrefix"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PRECISIONS = ("fp32", "bf16")
OTHER_DTYPE = "set cache_dtype to bfloat16 or float32 (float16 ends at 65504)"


class FrozenPrefix(Chain):
    """Frozen stages in a row, computed and rounded as the cache does it; the output is float32.

    A model that was trained on cached features is used behind this.

    Parameters
    ----------
    *stages : korser.Frontend
        At least one; all frozen.
    dtype : str
        ``float32``, ``float16`` or ``bfloat16``: what the output is rounded to.
    precision : str
        ``fp32``, or ``bf16`` for autocast.

    Raises
    ------
    UserError
        If the dtype or precision is unknown.
    """

    def __init__(self, *stages: Frontend, dtype: str = "float32", precision: str = "fp32") -> None:
        if dtype not in DTYPES:
            raise UserError(f"cache_dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
        if precision not in PRECISIONS:
            raise UserError(f"extraction_precision={precision!r}: expected one of {', '.join(PRECISIONS)}")
        super().__init__(*stages)
        self.dtype = DTYPES[dtype]
        self.precision = precision

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`korser.Frontend.forward`; raises a UserError if the output exceeds the dtype."""
        exact, lengths = self._computed(x, lengths)
        y = exact.to(self.dtype)
        if not torch.compiler.is_exporting() and y.isinf().any():
            raise UserError(f"frozen features exceed {y.dtype}: {OTHER_DTYPE}, and train again")
        if x.requires_grad:  # gradients pass the rounding, and are not rounded themselves
            return exact + (y.float() - exact).detach(), lengths
        return y.float(), lengths

    def rounded(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features in the cache's dtype, without the check, which would wait for a GPU."""
        x, lengths = self._computed(x, lengths)
        return x.to(self.dtype), lengths

    def _computed(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return super().forward(x, lengths)
