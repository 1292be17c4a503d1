"""Count the codec's errors of pitch and voicing, by two trackers that share nothing with ours; table, CSV, pictures.

    python benchmarks/pitch.py [--manifest TABLE] [--clips 36] [--hard 4] [--search STEPS] [--weights voice16k]

Praat's autocorrelation (praat-parselmouth) and WORLD's DIO with D4C's voicing (pyworld-prebuilt) judge. A frame counts
only where both agree on the original, and it is wrong only where both say so. The worst moments are drawn into
out/pitch.
"""

import argparse
import csv
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import judges
import numpy as np
import torch
from codec import clips, opus
from report import ROOT, line, made_by, source, write_section
from tqdm import tqdm

from wavelldm import plots, weights
from wavelldm.audio import files
from wavelldm.audio.levels import active_level, mix_at_snr
from wavelldm.codec import compress, pulse
from wavelldm.codec.look import looks_of
from wavelldm.codec.model import Codec
from wavelldm.data import corpora, voices
from wavelldm.data.examples import music
from wavelldm.metrics import scores as metrics

HERE, OUT = Path(__file__).parent, ROOT / "out" / "pitch"
SR, STEP = 16_000, 0.01  # seconds from frame to frame
LOW, HIGH = 50.0, 500.0  # Hz that the trackers look for
SAME = np.log2(1.06)  # octaves: two trackers that are closer agree
GROSS = np.log2(1.2)  # octaves: an error beyond it is gross
QUIET = 1e-5  # frames this far below the loudest are not judged: nobody hears them
KINDS = {
    "up": "octave up",
    "down": "octave down",
    "elsewhere": "elsewhere",
    "lost": "voice lost",
    "buzz": "buzz",
}
WORST = 10  # moments that are drawn
SCORES = "pesq_wb", "stoi", "dnsmos_ovrl"


def praat(wav: np.ndarray) -> np.ndarray:
    """wav (N,) -> Hz every 10 ms (T,), 0 without a voice: Boersma 1993, with Praat's own settings."""
    import parselmouth

    found = parselmouth.Sound(wav.astype(np.float64), SR).to_pitch_ac(STEP, LOW, pitch_ceiling=HIGH)
    heard = np.array([found.get_value_at_time(k * STEP) for k in range(frames(wav))])
    return np.nan_to_num(heard)


def world(wav: np.ndarray) -> np.ndarray:
    """The same by DIO and StoneMask (Morise 2009, 2016), voiced where D4C's Love Train (Morise 2016) agrees."""
    import pyworld

    x = wav.astype(np.float64)
    f0, t = pyworld.dio(x, SR, LOW, HIGH, frame_period=1000 * STEP)
    f0 = pyworld.stonemask(x, f0, t, SR)
    aperiodic = pyworld.d4c(x, f0, t, SR, threshold=0.85)[:, 0]
    return np.where(aperiodic < 0.5, f0, 0.0)[: frames(wav)]


def frames(wav: np.ndarray) -> int:
    return int(len(wav) / SR / STEP) + 1


def tracks(wav: np.ndarray) -> np.ndarray:
    """wav (N,) -> what both trackers hear (2, T)."""
    return np.stack([praat(wav), world(wav)])


class Heard(NamedTuple):
    """A recording as the trackers hear it."""

    tracks: np.ndarray  # (2, T)
    f0: np.ndarray  # (T,) Hz where both agree on a voice, 0 where both hear none, else NaN
    loudness: np.ndarray  # (T,) about as loud as it sounds: power to the 0.3 (Stevens)


