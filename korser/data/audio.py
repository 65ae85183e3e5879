"""Any audio file as 16 kHz mono, and a corpus's files checked and converted once.

Shape legend: ``T`` time in samples.
"""

import hashlib
import io
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
import torchaudio.functional
from tqdm import tqdm

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError

logger = logging.getLogger(__name__)

DIGEST_LENGTH = 32  # hexadecimal digits: 128 bits
LOUDEST = 1.5  # float files may exceed 1 a little, which is clipped; more than this is no longer the same recording
QUIETEST = 1e-4  # 3 steps of 16 bit: what stays below is silence
SHORTEST = 0.1  # s
SHOWN = 3  # bad files named in an error
SCAN = "scan-3.csv"  # another name whenever the digest or the columns change, so that old scans are not used
SCAN_COLUMNS = ["path", "size", "mtime_ns", "samples", "peak", "digest", "converted"]
CHUNK = 5000  # files between two saves of the scan, so that a kill loses little


def read_audio(path):
    """Read a file as 16 kHz mono.

    Anything that libsndfile reads (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, ...) and headerless ``.pcm``, taken as
    16 kHz, 16-bit, little-endian, mono. More channels are averaged; other rates go through
    :func:`torchaudio.functional.resample`.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    torch.Tensor
        ``(T,)`` float32 in [-1, 1], at least one sample.

    Raises
    ------
    UserError
        If the file is missing, unreadable or empty, holds NaN, infinite or unscaled samples, or is a ``.pcm`` of an odd
        number of bytes.
    """
    return _read(path)[0]


def scan_audio(paths, cache_folder, n_workers=None):
    """Check, measure and digest files; convert what is not 16 kHz mono, once.

    Results are kept in ``cache_folder/audio/scan-3.csv`` under each file's absolute path, size and modification time,
    converted audio in ``cache_folder/audio/<digest>.wav``, with exactly the samples that :func:`read_audio` gives for
    the original. A file that is touched is looked at again. The log says how many are silent or very short.

    Parameters
    ----------
    paths : sequence of str or Path
    cache_folder : str or Path
        Created when absent; may be shared by runs and corpora.
    n_workers : int, optional
        Threads; as many as there are cores, at most 8, when None.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``paths`` as given: ``samples`` (int, at 16 kHz), ``duration`` (s), ``digest`` (hexadecimal, of the
        samples that :func:`read_audio` gives: the same for one recording as WAV and as FLAC) and ``audio_path`` (the
        file to read from then on).

    Raises
    ------
    UserError
        One for all bad files, naming the first few and their number.
    """
    paths = [str(p) for p in paths]
    folder = Path(cache_folder).resolve() / "audio"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write in cache_folder {cache_folder}: {error.strerror}; choose another") from error
    known = _load_scan(folder)

    rows, todo, bad = {}, {}, []
    for path in dict.fromkeys(paths):
        try:
            key = _key(path)
        except OSError as error:
            bad.append(f"{path}: cannot be read ({error.strerror})")
            continue
        row = known.get(key)
        if row is None or not (row["audio_path"] == key[0] or os.path.exists(row["audio_path"])):
            todo[path] = key
        else:
            rows[path] = row

    def scan(path):
        try:
            return path, _scan_one(path, folder)
        except UserError as error:
            return path, error

    if todo:
        n_workers = n_workers or min(8, os.cpu_count() or 1)
        todo_paths = list(todo)
        with (
            ThreadPoolExecutor(n_workers) as pool,
            tqdm(total=len(todo), desc="checking audio", unit="file", disable=len(todo) < 1000 or None) as bar,
        ):
            for start in range(0, len(todo), CHUNK):
                try:
                    for path, result in pool.map(scan, todo_paths[start : start + CHUNK]):
                        bar.update()
                        if isinstance(result, UserError):
                            bad.append(str(result))
                        else:
                            rows[path] = known[todo[path]] = result
                    _save_scan(folder, known)
                except (OSError, soundfile.LibsndfileError) as error:  # reading errors are the file's, see _read
                    raise UserError(
                        f"cannot write in cache_folder {cache_folder} ({' '.join(str(error).split())}): free some space "
                        "or choose another"
                    ) from error
    if bad:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise UserError(
            f"{len(bad)} of {len(set(paths))} audio files cannot be used: {'; '.join(bad[:SHOWN])}{more}. "
            "Mend them or take them out of the corpus"
        )
    _warn_of_suspects({path: rows[path] for path in paths})
    table = pd.DataFrame([rows[p] for p in paths], index=paths, columns=["samples", "digest", "audio_path"])
    table.insert(1, "duration", table["samples"] / SAMPLE_RATE)
    return table


