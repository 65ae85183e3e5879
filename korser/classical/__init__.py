"""Linear classifiers that are fitted to fixed features rather than trained by gradients.

The penalty, and the layer if the features are those of several layers, are chosen by cross-validation over the training
speakers, so that no test speaker is heard. Probes (:mod:`korser.probing`) and the heads ``LinearSVM`` and
``LogisticRegression`` (:mod:`korser.plugins.heads`) are made of these parts.
"""
