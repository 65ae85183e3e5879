"""Statistics of tables of predictions."""

import numpy as np
import pandas as pd

from korser.metrics.counts import table_statistics
from korser.nn.tasks import Task

EMOTION = Task("emotion", classes=("joy", "anger"))


def test_utterances_without_a_label_are_not_counted():
    table = pd.DataFrame({"speaker": list("aabbcc"), "emotion": ["joy", "anger"] * 3, "emotion_pred": "joy"})
    counts = table_statistics(table, EMOTION)
    assert counts.tolist() == [[[1, 0], [1, 0]]] * 3
    table.loc[table["speaker"] == "b", "emotion"] = None
    np.testing.assert_array_equal(table_statistics(table, EMOTION), counts[[0, 2]])


def test_an_unknown_speaker_gives_no_counts_by_speaker():
    table = pd.DataFrame({"speaker": ["a", None], "emotion": ["joy", "anger"], "emotion_pred": "joy"})
    assert table_statistics(table, EMOTION).shape == (0, 2, 2)
