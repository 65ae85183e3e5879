"""Several corpora as one: names, classes and settings keyed by corpus."""

import sys

import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError

OWN = """
import pandas as pd
TASKS = {tasks}
def prepare(data_folder, labels=("joy", "anger", None), speaker="01"):
    data = pd.DataFrame({{
        "id": [str(i) for i in range(len(labels))],
        "path": [f"{{data_folder}}/{{i}}.wav" for i in range(len(labels))],
        "speaker": [speaker] * len(labels),
        "emotion": list(labels),
        "sentence": ["1"] * len(labels),
    }})
    for task in TASKS:
        data[task] = data[task] if task in data else [TASKS[task][0]] * len(data)
    return data
"""
A_TASKS = {"emotion": ("joy", "anger", "calm"), "gender": ("female", "male")}
B_TASKS = {"emotion": ("anger", "fear", "joy"), "intensity": ("1", "2", "3")}
BOTH = {"corpus": ["corpus_a", "corpus_b"], "data_folder": {"corpus_a": "/a", "corpus_b": "/b"}}


@pytest.fixture(autouse=True)
def adapters(tmp_path, monkeypatch):
    """Adapters ``corpus_a`` and ``corpus_b`` outside korser."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, tasks in (("corpus_a", A_TASKS), ("corpus_b", B_TASKS)):
        (tmp_path / f"{name}.py").write_text(OWN.format(tasks=tasks))
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_names_stay_apart_and_missing_tasks_have_no_labels():
    corpus = load_corpus(**BOTH)
    assert corpus.name == "corpus_a+corpus_b" and corpus.parts == ("corpus_a", "corpus_b")
    data = corpus.data
    assert data["id"].tolist() == [f"corpus_{c}/{i}" for c in "ab" for i in range(3)]
    assert set(data["speaker"]) == {"corpus_a/01", "corpus_b/01"}
    assert set(data["sentence"]) == {"corpus_a/1", "corpus_b/1"}
    assert data["corpus"].tolist() == ["corpus_a"] * 3 + ["corpus_b"] * 3
    assert data["path"].iloc[3] == "/b/0.wav"
    assert corpus.classes["emotion"] == ("joy", "anger", "calm", "fear")
    assert data["gender"].tolist() == ["female"] * 3 + [None] * 3
    assert data["intensity"].tolist() == [None] * 3 + ["1"] * 3
    assert corpus.sorted_tasks == ("emotion",)  # no corpus has all emotions in an order


def test_label_maps_and_options_are_those_of_a_corpus():
    settings = {
        "label_map": {"corpus_b": {"emotion": {"joy": "calm"}}},
        "corpus_options": {"corpus_a": {"labels": ["calm", "joy"], "speaker": "unknown"}},
    }
    corpus = load_corpus(**BOTH, **settings)
    assert corpus.data["emotion"].tolist() == ["calm", "joy", "calm", "anger", None]
    assert corpus.data["speaker"].tolist() == ["unknown"] * 2 + ["corpus_b/01"] * 3  # refused as no person


def test_common_classes_drop_the_labels_of_others():
    options = {"corpus_a": {"labels": ["calm", "joy"]}, "corpus_b": {"labels": ["fear", "anger"]}}
    corpus = load_corpus(**BOTH, corpus_options=options, common_classes=True)
    assert corpus.classes["emotion"] == ("joy", "anger")
    assert corpus.classes["gender"] == ("female", "male")  # of all corpora that have the task
    assert corpus.data["emotion"].tolist() == [None, "joy", None, "anger"]  # all utterances stay
    label_map = {"corpus_b": {"emotion": {"joy": "delight", "anger": "rage"}}}
    with pytest.raises(UserError, match=r"0 classes of emotion in common \(corpus_a: joy.*; corpus_b: rage"):
        load_corpus(**BOTH, label_map=label_map, common_classes=True)


def test_named_corpora_may_share_an_adapter():
    corpus = load_corpus({"two": "corpus_a", "one": "corpus_a"}, {"one": "/1", "two": "/2"})
    assert corpus.parts == ("one", "two") and corpus.data["speaker"].nunique() == 2
    assert corpus.classes["emotion"] == ("joy", "anger", "calm") and not corpus.sorted_tasks
    assert load_corpus(["corpus_a"], {"corpus_a": "/1"}).data["id"].iloc[0] == "corpus_a/0"


def test_ratings_of_one_scale_are_united_and_others_left_out(tmp_path, caplog):
    for name, scales in (("corpus_a", {"valence": (1, 5), "arousal": (1, 5)}), ("corpus_b", {"valence": (1, 7)})):
        with open(tmp_path / f"{name}.py", "a") as file:
            file.write(f"RATINGS = {scales}\nunrated = prepare\n")
            file.write("prepare = lambda folder: unrated(folder).assign(valence=[1.5, 2, None], arousal=[1.0, 2, 3])\n")
    corpus = load_corpus(**BOTH)
    assert corpus.ratings == {"arousal": (1, 5)} and "valence" not in corpus.data
    assert corpus.data["arousal"].tolist() == [1.0, 2, 3] * 2
    assert "valence is left out, since its scales differ (corpus_a 1 to 5, corpus_b 1 to 7)" in caplog.text


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"corpus": []}, r"corpus=\[\]: expected a corpus, a list of corpora"),
        ({"corpus": ["corpus_a", 3]}, "expected a corpus, a list"),
        ({"corpus": ["corpus_a", "corpus_a"]}, "two corpora of the same name: write {name: corpus"),
        ({"corpus": {"a/b": "corpus_a"}}, "the name a/b has a '/'"),
        ({"data_folder": "/a"}, "data_folder='/a': expected one for each corpus, {corpus_a: ...,"),
        ({"data_folder": {"corpus_a": "/a"}}, "the folder of the corpus corpus_b is missing"),
        ({"label_map": {"emotion": {"joy": "x"}}}, "label_map.emotion: there is no corpus 'emotion'.*one entry for"),
        ({"label_map": {"corpus_a": "x"}}, "label_map.corpus_a='x': expected a mapping"),
        ({"corpus_options": {"corpus_b": {"labelz": 1}}}, "corpus corpus_b: corpus_options.*'labelz'.*'labels'"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(UserError, match=message):
        load_corpus(**{**BOTH, **settings})


@pytest.mark.parametrize(
    "rules, shared", [(("majority", "majority"), {"emotion": "majority"}), (("majority", "plurality"), {})]
)
def test_votes_of_all_corpora_count_by_a_rule_that_they_share(tmp_path, caplog, rules, shared):
    options = {}
    for name, rule, column in zip("ab", rules, ("kim", "lee")):
        file = tmp_path / f"corpus_{name}.py"
        votes = f"    data['{column}'] = data['v'] = 'joy'\n    return data"
        file.write_text(file.read_text().replace("    return data", votes))
        options[f"corpus_{name}"] = {"raters": {"emotion": ["v", column]}, "consensus": {"emotion": rule}}
    corpus = load_corpus(**BOTH, corpus_options=options)
    assert corpus.raters == {"emotion": ("v", "kim", "lee")} and corpus.consensus == shared
    assert set(corpus.data["emotion"]) == {"joy"}
    assert ("rules differ (corpus_a: majority, corpus_b: plurality)" in caplog.text) == (not shared)
