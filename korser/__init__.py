"""Compare speech frontends on speech emotion recognition."""

from korser.errors import UserError
from korser.stages import SAMPLE_RATE, Chain, Stage
from korser.tasks import Task

__all__ = ["SAMPLE_RATE", "Chain", "Stage", "Task", "UserError"]
