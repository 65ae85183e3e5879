"""Speak lines of text with eSpeak NG, each in its own process; a program, not a module of korser.

eSpeak NG is GPL-3, so korser never loads it: :mod:`korser.corpora.synthetic._engine` starts this file by its path and
talks to it through pipes. It imports only the standard library (eSpeak's forked children deadlock in a process with
torch's threads).

Usage: ``python -I _espeak_program.py LIBRARY DATA_FOLDER``. Protocol: requests are JSON objects, one per line of
standard input, with the keys ``voice, text, rate, pitch, range, volume, seed`` (eSpeak's units: words per minute, 0-99,
0-99, percent of full volume; others are ignored). An answer on standard output is a little-endian int64 and a payload:
a positive number is the size in bytes of 16-bit mono audio at 22,050 Hz; a negative one, negated, the size of a JSON
object ``{"crashed": bool, "message": str}``. The first answer, before any request, is the text "ready". The program
ends when its input ends.

eSpeak keeps state between utterances and seeds its noise from the clock. Every line is therefore spoken by a child
forked from a parent that has never spoken, after ``espeak_ng_SetRandSeed``: equal requests give equal bytes.
"""

import ctypes
import json
import os
import signal
import struct
import sys

SAMPLE_RATE = 22050  # Hz
SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: pass the samples to the callback, in the calling thread
DONT_EXIT = 0x8000  # espeakINITIALIZE: return an error instead of ending the process
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER
UTF8 = 1  # espeakCHARS
TIMEOUT = 60  # seconds, after which a child is killed and reported
CRASH_SIGNALS = signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def load(library_path: str, data_folder: str) -> ctypes.CDLL:
    """Load and initialise the library."""
    library = ctypes.CDLL(library_path)
    os.chdir(os.path.dirname(data_folder))  # eSpeak cuts its data path at 160 characters: use a relative one
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, b".", DONT_EXIT)
    if rate != SAMPLE_RATE:
        raise RuntimeError(f"espeak_Initialize returned {rate}, expected {SAMPLE_RATE} (Hz)")
    return library


def speak(library: ctypes.CDLL, request: dict) -> bytes:
    """Return the 16-bit samples of one request; call it only in a fresh child."""
    pieces = []

    @CALLBACK
    def collect(samples, count, events):
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        raise ValueError(f"eSpeak NG has no voice {request['voice']}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(request["seed"]))
    for parameter, key in ((RATE, "rate"), (VOLUME, "volume"), (PITCH, "pitch"), (RANGE, "range")):
        if library.espeak_SetParameter(parameter, int(request[key]), 0) != 0:
            raise ValueError(f"eSpeak NG refused {key}={request[key]}")
    library.espeak_SetSynthCallback(collect)
    text = request["text"].encode() + b"\0"
    if library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 0, 0, UTF8, None, None) != 0:
        raise RuntimeError("eSpeak NG could not speak the line")
    library.espeak_Synchronize()
    if not pieces:
        raise RuntimeError("eSpeak NG returned no audio")
    return b"".join(pieces)


def pack(data: bytes) -> bytes:
    """Return a successful answer of the protocol."""
    return struct.pack("<q", len(data)) + data


def pack_error(message: str, crashed: bool = False) -> bytes:
    """Return an answer of the protocol that reports an error."""
    data = json.dumps({"crashed": crashed, "message": message}).encode()
    return struct.pack("<q", -len(data)) + data


def speak_in_child(library: ctypes.CDLL, request: dict) -> bytes:
    """Fork, speak in the child, and return its answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(TIMEOUT)
        try:
            answer = pack(speak(library, request))
        except Exception as error:
            answer = pack_error(str(error))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)  # without the clean-up of the library and of Python, which belongs to the parent
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    if status == 0:
        return answer
    crashed = os.WTERMSIG(status) in CRASH_SIGNALS  # otherwise killed, by the alarm or for lack of memory
    event = "crashed" if crashed else "was killed"
    return pack_error(f"eSpeak NG {event} (wait status {status}) at {request}", crashed)


def main() -> None:
    """Answer requests until the input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        library = load(*sys.argv[1:])
    except (OSError, RuntimeError) as error:
        answers.write(pack_error(f"eSpeak NG does not start: {error}"))
        return
    answers.write(pack(b"ready"))
    answers.flush()
    for line in requests:
        answers.write(speak_in_child(library, json.loads(line)))
        answers.flush()


if __name__ == "__main__":
    main()
