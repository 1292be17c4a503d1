"""The espeak-ng speech synthesiser as a process of its own, driven through ctypes; only the standard library is used.

Why a process: the library keeps its state in globals. It is not thread-safe, and its random variation of pitch
continues from one sentence to the next, so the same text sounds different each time. A new process always begins in
the same state. It is started in the folder of espeak's data, so that the path given to the library is ".": espeak
cuts paths at 160 characters.

One JSON line in: [text, voice, rate in words per minute, pitch 0..99]. Out: the number of samples as int32 (negative:
no such voice), then the samples as int16 at the rate that was the first int32 of all; then the length in bytes of a
second JSON line as int32, and that line: [[sample, phoneme], ...], where each phoneme begins.
"""

import ctypes
import json
import os
import struct
import sys

SYNCHRONOUS, DONT_EXIT, UTF8 = 2, 0x8000, 1  # names without their prefix from espeak's speak_lib.h
RATE, VOLUME, PITCH = 1, 2, 3
PHONEME_EVENTS, IPA = 1, 2  # to initialise with
END_OF_LIST, PHONEME = 0, 7  # kinds of events


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; the last field is a union, here what it holds for phonemes."""

    _fields_ = [(name, ctypes.c_int) for name in ("kind", "id", "text_position", "length", "milliseconds", "sample")]
    _fields_ += [("user_data", ctypes.c_void_p), ("phoneme", ctypes.c_char * 8)]


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def serve(library: str) -> None:
    """Answer the requests on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints must not end up between the samples
    espeak = ctypes.CDLL(library)
    sr = espeak.espeak_Initialize(SYNCHRONOUS, 0, b".", DONT_EXIT | PHONEME_EVENTS | IPA)
    if sr <= 0:
        sys.exit("its voices cannot be loaded")
    espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))  # otherwise the clock is the seed
    pcm, marks = bytearray(), []

    @Callback
    def collect(samples, count, events):
        if samples and count > 0:
            pcm.extend(ctypes.string_at(samples, 2 * count))
        i = 0
        while events and events[i].kind != END_OF_LIST:
            if events[i].kind == PHONEME:
                marks.append([events[i].sample, events[i].phoneme.decode(errors="replace")])
            i += 1
        return 0  # carry on

    espeak.espeak_SetSynthCallback(collect)
    espeak.espeak_SetParameter(VOLUME, 60, 0)  # the default of 100 clips with the louder voices
    answers.write(struct.pack("=i", sr))
    answers.flush()
    for line in sys.stdin.buffer:
        text, voice, rate, pitch = json.loads(line)
        pcm.clear()
        marks.clear()
        _, plus, variant = voice.partition("+")
        known = not plus or os.path.isfile(f"voices/!v/{variant}")  # espeak passes over variants it does not have
        known = known and espeak.espeak_SetVoiceByName(voice.encode()) == 0
        if known:
            espeak.espeak_SetParameter(RATE, rate, 0)
            espeak.espeak_SetParameter(PITCH, pitch, 0)
            text = text.encode() + b"\0"
            espeak.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, UTF8, None, None)
        answers.write(struct.pack("=i", len(pcm) // 2 if known else -1) + pcm)
        said = json.dumps(marks).encode()
        answers.write(struct.pack("=i", len(said)) + said)
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
