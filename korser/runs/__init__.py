"""Run directories: their files, what they were made from, and runs as data for tables and figures."""

import korser.utils.frames  # noqa: F401
