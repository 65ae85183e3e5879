"""Metrics from confusion counts or moments, with intervals over speakers and seeds, and tests between models.

================  ===========================================================
``scores``        metrics, and the table of their names
``moments``       metrics of numbers
``counts``        what metrics are computed from, of tables of predictions
``intervals``     intervals over speakers
``estimates``     metrics and differences with intervals over speakers and seeds
``significance``  paired tests, by permutation and by Student's t
``agreement``     agreement of raters
``cautions``      notes on intervals that are known to be too narrow
``evaluate``      metrics of one run from its predictions
================  ===========================================================
"""

import korser.utils.frames  # noqa: F401
from korser.metrics.evaluate import evaluate_predictions, summary_table
from korser.metrics.scores import METRICS, Metric

__all__ = ["METRICS", "Metric", "evaluate_predictions", "summary_table"]
