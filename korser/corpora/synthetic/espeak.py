"""espeak: synthetic speech of many voices, for pretraining; made on first use.

Source
    Spoken by eSpeak NG (library and voices from the package ``espeakng-loader``), half of it Korean, the rest in ten
    other languages. No person speaks. Its purpose is to pretrain a speech encoder on audio that can be shared and that
    anyone can make again, bit for bit. Requires Linux or macOS (the program that speaks needs ``fork``).
Licence
    Sentences and rules: Apache-2.0, as korser. eSpeak NG is GPL-3; only a separate program (``_espeak_program.py``)
    loads it, which ``_engine.py`` starts and talks to through pipes.
Layout on disk
    ``<data_folder>/<seed>-<digest>/<thousand>/<id>.flac``, 16 kHz, 16 bit, mono, with ``checksums.txt`` (size and
    CRC-32 of each file) and ``.lock``. The digest covers everything that determines the audio (version, rules, version
    of espeakng-loader). Utterance ``n`` depends on the seed and ``n`` only: a corpus of 5 hours can be extended to 25.
Labels
    gender: female, male, as eSpeak NG states it for the voice variant; None if it does not, and for voices played more
    than 10 % slower or faster. No emotion. Extra columns: ``language``, ``variant``, ``text``.
Speakers
    A speaker is a language, a voice variant and a speed at which it is played (which moves the formants, as a longer
    or shorter vocal tract does, by -16 to +21 %), with its own base pitch. Named ``<language>_<variant>_<speed>``
    (speed in per mille), so that a validation split can be made by speaker or by variant.
Disjoint from mini
    No sentence of :mod:`korser.corpora.synthetic.mini` occurs. A voice variant of mini occurs here only if played at
    least 5 % slower than mini's slowest speaker or 5 % faster than its fastest, in any language: no speaker of mini, of
    any size and split, is among the speakers here.
Prosody
    An utterance is one to three phrases. Rate, pitch, pitch range and level are drawn widely for each utterance
    around its speaker's (rate by a factor of 0.55 to 1.8, pitch by about 3 semitones, range from nearly monotone to
    eSpeak's widest, level over 30 dB) and again, less widely, for each phrase: the cues of emotion vary as in emotional
    speech, but without labels.
Texts
    Korean: half are made-up words of syllables about as frequent as in Korean text, half sentences composed at random
    (when, who, where, what). Other languages: made-up words of consonants and vowels of the language.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.signal import resample_poly

from korser.corpora.card import CorpusCard
from korser.corpora.synthetic import _engine, mini
from korser.corpora.synthetic._engine import ESPEAK_RATE, Speak
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError

VERSION = 1  # increase it when the same settings give other audio for a reason that the digest does not cover
SYNTHETIC = True
ABOUT = CorpusCard(
    name="espeak",
    language="Korean and 10 others (synthetic)",
    speakers=None,
    utterances=None,
    terms="made on first use",
    url="https://github.com/espeak-ng/espeak-ng",
    checked="audio",
)
TASKS = {"gender": ("female", "male")}
MEAN_SECONDS = 5.76  # of an utterance, measured; they last from 2 to 14

# eSpeak NG's voice variants by the gender that it states.
VARIANTS = {
    "female": (
        "Alicia Andrea Annie anika anikaRobot aunty belinda f1 f2 f3 f4 f5 grandma linda shelby steph steph2 steph3 "
        "whisperf"
    ).split(),
    "male": (
        "Andy AnxiousAndy Demonic Denis Diogo Henrique Hugo Lee Marco Storm UniRobot antonio croak m1 m2 m3 m4 m5 m6 "
        "m7 m8 michel miguel sandro travis victor whisper"
    ).split(),
    None: (
        "Alex Gene Gene2 Jacky Mario Michael Mike Nguyen Reed RicishayMax RicishayMax2 RicishayMax3 Tweaky adam "
        "announcer benjamin boris caleb david ed edward edward2 fast grandpa gustave ian iven iven2 iven3 iven4 "
        "john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 marcelo max mike2 norbert pablo paul pedro quincy "
        "rob robert robosoft robosoft2 robosoft3 robosoft4 robosoft5 robosoft6 robosoft7 robosoft8 zac"
    ).split(),
}
DEFAULT_PITCH = 50  # of eSpeak
FEMALE_PROPORTION = 0.4  # of utterances; the variants are mostly male
# input samples per output sample at 16 kHz; small ratios, so that resampling is cheap
RATIOS = tuple(Fraction(r) for r in ("7/6", "6/5", "5/4", "4/3", "11/8", "10/7", "3/2", "14/9", "8/5", "5/3"))
MARGIN = 1.05  # between the speeds of mini's speakers and those at which its variants are played here
VOLUME = 20  # percent, at which no variant clips inside eSpeak
MAX_PEAK = 0.95  # of full scale
PAUSE = (0.0, 0.4)  # seconds between phrases, in addition to eSpeak's own

# Of each language: eSpeak's name, beginnings, vowels and endings of syllables ("-": empty; frequent ones are repeated)
SYLLABLES = {
    "de": ("de", "b d f g h k l m n p r s t w sch st tr kl z", "a e i o u ei au ie ö ü", "- - - n t r s l ch m"),
    "en": ("en-us", "b d f g h j k l m n p r s t v w sh th st tr pl", "a e i o u ee oo ai ow", "- - - n t s l r d k"),
    "es": ("es", "b c d f g j l m n ñ p r rr s t ll ch tr pl", "a a e e i o o u ie ue", "- - - - n s r l"),
    "fr": ("fr", "b d f g j l m n p r s t v ch tr pl", "a e i o u ou on an in oi eu é è", "- - - - r l s t"),
    "it": ("it", "b c d f g l m n p r s t v z ch gn st tr", "a a e e i i o o u", "- - - - - n r l"),
    "ja": (
        "ja",
        "あ い う え お か き く け こ さ し す せ そ た ち つ て と な に ぬ の は ひ ふ ま み む め も や ゆ よ "
        "ら り る れ ろ わ が ぎ ご ざ じ だ で ど ば び きょ しゃ しょ じょ りょ",
        "-",
        "- - - - - ん い う",
    ),
    "pl": ("pl", "b c d g j k l ł m n p r s t w z sz cz ż ś ć prz st", "a e i o u y ą ę", "- - - n m t k ł j sz"),
    "ru": ("ru", "б в г д ж з к л м н п р с т х ч ш ст пр", "а а о о е и у ы я ю", "- - - н т л р с й к м"),
    "tr": ("tr", "b c ç d g h k l m n p r s ş t v y z", "a e ı i o ö u ü", "- - - n r l k m t ş"),
    "zh": ("cmn-latn-pinyin", "b p m d t n l g k h zh ch sh", "a ai an ang ao u", "1 2 3 4"),
}
KOREAN_PROPORTION = 0.5
# Korean syllables: weights of the letters in Unicode's order, about as frequent as in running text.
ONSETS = (12, 2, 8, 8, 1, 6, 5, 4, 0.5, 8, 1, 22, 7, 0.7, 3, 1.5, 2, 2, 6)  # ㄱ to ㅎ
VOWELS = (20, 5, 1.5, 0.1, 10, 6, 5, 0.5, 9, 2, 0.5, 1.5, 2, 8, 1, 0.2, 1, 1, 9, 2, 16)  # ㅏ to ㅣ
CODAS = (55, 5, 0, 0, 14, 0, 0, 0.5, 9, 0, 0, 0, 0, 0, 0, 0, 5, 2, 0, 1.5, 2, 9, 0.5, 0.3, 0.1, 0.4, 0.4, 1)  # to ㅎ
WHEN = (
    "지난주에", "오늘 밤에", "어제 저녁에", "다음 달에", "새벽마다", "비가 오면", "방학 동안", "작년 겨울에",
    "해가 지고 나서", "가끔", "벌써", "조금 전에", "이른 봄에", "한참 뒤에", "주말이면", "요즘",
)  # fmt: skip
WHO = (
    "동생이", "우리 이모가", "옆집 아이가", "선생님께서", "그 배우가", "할아버지가", "젊은 기자가", "내 친구는",
    "농부들이", "누나는", "의사 선생님이", "고양이가", "삼촌이", "그 사람은", "막내가", "손님들이", "운전사가",
    "너희는",
)  # fmt: skip
WHERE = (
    "바닷가에서", "지하철역 앞에서", "넓은 들판에서", "부엌에서", "강 건너에서", "운동장 한가운데서", "숲속에서",
    "다리 밑에서", "극장에서", "병원 복도에서", "산꼭대기에서", "제주도에서", "골목 끝에서", "마당에서",
)  # fmt: skip
WHAT = (
    "노래를 불렀다", "큰 소리로 웃었다", "감자를 캐고 있다", "사진을 찍었니", "눈사람을 만들었어", "길을 잃어버렸다",
    "연을 날리고 싶대", "오래된 이야기를 들려주었다", "울음을 터뜨렸다", "자전거를 고쳤어", "춤을 추더라",
    "라면을 끓였습니다", "문을 쾅 닫았다", "아무 말도 하지 않았다", "공을 멀리 던졌지", "소식을 기다렸다",
    "편하게 쉬고 있을까", "짐을 옮겨 주었어", "깜짝 놀랐대", "별을 세어 보았다", "수박을 나누어 먹자", "일기를 썼다",
)  # fmt: skip
SYLLABLES_PER_SECOND = 4.3  # at eSpeak's usual 175 words a minute, pauses included


def design(hours: float = 25, seed: int = 0) -> pd.DataFrame:
    """Return the table of the corpus of a size, without making audio.

    Parameters
    ----------
    hours : float
        Of speech, within a few per cent.
    seed : int

    Returns
    -------
    pandas.DataFrame
        One row per utterance: ``id, speaker, gender, language, variant, text, phrases, ratio, level``. ``phrases`` are
        the requests to eSpeak (see ``_espeak_program.py``) with ``gain`` (dB) and ``pause`` (seconds before it).

    Examples
    --------
    >>> design(0.1)[["id", "speaker"]].values[0].tolist()
    ['u0000000', 'ko_caleb_0847']
    """
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours < math.inf:
        raise UserError(f"corpus_options.hours={hours!r}: expected a number > 0")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise UserError(f"corpus_options.seed={seed!r}: expected an integer")
    rows = [_utterance(seed, number) for number in range(math.ceil(hours * 3600 / MEAN_SECONDS))]
    return pd.DataFrame(rows, dtype=object)


def prepare(data_folder: str | Path, *, hours: float = 25, seed: int = 0, n_workers: int | None = None) -> pd.DataFrame:
    """Make what is missing of a corpus (:func:`design`), and return its table with absolute paths.

    On one platform the audio is the same to the bit, independent of the order, the number of workers and interruptions;
    an hour takes about 65 MB. ``n_workers`` processes speak, by default one per CPU core.

    Raises
    ------
    UserError
        If an option is out of range, espeakng-loader is not installed, or the folder cannot be written.
    """
    folder = _engine.check_folder(data_folder)
    if n_workers is not None:
        _engine.check_positive(n_workers=n_workers)
    table = design(hours, seed)
    folder /= f"{seed}-{_digest(seed)}"
    rows = {row.id: row for row in table.itertuples()}
    files = {name: folder / name[:-3] / f"{name}.flac" for name in rows}
    _engine.make_missing(
        folder,
        files,
        lambda name, speak: _encode([_spoken(speak, phrase) for phrase in rows[name].phrases], rows[name]),
        n_workers=n_workers or os.cpu_count(),
        description="espeak: speaking",
    )
    table.insert(1, "path", pd.Series([str(files[name]) for name in table.id], dtype=object))
    return table.drop(columns=["phrases", "ratio", "level"])


def _utterance(seed: int, number: int) -> dict[str, Any]:
    """Draw an utterance, in a fixed order, from (seed, number) only."""
    draw = random.Random(f"espeak {VERSION} {seed} {number}")
    language = "ko" if draw.random() < KOREAN_PROPORTION else draw.choice(list(SYLLABLES))
    gender = "female" if draw.random() < FEMALE_PROPORTION else draw.choice(["male", None, None])
    variant = draw.choice(VARIANTS[gender])
    ratio = draw.choice(_ratios(variant))
    speed = _speed(ratio)
    speaker = f"{language}_{variant}_{round(1000 * speed):04d}"
    base = random.Random(f"espeak {VERSION} {speaker}").uniform(25, 75)

    rate = math.exp(draw.uniform(math.log(0.55), math.log(1.8)))  # times usual
    pitch = base + draw.gauss(0, 18)
    spread = math.exp(draw.uniform(math.log(8), math.log(99)))
    n_phrases = draw.choice([1, 2, 2, 3])
    seconds = draw.uniform(3, 8) / n_phrases
    phrases = []
    for _ in range(n_phrases):
        pace = rate * math.exp(draw.gauss(0, 0.12))
        phrases.append(
            {
                "voice": f"{'ko' if language == 'ko' else SYLLABLES[language][0]}+{variant}",
                "text": _text(draw, language, seconds * pace * SYLLABLES_PER_SECOND),
                "rate": _engine.clamp(175 * pace / speed, 80, 450),
                "pitch": _engine.clamp(pitch + draw.gauss(0, 9), 0, 99),
                "range": _engine.clamp(spread * math.exp(draw.gauss(0, 0.3)), 0, 99),
                "volume": VOLUME,
                "seed": draw.getrandbits(31),
                "gain": round(draw.gauss(0, 4), 2),
                "pause": round(draw.uniform(*PAUSE), 3),
            }
        )
    return {
        "id": f"u{number:07d}",
        "speaker": speaker,
        "gender": gender if abs(speed - 1) <= 0.1 else None,
        "language": language,
        "variant": variant,
        "text": " ".join(phrase["text"] for phrase in phrases),
        "phrases": phrases,
        "ratio": ratio,
        "level": round(draw.uniform(-45, -15), 2),
    }


def _speed(ratio: Fraction) -> float:
    """Return the playing speed relative to eSpeak's output."""
    return float(ratio) * SAMPLE_RATE / ESPEAK_RATE


