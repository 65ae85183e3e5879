import sys

import pytest

from korser import corpora
from korser.corpora import corpus_names, load_corpus
from korser.corpora.card import CorpusCard
from korser.utils.errors import UserError

OWN = """
import pandas as pd
TASKS = {"emotion": ("joy", "anger", "calm"), "gender": ("female", "male")}
SYNTHETIC = True
def prepare(data_folder, labels=("joy", "anger", "calm", None)):
    return pd.DataFrame({
        "id": [str(i) for i in range(len(labels))],
        "path": [f"/data/{i}.wav" for i in range(len(labels))],
        "speaker": ["01"] * len(labels),
        "emotion": list(labels),
        "gender": ["male"] * len(labels),
    })
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An adapter outside korser, importable as ``own_corpus``."""
    (tmp_path / "own_corpus.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_corpus", raising=False)
    return "own_corpus"


def test_names_of_the_corpora():
    assert {"ravdess", "emotiontts", "crema_d", "emodb", "csv", "espeak"} <= set(corpus_names())
    assert "manifest" not in corpus_names() and not any(name.startswith("_") for name in corpus_names())


@pytest.mark.parametrize("name", corpus_names())
def test_every_adapter_describes_its_corpus(name):
    adapter = corpora.find_adapter(name)
    if getattr(adapter, "IDENTIFIED_BY_FOLDER", False):  # it reads any corpus
        assert not hasattr(adapter, "ABOUT")
        return
    assert all(word in adapter.__doc__ for word in ("Source", "Licence", "Layout", "Labels"))
    about = adapter.ABOUT
    assert isinstance(about, CorpusCard) and about.language and about.terms and about.checked
    assert about.url.startswith("http")
    assert all(low < high for low, high in getattr(adapter, "RATINGS", {}).values())


def test_a_corpus_outside_korser(own):
    corpus = load_corpus(own, None)
    assert corpus.name == "own_corpus" and corpus.synthetic
    assert corpus.classes == {"emotion": ("joy", "anger", "calm"), "gender": ("female", "male")}
    assert corpus.data["emotion"].iloc[3] is None
    with pytest.raises(AttributeError):
        corpus.name = "frozen"


def test_an_adapter_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "corpus_of_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    for name, said in {
        "corpus_of_heer": r"did you mean 'corpus_of_here'\?",
        "corpus_of_here.py": "leave out .py: write corpus_of_here",
    }.items():
        with pytest.raises(UserError, match=said):
            load_corpus(name, None)
    assert load_corpus("corpus_of_here", None).name == "corpus_of_here"


def test_label_map_renames_merges_and_drops(own):
    label_map = {"emotion": {"calm": "neutral", "joy": None, "anger": "neutral"}, "gender": {"male": "m"}}
    corpus = load_corpus(own, None, label_map=label_map)
    assert corpus.classes == {"emotion": ("neutral",), "gender": ("female", "m")}
    assert list(corpus.data["emotion"]) == [None, "neutral", "neutral", None]  # all four utterances stay
    assert list(corpus.data["gender"]) == ["m"] * 4


def test_label_map_keeps_the_order_of_classes(own):
    corpus = load_corpus(own, None, label_map={"emotion": {"joy": "zest"}})
    assert corpus.classes["emotion"] == ("zest", "anger", "calm")


@pytest.mark.parametrize(
    "label_map, message",
    [
        ({"emotoin": {"joy": "happy"}}, "no task 'emotoin'.*'emotion'"),
        ({"emotion": {"angre": "angry"}}, r"no label 'angre' \(did you mean 'anger'"),
        (
            {"emotion": {"clam": "sad"}},
            r"no label 'clam' \(known: joy, anger, calm\)",
        ),  # too different for a suggestion
        (
            {"emotion": {True: "joy"}},
            r"no label 'True' \(known: joy, anger, calm\); YAML reads 01, yes, on .* quotation",
        ),
        ({"emotion": {"joy": "sad", "joy ": "calm"}}, "'joy' and 'joy ' are the same label: state it once"),
        ({"emotion": "joy"}, "expected pairs {old: new}"),
    ],
)
def test_label_map_mistakes(own, label_map, message):
    with pytest.raises(UserError, match=message):
        load_corpus(own, None, label_map=label_map)


def test_a_label_outside_the_scheme_names_the_file_and_the_fix(own):
    options = {"labels": ["joy", "hapy", "calm"]}
    message = r"^/data/1.wav: unknown emotion label 'hapy'.*label_map=\{emotion: \{hapy"
    with pytest.raises(UserError, match=message):
        load_corpus(own, None, corpus_options=options)
    corpus = load_corpus(own, None, corpus_options=options, label_map={"emotion": {"hapy": "joy"}})
    assert corpus.classes["emotion"] == ("joy", "anger", "calm") and corpus.data["emotion"].iloc[1] == "joy"


@pytest.mark.parametrize("name", ["ravdes", "no.such.module", "", ".", "json", "korser.corpora.table"])
def test_unknown_corpus(name):
    with pytest.raises(UserError, match="did you mean 'ravdess'" if name == "ravdes" else "korser corpora"):
        load_corpus(name, None)


