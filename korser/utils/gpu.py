"""GPU memory."""

import os
import re
import resource
import sys
from pathlib import Path

import torch

from korser.utils.errors import UserError

STATUS = Path("/proc/self/status")


FORGET_PEAK = "5"  # proc(5), clear_refs: sets the peak resident set size back to the present one


LIBRARY_FULL = "_ALLOC_FAILED"  # what cuBLAS, cuFFT and cuDNN say, in a plain RuntimeError


def gpu_is_full(error):
    """Whether an exception says that a GPU's memory has run out.

    Example
    -------
    >>> gpu_is_full(RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED")), gpu_is_full(RuntimeError("shapes do not fit"))
    (True, False)
    """
    plain = isinstance(error, RuntimeError) and LIBRARY_FULL in str(error)
    return plain or isinstance(error, torch.cuda.OutOfMemoryError)


class PeakMemory:
    """The most memory in use from its making on.

    That of the GPU if ``device`` is one (what PyTorch allocated), otherwise the resident set of the process, which
    holds Python and its libraries as well.

    Parameters
    ----------
    device : str or torch.device
    """

    def __init__(self, device):
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif STATUS.exists():
            try:
                STATUS.with_name("clear_refs").write_text(FORGET_PEAK)
            except OSError:  # not allowed here: the peak since the process began
                return

    def measure(self):
        """Bytes, and of what: ``(int, "gpu" or "process")``."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device), "gpu"
        if STATUS.exists():
            match = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
            if match:
                return int(match[1]) * 1024, "process"
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


def require_own_device(device):
    """Refuse a GPU named under torchrun: SpeechBrain would put every process on that one, ``cuda`` on the first.

    Raises
    ------
    UserError
    """
    if "RANK" in os.environ and str(device or "").startswith("cuda"):
        raise UserError(f"device is {device!r}: under torchrun leave it null, and each process takes a GPU of its own")