def _ratios(variant: str) -> tuple[Fraction, ...]:
    """Return the speeds at which a variant is played; for a variant of mini, none close to mini's."""
    if not any(variant in voices for voices in mini.VOICES.values()):
        return RATIOS
    slowest, fastest = (played / ESPEAK_RATE for played in (min(mini.PLAYED_AT), max(mini.PLAYED_AT)))
    return tuple(r for r in RATIOS if _speed(r) * MARGIN <= slowest or _speed(r) >= fastest * MARGIN)


def _text(draw: random.Random, language: str, n_syllables: float) -> str:
    """Return about ``n_syllables`` syllables and a punctuation mark."""
    if language == "ko" and draw.random() < 0.5:
        words = [draw.choice(WHO), draw.choice(WHAT)]  # some 10 syllables
        if n_syllables > 9:
            words.insert(1, draw.choice(WHERE))
        if n_syllables > 14:
            words.insert(0, draw.choice(WHEN))
    else:
        words, count = [], 0
        while count < max(3, n_syllables):
            length = draw.choice([1, 2, 2, 3, 3, 4])
            words.append("".join(_syllable(draw, language) for _ in range(length)))
            count += length
    return " ".join(words) + draw.choice("...?!,")


def _syllable(draw: random.Random, language: str) -> str:
    if language == "ko":
        onset, vowel, coda = (draw.choices(range(len(w)), w)[0] for w in (ONSETS, VOWELS, CODAS))
        return chr(0xAC00 + (onset * len(VOWELS) + vowel) * len(CODAS) + coda)
    return "".join(draw.choice(part.split()) for part in SYLLABLES[language][1:]).replace("-", "")


