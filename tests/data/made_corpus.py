"""A table of a corpus, without audio."""

import pandas as pd


def corpus(n_speakers=18, per_class=5, classes=("joy", "sadness", "neutral", "anger"), sentences=5):
    """A table like :func:`load_corpus` gives; odd speakers male; each class has its own sentences."""
    rows = []
    for s in range(1, n_speakers + 1):
        for c in classes:
            for i in range(per_class):
                rows.append(
                    {
                        "id": f"{s:03}-{c}-{i}",
                        "path": f"/data/{s:03}-{c}-{i}.wav",
                        "speaker": f"{s:02}",
                        "emotion": c,
                        "gender": "male" if s % 2 else "female",
                        "intensity": None if c == "neutral" else str(i % 4),
                        "sentence": f"{c}-{i % sentences}",
                    }
                )
    return pd.DataFrame(rows, dtype=object)
