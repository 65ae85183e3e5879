"""Read text whose encoding is not stated."""

from __future__ import annotations

import codecs
import contextlib
import logging
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from korser.utils.errors import UserError
from korser.utils.files import LARGEST, read_bytes
from korser.utils.text import shorten

__all__ = ["read_korean", "read_text"]

logger = logging.getLogger(__name__)

BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
BINARY = {b"PK\x03\x04": "an Excel workbook or a ZIP archive", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}
PLAUSIBLE = 0.8  # least proportion of words that must look right in the encoding that is chosen
WORD = re.compile(r"[^\s,;|/\\\"'()\[\]{}:._=+-]+")
HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")
PUNCTUATION = "‘’“”„«»–—…·•°§€£©®™¿¡ªº"  # common outside ASCII in text of western Europe


def read_text(file: Path, encoding: str | None = None, option: str = "") -> str:
    """Read a text file in UTF-8, in UTF-16 with a byte order mark, or in a code page in which Excel saves CSV.

    Windows saves CSV in the code page of its language: CP949 for Korean, CP1252 for languages of western Europe. Bytes
    of one are often valid in the other, so that one is chosen in which the words look right, and the log says which.
    ``encoding`` is another code page of Python, such as ``cp1250``; ``option`` is how the user can state it, for
    messages.

    Raises
    ------
    UserError
        If the file is in none of these.
    """
    data = _read(file)
    if encoding is not None:
        return _decode_as(file, data, encoding)
    for mark, stated in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return _decode_stated(file, data, stated)
    for start, name in BINARY.items():
        if data.startswith(start):
            raise UserError(f"{file} is {name}: save the table as CSV (UTF-8)")
    if data[:1] == b"\0" or data[1:2] == b"\0":  # of two bytes of an ASCII character, one is zero
        return _decode_stated(file, data, "utf-16-be" if data[:1] == b"\0" else "utf-16-le")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _guess(file, data, _row(error), option)
    garbled = [f"{word} for {right}" for word in _foreign_words(text) if (right := _ungarbled(word))]
    if garbled:
        logger.warning("%s was saved in a wrong encoding before (%s): export it again", file, shorten(garbled))
    return _universal_newlines(text)


def read_korean(file: Path) -> str:
    """Read text that is in UTF-8 or CP949, as the files of Korean corpora are; a short one may be valid in both.

    Raises
    ------
    UserError
        If the file cannot be read, or is in neither.
    """
    data, texts = _read(file), []
    for encoding in ("utf-8-sig", "cp949"):
        with contextlib.suppress(UnicodeDecodeError):
            texts.append(data.decode(encoding))
    if not texts:
        raise UserError(f"{file} is in neither UTF-8 nor CP949: copy it again, or save it as UTF-8")
    # two syllables of CP949 can be two Latin letters of UTF-8
    return _universal_newlines(next((text for text in texts if text.isascii() or HANGUL.search(text)), texts[0]))


def _read(file: Path) -> bytes:
    try:
        return read_bytes(file, LARGEST["table"])
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


def _decode_stated(file: Path, data: bytes, encoding: str) -> str:
    try:
        return _universal_newlines(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} begins like {encoding} but is damaged ({error.reason}): save it as UTF-8") from error


def _decode_as(file: Path, data: bytes, encoding: str) -> str:
    """Decode by the encoding that the user states."""
    try:
        return _universal_newlines(data.decode(encoding).removeprefix("\ufeff"))
    except LookupError:
        raise UserError(f"encoding={encoding}: unknown to Python; expected such as utf-8, cp949 or cp1250") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not in the encoding {encoding} ({_row(error)}): state another one") from None


def _row(error: UnicodeDecodeError) -> str:
    return f"row {error.object.count(bytes([10]), 0, error.start) + 1}"


def _guess(file: Path, data: bytes, place: str, option: str) -> str:
    found = []
    for encoding, name, looks_right in CODE_PAGES:
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(encoding)
            words = _foreign_words(text)
            found.append((sum(map(looks_right, words)) / max(len(words), 1), name, text, words))
    score, name, text, words = max(found, key=lambda each: each[0], default=(0.0, "", "", []))
    fix = f"save it as UTF-8{f', or state its encoding by {option}' if option else ''}"
    if score < PLAUSIBLE:
        raise UserError(f"{file} is not UTF-8 ({place}) and neither Korean CP949 nor western CP1252: {fix}")
    logger.warning(
        "!!! %s is not UTF-8: read as %s (%s); if these words are wrong, %s", file, name, shorten(words), fix
    )
    return _universal_newlines(text)


def _foreign_words(text: str) -> list[str]:
    return [] if text.isascii() else list(dict.fromkeys(word for word in WORD.findall(text) if not word.isascii()))


def _ungarbled(word: str) -> str | None:
    """Return what UTF-8 text was that has been read as CP1252, such as Ärger for Ã„rger; None if it was not."""
    try:
        return word.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return None


def _looks_korean(word: str) -> bool:
    """Return whether a word is of Hangul as in KS X 1001, which has the syllables of Korean text, without Latin."""
    letters = [c for c in word if c.isalpha() and not c.isascii()]
    hangul = [c for c in letters if "가" <= c <= "힣"]
    common = [c for c in hangul if len(c.encode("euc_kr", errors="ignore")) == 2]  # others have eight bytes, or none
    mixed = any(c.isascii() and c.islower() for c in word)  # "화자A" is a word, "컎ger" is not
    return len(hangul) == len(letters) and 2 * len(common) >= len(hangul) and (not mixed or len(common) == len(hangul))


def _looks_western(word: str) -> bool:
    """Return whether most letters of a word are ASCII, its others Latin, and capitals where capitals may be."""
    letters = [c for c in word if c.isalpha()]
    other = [c for c in letters if not c.isascii()]
    if any(not c.isascii() and not c.isalpha() and c not in PUNCTUATION for c in word):
        return False
    if any(a.islower() and b.isupper() and not b.isascii() for a, b in zip(word, word[1:])):
        return False
    latin = all(unicodedata.name(c, "").startswith("LATIN") for c in other)
    return latin and (len(word) == 1 or 2 * len(other) <= len(letters)) and _ungarbled(word) is None


CODE_PAGES: list[tuple[str, str, Callable[[str], bool]]] = [
    ("cp949", "Korean (CP949)", _looks_korean),
    ("cp1252", "western European (CP1252)", _looks_western),
]


def _universal_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