def _digest(seed: int) -> str:
    first = [_utterance(seed, number) for number in range(1000)]  # contain every word and variant, for all hours
    return _engine.corpus_digest(VERSION, first)


def _spoken(speak: Speak, phrase: Mapping[str, Any]) -> bytes:
    """Return eSpeak's samples of a phrase; where it crashes (wide range, lowest pitch), of a more even version."""
    for evenness in (0, 0.25, 0.5, 0.75, 1):
        pitch = round(phrase["pitch"] + evenness * (DEFAULT_PITCH - phrase["pitch"]))
        try:
            return speak({**phrase, "pitch": pitch, "range": round(phrase["range"] * (1 - evenness))})
        except _engine.Crash:
            if evenness == 1:
                raise


def _encode(pieces: Iterable[bytes], row: Any) -> bytes:
    """Return eSpeak's samples of an utterance's phrases as a FLAC file at 16 kHz."""
    waves = []
    for samples, phrase in zip(pieces, row.phrases):
        waves.append(np.zeros(round(phrase["pause"] * ESPEAK_RATE)))
        waves.append(np.frombuffer(samples, "<i2") * (10 ** (phrase["gain"] / 20) / 32768))
    up, down = row.ratio.denominator, row.ratio.numerator
    wave = resample_poly(np.concatenate(waves), up, down)
    wave *= min(10 ** (row.level / 20) / np.sqrt(np.mean(wave**2)), MAX_PEAK / np.abs(wave).max())
    return _engine.flac_bytes(np.round(wave * 32768).astype(np.int16))
