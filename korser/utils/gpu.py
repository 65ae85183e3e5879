"""Peak memory and choice of GPUs."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path
from typing import Literal

import torch

from korser.utils.errors import UserError

__all__ = ["PeakMemory", "require_own_device"]

PROCESS_STATUS = Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5), clear_refs: sets the peak resident set size to the current one


class PeakMemory:
    """Peak memory since this object was made.

    Of a GPU: what PyTorch allocated on it. Of a CPU: the resident set of the process, Python and libraries included.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif PROCESS_STATUS.exists():
            try:
                PROCESS_STATUS.with_name("clear_refs").write_text(RESET_PEAK)
            except OSError:  # not permitted: the peak is that since the process started
                return

    def measure(self) -> tuple[int, Literal["gpu", "process"]]:
        """Return the peak in bytes, and what it is of."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device), "gpu"
        if PROCESS_STATUS.exists():
            match = re.search(r"VmHWM:\s+(\d+) kB", PROCESS_STATUS.read_text())
            if match:
                return int(match[1]) * 1024, "process"
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


def require_own_device(device: str | None) -> None:
    """Refuse a GPU that is named under torchrun, since all processes would use that one."""
    if "RANK" in os.environ and str(device or "").startswith("cuda"):
        raise UserError(f"device={device}: must be null under torchrun, which gives each process its own GPU")
