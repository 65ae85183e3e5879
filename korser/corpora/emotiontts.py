"""emotiontts_open_db: Korean emotional speech, its emotional-to-emotional part.

Source: Selvas AI and KAIST, https://github.com/emotiontts/emotiontts_open_db (5 of the 100 sentences per emotion are
public; the whole on application).

Licence: CC BY-NC-SA 4.0; for research, with the acknowledgement that its README asks for.

Layout: ``nea/wav/nea00001.wav`` and so on, WAV or FLAC, at any depth below the folder (in the repository under
``Dataset/SpeechCorpus/Emotional/emotional-to-emotional``). Speakers nea to nee are female, nek to neo male. The
plain-to-emotional part (ema to emh) is not read: whether its labels have the fault below is not known.

Labels: emotion (4), by sentence number: 1-100 neutral, 101-200 happy, 201-300 sad, 301-400 angry; gender. The README
has the last two the other way round, but the sentences and two independently trained classifiers say otherwise, so its
labels are corrected here; ``corpus_options={"labels": "readme"}`` takes them as they are.

Each sentence (``sentence``) belongs to one emotion and is read by all ten speakers, so that the words alone give the
emotion away: hold out sentences as well as speakers where that matters (``hold_out: sentence``, :mod:`korser.data.splits`).
"""

import re

from korser.corpora.table import find_files, make_table
from korser.utils.errors import UserError

TASKS = {"emotion": ("neutral", "happy", "sad", "angry"), "gender": ("female", "male")}
ORDERS = {"corrected": ("neutral", "happy", "sad", "angry"), "readme": ("neutral", "happy", "angry", "sad")}
LAYOUT = "emotiontts_open_db, emotional-to-emotional/nea/wav/nea00001.wav (or .flac) and so on"

_NAME = re.compile(r"(ne([a-ek-o]))(\d{5})\.(?:wav|flac)", re.IGNORECASE)


def prepare(data_folder, labels="corrected"):
    """See :mod:`korser.corpora`.

    Parameters
    ----------
    data_folder : str or Path
    labels : {"corrected", "readme"}
        Whose emotion labels.
    """
    if labels not in ORDERS:
        raise UserError(f"corpus_options.labels is '{labels}': write 'corrected' or 'readme'")
    rows = []
    for path, match in find_files(data_folder, _NAME, layout=LAYOUT):
        speaker, letter, number = match.groups()
        if not 1 <= int(number) <= 400:
            raise UserError(f"{path}: sentence {number} is not one of the corpus's 00001 to 00400: remove the file")
        rows.append(
            {
                "id": path.stem,
                "path": str(path),
                "speaker": speaker.lower(),  # NEA and nea are one person
                "emotion": ORDERS[labels][(int(number) - 1) // 100],
                "gender": "female" if letter.lower() <= "e" else "male",
                "sentence": number,
            }
        )
    return make_table(rows)
