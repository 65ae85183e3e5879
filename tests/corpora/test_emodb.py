import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError


def make(folder, names):
    (folder / "wav").mkdir()
    for name in names:
        (folder / "wav" / f"{name}.wav").touch()
    return folder


def test_names_and_speakers(tmp_path):
    names = ["03a01Fa", "08a02Wb", "09a04La", "10a05Ea", "13a07Ac", "15b01Ta", "16b10Nc"]
    corpus = load_corpus("emodb", make(tmp_path, names))
    data = corpus.data.set_index("id").loc[names]
    assert data["emotion"].tolist() == ["happy", "angry", "bored", "disgust", "fearful", "sad", "neutral"]
    assert data["gender"].tolist() == ["male", "female", "female", "male", "female", "male", "female"]
    assert data["age"].tolist() == [31, 34, 21, 32, 32, 25, 31]
    assert data["speaker"].tolist() == [name[:2] for name in names]
    assert data["sentence"].iloc[-1] == "b10"
    assert set(corpus.classes) == {"emotion", "gender"} and len(corpus.classes["emotion"]) == 7


@pytest.mark.parametrize("name, what", [("03a01Xa", "emotion code 'X'"), ("04a01Fa", "speaker code '04'")])
def test_an_unknown_code_names_the_file(tmp_path, name, what):
    with pytest.raises(UserError, match=f"{name}.wav: unknown {what}"):
        load_corpus("emodb", make(tmp_path, [name]))
