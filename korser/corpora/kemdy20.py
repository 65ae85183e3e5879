"""KEMDy20: Korean Emotion Multimodal Database 2020 of ETRI, its speech.

Source: K. J. Noh and H. Jeong, ETRI, https://nanum.etri.re.kr/share/kjnoh2/KEMDy20.

Licence: ETRI's agreement for research, to be signed by each person; no redistribution.

Layout: ``annotation/Sess01_eval.csv`` to ``Sess40_eval.csv``; ``wav/Session01/Sess01_script01_User001F_001.wav``
(session, topic, who speaks, number) with its transcript ``....txt`` (CP949) beside it. Not all sessions need to be
there.

Labels: emotion (7: the majority of ten raters; fear is called fearful here, surprise surprised), gender; ratings of
valence and arousal from 1 (negative, calm) to 5, means of the raters. Raters: ``emotion_rater1`` to
``emotion_rater10``, in the order of the table, and so for valence and arousal. Extras: ``text``, ``session``,
``situation``. 80 adults, two per session, in free conversation; 12828 utterances of release 1.1 have one label, 85 to
90 % of them neutral, so that accuracy says little.

Errata. disgust is spelt ``disqust`` in the tables. Ties are written ``neutral;happy`` and are no label, unless
``corpus_options={"ties": "first"}`` takes the first. Transcripts contain marks, such as ``n/`` for a noise and ``l/``
for "um".
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from korser.corpora import _kemdy
from korser.corpora._kemdy import CONSENSUS, RATERS, RATINGS, TASKS
from korser.corpora.card import CorpusCard

__all__ = ["ABOUT", "CONSENSUS", "RATERS", "RATINGS", "TASKS", "prepare"]

ABOUT = CorpusCard(
    name="KEMDy20",
    language="Korean",
    speakers=80,
    utterances=None,
    terms="ETRI agreement, research",
    url="https://nanum.etri.re.kr/share/kjnoh2/KEMDy20",
    checked="four published readers",
    raters="10",
)
LAYOUT = "KEMDy20, wav/Session01/Sess01_script01_User001F_001.wav and annotation/Sess01_eval.csv and so on"
NAME = r"Sess(?P<session>\d\d)_(?P<situation>script\d\d)_(?P<speaker>User\d{3}(?P<gender>[FM]))_\d{3}"


def prepare(data_folder: str | Path, ties: str = "drop") -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    ``ties``, such as ``neutral;happy``, are no label (``drop``), or the first of them (``first``).
    """
    return _kemdy.prepare(
        data_folder,
        ties,
        name=NAME,
        table=r"Sess\d\d_eval\.csv",
        position=3,
        layout=LAYOUT,
    )
