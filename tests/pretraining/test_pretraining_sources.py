"""Where speech for pretraining comes from."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import HPARAMS

from korser.corpora import load_corpus
from korser.pretraining import load_settings
from korser.pretraining.sources import find_audio, hold_out, read_sources
from korser.probing import load_settings as load_probe
from korser.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Six files of growing length in two folders, one hidden, one text."""
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "speech" / ("a" if i % 2 else "b") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(4000 * (i + 1)), 16000)
    (tmp_path / "speech" / "a" / ".hidden.wav").write_bytes(b"")
    (tmp_path / "speech" / "notes.txt").write_text("none")
    return tmp_path / "speech"


def test_a_folder_gives_its_audio_files(folder):
    assert [path[-7:-4] for path in find_audio(folder)] == ["a/1", "a/3", "a/5", "b/0", "b/2", "b/4"]


@pytest.mark.parametrize(
    "sources, message",
    [
        ([], r"sources=\[\]: expected a list"),
        (3, "sources=3: expected a list"),
        ([{"corpus": "csv"}], "expected a mapping such as {data_folder: my/speech}"),
        ([{"data_folder": 3}], "expected a mapping such as {data_folder: my/speech}"),
        ([{"data_folder": "x", "wieght": 1}], "did you mean 'weight'"),
        ([{"data_folder": "x", "weight": 0}], r"sources\[0\].weight=0: expected a number > 0"),
        ([{"data_folder": "nowhere"}], "is not a folder"),
        ([{"data_folder": "x", "weight": float("inf")}], r"sources\[0\].weight=inf: expected"),
        ([{"data_folder": "x", "split": {"test_speakers": ["a"]}}], "needs a corpus"),
        ([{"data_folder": "x", "corpus": 3}], r"sources\[0\].corpus=3: expected"),
    ],
)
def test_a_source_described_wrongly_is_refused(sources, message):
    with pytest.raises(UserError, match=message):
        read_sources(sources)


def test_of_a_split_the_training_part_alone_is_read(tiny_corpus):
    source = {"data_folder": str(tiny_corpus), "corpus": "csv"}
    split = {"test_speakers": ["s0", "s1"]}
    table, _ = read_sources([source, {**source, "split": split}])
    assert set(table["speaker"][table["source"] == 0]) == {f"s{i}" for i in range(6)}
    assert set(table["speaker"][table["source"] == 1]) == {"s2", "s3", "s4", "s5"}
    for wrong, message in (
        ({"test_speaker": ["s0"]}, "split.test_speaker'.*did you mean 'test_speakers'"),
        ({"test_speakers": ["s9"]}, "has no speaker 's9'"),
        (["s0"], "expected a mapping"),
    ):
        with pytest.raises(UserError, match=message):
            read_sources([{**source, "split": wrong}])


def test_the_continued_nano_reads_nothing_of_the_tests_that_its_yaml_names(tmp_path):
    for speaker in "abcdeklmno":
        for sentence in (e + i for e in (0, 100, 200, 300) for i in range(1, 6)):
            (tmp_path / "emotiontts").mkdir(exist_ok=True)
            (tmp_path / "emotiontts" / f"ne{speaker}{sentence:05d}.wav").touch()
    for actor in range(1, 19):
        for emotion in range(1, 9):
            (tmp_path / "ravdess" / f"Actor_{actor:02d}").mkdir(parents=True, exist_ok=True)
            name = f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav"
            (tmp_path / "ravdess" / f"Actor_{actor:02d}" / name).touch()
    yaml = (HPARAMS / "pretrain_nano_continued.yaml").read_text()
    sources = load_settings(HPARAMS / "pretrain_nano_continued.yaml")["sources"]
    for corpus in ("emotiontts", "ravdess"):
        command = next(line for line in yaml.splitlines() if f"--corpus={corpus}" in line).split()[2:]
        overrides = dict(part.removeprefix("--").replace("'", "").split("=") for part in command)
        settings = load_probe(HPARAMS / "probe.yaml", {**overrides, "corpus": corpus})
        data = load_corpus(corpus, tmp_path / corpus, corpus_options={}).data
        tested = settings.corpora[0].split(data)
        tested = tested[tested["split"] == "test"]
        source = next(source for source in sources if source["corpus"] == corpus)
        read, _ = read_sources([{**source, "data_folder": str(tmp_path / corpus)}])
        assert len(read) and len(tested) and set(read["speaker"]).isdisjoint(tested["speaker"])
        if corpus == "emotiontts":
            sentences = set(data["sentence"][data["path"].isin(read["path"])])
            assert sentences.isdisjoint(tested["sentence"])
            assert tested["emotion"].value_counts().tolist() == [10] * 4


def to_hold_out(**changes):
    table = pd.DataFrame({"source": 0, "speaker": list("aabbccdd") * 5, "samples": 16000})
    return table.assign(**{"digest": [f"{i:04x}" for i in range(len(table))], **changes})


def test_whole_speakers_are_held_out_where_they_are_known():
    table = to_hold_out()
    held = hold_out(table, 0.2)
    assert set(table["speaker"][held]).isdisjoint(table["speaker"][~held])
    assert 0.1 < held.mean() < 0.4
    assert 0.1 < hold_out(to_hold_out(speaker=None), 0.2).mean() < 0.35
    assert not hold_out(table.iloc[:1], 0.2).any() and not hold_out(table, 0).any()


def test_no_speaker_with_much_of_the_audio_is_held_out():
    table = to_hold_out(speaker=["much"] * 20 + [f"s{i}" for i in range(20)])
    held = hold_out(table, 0.02)
    assert 0 < held.mean() < 0.1 and "much" not in set(table["speaker"][held])
    assert 0 < hold_out(to_hold_out(speaker=["one"] * 20 + ["two"] * 20), 0.02).mean() < 0.1  # by files


def test_copies_of_a_file_are_on_one_side():
    table = to_hold_out(speaker=None, digest=[f"{i // 2:04x}" for i in range(40)])
    held = hold_out(table, 0.3)
    assert held.any() and (held[::2] == held[1::2]).all()


def test_with_more_of_the_same_speech_the_same_is_held_out():
    names = [f"s{i}" for i in range(200)]
    table = pd.DataFrame({"source": 0, "speaker": names, "samples": 16000, "digest": names})
    some = table.iloc[::2]
    held = dict(zip(names, hold_out(table, 0.1)))
    assert 0 < sum(held.values()) < 40
    assert hold_out(some.reset_index(drop=True), 0.1).tolist() == [held[name] for name in some["speaker"]]
