import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from made_corpus import corpus

from korser.corpora import Corpus, corpus_names, load_corpus
from korser.corpora.union import unite
from korser.data.fold_presets import describe_protocol, fold_presets
from korser.data.split_checks import check_splits
from korser.data.splits import assign_splits, speaker_independent, warn_once
from korser.utils.errors import UserError


def splits(data):
    return data.set_index("id")["split"].sort_index()


def speakers(data, part):
    return set(data["speaker"][data["split"] == part])


SETTINGS = [
    {"protocol": "speaker_holdout"},
    {"protocol": "speaker_holdout", "test": 3, "valid": 2},
    {"protocol": "speaker_holdout", "test_speakers": [1, "2", "03"]},
    {"protocol": "speaker_holdout", "test": 0.4, "valid": 0.2, "hold_out": "sentence"},
    {"protocol": "speaker_kfold", "n_folds": 6, "fold": 2},
    {"protocol": "speaker_kfold", "n_folds": 18, "fold": 17},
    {"protocol": "speaker_kfold", "n_folds": 6, "folds": "consecutive"},
    {"protocol": "random_stratified"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_protocol_is_valid_and_independent_of_the_row_order(settings):
    data = corpus()
    data.insert(0, "digest", data["id"])
    split = assign_splits(data, seed=1, **settings)
    check_splits(split, settings["protocol"])
    assert "split" not in data  # the input is not modified
    shuffled = data.sample(frac=1, random_state=0)
    again = assign_splits(shuffled, seed=1, **settings)
    assert splits(again).equals(splits(split))
    assert list(again["id"]) == [i for i in shuffled["id"] if i in set(again["id"])]  # the order of the rows is kept
    if speaker_independent(settings["protocol"]):
        train, valid, test = (speakers(split, part) for part in ("train", "valid", "test"))
        assert not (train & valid or train & test or valid & test)


@pytest.mark.parametrize("protocol", ["speaker_holdout", "speaker_kfold", "random_stratified"])
def test_the_seed_matters(protocol):
    data = corpus()
    assert len({tuple(splits(assign_splits(data, protocol=protocol, seed=s))) for s in range(2)}) > 1


@pytest.fixture(scope="module")
def two():
    """Two corpora of six and four speakers with the same names."""
    classes = {"emotion": ("joy", "sadness", "neutral", "anger")}
    return unite({name: Corpus(name, corpus(n), classes) for name, n in (("a", 6), ("b", 4))}).data


def test_cross_corpus_tests_whole_corpora_and_validates_on_speakers_of_the_others(two):
    split = assign_splits(two, protocol="cross_corpus", test_corpora=["b"], valid=2)
    check_splits(split, "cross_corpus")
    assert set(split.loc[split["split"] == "test", "corpus"]) == {"b"} == set(split["corpus"][split["split"] == "test"])
    assert len(speakers(split, "test")) == 4 and len(speakers(split, "valid")) == 2
    assert all(name.startswith("a/") for name in speakers(split, "train") | speakers(split, "valid"))
    chosen = assign_splits(two, protocol="cross_corpus", test_corpora=["b"], valid_speakers=["a/2"])
    assert speakers(chosen, "valid") == {"a/02"}
    assert not speakers(assign_splits(two, protocol="cross_corpus", test_corpora=["a"], valid=0), "valid")


def test_other_protocols_divide_the_speakers_of_several_corpora(two):
    folds = assign_splits(two, protocol="speaker_kfold", n_folds=3, corpora=["a"])
    assert set(folds["corpus"]) == {"a"} and folds["speaker"].nunique() == 6
    folds = assign_splits(two, protocol="speaker_kfold", n_folds=2, valid=0)
    assert folds.groupby("fold")["corpus"].value_counts().unstack().nunique().tolist() == [1, 1]  # balanced
    held = assign_splits(two, protocol="speaker_holdout", test=5, valid=0)
    assert sorted(name[0] for name in speakers(held, "test")) == list("aaabb")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, r"split.test_corpora=\(\): expected a list of corpora \(there are a, b\)"),
        ({"test_corpora": "b"}, "split.test_corpora='b': expected a list"),
        ({"test_corpora": ["c"]}, r"there is no corpus 'c'.*\(there are a, b\)"),
        ({"test_corpora": ["a", "b"]}, "no corpus is left to train on"),
        ({"test_corpora": ["a"], "valid_speakers": ["b/9"]}, "no speaker 'b/9'"),
        ({"protocol": "speaker_kfold", "test_corpora": ["a"]}, "test_corpora.*: not used by the protocol"),
    ],
)
def test_mistakes_about_several_corpora(two, settings, message):
    with pytest.raises(UserError, match=message):
        assign_splits(two, **{"protocol": "cross_corpus", **settings})
    with pytest.raises(UserError, match="there is one corpus"):
        assign_splits(corpus(), protocol="speaker_kfold", corpora=["a"])


