"""Inner folds share no group, and scores are those of a classifier that was fitted without the utterance."""

import functools

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from korser.classical.linear import fit_svm
from korser.classical.selection import inner_folds_of, layer_names, out_of_fold_scores
from korser.plugins.frontends.encoder import PretrainedEncoder
from korser.plugins.frontends.mel import Mel


def test_inner_folds_share_neither_speaker_nor_sentence():
    speakers, sentences = (a.ravel() for a in np.meshgrid(np.arange(6), np.arange(8)))
    y = sentences % 4
    splits = inner_folds_of(y, [speakers, sentences], 3)
    assert len(splits) == 9
    for train, test in splits:
        for group in (speakers, sentences):
            assert not set(group[train]) & set(group[test])
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(48))


def test_out_of_fold_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, speakers = np.tile([0, 1, 2], 20), np.repeat(np.arange(6), 10)
    x = rng.normal(size=(60, 5)) + y[:, None]
    folds = inner_folds_of(y, [speakers], 3)
    scores = out_of_fold_scores(x, y, folds, [0.01, 0.1], functools.partial(fit_svm, n_classes=4), 4)[1]
    assert scores.shape == (60, 4) and (scores[:, 3] < -1e5).all(), "a class without utterances is never predicted"
    for train, test in folds:
        model = make_pipeline(StandardScaler(), LinearSVC(C=0.1, dual=False)).fit(x[train], y[train])
        assert scores[test, :3] == pytest.approx(model.decision_function(x[test]), abs=1e-6)


def test_names_of_layers():
    assert layer_names(Mel()) == ["features"]
    assert layer_names(PretrainedEncoder(source="nano-random", layer=1)) == ["1"]
    assert layer_names(PretrainedEncoder(source="nano-random", layer="all"))[:2] == ["0", "1"]
