"""mini: small synthetic Korean corpus of emotional speech, made on first use.

Source
    Spoken by eSpeak NG (library and Korean voice from the package ``espeakng-loader``) from the forty sentences below.
    No person speaks: every table and figure states "synthetic". Its purpose is to show that an experiment runs and that
    a model can learn, not which frontend is better for people. Requires Linux or macOS (the program that speaks needs
    ``fork``).
Licence
    Sentences and rules: Apache-2.0, as korser. eSpeak NG is GPL-3; only a separate program (``_espeak_program.py``)
    loads it, which ``_engine.py`` starts and talks to through pipes.
Layout on disk
    ``<data_folder>/<speakers>x<utterances>-<digest>/<speaker>/<id>.flac``, 16 kHz, 16 bit, mono, with ``checksums.txt``
    (size and CRC-32 of each file) and ``.lock``. The digest covers everything that determines the audio (version,
    rules, sentences, version of espeakng-loader), so that different sizes or versions never mix. Ids are
    ``s<speaker>_<number>`` with the numbers of a speaker in shuffled order: a name does not reveal its labels.
Labels
    emotion: joy, sadness, neutral, anger. gender: female, male. intensity: low, medium, high, extreme; none for neutral
    speech. Extra columns: ``age`` (20 to 59, spread evenly within each gender; without effect on the sound, since the
    ages of the paper's actors are not published), ``sentence``.
Design
    Every emotion has the same number of utterances, distributed evenly (to within one) over speakers and, within a
    speaker, over intensities. A speaker says the same sentences in every emotion, so words do not reveal it.
Speakers
    Women and men alternate. Each is a voice variant (14 of each gender, chosen by measurement: clearly voiced, with a
    median f0 of 175-265 Hz or 90-110 Hz, and not clipping at the volume used here) played a little faster or slower
    (which moves the formants, as a shorter vocal tract does, by up to 7 %; pitch and rate are corrected for it), a base
    pitch, a rate, a level, and a habit: how strongly the speaker shows each emotion by each cue.
Prosody
    The usual findings on vocal expression (Banse & Scherer 1996, "Acoustic profiles in vocal emotion expression";
    Scherer 2003, "Vocal communication of emotion: A review of research paradigms"): anger and joy are faster, higher,
    wider in pitch and louder than neutral speech, sadness is slower, lower, narrower and softer. The amounts are
    korser's own choice: anger is marked most by level and rate, joy by pitch and its range. At strength 1:

    ========  =====  ================  ===========  ======
    emotion   rate   pitch             pitch range  level
    ========  =====  ================  ===========  ======
    neutral   x 1    0                 x 1          0
    joy       x 1.05 + 4.5 semitones   x 1.8        + 2 dB
    anger     x 1.25 + 1 semitone      x 1.1        + 6 dB
    sadness   x 0.8  - 2 semitones     x 0.55       - 5 dB
    ========  =====  ================  ===========  ======

    The intensities scale the departure from neutral by 0.65, 1, 1.5 and 2.1; the speaker's habit scales each cue again,
    and every utterance varies at random around the result.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import os
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchaudio

from korser.corpora.card import CorpusCard
from korser.corpora.synthetic import _engine
from korser.corpora.synthetic._engine import ESPEAK_RATE
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.text import shorten

logger = logging.getLogger(__name__)

VERSION = 1  # increase it when the same settings give other audio for a reason that the digest does not cover
SYNTHETIC = True
ABOUT = CorpusCard(
    name="mini",
    language="Korean (synthetic)",
    speakers=24,
    utterances=768,
    terms="made on first use",
    url="https://github.com/espeak-ng/espeak-ng",
    checked="audio",
)
EMOTIONS = ("joy", "sadness", "neutral", "anger")
GENDERS = ("female", "male")
INTENSITIES = ("low", "medium", "high", "extreme")
TASKS = {"emotion": EMOTIONS, "gender": GENDERS, "intensity": INTENSITIES}

# Departure from neutral at strength 1: rate factor, semitones, factor of the pitch range, decibels.
CUES = ("rate", "pitch", "range", "level")
FACTORS = ("rate", "range")  # the others are added
RULES = {
    "neutral": (1.0, 0.0, 1.0, 0.0),
    "joy": (1.05, 4.5, 1.8, 2.0),
    "anger": (1.25, 1.0, 1.1, 6.0),
    "sadness": (0.8, -2.0, 0.55, -5.0),
}
STRENGTHS = {None: 0.0, "low": 0.65, "medium": 1.0, "high": 1.5, "extreme": 2.1}

# Voice variant: median f0 in Hz and level in dBFS, measured on eight of the sentences at eSpeak's volume 40.
VOICES = {
    "female": {
        "f2": (192, -26.2), "Annie": (230, -27.4), "f1": (178, -26.4), "belinda": (227, -24.9), "steph": (182, -26.5),
        "f3": (206, -27.4), "Andrea": (242, -22.7), "grandma": (198, -28.6), "f5": (202, -27.9), "f4": (176, -26.4),
        "Alicia": (245, -27.4), "shelby": (177, -27.6), "linda": (227, -25.2), "anika": (262, -24.4),
    },
    "male": {
        "m3": (103, -27.7), "Alex": (104, -28.6), "Andy": (94, -24.1), "m1": (92, -28.9), "Denis": (98, -33.3),
        "m7": (105, -26.8), "Gene": (94, -24.6), "michel": (103, -27.6), "adam": (100, -28.4), "norbert": (100, -24.2),
        "m5": (100, -29.0), "sandro": (98, -25.0), "Henrique": (106, -32.7), "m2": (99, -29.7),
    },
}  # fmt: skip
F0 = {"female": (180.0, 240.0), "male": (90.0, 135.0)}  # Hz, range of the speakers' base pitches
VOLUME = 40  # percent: none of the voices clips inside eSpeak
PITCH_STEP = 6.3  # steps of eSpeak's pitch (0-99) in a semitone, measured
PLAYED_AT = (20500, 21250, 22050, 22750, 23500)  # Hz; small ratios to 16 kHz, so that resampling is cheap

SENTENCES = (
    "책상 위에 연필이 있어요.", "오늘은 화요일입니다.", "기차는 두 시에 와요.", "창문은 북쪽에 있어요.",
    "우유는 냉장고에 있어요.", "저는 버스를 타고 가요.", "회의는 세 시에 시작해요.", "도서관은 왼쪽에 있어요.",
    "가방 안에 책이 있어요.", "아침에 신문을 읽었어요.", "점심은 열두 시에 먹어요.", "문 옆에 의자가 있어요.",
    "내일은 우체국에 가요.", "이 길은 시장으로 가요.", "컵은 식탁 위에 있어요.", "저녁에 산책을 했어요.",
    "은행은 네 시에 닫아요.", "여기는 이 층입니다.", "종이를 반으로 접어요.", "모자는 벽에 걸려 있어요.",
    "물을 한 잔 마셨어요.", "전화번호를 적었어요.", "양말은 서랍에 있어요.", "수업은 월요일에 있어요.",
    "공원은 학교 뒤에 있어요.", "표를 두 장 샀어요.", "달력은 문 옆에 걸었어요.", "쌀을 물에 씻었어요.",
    "이 상자는 네모입니다.", "버스는 십 분마다 와요.", "사과를 반으로 잘랐어요.", "저는 이 번 출구로 나가요.",
    "편지를 봉투에 넣었어요.", "열쇠는 가방에 있어요.", "도로 옆에 나무가 있어요.", "빨래를 옷장에 넣었어요.",
    "사무실은 삼 층에 있어요.", "구두를 신고 나갔어요.", "지도를 벽에 붙였어요.", "매일 아홉 시에 출근해요.",
)  # fmt: skip


def design(n_speakers: int = 24, n_utterances: int = 768) -> pd.DataFrame:
    """Return the table of the corpus of a size, without making audio.

    Parameters
    ----------
    n_speakers : int
        Even, at least 2: half of each gender.
    n_utterances : int
        At least 4 per speaker. 68,000 with 120 speakers is the size of the paper's corpus.

    Returns
    -------
    pd.DataFrame
        One row per utterance, sorted by id: ``id, speaker, emotion, gender, intensity, age, sentence, repetition``
        (``repetition`` counts the utterances of a speaker in an emotion). ``intensity`` is None for neutral.

    Raises
    ------
    UserError
        If a size is out of range.

    Examples
    --------
    >>> design(24, 576).emotion.value_counts().to_dict()
    {'joy': 144, 'sadness': 144, 'neutral': 144, 'anger': 144}
    """
    _engine.check_positive(n_speakers=n_speakers, n_utterances=n_utterances)
    if n_speakers < 2 or n_speakers % 2:
        raise UserError(f"corpus_options.n_speakers={n_speakers}: expected an even integer >= 2 (half of each gender)")
    if n_utterances < 4 * n_speakers:
        raise UserError(
            f"corpus_options.n_utterances={n_utterances}: expected an integer >= {4 * n_speakers} (4 per speaker)"
        )
    rows, position = [], 0
    for order, emotion in enumerate(EMOTIONS):
        for count in range(n_utterances // 4 + (order < n_utterances % 4)):
            # `position` continues through the emotions, so that remainders are distributed evenly too
            speaker, repetition = position % n_speakers, count // n_speakers
            # Each pass over all sentences is shifted by one: the same sentences in all emotions of a speaker, each
            # equally often, and another one at each repetition
            slot = repetition * n_speakers + speaker
            sentence = (slot + slot // len(SENTENCES)) % len(SENTENCES)
            # shifted by emotion too, or a sentence would have one level per speaker
            level = INTENSITIES[(repetition + speaker // 2 + order) % len(INTENSITIES)]
            rows.append((speaker, emotion, None if emotion == "neutral" else level, sentence, repetition))
            position += 1
    rows.sort(key=lambda row: (row[0], _hash(f"{row[0]} {row[1]} {row[4]}")))
    table = pd.DataFrame(rows, columns=["number", "emotion", "intensity", "sentence", "repetition"], dtype=object)
    names = [f"s{number + 1:03d}" for number in range(n_speakers)]
    ages = [20 + (number // 2 * 17 + number % 2 * 23) % 40 for number in range(n_speakers)]
    running = table.groupby("number").cumcount() + 1
    return pd.DataFrame(
        {
            "id": [f"{names[number]}_{count:04d}" for number, count in zip(table.number, running)],
            "speaker": [names[number] for number in table.number],
            "emotion": table.emotion,
            "gender": [GENDERS[number % 2] for number in table.number],
            "intensity": table.intensity,
            "age": [ages[number] for number in table.number],
            "sentence": [f"t{number + 1:02d}" for number in table.sentence],
            "repetition": table.repetition.astype(int),
        }
    )


def prepare(
    data_folder: str | Path, *, n_speakers: int = 24, n_utterances: int = 768, n_workers: int | None = None
) -> pd.DataFrame:
    """Make what is missing of a corpus (:func:`design`), and return its table with absolute paths.

    On one platform the audio is the same to the bit, independent of the order, the number of workers and interruptions.
    ``n_workers`` processes speak, by default one per CPU core, at most 4.

    Raises
    ------
    UserError
        If a size is out of range, espeakng-loader is not installed, or the folder cannot be written.
    """
    folder = _engine.check_folder(data_folder)
    _require_own_folder(folder)
    if n_workers is not None:
        _engine.check_positive(n_workers=n_workers)
    _engine.check_positive(
        n_speakers=n_speakers, n_utterances=n_utterances
    )  # before the cached function, which needs hashable arguments
    table, requests, digest = _designed(n_speakers, n_utterances)
    table = table.copy()
    folder /= f"{n_speakers}x{n_utterances}-{digest}"
    if not folder.exists():
        logger.info("corpus mini (synthetic): generating %d utterances in %s", n_utterances, folder)
    files = {name: folder / name.split("_")[0] / f"{name}.flac" for name in table.id}
    _engine.make_missing(
        folder,
        files,
        lambda name, speak: _encode(speak(requests[name]), requests[name]),
        n_workers=n_workers or min(os.cpu_count(), 4),
        description="mini: speaking",
    )
    table.insert(1, "path", [str(files[name]) for name in table.id])
    return table.drop(columns="repetition")


def _require_own_folder(folder: Path) -> None:
    """Refuse a folder with other data: somebody forgot to name the corpus."""
    contents = sorted(folder.iterdir()) if folder.is_dir() else []
    others = [path.name for path in contents if not re.fullmatch(r"\..*|\d+x\d+-\w+", path.name)]
    if others:
        raise UserError(
            f"data_folder={folder}: the synthetic corpus 'mini' needs a folder of its own, but this one contains "
            f"{shorten(others)}: for your own data set the corpus too, such as --corpus=csv"
        )


@functools.lru_cache(maxsize=2)
def _designed(n_speakers: int, n_utterances: int) -> tuple[pd.DataFrame, dict[str, dict], str]:
    """Return the table, the requests to eSpeak and the digest of a corpus."""
    table = design(n_speakers, n_utterances)
    requests = _requests(table)
    return table, requests, _digest(requests)


def _hash(text: str) -> int:
    """Return a stable 31-bit hash."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _speaker(number: int, gender: str) -> dict[str, Any]:
    """Return the voice and the habits of a speaker, independent of the size of the corpus."""
    draw = random.Random(f"mini {VERSION} speaker {number}")
    turn, choice = divmod(number // 2, len(VOICES[gender]))
    voice = list(VOICES[gender])[choice]
    f0, level = VOICES[gender][voice]
    # no two of 140 speakers have the same voice and vocal tract: 5 of these for each of 28 voices
    played_at = PLAYED_AT[(number // 2 + 2 * turn) % len(PLAYED_AT)]
    base = math.sqrt(f0 * draw.uniform(*F0[gender]))  # close to the variant's own f0, where it sounds best
    return {
        "voice": f"ko+{voice}",
        "played_at": played_at,
        "pitch": 12 * math.log2(base / f0 * ESPEAK_RATE / played_at),
        "rate": draw.uniform(178, 204) * ESPEAK_RATE / played_at,
        "range": draw.uniform(44, 54),
        "gain": draw.uniform(-38, -33) - level,
        "habit": {emotion: [draw.gauss(1, 0.25) for _ in CUES] for emotion in EMOTIONS},
    }


def _requests(table: pd.DataFrame) -> dict[str, dict]:
    """Return the request to eSpeak of each id, with ``gain`` (dB) and ``played_at`` (Hz) to apply afterwards."""
    speakers, requests = {}, {}
    for row in table.itertuples():
        if row.speaker not in speakers:
            speakers[row.speaker] = _speaker(int(row.speaker[1:]) - 1, row.gender)
        speaker = speakers[row.speaker]
        strength = STRENGTHS[row.intensity]
        weights = [strength * habit for habit in speaker["habit"][row.emotion]]
        rate, pitch, spread, level = (
            rule**weight if cue in FACTORS else rule * weight
            for cue, rule, weight in zip(CUES, RULES[row.emotion], weights)
        )
        draw = random.Random(f"mini {VERSION} {row.id}")
        requests[row.id] = {
            "voice": speaker["voice"],
            "text": SENTENCES[int(row.sentence[1:]) - 1],
            "rate": _engine.clamp(speaker["rate"] * rate * math.exp(draw.gauss(0, 0.04)), 80, 450),
            "pitch": _engine.clamp(50 + PITCH_STEP * (speaker["pitch"] + pitch + draw.gauss(0, 0.7)), 0, 99),
            "range": _engine.clamp(speaker["range"] * spread * math.exp(draw.gauss(0, 0.15)), 0, 99),
            "volume": VOLUME,
            "seed": _hash(row.id),
            "gain": round(speaker["gain"] + level + draw.gauss(0, 1.0), 2),
            "played_at": speaker["played_at"],
        }
    return requests


def _digest(requests: Mapping[str, dict]) -> str:
    return _engine.corpus_digest(VERSION, requests)


def _encode(samples: bytes, request: Mapping[str, Any]) -> bytes:
    """Return eSpeak's samples as a FLAC file at 16 kHz, ``gain`` dB louder but never clipping.

    Computed in float64, so that differences in the order of summation (threads) vanish in the rounding to 16 bit.
    """
    wave = torch.from_numpy(np.frombuffer(samples, dtype="<i2").astype("float64")) / 32768
    wave = torchaudio.functional.resample(wave, request["played_at"], SAMPLE_RATE) * 10 ** (request["gain"] / 20)
    wave = wave * min(1.0, 0.95 / wave.abs().max().item())
    return _engine.flac_bytes((wave * 32768).round().to(torch.int16).numpy())