def test_holdout_sizes_and_balance():
    data = corpus(n_speakers=20)
    for seed in range(2):
        split = assign_splits(data, protocol="speaker_holdout", test=0.2, valid=4, seed=seed)
        for part, n in (("train", 12), ("valid", 4), ("test", 4)):
            assert len(speakers(split, part)) == n
            genders = split[split["split"] == part].groupby("gender")["speaker"].nunique()
            assert genders.to_dict() == {"female": n // 2, "male": n // 2}


def test_holdout_balances_classes_that_speakers_have_unevenly():
    data = corpus(n_speakers=24, per_class=12)
    rng = np.random.default_rng(0)
    share_kept = dict(zip(sorted(data["speaker"].unique()), 0.2 + rng.random(24)))
    data = data[rng.random(len(data)) < data["speaker"].map(share_kept)]
    split = assign_splits(data, protocol="speaker_holdout", test=6, valid=6)
    share = pd.crosstab(split["split"], split["emotion"]) / data.groupby("emotion").size()
    assert (share.loc["test"] - 0.25).abs().max() < 0.05 and (share.loc["valid"] - 0.25).abs().max() < 0.1


def test_speakers_by_name():
    data = corpus()
    split = assign_splits(data, protocol="speaker_holdout", test_speakers=["013", "14", 15.0], valid_speakers="1")
    assert speakers(split, "test") == {"13", "14", "15"} and speakers(split, "valid") == {"01"}
    split = assign_splits(data, protocol="speaker_holdout", test_speakers=list(range(13, 19)), valid=0)
    assert speakers(split, "test") == {f"{s}" for s in range(13, 19)} and speakers(split, "valid") == set()
    check_splits(split, "speaker_holdout", required=("train", "test"))
    with pytest.raises(UserError, match="valid split is empty"):
        check_splits(split, "speaker_holdout")
    with pytest.raises(UserError, match="test_speakers: the corpus has no speaker '19' .it has 01, 02"):
        assign_splits(data, protocol="speaker_holdout", test_speakers=[18, 19])
    with pytest.raises(UserError, match="share 02"):
        assign_splits(data, protocol="speaker_holdout", test_speakers=[1, 2], valid_speakers=[2])


def test_an_ambiguous_number_matches_no_speaker():
    data = corpus(3)
    data["speaker"] = data["speaker"].replace({"02": "1"})  # beside 01
    with pytest.raises(UserError, match="no speaker '001'"):
        assign_splits(data, protocol="speaker_holdout", test_speakers=["001"])
    assert speakers(assign_splits(data, protocol="speaker_holdout", test_speakers=[1]), "test") == {"1"}


def test_a_speakers_name_may_hold_a_superscript():
    data = corpus(3)
    data["speaker"] = data["speaker"].replace({"02": "²"})  # a digit to Unicode, no number to int()
    assert speakers(assign_splits(data, protocol="speaker_holdout", test_speakers=["²"]), "test") == {"²"}


def test_every_speaker_is_tested_once_by_k_fold():
    data = corpus()
    tested, validated = [], []
    for fold in range(6):
        split = assign_splits(data, protocol="speaker_kfold", n_folds=6, fold=fold)
        check_splits(split, "speaker_kfold")
        tested.append(speakers(split, "test"))
        validated.append(speakers(split, "valid"))
        assert set(split["fold"][split["split"] == "test"]) == {fold}
    assert all(len(t) == 3 for t in tested) and len(set.union(*tested)) == 18
    assert validated == tested[1:] + tested[:1]


def test_excluded_speakers_are_in_no_fold():
    data = corpus()
    seen = set()
    for fold in range(4):
        split = assign_splits(data, protocol="speaker_kfold", n_folds=4, fold=fold, exclude_speakers=range_13_18())
        assert not set(split["speaker"]) & {f"{s}" for s in range_13_18()}
        seen |= speakers(split, "test")
    assert seen == {f"{s:02}" for s in range(1, 13)}


def range_13_18():
    return list(range(13, 19))


def test_consecutive_and_listed_folds():
    data = corpus()
    split = assign_splits(data, protocol="speaker_kfold", n_folds=6, folds="consecutive", fold=5)
    assert speakers(split, "test") == {"16", "17", "18"} and speakers(split, "valid") == {"01", "02", "03"}
    small = corpus(6)
    split = assign_splits(small, protocol="speaker_kfold", folds=[[1, 6], [2, "05"], ["3", "4"]], fold=1)
    assert speakers(split, "test") == {"02", "05"} and speakers(split, "valid") == {"03", "04"}


def test_folds_without_validation_train_on_all_others():
    split = assign_splits(corpus(), protocol="speaker_kfold", n_folds=6, folds="consecutive", fold=0, valid=0)
    assert speakers(split, "test") == {"01", "02", "03"} and not speakers(split, "valid")
    assert len(speakers(split, "train")) == 15


def test_consecutive_folds_sort_numbers_by_value():
    data = corpus(12)
    data["speaker"] = "s" + data["speaker"].astype(int).astype(str)  # s2 comes before s10
    split = assign_splits(data, protocol="speaker_kfold", n_folds=4, folds="consecutive", fold=0)
    assert speakers(split, "test") == {"s1", "s2", "s3"}


def test_folds_of_a_corpus_too_small_to_balance():
    data = corpus(4, per_class=1, classes=("joy",))
    data["emotion"] = ["a", "b", "c", "d"]
    tested = [speakers(assign_splits(data, protocol="speaker_kfold", n_folds=4, fold=f), "test") for f in range(4)]
    assert sorted(map(len, tested)) == [1, 1, 1, 1] and len(set.union(*tested)) == 4


@pytest.mark.parametrize("test, valid", [(2000, 2000), (2000 / 17000, 2000 / 17000)])
def test_the_papers_counts(test, valid):
    data = pd.DataFrame({"id": [f"{i:05}" for i in range(68000)]})
    data["path"] = data["id"]
    data["speaker"] = (np.arange(68000) % 120).astype(str)
    data["emotion"] = np.repeat(["joy", "sadness", "neutral", "anger"], 17000)
    split = assign_splits(data, protocol="random_stratified", test=test, valid=valid)
    counts = split.groupby(["emotion", "split"]).size().unstack()
    assert (counts["train"] == 13000).all() and (counts["valid"] == 2000).all() and (counts["test"] == 2000).all()
    check_splits(split, "random_stratified")


def test_unlabelled_utterances_are_trained_on():
    data = corpus()
    data.loc[data["emotion"] == "joy", "emotion"] = None
    split = assign_splits(data, protocol="random_stratified", test=5, valid=5)
    assert set(split["split"][split["emotion"].isna()]) == {"train"} and (split["split"] == "test").sum() == 15


def test_sentences_are_held_out_with_the_speakers():
    data = corpus(10, per_class=5)
    split = assign_splits(data, protocol="speaker_holdout", test=0.4, valid=0.2, hold_out="sentence")
    by_part = split.groupby("split")["sentence"].agg(set)
    assert not by_part["train"] & by_part["test"] and not by_part["valid"] & by_part["test"]
    assert split.groupby(["split", "emotion"]).size().unstack().loc["test"].tolist() == [8] * 4  # 4 speakers, 2 of 5
    with pytest.raises(UserError, match="hold_out"):
        assign_splits(data, protocol="speaker_kfold", hold_out="sentence")
    with pytest.raises(UserError, match="not every utterance has a 'sentense'"):
        assign_splits(data, protocol="speaker_holdout", hold_out="sentense")
    with pytest.raises(UserError, match="at least 3 sentences"):
        assign_splits(data.assign(sentence="same"), protocol="speaker_holdout", hold_out="sentence")


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("protocol", ["speaker_holdout", "speaker_kfold"])
def test_too_few_speakers(n, protocol):
    with pytest.raises(UserError, match="speakers.*random_stratified"):
        assign_splits(corpus(n), protocol=protocol)


def test_too_few_speakers_for_validation_or_for_folds():
    two = corpus(2)
    with pytest.raises(UserError, match="at least 3 speakers, got 2 .01, 02.: add some, set split.valid=0"):
        assign_splits(two, protocol="speaker_holdout")
    with pytest.raises(UserError, match="expected at least 3 speakers .train, valid, test., but the corpus has 2"):
        assign_splits(two, protocol="speaker_kfold")
    for settings in ({"protocol": "speaker_holdout"}, {"protocol": "speaker_kfold", "n_folds": 2}):
        split = assign_splits(two, valid=0, **settings)
        assert split.groupby("speaker")["split"].first().tolist() in (["test", "train"], ["train", "test"])
    with pytest.raises(UserError, match="3 of 5 speakers to valid, 2 chosen before: no speaker is left"):
        assign_splits(corpus(5), protocol="speaker_holdout", test=2, valid=3)


def test_three_speakers_are_enough():
    data = corpus(3)
    for settings in ({"protocol": "speaker_holdout"}, {"protocol": "speaker_kfold", "n_folds": 3}):
        split = assign_splits(data, **settings)
        check_splits(split, settings["protocol"], tasks=["emotion"])  # not gender: one of them is the only woman


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"protocol": "speaker_hold"}, "split.protocol=speaker_hold: unknown protocol .did you mean 'speaker_holdout'"),
        ({"protocol": ["speaker_holdout"]}, "split.protocol=.'speaker_holdout'.: unknown protocol"),
        ({"protocol": None}, "split.protocol=None: unknown protocol"),
        ({"protocol": "speaker_holdout", "seed": -1}, "split.seed=-1: expected an integer from 0 to 4294967295"),
        ({"protocol": "speaker_kfold", "seed": 2**32}, "split.seed=4294967296: expected"),
        ({"protocol": "random_stratified", "seed": 1.5}, "split.seed=1.5: expected"),
        ({"protocol": "speaker_kfold", "seed": None}, "split.seed=None: expected"),
        (
            {"protocol": "speaker_holdout", "hold_out": ["sentence"]},
            "split.hold_out=.'sentence'.: expected the name of one column",
        ),
        ({"protocol": "speaker_holdout", "test_speakers": ["²"]}, "no speaker '²'"),
        ({"protocol": "speaker_holdout", "test": 1.0}, "split.test=1.0: expected a fraction"),
        ({"protocol": "speaker_holdout", "test": 18}, "split.test=18: expected .* integer < 18"),
        ({"protocol": "speaker_holdout", "test": -1}, "split.test=-1: expected"),
        ({"protocol": "speaker_holdout", "test": 0}, "split.test=0: the test split must not be empty"),
        ({"protocol": "speaker_holdout", "test": "2000/17000"}, "split.test='2000/17000': expected a fraction"),
        ({"protocol": "speaker_holdout", "valid": True}, "split.valid=True: expected"),
        ({"protocol": "speaker_holdout", "test": 0.6, "valid": 0.6}, "no speaker is left to train on"),
        ({"protocol": "speaker_holdout", "exclude_speakers": [99]}, "exclude_speakers: .*'99'"),
        ({"protocol": "speaker_kfold", "n_folds": 2}, "split.n_folds=2: expected"),
        ({"protocol": "speaker_kfold", "n_folds": 19}, "split.n_folds=19: .*18"),
        ({"protocol": "speaker_kfold", "fold": 5}, "split.fold=5: expected an integer from 0 to 4"),
        ({"protocol": "speaker_kfold", "folds": "consecutif"}, "split.folds=consecutif: expected balanced"),
        ({"protocol": "speaker_kfold", "folds": 5}, "split.folds=5: expected balanced, .*emobox_ravdess.* or a list"),
        ({"protocol": "speaker_kfold", "folds": "emobox_ravdes"}, "did you mean 'emobox_ravdess'"),
        (
            {"protocol": "speaker_kfold", "folds": "emobox_ravdess"},
            r"not all speakers of these folds of ravdess .no 20, 21, 19 and 3 more.*without them: "
            r"--split.folds='\[\[1, 11\], \[4, 10, 12, 14\], \[8, 9\],",
        ),
        ({"protocol": "speaker_kfold", "folds": "emobox_iemocap"}, "of iemocap .no Ses01F, .* published ones$"),
        ({"protocol": "speaker_kfold", "folds": [[1], [2]]}, "at least 3"),
        ({"protocol": "speaker_kfold", "folds": [[1], [2], [3]]}, "does not list 04"),
        ({"protocol": "speaker_kfold", "folds": [[1], [2], [1, 3]]}, "01 more than once"),
        (
            {"protocol": "random_stratified", "stratify": "emotoin"},
            "split.stratify=emotoin: .* no such column .did you mean 'emotion'",
        ),
        (
            {"protocol": "random_stratified", "stratify": ["emotion"]},
            "split.stratify=.'emotion'.: expected the name of one column",
        ),
        ({"protocol": "random_stratified", "stratify": 3}, "split.stratify=3: expected"),
        ({"protocol": "speaker_holdout", "fold": 1}, "split.fold=1: not used by the protocol speaker_holdout, but by"),
        ({"protocol": "speaker_kfold", "test_speakers": ["01"]}, "split.test_speakers=.*by speaker_holdout"),
        ({"protocol": "speaker_kfold", "test": 0.3}, "split.test=0.3: not used"),
        ({"protocol": "speaker_kfold", "valid": 0.3}, "split.valid=0.3: a fold validates"),
        ({"protocol": "random_stratified", "folds": "balanced"}, "split.folds=balanced: not used"),
        ({"protocol": "speaker_holdout", "test": 2, "test_speakers": ["01"]}, "split.test=2: not used with"),
        ({"protocol": "random_stratified", "test": 90}, "split.test=90: .* integer < 90 .*utterances of emotion"),
        ({"protocol": "random_stratified", "test": 50, "valid": 40}, "all 90 utterances of emotion anger.*anger: [.]"),
        ({"protocol": "manifest"}, "neither a column 'split' nor"),
    ],
    ids=str,
)
def test_mistakes_name_the_setting(settings, message):
    with pytest.raises(UserError, match=message) as error:
        assign_splits(corpus(), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", fold_presets())
def test_published_folds(name):
    preset = fold_presets()[name]
    listed = [str(speaker) for group in preset["folds"] for speaker in group]
    assert len(set(listed)) == len(listed) and preset["source"] and preset["corpus"] in corpus_names()
    data = pd.DataFrame({"id": listed, "speaker": [s.zfill(2) for s in listed], "emotion": "joy"})
    for fold, group in enumerate(preset["folds"]):
        split = assign_splits(data, protocol="speaker_kfold", folds=name, fold=fold)
        assert speakers(split, "test") == {str(speaker).zfill(2) for speaker in group}
    more = pd.concat([data, pd.DataFrame({"id": ["x"], "speaker": ["stranger"], "emotion": "joy"})])
    with pytest.raises(UserError, match="does not list stranger"):
        assign_splits(more, protocol="speaker_kfold", folds=name)
    with pytest.raises(UserError, match=f"split.n_folds=99: split.folds lists {len(preset['folds'])} groups"):
        assign_splits(data, protocol="speaker_kfold", folds=name, n_folds=99)


def test_published_folds_are_named_with_the_protocol():
    assert describe_protocol("speaker_kfold", {"folds": "emobox_ravdess"}) == "speaker_kfold (emobox_ravdess)"
    for split in (None, {}, {"folds": "balanced"}, {"folds": [["1"]]}):
        assert describe_protocol("speaker_kfold", split) == "speaker_kfold"


def with_split(data, by):
    """The speakers' parts from a function of their number."""
    return data.assign(split=[by(int(s)) for s in data["speaker"]])


def thirds(s):
    return ("train", "valid", "test")[s % 3]


def test_the_manifests_own_split():
    data = with_split(corpus(), thirds)
    split = assign_splits(data, protocol="manifest")
    check_splits(split, "manifest")
    assert split["split"].tolist() == data["split"].tolist()
    spelled = data.assign(split=data["split"].map({"train": "Train", "valid": "dev", "test": "TEST"}))
    assert assign_splits(spelled, protocol="manifest")["split"].tolist() == data["split"].tolist()

    data.loc[5, "split"] = "tset"
    with pytest.raises(UserError, match="001-sadness-0 has the split 'tset'.*did you mean 'test'"):
        assign_splits(data, protocol="manifest")
    data.loc[5, "split"] = None
    with pytest.raises(UserError, match="001-sadness-0 has no split"):
        assign_splits(data, protocol="manifest")


def test_the_manifests_own_folds():
    data = corpus(8)
    data["fold"] = [str(int(s) % 4 + 1) for s in data["speaker"]]
    split = assign_splits(data, protocol="manifest", fold=4)
    assert speakers(split, "test") == {"03", "07"} and speakers(split, "valid") == {"04", "08"}
    check_splits(split, "manifest")
    assert speakers(assign_splits(data, protocol="manifest"), "test") == {"04", "08"}  # the fold called 1
    with pytest.raises(UserError, match="split.fold=0: expected a value of the column 'fold': 1, 2, 3, 4"):
        assign_splits(data, protocol="manifest", fold=0)
    with pytest.raises(UserError, match="split.fold=2: not used, since the corpus has a column 'split'"):
        assign_splits(with_split(data, thirds), protocol="manifest", fold=2)


@pytest.mark.parametrize("protocol", ["speaker_holdout", "speaker_kfold", "manifest"])
def test_a_shared_speaker_is_refused_by_name(protocol):
    data = with_split(corpus(), thirds)
    data.loc[data["id"].isin(["007-joy-0", "011-joy-1"]), "split"] = "train"
    with pytest.raises(UserError, match="2 speakers are in more than one split .07, 11.*manifest_random"):
        check_splits(data, protocol)
    check_splits(data, "manifest_random")
    check_splits(data, "random_stratified")


@pytest.mark.parametrize("protocol", ["manifest", "random_stratified"])
def test_the_same_audio_in_two_parts_is_refused(protocol):
    data = with_split(corpus(), thirds)
    data["digest"] = data["id"]
    data.loc[data["id"] == "001-joy-0", "digest"] = "002-joy-0"
    with pytest.raises(UserError, match="1 recordings.*/data/001-joy-0.wav, /data/002-joy-0.wav are the same audio"):
        check_splits(data, protocol)
    data.loc[data["id"] == "001-joy-0", "digest"] = "001-joy-4"  # within a part it is no leak
    check_splits(data, protocol)


def test_the_same_audio_with_two_labels_is_refused():
    data = with_split(corpus(), thirds)
    data["digest"] = data["id"]
    data.loc[data["id"] == "001-joy-0", "digest"] = "001-anger-0"
    words = "001-joy-0.wav and /data/001-anger-0.wav are the same audio, labelled emotion joy and anger"
    with pytest.raises(UserError, match=words):
        check_splits(data, "manifest")
    check_splits(data, "manifest", tasks=["gender"])
    data.loc[data["id"] == "001-joy-0", "emotion"] = None  # no conflict
    check_splits(data, "manifest")


def test_an_unused_column_is_reported_once(caplog):
    warn_once.cache_clear()
    data = with_split(corpus(), thirds)
    data.attrs["file"] = "my/manifest.csv"
    for _ in range(3):
        assign_splits(data, protocol="speaker_kfold")
    assert caplog.messages == [
        "my/manifest.csv has a column 'split', which the protocol speaker_kfold does not use; to use it: "
        "--split.protocol=manifest"
    ]
    assign_splits(data, protocol="manifest_random")
    assign_splits(data.assign(split=None), protocol="random_stratified")  # an empty column
    assert len(caplog.messages) == 1
    assign_splits(data.rename(columns={"split": "fold"}), protocol="random_stratified")
    assert "has a column 'fold'" in caplog.messages[1]


def test_classes_with_very_few_utterances_are_reported(caplog):
    warn_once.cache_clear()
    data = with_split(corpus(), thirds)
    check_splits(data, "manifest")
    assert not caplog.messages
    data.loc[data["id"] == "003-joy-0", "emotion"] = "joyy"
    data.loc[(data["speaker"] == "06") & (data["emotion"] == "anger"), "emotion"] = "angry"
    check_splits(data, "manifest")
    (said,) = caplog.messages
    assert (
        "classes of emotion with very few utterances: angry (5 utterances of one speaker: 006-anger-0 and 4 more)"
        in said
    )
    assert "joyy (1 utterance of one speaker: 003-joy-0)" in said and "--label_map='{emotion: {angry: ...}}'" in said
    caplog.clear()
    alone = data[data["speaker"] == "06"].assign(split="train")
    check_splits(alone, "random_stratified", tasks=["emotion"], required=("train",))
    assert not caplog.messages  # with a single speaker, that is no property of a class


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_an_empty_part_is_refused(part):
    data = with_split(corpus(), thirds)
    with pytest.raises(UserError, match=f"the {part} split is empty"):
        check_splits(data[data["split"] != part], "manifest")


def test_a_class_that_is_never_trained_on_is_refused():
    data = with_split(corpus(), thirds)
    data = data[(data["split"] != "train") | (data["emotion"] != "anger")]
    message = "no training utterance has the emotion anger.*label_map={emotion: {anger: null}}"
    with pytest.raises(UserError, match=message):
        check_splits(data, "manifest")
    check_splits(data, "manifest", tasks=["gender"])


@pytest.mark.parametrize("protocol", ["speaker_holdout", "speaker_kfold"])
def test_missing_speakers(protocol):
    data = corpus()
    data.loc[4, "speaker"] = None
    with pytest.raises(UserError, match="1 of 360 utterances have no speaker .first: 001-joy-4.*'speaker'"):
        assign_splits(data, protocol=protocol)
    with pytest.raises(UserError, match="360 of 360.*: rename 'Spk_ID' to 'speaker', fill the column"):
        assign_splits(data.drop(columns="speaker").assign(Spk_ID="1"), protocol=protocol)
    check_splits(assign_splits(data, protocol="random_stratified"), "random_stratified")
    with pytest.raises(UserError, match="no speaker"):
        check_splits(with_split(corpus(), thirds).assign(speaker=None), "manifest")


def test_a_corpus_without_speakers_is_divided_by_age_and_sex():
    data = corpus(n_speakers=24)
    data["age"] = data["speaker"].astype(int) // 2 + 20
    data["speaker"] = None
    for protocol in ("speaker_holdout", "speaker_kfold"):
        with pytest.raises(UserError, match="480 of 480.*or use random_stratified or age_sex_groups$"):
            assign_splits(data, protocol=protocol)
    split = assign_splits(data, protocol="age_sex_groups", test=5, valid=0.2, seed=1)
    check_splits(split, "age_sex_groups")
    groups = split.groupby(["age", "gender"])["split"]
    assert (groups.nunique() == 1).all() and groups.first().value_counts()["test"] == 5
    assert set(split["split"]) == {"train", "valid", "test"} and len(split) == len(data)
    assert splits(assign_splits(data[::-1], protocol="age_sex_groups", test=5, seed=1)).equals(splits(split))
    data.loc[3, "age"] = None
    with pytest.raises(UserError, match="1 of 480 utterances have no age or no gender .first: 001-joy-3"):
        assign_splits(data, protocol="age_sex_groups")
    with pytest.raises(UserError, match="480 of 480 utterances have no age"):
        assign_splits(data.drop(columns="age"), protocol="age_sex_groups")
    with pytest.raises(UserError, match="or use random_stratified$"):
        assign_splits(data.drop(columns="age"), protocol="speaker_kfold")


def test_which_protocols_are_speaker_independent():
    assert all(speaker_independent(protocol) for protocol in ("speaker_holdout", "speaker_kfold", "manifest"))
    assert not any(map(speaker_independent, ("random_stratified", "manifest_random", "age_sex_groups")))
    with pytest.raises(UserError, match="'random_stratified'"):
        speaker_independent("random_stratify")


@pytest.mark.skipif(not (SHARED / "ravdess").is_dir(), reason="needs the shared RAVDESS copy")
def test_ravdess_tested_on_actors_13_to_18():
    data = load_corpus("ravdess", SHARED / "ravdess").data
    split = assign_splits(data, protocol="speaker_holdout", test_speakers=range_13_18(), valid=2)
    check_splits(split, "speaker_holdout")
    assert split["split"].value_counts().to_dict() == {"train": 599, "valid": 120, "test": 360} or (
        split["split"].value_counts().to_dict() == {"train": 600, "valid": 119, "test": 360}
    )
    genders = split.groupby(["split", "gender"])["speaker"].nunique()
    assert genders.to_dict() == {
        ("test", "female"): 3,
        ("test", "male"): 3,
        ("train", "female"): 5,
        ("train", "male"): 5,
        ("valid", "female"): 1,
        ("valid", "male"): 1,
    }
    for fold in range(6):
        split = assign_splits(data, protocol="speaker_kfold", n_folds=6, folds="consecutive", fold=fold)
        check_splits(split, "speaker_kfold")
        assert speakers(split, "test") == {f"{3 * fold + i:02}" for i in (1, 2, 3)}
