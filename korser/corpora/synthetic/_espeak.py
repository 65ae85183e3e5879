"""Speak lines of text with eSpeak NG, each in a process of its own; a program, not a module of korser.

eSpeak NG is GPL-3, so korser never loads it: :mod:`korser.corpora.synthetic._speaking` starts this file by its path and talks to
it through pipes. Nothing but the standard library is imported here (eSpeak's forked children hang beside torch's threads
on machines with many cores).

Usage: ``python -I _espeak.py LIBRARY DATA_FOLDER``. Protocol: one JSON object a line on standard input, with the keys
``voice, text, rate, pitch, range, volume, seed`` (eSpeak's own units: words a minute, 0-99, 0-99, percent of full
volume; others are ignored). An answer on standard output is a little-endian int64 and then the bytes: a positive number
of bytes of 16-bit mono audio at 22,050 Hz, or, negated, the number of bytes of an error message in UTF-8. The first
answer, before any request, is one that says "ready". The program ends with its input.

eSpeak keeps state from one utterance to the next and seeds its noise from the clock. Every line is therefore spoken by
a child forked from a parent that has itself never spoken, after ``espeak_ng_SetRandSeed``: the same request gives the
same bytes whatever came before it.
"""

import ctypes
import json
import os
import signal
import struct
import sys

SAMPLE_RATE = 22050  # Hz
SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: hand the samples to the callback, from the calling thread
DONT_EXIT = 0x8000  # espeakINITIALIZE: return an error instead of ending the process
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER
UTF8 = 1  # espeakCHARS
CRASHES = signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def load(library_path, data_folder):
    """Load and initialise the library."""
    library = ctypes.CDLL(library_path)
    # eSpeak cuts its data path at 160 characters: a relative one is always short enough.
    os.chdir(os.path.dirname(data_folder))
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, b".", DONT_EXIT)
    if rate != SAMPLE_RATE:
        raise RuntimeError(f"espeak_Initialize returned {rate}, not {SAMPLE_RATE} (Hz)")
    return library


def speak(library, request):
    """The 16-bit samples of one request, as bytes. Only ever called in a fresh child."""
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
        raise RuntimeError("eSpeak NG spoke nothing")
    return b"".join(pieces)


def pack(data, error=False):
    """An answer, as the protocol has it."""
    return struct.pack("<q", -len(data) if error else len(data)) + data


def speak_in_child(library, request):
    """Fork, speak in the child, and return the answer to send (see the protocol above)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(60)  # a child that hangs dies and is reported, rather than waited for
        try:
            answer = pack(speak(library, request))
        except Exception as error:
            answer = pack(str(error).encode(), error=True)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)  # without the library's and Python's clean-up, which belong to the parent
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    if status != 0:
        what = "crashed" if os.WTERMSIG(status) in CRASHES else "was ended"  # by the alarm, say, or for want of memory
        return pack(f"eSpeak NG {what} (wait status {status}) at {request}".encode(), error=True)
    return answer


def main():
    """Answer requests until the input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        library = load(*sys.argv[1:])
    except (OSError, RuntimeError) as error:
        answers.write(pack(f"eSpeak NG does not start: {error}".encode(), error=True))
        return
    answers.write(pack(b"ready"))
    answers.flush()
    for line in requests:
        answers.write(speak_in_child(library, json.loads(line)))
        answers.flush()


if __name__ == "__main__":
    main()
