"""Linear probes: what each layer of a frozen encoder encodes about a label.

The features of every layer are averaged over an utterance's own frames (mean and standard deviation), and a logistic
regression is fitted to them: the probe of Alain and Bengio (2017, arXiv 1610.01644), with statistics pooling. The
encoder is not trained, so that within minutes it is known which checkpoint and which layer to start from.

The layer with the best test result would be selected on the test split, and its result too good. Layer and penalty are
therefore selected by cross-validation over the training speakers; the result of that layer is reported as ``chosen``,
together with the results of all layers.

===================  ===================================================================================================
probe.csv            one row per encoder, task and layer; the layer ``chosen`` is the result
differences.csv      every pair of encoders at their chosen layers: difference with interval and test
probe.md             both, as Markdown
predictions/*.csv    per encoder: labels of every tested utterance and the prediction from each layer
predictions/*.json   per encoder: the chosen layers and penalties, and what the predictions depend on
===================  ===================================================================================================

Shape legend: ``N`` utterances, ``L`` layers, ``C`` channels, ``D = 2 C`` statistics, ``K`` classes, ``n`` speakers.
"""

import korser.utils.frames  # noqa: F401
from korser.probing.run import run_probe
from korser.probing.settings import load_settings

__all__ = ["load_settings", "run_probe"]
