"""Heads of linear models that are fitted to the embeddings of a frozen frontend: the classical baselines."""

from __future__ import annotations

from korser.classical.head import FittedHead
from korser.classical.linear import fit_logistic, fit_ridge, fit_svm, fit_svr

__all__ = ["LinearSVM", "LogisticRegression"]


class LinearSVM(FittedHead):
    """A linear support vector machine per task, see :class:`korser.classical.head.FittedHead`.

    Classes: squared hinge loss, one class against the rest (scikit-learn's ``LinearSVC``). Numbers: squared
    epsilon-insensitive loss (``LinearSVR``).

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from korser import Task
    >>> rng = np.random.default_rng(0)
    >>> y, speakers = np.tile([0, 1], 20), np.repeat(np.arange(5), 8)
    >>> x = rng.normal(size=(40, 3)) + 3 * y[:, None]
    >>> head = LinearSVM(in_features=3, tasks=[Task("emotion", classes=("joy", "anger"))])
    >>> fitted = head.fit(x, {"emotion": y}, [speakers])
    >>> head(torch.tensor([[0.0, 0.0, 0.0], [3.0, 3.0, 3.0]]))["emotion"].argmax(1)
    tensor([0, 1])
    """

    fit_classifier = staticmethod(fit_svm)
    fit_regression = staticmethod(fit_svr)


class LogisticRegression(FittedHead):
    """A linear probe per task, see :class:`korser.classical.head.FittedHead`.

    A multinomial logistic regression of classes, a ridge regression of numbers.
    """

    fit_classifier = staticmethod(fit_logistic)
    fit_regression = staticmethod(fit_ridge)
