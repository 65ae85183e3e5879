"""KEMDy19: Korean Emotion Multimodal Database 2019 of ETRI, its speech.

Source: K. J. Noh et al., Sensors 21(5): 1579, 2021, doi:10.3390/s21051579; https://nanum.etri.re.kr/share/kjnoh2/KEMDy19.

Licence: ETRI's agreement for research, to be signed by each person; no redistribution.

Layout: ``annotation/Session01_F_res.csv`` and ``Session01_M_res.csv`` to ``Session20_...``;
``wav/Session01/Sess01_script01/Sess01_script01_F001.wav`` (session, situation, who speaks, number) with its transcript
``....txt`` (UTF-8) beside it. 20 sessions of a woman and a man, 40 actors who are in one session each, in six scripted
and four improvised situations.

Labels: emotion (7: the majority of ten raters; fear is called fearful here, surprise surprised), gender; ratings of
valence and arousal from 1 (negative, calm) to 5, means of the raters. Raters: ``emotion_rater1`` to
``emotion_rater10``, in the order of the table, and so for valence and arousal; nothing says whether the same ten people
rated all sessions. Extras: ``text``, ``session``, ``situation``. About 10280 utterances.

Errata. Each session has two tables, and both list the segments of both speakers: ``_F_res.csv`` rates the woman while
anybody speaks, ``_M_res.csv`` the man. An utterance's label is that in the table of its own speaker; rows about the
listener are not read. Ties are written ``angry;disgust`` and are no label, unless ``corpus_options={"ties": "first"}``
takes the first. Some rows have no audio and are left out, with a message that counts them. Columns are read by their
position, since the two header rows differ between copies, and cells of biosignals may be empty.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from korser.corpora import _kemdy
from korser.corpora._kemdy import CONSENSUS, RATERS, RATINGS, TASKS
from korser.corpora.card import CorpusCard

__all__ = ["ABOUT", "CONSENSUS", "RATERS", "RATINGS", "TASKS", "prepare"]

ABOUT = CorpusCard(
    name="KEMDy19",
    language="Korean",
    speakers=40,
    utterances=10280,
    terms="ETRI agreement, research",
    url="https://nanum.etri.re.kr/share/kjnoh2/KEMDy19",
    checked="three published readers",
    raters="10",
)
LAYOUT = "KEMDy19, wav/Session01/Sess01_script01/Sess01_script01_F001.wav and annotation/Session01_F_res.csv and so on"
NAME = r"Sess(?P<session>\d\d)_(?P<situation>(?:script|impro)\d\d)_(?P<gender>[FM])\d{3}"


def prepare(data_folder: str | Path, ties: str = "drop") -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    ``ties``, such as ``neutral;happy``, are no label (``drop``), or the first of them (``first``).
    """
    return _kemdy.prepare(
        data_folder,
        ties,
        name=NAME,
        table=r"Session\d\d_([FM])_res\.csv",
        position=9,
        layout=LAYOUT,
        rates=lambda table, segment: table[1] == segment["gender"],
    )
