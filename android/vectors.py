"""What the tests of `core/` compare with: sounds and what `wavelldm.light` makes of them, and the real graph.

    python android/vectors.py write FOLDER    cases.txt, and for each case NAME.in and NAME.out, of a call also NAME.wlp
    python android/vectors.py serve GRAPH     runs a graph for another program, over standard input and output: live,
                                              encoder or decoder

Samples are 32-bit floats, little-endian, one channel after the other.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from wavelldm.light import denoiser, talk
from wavelldm.light.levels import active_power
from wavelldm.light.packets import Receiver, Sender, with_gaps, write_packets
from wavelldm.light.resample import Resampler

SESSIONS = {  # rate, seconds, strength, background, levels
    "low": (16_000, 2.0, 1.0, 0.0, [denoiser.LEVEL]),
    "phone": (48_000, 2.0, 1.0, 0.0, [denoiser.LEVEL]),
    "disc": (44_100, 1.5, 1.5, 0.2, [-35.0, -20.0]),
    "studio": (192_000, 0.4, 1.0, 0.0, [denoiser.LEVEL]),
    "narrow": (8_000, 1.5, 0.6, 0.0, [-30.0]),
    "odd": (44_099, 0.7, 1.0, 0.1, [denoiser.LEVEL]),
    "untouched": (22_050, 0.3, 0.0, 0.0, [denoiser.LEVEL]),
    **{f"short{n}": (16_000, n / 16_000, 1.0, 0.0, [denoiser.LEVEL]) for n in (1, 127, 128, 129, 256, 385, 641)},
    **{f"brief{n}": (48_000, n / 48_000, 1.0, 0.0, [denoiser.LEVEL]) for n in (1, 500, 2000)},
}
RATES = [(48_000, 16_000), (16_000, 48_000), (44_100, 16_000), (16_000, 44_100), (8_000, 16_000), (16_000, 8_000)]
RATES += [(192_000, 16_000), (16_000, 44_099), (44_099, 16_000), (16_000, 16_000)]
TALKS = {  # seconds, codebooks, frames repeated, share of the packets lost
    "call": (2.0, 4, 0, 0.0),
    "lossy": (1.2, 4, 0, 0.3),
    "repeated": (0.8, 3, 2, 0.3),
    "blink": (0.001, 1, 9, 0.0),
}


def sound(sr: int, count: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """(channels, count): tones that come and go like syllables, and noise."""
    t = np.arange(count) / sr
    rows = []
    for c in range(channels):
        pitch = 2 * np.pi * np.cumsum(130 + 40 * c + 20 * np.sin(2 * np.pi * 2 * t)) / sr
        voice = sum(np.sin(k * pitch) / k for k in range(1, 12)) * np.maximum(0, np.sin(2 * np.pi * 3 * t + c))
        rows.append(0.08 * voice + 0.02 * rng.standard_normal(count))
    return np.array(rows, np.float32)


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng, live, lines = np.random.default_rng(19), denoiser.load("live"), []

    def keep(line: list, before: np.ndarray, after: np.ndarray) -> None:
        before.astype("<f4").tofile(folder / f"{line[1]}.in")
        after.astype("<f4").tofile(folder / f"{line[1]}.out")
        lines.append("\t".join(map(str, line)))

    for name, (sr, seconds, strength, background, levels) in SESSIONS.items():
        wav = sound(sr, round(sr * seconds), len(levels), rng)
        session = live.stream(sr, len(levels), strength, background, levels)
        cleaned = np.concatenate([session.push(wav), session.finish()], axis=1)
        assert cleaned.shape == wav.shape
        keep(["session", name, sr, len(levels), strength, background, ",".join(map(str, levels)), session.latency],
             wav, cleaned)  # fmt: skip
    for before, after in RATES:
        wav, stage = sound(before, before // 4, 2, rng), Resampler(before, after, 2)
        made = np.concatenate([stage.push(wav), *([stage.finish()] if stage.lookahead else [])], axis=1)
        keep(["resample", f"{before}to{after}", before, after, 2, stage.lookahead], wav, made)
    for sr, gain in ((16_000, 1.0), (44_100, 0.1), (8_000, 1e-5)):
        wav = gain * sound(sr, int(12.3 * sr), 2, rng)
        level = np.array(denoiser.levels_of([wav[:, : 10 * sr], wav[:, 10 * sr :]], sr))
        powers = np.array([active_power(row[:sr], sr) for row in wav])
        keep(["level", f"level{sr}", sr, 2], wav, np.concatenate([level, powers]))
    coder = talk.load()
    for name, (seconds, codebooks, repeat, share) in TALKS.items():
        wav = sound(coder.sr, round(seconds * coder.sr), 1, rng)
        sender, receiver = Sender(coder, codebooks, repeat), Receiver(coder)
        packets = sender.push(wav[0]) + sender.finish()
        arriving, heard, receiver.next = set(with_gaps(range(len(packets)), share)), [], 0
        for i in range(-repeat, len(packets)):  # played `repeat` frames later
            if i + repeat in arriving:
                receiver.put(packets[i + repeat])
            if i >= 0:
                heard.append(receiver.take())
        with open(folder / f"{name}.wlp", "wb") as file:
            write_packets(file, packets)
        there = "".join("01"[i in arriving] for i in range(len(packets)))
        keep(["talk", name, codebooks, repeat, there, receiver.lost], wav,
             np.concatenate([*heard, receiver.finish()])[None])  # fmt: skip
    (folder / "cases.txt").write_text("\n".join(lines) + "\n")


def session_of(name: str):
    if name == "live":
        return denoiser.load("live").graph.session
    coder = talk.load()
    return {"encoder": coder.encoder, "decoder": coder.decoder}[name]().part.session


def serve(name: str) -> None:
    """Names and shapes first, a line each; then for each call all inputs come in and all outputs go out, as floats."""
    session = session_of(name)
    whole = {put.name for put in session.get_inputs() if put.type == "tensor(int64)"}
    source, target = sys.stdin.buffer, sys.stdout.buffer
    shapes = {put.name: put.shape for put in session.get_inputs()}
    lines = [session.get_modelmeta().custom_metadata_map["wavelldm"]]
    for kind, puts in (("in", session.get_inputs()), ("out", session.get_outputs())):
        lines += [f"{kind} {put.name} {','.join(map(str, put.shape))}" for put in puts]
    target.write("\n".join([*lines, "", ""]).encode())
    target.flush()
    total = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    while len(data := source.read(total)) == total:
        values, inputs = np.frombuffer(data, "<f4"), {}
        for name, shape in shapes.items():
            inputs[name], values = values[: np.prod(shape)].reshape(shape), values[np.prod(shape) :]
        inputs |= {name: inputs[name].astype(np.int64) for name in whole}
        for out in session.run(None, inputs):
            target.write(np.asarray(out, "<f4").tobytes())
        target.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"] and len(sys.argv) == 3:
        write(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["serve"] and len(sys.argv) == 3:
        serve(sys.argv[2])
    else:
        sys.exit(__doc__)