def listen(wav: np.ndarray) -> Heard:
    """A frame counts if both trackers agree there and, voiced or not, in the frames beside it."""
    window = np.hanning(642)[1:-1]  # 40 ms
    power = np.convolve(wav.astype(np.float64) ** 2, window / window.sum(), "same")
    power = np.pad(power, (0, 1))[(np.arange(frames(wav)) * STEP * SR).astype(int)]
    both = a, b = tracks(wav)
    voiced = (a > 0) & (b > 0)
    near = voiced & (np.abs(np.log2(np.where(voiced, a, 1) / np.where(voiced, b, 1))) < SAME)
    kind = np.where(near, 1, np.where((a == 0) & (b == 0), 0, -1))
    kind[power <= QUIET * power.max()] = -1
    before, after = np.pad(kind, (1, 0))[:-1], np.pad(kind, (0, 1))[1:]
    kind[(kind != before) | (kind != after)] = -1
    return Heard(both, np.where(kind == 1, np.sqrt(a * b), np.where(kind == 0, 0.0, np.nan)), power**0.3)


def judge(original: Heard, now: np.ndarray) -> np.ndarray:
    """What both trackers hear now (2, T) -> a name of KINDS where both say that it is wrong, else "" (T,)."""
    f0, out = original.f0, np.full(len(original.f0), "", dtype=object)
    voiced = f0 > 0
    apart = np.log2(np.where(now > 0, now, 1) / np.where(voiced, f0, 1))  # octaves (2, T)
    wrong = voiced & ((now == 0) | (np.abs(apart) > GROSS)).all(0)
    lost = wrong & (now == 0).any(0)
    out[wrong] = "elsewhere"
    out[wrong & (np.abs(apart - 1) < GROSS).all(0)] = "up"
    out[wrong & (np.abs(apart + 1) < GROSS).all(0)] = "down"
    out[lost] = "lost"
    out[(f0 == 0) & (now > 0).all(0)] = "buzz"
    return out


def count(original: Heard, now: np.ndarray) -> dict:
    """Frames, errors of each kind, the loudness of what is wrong and of all frames, median error in cents of the
    others."""
    kinds, voiced = judge(original, now), original.f0 > 0
    apart = np.abs(np.log2(np.where(now > 0, now, 1) / np.where(voiced, original.tracks, 1)))  # octaves (2, T)
    right = voiced & (now > 0).all(0) & (apart < GROSS).all(0)
    cents = 1200 * apart[:, right].mean(0)
    judged = ~np.isnan(original.f0)
    return {
        "voiced": int(voiced.sum()),
        "unvoiced": int((original.f0 == 0).sum()),
        **{k: int((kinds == k).sum()) for k in KINDS},
        "heard_wrong": float(original.loudness[kinds != ""].sum()),
        "heard": float(original.loudness[judged].sum()),
        "cents": float(np.median(cents)) if right.any() else None,
    }


def systems(name: str, codec: Codec, steps: int = 0) -> dict:
    """name -> function from wav (N,) and how it was heard to the decoded (N,)."""
    looks = looks_of(codec)

    @lru_cache(maxsize=2)
    def codes(wav, **how):
        return torch.cat(list(compress.encode_blocks(codec, [wav[None]], **how)), dim=2)

    def coded(weight=pulse.WEIGHT, **how):
        def run(wav, heard):
            pulse.WEIGHT, usual = weight, pulse.WEIGHT  # of the envelopes in the choice of a pitch
            try:
                return codec.codes_to_wav(codes(wav, **how), len(wav))
            finally:
                pulse.WEIGHT = usual
                if weight != usual:
                    codes.cache_clear()

        return run

    def hissing(wav, heard):
        hiss = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
        return wav + hiss * 10 ** (-30 / 20) * wav.square().mean().sqrt()

    def unrounded(wav, heard):
        return codec.decode(codec.quantiser.unrounded(codec.encode(wav[None, None], SR)), len(wav))

    def true_pitch(wav, heard):
        head, z_q = codec.decoder, codec.quantiser.decode_codes(codes(wav, looks=looks))
        logits, gains = head.parts(codec.upsampler(z_q))
        number = torch.arange(logits.shape[2])
        at = ((number + 0.5) * head.hop / SR / STEP).round().long().clamp(max=len(heard.f0) - 1)
        true = torch.from_numpy(heard.f0).float()[at][None]
        f0 = torch.where(true > 0, true, head.f0(logits, gains))
        return head.join(head.frames(f0, head.turns(f0), gains, number))[..., : len(wav)]

    return {
        "the recording, 5 ms late": lambda wav, heard: torch.nn.functional.pad(wav, (80, 0))[: len(wav)],
        "the recording, with hiss at 30 dB": hissing,
        "Opus, 8 kbit/s asked": lambda wav, heard: opus(wav.numpy(), 8)[0],
        f"{name}, quick, pitch by its head alone": coded(0.0),
        f"{name}, pitch by its head alone": coded(0.0, looks=looks),
        f"{name}, quick": coded(),
        f"{name}, quick, not rounded": unrounded,
        name: coded(looks=looks),
        f"{name}, pitch of the recording": true_pitch,
        **({f"{name}, `--search {steps}`": coded(looks=looks, steps=steps)} if steps else {}),
    }


