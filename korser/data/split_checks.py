"""Check splits for leaks, missing labels and classes with too few utterances."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from korser.corpora import LABELS
from korser.corpora.segments import TOLERANCE, Segment, is_segmented, sources
from korser.corpora.table import similar_labels, similar_speakers
from korser.data.near_copies import MAX_CANDIDATES, find_near_copies
from korser.data.protocols import SPLITS, require_speakers
from korser.data.speaker_groups import natural_order
from korser.data.splits import shared_values, speaker_independent, warn_once
from korser.utils.errors import UserError
from korser.utils.notes import Note
from korser.utils.text import number, plural, shorten, yaml_text

__all__ = [
    "SENTENCE_COLUMNS",
    "check_splits",
    "conflicting_copies",
    "copies",
    "lexical_leakage",
    "near_copies",
    "near_copies_note",
    "overlapping_segments",
    "plain_sentence",
    "predict_by_sentence",
    "shared_recordings",
    "small_classes",
    "split_notes",
    "two_genders",
]

SENTENCE_COLUMNS = ("sentence", "text", "transcript", "transcription", "utterance", "words", "statement", "script")
MAX_SPELLINGS = 20_000  # pairs of sentences that are compared
WORDS_GAIN = 0.25  # share of the majority class's errors that sentences avoid, from which on they tell the label
MIN_UTTERANCES, MIN_SPEAKERS = 5, 2  # classes with fewer are reported: a misspelt label is a class of its own


def check_splits(
    data: pd.DataFrame, protocol: str, *, tasks: Sequence[str] = LABELS, required: Sequence[str] = SPLITS
) -> None:
    """Refuse splits that leak or cannot be trained on; warn of classes with few utterances.

    Parameters
    ----------
    data : pandas.DataFrame
        With ``split``. With ``digest`` (:func:`korser.data.audio_cache.scan_audio`), the same audio in two splits, of
        two speakers or with two labels is refused too, and so are overlapping segments of a recording in two splits.
    protocol : str
    tasks : sequence of str
        Columns of classes, as far as present: every class to validate or test must occur in training.
    required : sequence of str
        Splits that must not be empty.
    """
    for split in required:
        if not (data["split"] == split).any():
            raise UserError(f"split.protocol={protocol}: the {split} split is empty: give it more of the corpus")
    tasks = [task for task in tasks if task in data]
    if speaker_independent(protocol):
        require_speakers(data, protocol)
        shared = shared_values(data, "speaker")
        if shared:
            raise UserError(
                f"split.protocol={protocol}: {len(shared)} speakers are in more than one split ({shorten(shared)}): "
                "divide by speakers, or use manifest_random or random_stratified, which all results then state"
            )
    if "digest" in data:
        shared = shared_values(data, "digest")
        if shared:
            files = data["path"][data["digest"] == shared[0]]
            raise UserError(
                f"split.protocol={protocol}: {len(shared)} recordings are in more than one split ({shorten(files)} are "
                "the same audio): remove the copies"
            )
        conflict = conflicting_copies(data, tasks)
        if conflict is not None:
            raise UserError(str(conflict))
    overlapping = [f"{data['id'].iloc[i]} and {data['id'].iloc[j]}" for i, j in overlapping_segments(data)]
    if overlapping:
        raise UserError(
            f"split.protocol={protocol}: {plural(len(overlapping), 'pair')} of segments in different splits have audio "
            f"of a recording in common ({shorten(overlapping)}): keep recordings in one split, as speaker_holdout with "
            "hold_out=path does, or leave one of each pair out"
        )
    trained = data[data["split"] == "train"]
    for task in tasks:
        few = small_classes(data, task)
        if few is not None:
            warn_once(str(few))
        missing = sorted(set(data[task].dropna()) - set(trained[task].dropna()))
        if missing:
            raise UserError(
                f"split.protocol={protocol}: no training utterance has the {task} {shorten(missing)}: choose other "
                "speakers or another seed, or drop the class with "
                f"label_map={{{task}: {{{yaml_text(missing[0])}: null}}}}"
            )


def split_notes(
    data: pd.DataFrame, task: str | None, cache_folder: str | Path, sorted_tasks: Sequence[str] = ()
) -> list[Note]:
    """Return what is probably wrong with recordings, speakers and labels, and whether words tell the label.

    Parameters
    ----------
    data : pandas.DataFrame
        With ``split`` and ``digest``.
    task : str or None
        The main task; None if it is a number.
    cache_folder : str or Path
        For decoded audio and fingerprints.
    sorted_tasks : sequence of str
        :attr:`korser.corpora.Corpus.sorted_tasks`, of which two classes may be one.
    """
    recordings = [copies(data), near_copies(data, cache_folder), shared_recordings(data)]
    names = [similar_speakers(data), similar_labels(data, sorted_tasks), two_genders(data)]
    notes = [*recordings, *names, task and lexical_leakage(data, task)]
    return [note for note in notes if note is not None]


def copies(data: pd.DataFrame) -> Note | None:
    """Return a warning about recordings of one speaker that occur more than once in the test split."""
    repeated = data[(data["split"] == "test") & data["digest"].duplicated()]
    if not len(repeated):
        return None
    return Note(
        "copies",
        f"COPIES: {len(repeated)} of {(data['split'] == 'test').sum()} test utterances are copies of others and count "
        f"twice ({shorten(repeated['id'])})",
    )


def near_copies(data: pd.DataFrame, cache_folder: str | Path) -> Note | None:
    """Return a warning about recordings that are nearly the same in two splits or of two speakers."""
    groups = [data["split"], data["speaker"].where(data["speaker"].notna(), "")]
    found = find_near_copies(data, list(zip(*groups)), cache_folder)
    return near_copies_note(data, *found, where=" in different splits or of different speakers")


def near_copies_note(
    data: pd.DataFrame, pairs: Sequence[tuple[int, int]], n_left_out: int, where: str = ""
) -> Note | None:
    """Return a warning about what :func:`korser.data.near_copies.find_near_copies` found; ``where`` it looked."""
    left_out = f"only the {MAX_CANDIDATES} most similar of {MAX_CANDIDATES + n_left_out} pairs were compared"
    if not pairs:
        return Note("near_copies_not_searched", f"NEAR COPIES: none found, but {left_out}") if n_left_out else None
    names = [f"{data['id'].iloc[i]} and {data['id'].iloc[j]}" for i, j in pairs]
    return Note(
        "near_copies",
        f"NEAR COPIES: {plural(len(pairs), 'pair')} of recordings{where} are the "
        f"same but for level, format or ends ({shorten(names)}){f'; {left_out}' if n_left_out else ''}",
    )


def shared_recordings(data: pd.DataFrame) -> Note | None:
    """Return a warning about recordings of which segments, or channels, are in more than one split."""
    if not is_segmented(data):
        return None
    n_splits = data.groupby(data["path"].map(os.path.realpath))["split"].nunique()
    shared = n_splits.index[n_splits > 1]
    if not len(shared):
        return None
    return Note(
        "shared_recordings",
        f"SHARED RECORDINGS: segments of {len(shared)} of {plural(len(n_splits), 'recording')} are in more than one "
        f"split ({shorten(map(os.path.basename, shared))}), so that training and test share rooms, microphones and "
        "conversations; separate them by the protocol speaker_holdout with hold_out=path",
    )


def overlapping_segments(data: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Yield the positions of pairs of segments in different splits with more than 10 ms of a recording in common.

    Two channels at the same time are two recordings if two people are known to speak in them, as in a telephone call;
    of one speaker they are one. ``data`` has ``path``, ``split``, columns of segments, and ``speaker`` as far as known.
    """
    if not is_segmented(data):
        return
    segments = [source if isinstance(source, Segment) else Segment(source) for source in sources(data)]
    channel, splits = [segment.channel for segment in segments], data["split"].tolist()
    known = data["speaker"].notna() if "speaker" in data else [False] * len(data)
    speakers = [data["speaker"].iloc[i] if is_known else None for i, is_known in enumerate(known)]
    rows = pd.Series(range(len(data)))
    for _, of_recording in rows.groupby([os.path.realpath(segment.path) for segment in segments], sort=False):
        ordered = sorted(of_recording, key=lambda i: segments[i].start)
        for k, i in enumerate(ordered if len({splits[i] for i in ordered}) > 1 else ()):
            end = math.inf if segments[i].end is None else segments[i].end
            following = itertools.islice(ordered, k + 1, None)
            for j in itertools.takewhile(lambda j: segments[j].start < end - TOLERANCE, following):  # noqa: B023
                channels, people = ({values[i], values[j]} for values in (channel, speakers))
                apart = len(channels) == len(people) == 2 and None not in channels | people
                if splits[i] != splits[j] and not apart:
                    yield i, j


