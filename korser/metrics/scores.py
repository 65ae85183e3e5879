"""Figures of merit of one task, from counts.

Everything is computed from a confusion matrix of counts (calibration: from counts per bin of confidence), so that the
jackknife over 120 speakers of 68,000 utterances subtracts small arrays instead of passing over the utterances again.
Each cell of the matrix is one sample with its count as weight; so scikit-learn is asked for the metrics.
"""

import numpy as np
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support

BINS = 15  # of confidence, for the calibration error; Guo et al. 2017


def confusion_counts(truth, predicted, n_classes):
    """Count utterances by true and predicted class.

    Parameters
    ----------
    truth, predicted : np.ndarray
        ``(N,)`` class indices.
    n_classes : int
        ``K``.

    Returns
    -------
    np.ndarray
        ``(K, K)`` int, rows are the truth.
    """
    if not len(truth):
        return np.zeros((n_classes, n_classes), dtype=int)
    return confusion_matrix(truth, predicted, labels=range(n_classes))


def speaker_confusion_counts(
    truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray, n_classes: int
) -> np.ndarray:
    """Count utterances by speaker, true class and predicted class.

    Parameters
    ----------
    truth, predicted : np.ndarray
        ``(N,)`` class indices.
    speaker : np.ndarray
        ``(N,)`` speaker indices from 0 to ``n - 1``.
    n_classes : int
        ``K``.

    Returns
    -------
    np.ndarray
        ``(n, K, K)`` int; rows are the truth.

    Examples
    --------
    >>> truth, predicted, speaker = np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0, 0, 1])
    >>> speaker_confusion_counts(truth, predicted, speaker, 2).tolist()
    [[[1, 0], [1, 0]], [[0, 0], [0, 1]]]
    """
    shape = (int(np.max(speaker, initial=-1)) + 1, n_classes, n_classes)
    cells = np.ravel_multi_index((speaker, truth, predicted), shape) if len(truth) else np.zeros(0, dtype=int)
    return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)


def scores(counts, *, present=None, ordinal=False):
    """Accuracy, UAR, macro-F1 and recalls, and ordinal agreement, of a confusion matrix.

    UAR (unweighted average recall, balanced accuracy) and macro-F1 are means over the classes that occur in the truth:
    a class that the corpus lacks cannot be got right.

    Parameters
    ----------
    counts : np.ndarray
        ``(K, K)``, rows are the truth.
    present : np.ndarray, optional
        ``(K,)`` bool, the classes to average over; those with a true utterance if not given. Where one of them has no
        true utterance, UAR and macro-F1 are undefined (NaN).
    ordinal : bool
        Whether to add quadratic-weighted kappa and the mean absolute error in levels.

    Returns
    -------
    dict
        ``accuracy``, ``uar``, ``macro_f1``: float; ``recall``: ``(K,)``, NaN for classes without a true utterance; if
        ordinal ``qwk`` and ``mae``. NaN where undefined.

    Example
    -------
    >>> counts = np.array([[3, 1], [2, 2]])
    >>> {name: round(float(scores(counts)[name]), 3) for name in ("accuracy", "uar", "macro_f1")}
    {'accuracy': 0.625, 'uar': 0.625, 'macro_f1': 0.619}
    """
    counts = np.asarray(counts)
    n_classes = len(counts)
    has_truth = counts.sum(1) > 0
    present = has_truth if present is None else np.asarray(present)
    if not counts.any():
        undefined = ("accuracy", "uar", "macro_f1") + (("qwk", "mae") if ordinal else ())
        return {**dict.fromkeys(undefined, np.nan), "recall": np.full(n_classes, np.nan)}

    truth, predicted = np.nonzero(counts)
    weight = counts[truth, predicted]
    labels = np.arange(n_classes)
    _, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=labels, sample_weight=weight, zero_division=np.nan
    )
    f1 = np.where(has_truth, f1, np.nan)
    result = {
        "accuracy": np.average(truth == predicted, weights=weight),
        "uar": recall[present].mean(),
        "macro_f1": f1[present].mean(),
        "recall": recall,
    }
    if ordinal:
        one_class = len(np.unique(np.concatenate([truth, predicted]))) == 1  # chance agreement is perfect: 0 / 0
        result["qwk"] = (
            np.nan
            if one_class
            else cohen_kappa_score(truth, predicted, labels=labels, weights="quadratic", sample_weight=weight)
        )
        result["mae"] = np.average(abs(truth - predicted), weights=weight)
    return result


def confidence_bins(confidence, right):
    """Sum up predictions by their confidence, in equal bins ``((i - 1) / BINS, i / BINS]``.

    Parameters
    ----------
    confidence : np.ndarray
        ``(N,)``, probability of the predicted class.
    right : np.ndarray
        ``(N,)`` bool.

    Returns
    -------
    np.ndarray
        ``(3, BINS)``: number of predictions, sum of confidences, number right.
    """
    index = np.clip(np.ceil(np.asarray(confidence) * BINS).astype(int) - 1, 0, BINS - 1)
    return np.stack([np.bincount(index, weights=w, minlength=BINS) for w in (np.ones(len(index)), confidence, right)])


def calibration_error(bins):
    """Expected calibration error: mean distance of accuracy and confidence (Guo et al. 2017, eq. 3).

    It is biased upwards in small sets, where the accuracy of a bin rests on few utterances.

    Parameters
    ----------
    bins : np.ndarray
        ``(..., 3, BINS)`` from :func:`confidence_bins`.

    Returns
    -------
    np.ndarray
        ``(...)``, NaN where there is no prediction.

    Example
    -------
    >>> float(calibration_error(confidence_bins(np.array([0.75, 0.75]), np.array([True, False]))))
    0.25
    """
    bins = np.asarray(bins, dtype=float)
    n = bins[..., 0, :].sum(-1)
    return np.abs(bins[..., 2, :] - bins[..., 1, :]).sum(-1) / np.where(n > 0, n, np.nan)


def chance_calibration_error(bins):
    """About how large the calibration error of a perfectly calibrated model with these confidences would come out.

    The mean absolute deviation of a binomial, ``sqrt(2 / pi * n q (1 - q))``, in each bin.

    Parameters
    ----------
    bins : np.ndarray
        ``(3, BINS)`` from :func:`confidence_bins`.

    Returns
    -------
    float
    """
    n, confidences, _ = np.asarray(bins, dtype=float)
    q = np.clip(confidences / np.maximum(n, 1), 0, 1)
    return float(np.sqrt(2 / np.pi * n * q * (1 - q)).sum() / n.sum())
