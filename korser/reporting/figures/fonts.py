"""Find a font for Hangul."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

from matplotlib import font_manager

__all__ = ["hangul_font"]

logger = logging.getLogger(__name__)

HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
HANGUL_FONTS = (  # with TrueType outlines first, which every PDF reader supports
    "NanumGothic",
    "NanumBarunGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "UnDotum",
    "Baekmuk Gulim",
    "Noto Sans KR",
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",  # contains all glyphs of Noto Sans CJK
    "Source Han Sans KR",
)


def hangul_font(texts: Iterable[str]) -> str | None:
    """Return the name of an installed Hangul font; None if no text contains Hangul or there is none.

    If none is installed, a warning names one, and the figures show boxes instead.
    """
    if not any(HANGUL.search(str(text)) for text in texts):
        return None
    fonts = _installed(HANGUL_FONTS)
    if not fonts:
        _list_new_fonts()
        fonts = _installed(HANGUL_FONTS)
    if fonts:
        logging.getLogger("fontTools.subset").setLevel(logging.ERROR)  # which names tables that a PDF does not need
        return fonts[0]
    logger.warning("no Hangul font is installed, so labels show boxes: install one (apt-get install fonts-nanum)")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
    return None


def _installed(names: Iterable[str]) -> list[str]:
    known = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in names if name in known]


@cache
def _list_new_fonts() -> None:
    """Add fonts that were installed after matplotlib made its list, which it keeps in a cache."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with suppress(Exception):  # whatever a damaged font raises
                font_manager.fontManager.addfont(path)
