"""Comparisons of several models on the same corpus and split.

===============  ==================================================================
``run``          trains what is missing and writes all tables (``korser compare``)
``plan``         which runs a comparison needs
``settings``     settings of a comparison
``compare``      compares runs
``estimates``    estimates, differences and tests
``questions``    questions and their answers
``verdict``      verdicts and answers as values
``subgroups``    results by group and speaker, calibration
``robustness``   results on degraded audio
``cross_corpus`` models trained on one corpus and tested on others; ``cross_tables``: its tables
``warnings``     warnings, and models that cannot be compared
``tables``       tables
``write``        text, Markdown, LaTeX and CSV files
===============  ==================================================================
"""

import korser.utils.frames  # noqa: F401
from korser.comparison.compare import Comparison, compare
from korser.comparison.verdict import Answer, Verdict

__all__ = ["Answer", "Comparison", "Verdict", "compare"]
