"""Checks of a split: leaks, missing labels, too few utterances."""

from korser.data.splits import (
    BALANCED,
    FEW_SPEAKERS,
    FEW_UTTERANCES,
    PARTS,
    require_speakers,
    shared_values,
    speaker_independent,
    warn_once,
)
from korser.utils.errors import UserError
from korser.utils.text import shorten

LEXICAL_LEAKAGE = (
    "THE WORDS TELL: each sentence has one label, and those of the test part are trained on; keep them apart by "
    "the protocol speaker_holdout with hold_out=sentence"
)


def check_splits(data, protocol, *, tasks=BALANCED, parts=PARTS):
    """Refuse a division that leaks or cannot be trained on; say which classes have next to no utterances.

    Parameters
    ----------
    data : pandas.DataFrame
        With ``split``; where a column ``digest`` (:func:`korser.data.audio.scan_audio`) is present, the same audio in two
        parts or with two labels is refused too.
    protocol : str
    tasks : sequence of str
        Label columns, as far as present: every class that is validated or tested on must be trained on.
    parts : sequence of str
        Parts that must not be empty.

    Raises
    ------
    UserError
        Names the speakers, files or classes at fault.
    """
    for part in parts:
        if not (data["split"] == part).any():
            raise UserError(f"split protocol {protocol}: the {part} part is empty: give it more of the corpus")
    if speaker_independent(protocol):
        require_speakers(data, protocol)
        shared = shared_values(data, "speaker")
        if shared:
            raise UserError(
                f"split protocol {protocol}: {len(shared)} speakers are in more than one part ({shorten(shared)}): "
                "divide by whole speakers, or ask for manifest_random or random_stratified, which the results then name"
            )
    if "digest" in data:
        shared = shared_values(data, "digest")
        if shared:
            files = data["path"][data["digest"] == shared[0]]
            raise UserError(
                f"split protocol {protocol}: {len(shared)} recordings are in more than one part ({shorten(files)} are "
                "the same audio): remove the copies"
            )
        _refuse_two_labels(data, [task for task in tasks if task in data])
    trained = data[data["split"] == "train"]
    for task in tasks:
        if task in data:
            _warn_of_few(data, task)
            missing = sorted(set(data[task].dropna()) - set(trained[task].dropna()))
            if missing:
                raise UserError(
                    f"split protocol {protocol}: no training utterance has the {task} {shorten(missing)}: choose other "
                    f"speakers or another seed, or drop the class with label_map={{{task}: {{{missing[0]}: null}}}}"
                )


def lexical_leakage(data, task):
    """Whether most test utterances have a sentence of the training part that tells their label by itself.

    Acted corpora have each actor say a sentence in every emotion; where the script goes with the emotion, a model that
    hears the words has the label without any of its expression.

    Parameters
    ----------
    data : pandas.DataFrame
        With ``split``.
    task : str
        Label column.

    Returns
    -------
    bool
        False where there is no column ``sentence``, or sentences are kept apart (``hold_out``).
    """
    if "sentence" not in data or task not in data:
        return False
    data = data[data["sentence"].notna() & data[task].notna()]
    n_labels = data.groupby("sentence")[task].nunique()
    trained, tested = (data.loc[data["split"] == part, "sentence"] for part in ("train", "test"))
    told = tested.isin(trained) & (tested.map(n_labels) == 1)
    return bool(len(tested) and told.mean() > 0.5 and trained.duplicated().any())


def _refuse_two_labels(data, tasks):
    """The same audio within a part is no leak, but one of two unlike labels is wrong."""
    copies = data[data["digest"].duplicated(keep=False)]
    for task in tasks:
        labels = copies[copies[task].notna()].drop_duplicates(["digest", task])
        twice = labels[labels["digest"].duplicated(keep=False)]
        if len(twice):
            one, other = (row for _, row in twice[twice["digest"] == twice["digest"].iloc[0]].head(2).iterrows())
            raise UserError(
                f"{one['path']} and {other['path']} are the same audio, with the {task} {one[task]} here and "
                f"{other[task]} there: keep the one that is right"
            )


def _warn_of_few(data, task):
    labelled = data[data[task].notna()]
    several = "speaker" in data and labelled["speaker"].nunique() >= FEW_SPEAKERS  # or it says nothing of a class
    said = []
    for label, rows in labelled.groupby(task, sort=True):
        n_speakers = rows["speaker"].nunique() if several and rows["speaker"].notna().all() else FEW_SPEAKERS
        if len(rows) < FEW_UTTERANCES or n_speakers < FEW_SPEAKERS:
            of = f"{len(rows)} utterance{'s' * (len(rows) > 1)}{' of one speaker' * (n_speakers < FEW_SPEAKERS)}"
            said.append((label, f"{label} ({of}: {rows['id'].iloc[0]}{', ...' * (len(rows) > 1)})"))
    if said:
        warn_once(
            f"next to nothing to learn the {task} {shorten(text for _, text in said)} from; a slip is mended by "
            f"--label_map='{{{task}: {{{said[0][0]}: ...}}}}', null drops it"
        )