def _warn_of_suspects(rows):
    silent = [path for path, row in rows.items() if row["peak"] < QUIETEST]
    short = [path for path, row in rows.items() if row["samples"] < SHORTEST * SAMPLE_RATE]
    for what, suspects in (("silent", silent), (f"shorter than {SHORTEST} s", short)):
        if suspects:
            count = f"{len(suspects)} of {len(rows)} audio files {'is' if len(suspects) == 1 else 'are'}"
            logger.warning("%s %s (%s%s): mend or leave out", count, what, suspects[0], ", ..." * (len(suspects) > 1))


def _read(path):
    """``(T,)`` audio, the digest of its samples, and whether the file differs from the audio (rate, channels)."""
    path = Path(path)
    raw = path.suffix.lower() == ".pcm"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if raw and len(data) % 2:
        raise UserError(f"{path}: {len(data)} bytes are no 16-bit samples: convert the file to WAV")
    if raw:
        samples, rate = np.frombuffer(data, "<i2").astype(np.float32)[:, None] / 32768, SAMPLE_RATE
    else:
        try:
            samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)  # (T, channels)
        except soundfile.LibsndfileError as error:
            pointer = data.startswith(b"version https://git-lfs")
            why = "is a Git LFS pointer: run `git lfs pull`" if pointer else error.error_string.rstrip(".")
            raise UserError(f"{path}: is not audio that can be read ({why})") from error
    if not len(samples):
        raise UserError(f"{path}: holds no audio (0 samples): remove it")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: holds NaN or infinite samples: export it again")
    peak = float(np.abs(samples).max())
    if peak > LOUDEST:
        raise UserError(f"{path}: its samples reach {peak:g}: scale them to [-1, 1]")
    audio = torch.from_numpy(samples.mean(1))
    if rate != SAMPLE_RATE:
        audio = torchaudio.functional.resample(audio, rate, SAMPLE_RATE)
    audio = audio.clamp(-1, 1)  # the resampler overshoots at full scale, where a recorder would clip
    digest = hashlib.sha256(audio.numpy().tobytes()).hexdigest()[:DIGEST_LENGTH]
    return audio, digest, raw or rate != SAMPLE_RATE or samples.shape[1] > 1


def _scan_one(path, folder):
    audio, digest, differs = _read(path)
    target = os.path.abspath(path)
    if differs:
        target = folder / f"{digest}.wav"
        if not target.exists():
            # both subtypes keep read_audio's samples to the bit
            subtype = "PCM_16" if Path(path).suffix.lower() == ".pcm" else "FLOAT"
            part = folder / f"{digest}.{os.getpid()}.{threading.get_ident()}.part"
            try:
                soundfile.write(part, audio.numpy(), SAMPLE_RATE, subtype=subtype, format="WAV")
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
    peak = float(audio.abs().max())
    return {"samples": len(audio), "peak": peak, "digest": digest, "audio_path": str(target)}


def _key(path):
    stat = os.stat(path)
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


def _load_scan(folder):
    """``{(absolute path, size, mtime_ns): row}``; the path of converted audio is kept relative, so caches can move."""
    try:
        table = pd.read_csv(
            folder / SCAN,
            dtype={"path": str, "digest": str},
            keep_default_na=False,
            encoding_errors="surrogateescape",  # file names in an encoding that is not the system's
        )
        columns = [table[c] for c in SCAN_COLUMNS]
    except (FileNotFoundError, ValueError, KeyError):  # none yet, or damaged: scan anew
        return {}
    return {
        (path, size, mtime): {
            "samples": samples,
            "peak": peak,
            "digest": digest,
            "audio_path": str(folder / f"{digest}.wav") if converted else path,
        }
        for path, size, mtime, samples, peak, digest, converted in zip(*columns)
    }


def _save_scan(folder, known):
    columns = ["samples", "peak", "digest"]
    rows = [(*key, *(row[c] for c in columns), int(row["audio_path"] != key[0])) for key, row in known.items()]
    table = pd.DataFrame(rows, columns=SCAN_COLUMNS)
    part = folder / f"scan.{os.getpid()}.part"
    try:
        table.to_csv(part, index=False, errors="surrogateescape")
        os.replace(part, folder / SCAN)
    finally:
        part.unlink(missing_ok=True)
