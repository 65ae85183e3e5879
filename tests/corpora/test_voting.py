"""Labels from the votes of raters, in manifests and of adapters."""

import sys

import numpy as np
import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError

VOTES = """path,a,b,c,v1,v2
0.wav,joy,joy,sad,1,3
1.wav,sad,joy,anger,2,
2.wav,sad,sad,sad,4,5
3.wav,,,,,
"""
ADAPTER = """
import pandas as pd
TASKS = {"emotion": ("joy", "sad")}
RATERS = {"emotion": ("emotion_rater1", "emotion_rater2")}
CONSENSUS = {"emotion": "plurality"}
def prepare(data_folder):
    return pd.DataFrame({"id": ["0", "1"], "path": ["/0.wav", "/1.wav"], "speaker": "s", "emotion": ["joy", None],
                         "emotion_rater1": ["joy", "glad"], "emotion_rater2": ["joy", "sad"]})
"""


@pytest.fixture
def load(tmp_path):
    def load(text=VOTES, label_map=None, **options):
        for line in text.splitlines()[1:]:
            (tmp_path / line.split(",")[0]).touch()
        (tmp_path / "manifest.csv").write_text(text)
        return load_corpus("csv", tmp_path, label_map=label_map, corpus_options=options)

    return load


@pytest.mark.parametrize(
    "rule, labels",
    [("majority", ["joy", None, "sad", None]), ("at_least_3", [None, None, "sad", None])],
)
def test_labels_from_columns_of_raters(load, rule, labels):
    corpus = load(raters={"emotion": ["a", "b", "c"]}, consensus={"emotion": rule})
    assert corpus.data["emotion"].tolist() == labels
    assert corpus.classes == {"emotion": ("anger", "joy", "sad")}  # all that somebody chose
    assert corpus.raters == {"emotion": ("a", "b", "c")} and corpus.consensus == {"emotion": rule}
    assert "emotion" in corpus.sorted_tasks


def test_numbers_from_ratings(load):
    corpus = load(raters={"valence": ["v1", "v2"]}, consensus={"valence": "mean"}, tasks=["valence"])
    assert np.allclose(corpus.data["valence"], [2, 2, 4.5, np.nan], equal_nan=True)
    assert corpus.classes == {} and corpus.data["v2"].tolist()[:3] == [3, None, 5]
    with pytest.raises(UserError, match="column 'a' has the rating 'joy': expected a number"):
        load(raters={"valence": ["a"]}, consensus={"valence": "median"})


@pytest.mark.parametrize(
    "text, where",
    [
        ("path,votes\n0.wav,joy:2;sad: 1\n1.wav,\n2.wav,sad:2;joy:2\n", "votes"),
        ("path,n_joy,n_sad\n0.wav,2,1.0\n1.wav,,0\n2.wav,2,2\n", {"joy": "n_joy", "sad": "n_sad"}),
    ],
)
def test_labels_from_counts(load, text, where):
    corpus = load(text, raters={"emotion": where}, consensus={"emotion": "plurality"})
    assert corpus.data["emotion"].tolist() == ["joy", None, None]
    names = corpus.raters["emotion"]
    assert names == tuple(f"emotion_rater{k}" for k in (1, 2, 3, 4))
    assert [sorted(filter(None, row)) for row in corpus.data[list(names)].to_numpy()] == [
        ["joy", "joy", "sad"],
        [],
        ["joy", "joy", "sad", "sad"],
    ]


def test_a_label_map_renames_votes_before_they_are_counted(load):
    options = {"raters": {"emotion": ["a", "b", "c"]}, "consensus": {"emotion": "majority"}}
    corpus = load(label_map={"emotion": {"anger": "sad"}}, **options)
    assert corpus.data["emotion"].tolist() == ["joy", "sad", "sad", None] and corpus.classes["emotion"] == (
        "joy",
        "sad",
    )
    corpus = load(label_map={"emotion": {"anger": None, "sad": None}}, **options)
    assert corpus.data["emotion"].tolist() == ["joy", "joy", None, None]
    assert load(classes={"emotion": ["sad", "joy", "anger"]}, **options).classes["emotion"] == ("sad", "joy", "anger")
    with pytest.raises(
        UserError, match="row 3: a rater chose emotion 'anger', which is no class .*: rename it by label_m"
    ):
        load(classes={"emotion": ["sad", "joy"]}, **options)


def test_labels_of_the_corpus_stay_without_a_rule(load):
    text = "path,emotion,a,b\n0.wav,joy,sad,sad\n1.wav,sad,sad,joy\n"
    corpus = load(text, raters={"emotion": ["a", "b"]})
    assert corpus.data["emotion"].tolist() == ["joy", "sad"] and corpus.consensus == {}
    named = text.replace("a,b", "emotion_rater1,emotion_rater2")
    assert load(named).raters == {}
    assert load(named, consensus={"emotion": "majority"}).data["emotion"].tolist() == ["sad", None]


def test_an_adapter_states_raters_and_rule(tmp_path, monkeypatch):
    (tmp_path / "rated_corpus.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rated_corpus", raising=False)
    corpus = load_corpus("rated_corpus", None)
    assert corpus.consensus == {"emotion": "plurality"} and corpus.data["emotion"].tolist() == ["joy", None]
    corpus = load_corpus("rated_corpus", None, label_map={"emotion": {"glad": "sad"}})
    assert corpus.data["emotion_rater1"].tolist() == ["joy", "sad"] and corpus.data["emotion"].tolist() == ["joy", None]
    options = {"consensus": {"emotion": "majority"}}
    corpus = load_corpus("rated_corpus", None, label_map={"emotion": {"glad": "sad"}}, corpus_options=options)
    assert corpus.data["emotion"].tolist() == ["joy", "sad"]
    with pytest.raises(UserError, match="/1.wav: a rater chose emotion 'glad', which is no class"):
        load_corpus("rated_corpus", None, corpus_options=options)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"consensus": "majority"}, "consensus='majority': expected a rule per task"),
        (
            {"consensus": {"emotion": "most"}},
            "consensus.emotion='most': expected one of majority, plurality, at_least_<n>",
        ),
        ({"consensus": {"emotion": "majority"}}, "the corpus has no votes of single raters for it .but for: none."),
        ({"raters": {"emotion": ["a", "b"]}}, "no column 'emotion': state how votes become labels"),
        ({"raters": {"emotion": ["a", "d"]}}, "the corpus has no column 'd'"),
        ({"raters": {"emotion": ["a", "a"]}}, "names 'a' more than once"),
        ({"raters": {"emotion": 3}}, "raters.emotion=3: expected the columns of the raters"),
        ({"raters": {"emotion": "a"}}, "'joy' of 0: expected whole numbers of votes, such as angry:3;sad:1"),
        (
            {"raters": {"emotion": {"joy": "v1"}}, "consensus": {"emotion": "majority"}, "classes": {"emotion": "joy"}},
            "classes.emotion='joy': expected a list of different classes",
        ),
        ({"rater": {}}, "has no option 'rater' .did you mean 'raters'"),
    ],
)
def test_mistakes(load, options, said):
    with pytest.raises(UserError, match=said):
        load(**options)