def remade(wav: np.ndarray, change) -> np.ndarray:
    """A voice taken apart by WORLD and put together again, after a `change` of its f0 (T,) and its noise (T, bins)."""
    import pyworld

    x = wav.astype(np.float64)
    f0, t = pyworld.harvest(x, SR, LOW, HIGH)
    spectrum, aperiodic = pyworld.cheaptrick(x, f0, t, SR), pyworld.d4c(x, f0, t, SR, threshold=0.85)
    return pyworld.synthesize(*change(f0, spectrum, aperiodic), SR)[: len(x)].astype(np.float32)


def breathy(f0, spectrum, aperiodic):
    """Noise in place of harmonics, more of it the higher: 30 % of the magnitude at 0 Hz, 95 % from 2 kHz on."""
    least = np.interp(np.linspace(0, SR / 2, aperiodic.shape[1]), (0, 2000), (0.3, 0.95))
    return f0, spectrum, np.maximum(aperiodic, least)


def creaky(f0, spectrum, aperiodic):
    """Around 65 Hz, with half of its melody, every 5 ms up to 12 % off."""
    voiced, g = f0 > 0, np.random.default_rng(0)
    middle = np.median(f0[voiced]) if voiced.any() else 1.0
    low = 65 * np.sqrt(np.where(voiced, f0, middle) / middle) * (1 + 0.12 * g.uniform(-1, 1, len(f0)))
    return np.where(voiced, np.maximum(low, 40), 0.0), spectrum, aperiodic


