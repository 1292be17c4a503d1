"""What becomes of the sound above 8 kHz: there the denoisers hear nothing, and turn down what is there; into README.md.

    make .venv/peers     # among others hibari-tts, a voice at 24 kHz
    python benchmarks/above.py [--speech FOLDER] [--count 12]

FOLDER: speech at 24 kHz or more that is clean and has sound above 8 kHz. The corpora that train the networks have none.
"""

import argparse

import numpy as np
import torch
from report import line, made_by, write_section
from torch import Tensor
from tqdm import tqdm

from wavelldm.audio import files
from wavelldm.audio.levels import active_power
from wavelldm.audio.stft import stft
from wavelldm.data import corpora
from wavelldm.data.noises import NOISES
from wavelldm.denoise import denoiser
from wavelldm.metrics.intervals import interval

SR, EDGE, N_FFT, HOP = 24_000, 8_300.0, 512, 128  # 300 Hz are left out, where resampling fades
LEVELS, KINDS, BANDS = (0, 5, 10, 15), ("white", "pink", "babble", "keyboard"), 5
SENTENCES = (
    "She sells fresh fish at six o'clock, just past the church on Chester Street.",
    "The quick brown fox jumps over the lazy dog while the sheep sleep in the shade.",
    "Please switch off the lights, lock the doors, and shut the windows before you leave.",
    "On the third of March we saw seventeen ships sailing slowly across the channel.",
    "It is a fact that success takes patience, practice and some simple choices.",
    "Thick fog covered the valley; few of us could see the path, or hear the stream.",
    "A soft voice whispered something strange, then silence settled over the house.",
    "Six thick thistle sticks; the first one snapped, the second scratched his thumb.",
    "He chose a fresh peach, a slice of cheese, and half a glass of sparkling water.",
    "Stephen tossed his suitcase across the seat and checked the schedule twice.",
    "The chief of staff dismissed the charge as false, and finished his speech.",
    "Each zebra at the zoo was washed, brushed, and dressed for the festival.",
)


def spoken(count: int) -> list[Tensor]:
    """Sentences (1, N) of a synthesised voice."""
    try:
        from hibari import Hibari
    except ImportError:
        raise SystemExit(
            "there is no speech: pip install hibari-tts (make .venv/peers), or name a folder with --speech"
        ) from None
    voice = Hibari()
    found = [voice(SENTENCES[i % len(SENTENCES)], seed=i) for i in range(count)]
    return [torch.from_numpy(np.pad(wav, SR // 4))[None].float() for wav in found]


def from_folder(folder: str, count: int) -> list[Tensor]:
    paths = [item.path for item in corpora.folder(folder) if files.info(item.path).sr >= SR]
    if not paths:
        raise SystemExit(f"no sound at {SR / 1000:g} kHz or more in {folder}")
    return [files.load(p, sr=SR, mono=True, seconds=8.0)[0] for p in paths[:count]]


def spectrum(wav: Tensor) -> Tensor:
    """(1, N) -> what lies above the network's band (bins, T)."""
    return stft(wav, N_FFT, HOP, N_FFT)[0][round(EDGE / SR * N_FFT) :]


def sdr(clean: Tensor, ours: Tensor) -> float:
    """Decibels, of spectra: how much stronger the speech is than what differs from it."""
    return float(10 * torch.log10(clean.abs().square().sum() / (clean - ours).abs().square().sum().clamp_min(1e-12)))


def distance(clean: Tensor, ours: Tensor) -> float:
    """Log-spectral distance in decibels; nothing below -80 dB of the loudest bin of the speech counts."""
    floor = 1e-8 * clean.abs().square().max()
    a, b = (10 * torch.log10(x.abs().square() + floor) for x in (clean, ours))
    return float((a - b).square().mean(0).sqrt().mean())


def best_gains(clean: Tensor, noisy: Tensor, bands: int) -> Tensor:
    """With the right power in each frame and band: what so many gains could do at best."""
    parts = zip(clean.tensor_split(bands), noisy.tensor_split(bands))
    return torch.cat(
        [y * (x.abs().square().sum(0) / y.abs().square().sum(0).clamp_min(1e-12)).sqrt().clamp(max=1) for x, y in parts]
    )


def mixtures(speech: list[Tensor]) -> list[tuple[str, int, Tensor, Tensor]]:
    """(noise, dB, clean, noisy), every sentence once in every noise, levels in turn."""
    found = []
    for i, wav in enumerate(speech):
        others = [w[0].numpy() for j, w in enumerate(speech) if j != i]
        for j, kind in enumerate(KINDS):
            generator, n = np.random.default_rng([i, j]), wav.shape[1]
            more = {"voices": others} if kind == "babble" else {}
            noise = torch.from_numpy(NOISES[kind](n, SR, generator, **more)).float()[None]
            level = LEVELS[(i + j) % len(LEVELS)]
            noise = noise * (active_power(wav, SR) / noise.square().mean()).sqrt() * 10 ** (-level / 20)
            found.append((kind, level, wav, wav + noise))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", metavar="FOLDER", help="clean speech at 24 kHz or more (default: hibari-tts)")
    parser.add_argument("--count", type=int, default=len(SENTENCES), help="how many recordings (default: 12)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    speech = from_folder(args.speech, args.count) if args.speech else spoken(args.count)
    ours = {name: denoiser.load(name) for name in ("logmmse", "base16k", "studio16k")}
    rows: dict[str, list] = {}
    for kind, _, clean, noisy in tqdm(mixtures(speech), "cleaning", delay=2, leave=False):
        x, y = spectrum(clean), spectrum(noisy)
        systems = {"noisy": y, "nothing above 8 kHz": torch.zeros_like(y)}
        systems |= {name: spectrum(net.enhance(noisy, SR)) for name, net in ours.items()}
        systems["the best gain in each frame"] = best_gains(x, y, 1)
        systems[f"the best {BANDS} gains in each frame"] = best_gains(x, y, BANDS)
        for name, found in systems.items():
            rows.setdefault(name, []).append((kind, sdr(x, found), distance(x, found)))
    table = [["above 8 kHz", "all", *KINDS], ["---", *["---:"] * (1 + len(KINDS))]]
    for name, found in rows.items():
        cells = []
        for kinds in (KINDS, *((kind,) for kind in KINDS)):
            values = np.array([(a, b) for kind, a, b in found if kind in kinds])
            a, b = (interval(column) for column in values.T)
            cells.append(f"{a[0]:.1f} [{a[1]:.1f}, {a[2]:.1f}]<br>{b[0]:.1f} [{b[1]:.1f}, {b[2]:.1f}]")
        table.append([name, *cells])
    where = "a folder" if args.speech else "sentences of a synthesised voice (`hibari-tts`, 24 kHz)"
    text = f"""## Above 8 kHz

The networks hear up to 8 kHz. What a recording has above that is turned down by one gain in each frame, the mean of
the gains between 6 and 8 kHz. {len(speech)} {where}, each in {len(KINDS)} noises at 0 to 15 dB. Everything is measured
between {EDGE / 1000:g} and {SR / 2000:g} kHz alone: how much stronger the speech is than what differs from it, in dB
(higher is better), and the log-spectral distance in dB (lower is better); below them, 95 % intervals. log-MMSE works at
the rate of the recording. The last two rows know the speech: they say what gains could do at best.

{chr(10).join(map(line, table))}

{made_by("above.py", None)}."""
    print(text)
    write_section("above", text)


if __name__ == "__main__":
    main()
