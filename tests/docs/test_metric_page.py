"""The metric and the figure of the page on extending the library, as they are written there."""

import re

import made_runs
import numpy as np
from conftest import ROOT
from sklearn.metrics import matthews_corrcoef

from korser.metrics import scores
from korser.metrics.scores import ALL_METRICS, Metric
from korser.reporting.figures.group import gather
from korser.reporting.figures.style import Style
from korser.runs.load import load_runs

PAGE = (ROOT / "docs/extending/metric.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))


def test_the_metric_and_the_figure(tmp_path, monkeypatch):
    names = dict(vars(scores))
    exec(BLOCKS["korser/metrics/scores.py"], names)
    listed = re.search(r'`(Metric\("mcc".*?\))`', PAGE)[1]
    monkeypatch.setitem(ALL_METRICS, "mcc", eval(listed, {**names, "Metric": Metric}))
    truth, predicted, speaker = np.random.default_rng(0).integers(0, 3, (3, 60))
    counts = scores.speaker_confusion_counts(truth, predicted, speaker, 3)
    assert np.isclose(ALL_METRICS["mcc"](counts.sum(0)), matthews_corrcoef(truth, predicted))
    for i in range(3):
        own = speaker == i
        assert np.isclose(ALL_METRICS["mcc"](counts)[i], matthews_corrcoef(truth[own], predicted[own]))

    figure = {}
    exec(BLOCKS["korser/reporting/figures/utterances.py"], figure)
    made_runs.write_run(tmp_path, "mel_stl")
    (group,) = gather(load_runs(tmp_path))
    (drawing,) = figure["draw"](group, Style())
    assert [bar.get_height() for bar in drawing.figure.axes[0].patches] == [9] * 6