def two_genders(data: pd.DataFrame) -> Note | None:
    """Return a warning about speakers with more than one gender."""
    if "gender" not in data or "speaker" not in data:
        return None
    n_genders = data.groupby("speaker")["gender"].nunique()
    names = sorted(n_genders.index[n_genders > 1], key=natural_order)
    if not names:
        return None
    return Note(
        "two_genders",
        f"TWO GENDERS: {plural(len(names), 'speaker')} with more than one gender ({shorten(names)}): two people of the "
        "same name, or a wrong label",
    )


def lexical_leakage(data: pd.DataFrame, task: str) -> Note | None:
    """Return a warning if the sentences of test utterances tell their labels; None without sentences.

    Acted corpora have each actor say a sentence in every emotion; where the script depends on the emotion, a model can
    recognise words instead of expression. Each test utterance is predicted as the most frequent label of its sentence
    in training, and compared with the most frequent label. If sentences are separated (``hold_out``), there is no
    warning. Capitals, punctuation and spaces of sentences (:data:`SENTENCE_COLUMNS`) do not count.
    """
    columns = [column for column in data if column.casefold() in SENTENCE_COLUMNS and column != task]
    notes = (_words_tell(data, task, column) for column in columns if task in data)
    return next((note for note in notes if note is not None), None)


