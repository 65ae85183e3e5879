"""Linear probes: what each layer of a frozen encoder knows about a label.

The features of every layer are averaged over an utterance's own frames, mean and standard deviation, and a logistic
regression is fitted to them: the probe of Alain and Bengio (2017, arXiv 1610.01644), with statistics pooling. Nothing
of the encoder is trained, so that it answers in minutes which checkpoint and which layer to begin with.

The layer with the best test score would be chosen on the test part, and its score too good. So layer and penalty are
chosen by cross-validation over the training speakers, the score of that choice is the result, and all layers are
reported beside it.

===================  ===================================================================================================
probe.csv            one row an encoder, task and layer; the layer ``chosen`` is the result
differences.csv      every pair of encoders at their chosen layers: difference with interval, permutation test
probe.md             both for reading
predictions/*.csv    of each encoder: for every tested utterance its labels and what each layer predicted
predictions/*.json   what was chosen in each division, and what the predictions depend on
===================  ===================================================================================================

Shape legend: ``N`` utterances, ``L`` layers, ``C`` channels, ``D = 2 C`` statistics, ``K`` classes, ``n`` speakers.
"""

from korser.probing.run import run_probe
from korser.probing.settings import load_settings

__all__ = ["load_settings", "run_probe"]