@pytest.mark.parametrize(
    "code, said",
    [
        (
            "import surely_not_installed",
            "broken_corpus.py:1, in <module>: ModuleNotFoundError: No module named 'surely",
        ),
        ("TASKS = {", "broken_corpus.py:1: SyntaxError: "),
        ("int('a')", "broken_corpus.py:1, in <module>: ValueError: "),
    ],
)
def test_an_adapter_that_fails_to_import_is_named_with_the_line(tmp_path, monkeypatch, code, said):
    (tmp_path / "broken_corpus.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"^corpus 'broken_corpus': .*{said}"):
        load_corpus("broken_corpus", None)


@pytest.mark.parametrize("statement", ["sys.exit(3)", "{}['speaker']"])
def test_an_adapter_that_fails_is_named_with_the_line(tmp_path, monkeypatch, statement):
    monkeypatch.syspath_prepend(tmp_path)
    code = f"import sys\nTASKS = {{}}\ndef prepare(data_folder):\n    {statement}\n"
    leaving = "import sys\nsys.exit(3)\n"
    for name, text, place in (("failing", code, "4, in prepare"), ("leaving", leaving, "2, in <module>")):
        (tmp_path / f"{name}_corpus.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"{name}_corpus", raising=False)
        with pytest.raises(UserError, match=rf"corpus '{name}_corpus': .*{name}_corpus\.py:{place}.*: (Key|System)E"):
            load_corpus(f"{name}_corpus", tmp_path)


def test_unknown_option(own):
    with pytest.raises(UserError, match="no option 'label'.*'labels'"):
        load_corpus(own, None, corpus_options={"label": []})


def test_ids_must_be_unique(tmp_path, monkeypatch):
    (tmp_path / "twice_corpus.py").write_text(OWN.replace("str(i) for i", "'x' for i"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="'x' is used twice"):
        load_corpus("twice_corpus", None)


@pytest.mark.parametrize("name", ["ravdess", "csv"])
@pytest.mark.parametrize("kind", ["missing", "empty", "other", None])
def test_a_wrong_folder_names_it_and_the_layout(name, kind, tmp_path):
    folder = tmp_path / "there"
    if kind != "missing":
        folder.mkdir()
    if kind == "other":
        (folder / "song.wav").touch()
    folder = folder if kind else None
    with pytest.raises(UserError) as error:
        load_corpus(name, folder)
    assert str(folder) in str(error.value) and ("manifest.csv" if name == "csv" else ".wav") in str(error.value)


def test_missing_labels_become_none(tmp_path, monkeypatch):
    (tmp_path / "nan_corpus.py").write_text(OWN.replace("list(labels)", "[float('nan'), 'joy', pd.NA, None]"))
    monkeypatch.syspath_prepend(tmp_path)
    data = load_corpus("nan_corpus", None).data
    assert data["emotion"].tolist() == [None, "joy", None, None]


@pytest.mark.parametrize("column", ["id", "path", "speaker", "gender"])
def test_a_missing_column_of_an_adapter(tmp_path, monkeypatch, column):
    (tmp_path / "short_corpus.py").write_text(OWN.replace(f'"{column}": [', '"other": ['))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "short_corpus", raising=False)
    with pytest.raises(UserError, match=f"'short_corpus'.*no column '{column}'"):
        load_corpus("short_corpus", None)


WRONG_ADAPTERS = {
    ("TASKS =", "TASK ="): r"own_corpus.py has no TASKS: an adapter defines prepare\(data_folder\) and TASKS =",
    ("def prepare", "def preparing"): "own_corpus.py has no prepare: an adapter defines",
    ("TASKS = {", "TASKS = ['emotion']\nOTHER = {"): "TASKS=.*: expected the classes of each task in their order",
    ('("joy", "anger", "calm"), "', '{"joy", "anger", "calm"}, "'): "TASKS=.*: expected the classes of each task in",
    ('("female", "male")}', '"male"}'): "TASKS=.*: expected the classes of each task in their order",
    ("def prepare(data_folder, labels", "def prepare(*, labels"): r"prepare\(\) takes no argument: write def prepare\(",
    ("return pd.DataFrame(", "return ("): r"prepare\(\) returned a dict, expected a table: return pd.DataFrame\(rows\)",
    (
        'labels=("joy", "anger", "calm", None)',
        "labels=()",
    ): r"prepare\(\) found no utterance in nowhere: is it the right",
    ('f"/data/', 'f"data/'): r"there is no file data/0.wav: expected absolute paths from prepare\(\)",
}


@pytest.mark.parametrize("replaced", WRONG_ADAPTERS)
def test_an_adapter_that_is_not_as_expected(own, tmp_path, replaced):
    assert replaced[0] in OWN
    (tmp_path / "own_corpus.py").write_text(OWN.replace(*replaced))
    with pytest.raises(UserError, match="^corpus 'own_corpus': .*" + WRONG_ADAPTERS[replaced]) as error:
        load_corpus(own, "nowhere")
    assert "\n" not in str(error.value)


def test_relative_paths_are_those_of_the_current_folder(own, tmp_path, monkeypatch):
    (tmp_path / "own_corpus.py").write_text(OWN.replace('f"/data/', 'f"'))
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        (tmp_path / f"{i}.wav").touch()
    assert load_corpus(own, ".").data["path"].tolist() == [str(tmp_path / f"{i}.wav") for i in range(4)]


def test_stated_classes_are_not_sorted(own):
    assert load_corpus(own, None).sorted_tasks == ()


def test_speakers_and_labels_of_an_adapter_become_text(tmp_path, monkeypatch):
    code = OWN.replace("list(labels)", "[1.0, 1, '1.0', 2.0]").replace('"joy", "anger"', "1.0, 2.0")
    (tmp_path / "numbers_corpus.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    corpus = load_corpus("numbers_corpus", None)
    assert corpus.data["emotion"].tolist() == ["1", "1", "1", "2"]