def _words_tell(data: pd.DataFrame, task: str, column: str) -> Note | None:
    data = data[data[column].notna() & data[task].notna()]
    trained, tested = (data[data["split"] == split] for split in ("train", "test"))
    if trained.empty or tested.empty:
        return None
    by_words, majority = predict_by_sentence(trained, tested, task, column), trained[task].mode().iloc[0]
    accuracy, baseline = (float((guess == tested[task]).mean()) for guess in (by_words, majority))
    chance = 3 * np.sqrt(baseline * (1 - baseline) / len(tested))
    if accuracy - baseline <= max(WORDS_GAIN * (1 - baseline), chance):
        return None
    return Note(
        "lexical_leakage",
        f"LEXICAL LEAKAGE: the sentences alone predict the {task} of test utterances with an accuracy of "
        f"{number(accuracy)} (the most frequent class: {number(baseline)}), since training has the same sentences; "
        f"separate them by the protocol speaker_holdout with hold_out={column}",
    )


def predict_by_sentence(trained: pd.DataFrame, tested: pd.DataFrame, task: str, column: str) -> pd.Series:
    """Return the most frequent label of the same sentence in training for each tested utterance.

    Where training does not have the sentence, that is the most frequent label. Capitals, punctuation and spaces do not
    count, and if there are few sentences, nor do small differences in spelling. Every row has a label (``task``) and a
    sentence (``column``).
    """
    counts = pd.crosstab(trained[column].map(plain_sentence), trained[task])
    sentences = _known_sentences(tested[column].map(plain_sentence), counts.index)
    return sentences.map(counts.idxmax(axis=1)).fillna(trained[task].mode().iloc[0])


def plain_sentence(text: Any) -> str:
    """Return letters and digits only; punctuation, capitals, spaces and Unicode forms are spelling variants."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", str(text)).casefold())


def _known_sentences(sentences: pd.Series, known: pd.Index) -> pd.Series:
    """Replace sentences that are not known by known ones that are spelt nearly the same, if there are few."""
    unknown = [name for name in sentences.unique() if name not in known and not re.search(r"\d", name)]  # no codes
    if len(unknown) * len(known) > MAX_SPELLINGS:
        return sentences
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.9) for name in unknown}
    return sentences.replace({name: match[0] for name, match in near.items() if match})


def conflicting_copies(data: pd.DataFrame, tasks: Sequence[str]) -> Note | None:
    """Return a note, which names the first, if one recording (``digest``) has two speakers or two labels of a task."""
    repeated = data[data["digest"].duplicated(keep=False)]
    for column in ("speaker", *tasks):
        values = repeated[repeated[column].notna()].drop_duplicates(["digest", column])
        conflicts = values[values["digest"].duplicated(keep=False)]
        if len(conflicts):
            one, other = conflicts[conflicts["digest"] == conflicts["digest"].iloc[0]].head(2).to_dict("records")
            names = f"{one[column]} and {other[column]}"
            told = f"of the speakers {names}, so that one person counts twice" if column == "speaker" else ""
            return Note(
                "conflicting_copies",
                f"{one['path']} and {other['path']} are the same audio, {told or f'labelled {column} {names}'}: keep "
                "the correct one",
            )
    return None


def small_classes(data: pd.DataFrame, task: str) -> Note | None:
    """Return a warning about classes of a task with very few utterances, or of one speaker among several."""
    labelled = data[data[task].notna()]
    count_speakers = "speaker" in data and labelled["speaker"].nunique() >= MIN_SPEAKERS
    small = {}
    for label, rows in labelled.groupby(task, sort=True):
        one_speaker = count_speakers and rows["speaker"].notna().all() and rows["speaker"].nunique() < MIN_SPEAKERS
        if len(rows) < MIN_UTTERANCES or one_speaker:
            speakers = " of one speaker" if one_speaker else ""
            small[label] = f"{label} ({plural(len(rows), 'utterance')}{speakers}: {shorten(rows['id'], 1)})"
    if not small:
        return None
    return Note(
        "small_classes",
        f"classes of {task} with very few utterances: {shorten(small.values())}; if one is a typo, map it: "
        f"--label_map='{{{task}: {{{yaml_text(next(iter(small)))}: ...}}}}' (null drops it)",
    )
