"""Tables of predictions."""

import numpy as np
import pandas as pd

from korser import Task
from korser.training.results import predictions_table


def test_what_is_known_of_an_utterance_travels_into_its_predictions():
    manifest = pd.DataFrame({"id": ["a"], "path": ["a.wav"], "speaker": ["1"], "split": ["test"], "emotion": ["joy"]})
    manifest = manifest.assign(sentence="t01", text="오늘 비가 온다", digest="0", samples=1)
    task = Task(name="emotion", classes=("joy", "anger"))
    table = predictions_table(manifest, [task], {"a": {"emotion": np.array([0.25, 0.75])}})
    assert table.loc[0, ["sentence", "text", "emotion_pred"]].tolist() == ["t01", "오늘 비가 온다", "anger"]
    assert "digest" not in table