def hard(manifest, wavs: list, number: int) -> dict:
    """Material -> wavs (N,), made of the clips `wavs`."""
    (noises,) = corpora.read_manifest(manifest or voices.build_corpus(), "valid", ("noise",))
    few = wavs[:number]
    made = {"breathy": [], "creaky": [], "two voices": [], "noise behind, 5 dB": [], "music": []}
    for i, wav in enumerate(few):
        made["breathy"].append(torch.from_numpy(remade(wav.numpy(), breathy)))
        made["creaky"].append(torch.from_numpy(remade(wav.numpy(), creaky)))
        other = wavs[-1 - i]
        n = min(len(wav), len(other))
        gain = 10 ** float((active_level(wav[None], SR) - active_level(other[None], SR)) / 20)
        made["two voices"].append((wav[:n] + gain * other[:n]) / 2)
        noise = files.load(noises[(7 * i) % len(noises)].path, SR, mono=True)[0][0]
        noise = noise.repeat(-(-len(wav) // len(noise)))[: len(wav)]
        made["noise behind, 5 dB"].append(mix_at_snr(wav[None], noise[None], 5.0, SR)[0])
        made["music"].append(music(5.0, seed=i)[0][0])
    return made


def moments(name: str, wav: np.ndarray, heard: Heard, out: np.ndarray) -> list[tuple]:
    """Where the errors of one clip are, those at most 30 ms apart together: (how loud in all, clip, seconds, kinds,
    what a picture needs)."""
    now = tracks(out)
    kinds = judge(heard, now)
    wrong = np.flatnonzero(kinds != "")
    runs = np.split(wrong, np.flatnonzero(np.diff(wrong) > 3) + 1) if len(wrong) else []
    found = []
    for run in runs:
        names, counts = np.unique(kinds[run].astype(str), return_counts=True)
        said = ", ".join(f"{n} x {KINDS[k]}" for k, n in zip(names, counts))
        found.append((float(heard.loudness[run].sum()), name, run[0] * STEP, said, (wav, out, heard, now)))
    return found


def draw(moment: tuple, path: Path) -> None:
    """Half a second to each side, up to 4 kHz: the recording, what came out, and what the trackers heard in both."""
    loud, name, at, said, (wav, out, heard, now) = moment
    first, last = max(0, int((at - 0.5) * SR)), min(len(wav), int((at + 0.7) * SR))
    plt = plots.pyplot()
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True)
    times = np.arange(len(heard.f0)) * STEP - first / SR
    for ax, title, x in zip(axes, (f"{name}, {at:.2f} s: {said}", "decoded"), (wav, out)):
        plots.spectrogram(ax, torch.from_numpy(x[first:last])[None], SR, title)
        ax.axvline(at - first / SR, color="white", lw=0.8)
        ax.set_ylim(0, 4)
    for which, colour in ((heard.tracks, plots.INK), (now, plots.ACCENT)):
        for row, mark in zip(which, "ox"):
            axes[2].plot(times, np.where(row > 0, row, np.nan), mark, ms=3, color=colour)
    axes[2].set(ylabel="Hz", xlabel="seconds", ylim=(LOW, HIGH), xlim=(0, (last - first) / SR))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


@torch.no_grad()
def measure(runs: dict, material: str, wavs: dict, judged: dict, worst_of: str = "") -> tuple[list, list]:
    """A row for every system and wav (name -> (N,)), with scores where `judged` names them for a system; all moments
    that go wrong with one of the systems."""
    rows, found = [], []
    for clip, wav in tqdm(wavs.items(), material, unit="clip"):
        heard = listen(wav.numpy())
        for system, run in runs.items():
            out = np.asarray(run(wav, heard), np.float32).reshape(-1)
            scores = {s: metrics.METRICS[s].function(wav.numpy(), out, SR) for s in judged.get(system, ())}
            counts = count(heard, tracks(out))
            rows.append({"material": material, "system": system, "clip": clip, **counts, **scores})
            if system == worst_of:
                found += moments(clip, wav.numpy(), heard, out)
    return rows, found


def share(rows: list, top: tuple, bottom: str) -> str:
    """Percent of all clips together, and where 95 % of those of resampled clips lie."""
    above, below = (np.array([sum(r[k] for k in keys) for r in rows], float) for keys in (top, (bottom,)))
    if not below.sum():
        return ""
    drawn = np.random.default_rng(0).integers(len(rows), size=(2000, len(rows)))
    spread = 100 * above[drawn].sum(1) / np.maximum(below[drawn].sum(1), 1e-9)
    low, high = np.percentile(spread, [2.5, 97.5])
    return f"{100 * above.sum() / below.sum():.2f} [{low:.2f}, {high:.2f}]"


def table(rows: list, first: str, judged: tuple) -> str:
    """A row for each value of `first`."""
    head = [first, "voiced", *KINDS.values(), "wrong, by loudness", "cents", *(judges.LABELS[k] for k in judged)]
    lines = [line(head), "| --- |" + " ---: |" * (len(head) - 1)]
    for name in dict.fromkeys(r[first] for r in rows):
        mine = [r for r in rows if r[first] == name]
        cells = [share(mine, (k,), "unvoiced" if k == "buzz" else "voiced") for k in KINDS]
        cells += [share(mine, ("heard_wrong",), "heard"), judges.cell([r["cents"] for r in mine], "cents")]
        cells += [judges.cell([r.get(k) for r in mine], k) for k in judged]
        lines.append(line([name, str(sum(r["voiced"] for r in mine)), *cells]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--clips", type=int, default=36)
    parser.add_argument("--hard", type=int, default=4, help="clips of each hard material (default: 4)")
    parser.add_argument("--search", type=int, default=0, metavar="STEPS", help="also after a search of so many steps")
    parser.add_argument("--weights", default="voice16k", help="name or .safetensors file")
    args = parser.parse_args()
    for package, name in (("parselmouth", "praat-parselmouth"), ("pyworld", "pyworld-prebuilt")):
        if not importlib.util.find_spec(package):
            raise SystemExit(f"this benchmark judges with {package}, which is not there; pip install {name}")
    torch.set_num_threads(1)
    codec = weights.load(args.weights, Codec)
    items = clips(args.manifest, args.clips)
    wavs = {item.path.stem: files.load(item.path, SR, mono=True)[0][0] for item in items}  # (N,) each
    runs = systems(args.weights, codec, args.search)
    decoded = [n for n in runs if n.startswith(args.weights) and not n.endswith(("recording", "rounded"))]
    rows, found = measure(runs, "speech", wavs, dict.fromkeys(decoded, SCORES), args.weights)
    few = {"as it is": lambda wav, heard: wav, args.weights: runs[args.weights]}
    for material, made in hard(args.manifest, list(wavs.values()), args.hard).items():
        rows += measure(few, material, dict(enumerate(made)), dict.fromkeys(few, SCORES[-1:]))[0]
    with open(HERE / "pitch.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(sum(map(list, rows), []))), restval="")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    worst = sorted(found, key=lambda m: -m[0])[:WORST]
    for k, moment in enumerate(worst, start=1):
        draw(moment, OUT / f"worst-{k:02d}.png")
    text = report(args, rows, worst)
    write_section("pitch", text)
    print(text)


def report(args, rows: list, worst: list) -> str:
    speech = [r for r in rows if r["material"] == "speech"]
    one = [r for r in speech if r["system"] == args.weights]
    voiced, unvoiced = (sum(r[k] for r in one) for k in ("voiced", "unvoiced"))
    made = [r for r in rows if r["material"] != "speech"]
    before = ", ".join(
        f"{m} {np.mean([r[SCORES[-1]] for r in made if r['material'] == m and r['system'] == 'as it is']):.2f}"
        for m in dict.fromkeys(r["material"] for r in made)
    )
    lines = "\n".join(f"* {clip}, {at:.2f} s: {said}" for _, clip, at, said, _ in worst)
    options = f"--clips {args.clips} --hard {args.hard}" + (f" --search {args.search}" if args.search else "")
    return f"""## Pitch and voicing of the codec

{args.clips} held-out clips of {source(args.manifest)}. Praat's autocorrelation and WORLD's DIO (voiced where D4C
agrees) hear a pitch every 10 ms. A frame counts where both agree on the recording, and so do the frames beside it:
{voiced:,} voiced, {unvoiced:,} unvoiced. It is wrong where both say so. In percent of the voiced frames: more than 20 %
off, an octave up, an octave down or elsewhere; "voice lost": whispered. In percent of the unvoiced: "buzz". "By
loudness": share of the loudness (power to the 0.3) of all frames. Cents: median error of the other voiced frames.
"Pitch by its head alone": before the envelopes had a say (`PulseDecoder.f0`). "Not rounded": through the quantiser's
bottleneck. "Pitch of the recording": the decoder is given the trackers' pitch.
{judges.REACH}

{table(speech, "system", SCORES)}

The ten moments with the loudest errors, drawn into `out/pitch`:

{lines}

### Hard material

{args.hard} clips each, made of the clips above. Breathy: taken apart by WORLD and put together with noise in place of
harmonics, nearly all of them from 2 kHz on. Creaky: the same way, at 65 Hz, each 5 ms up to 12 % off. Two voices: two
clips summed, equally loud. Noise behind: held-out noise at 5 dB. Music: chords and a melody of plucked strings. DNSMOS
before the codec: {before}.

{table([r for r in made if r["system"] == args.weights], "material", SCORES[-1:])}

{made_by("pitch.py", args.manifest, options)}; rows of all clips in `pitch.csv`."""


if __name__ == "__main__":
    main()
