"""Train decoders for the same time on the same codes, and measure them on the codec's clips; into README.md.

    python benchmarks/decoders.py --manifest TABLE [--minutes 20] [--long 70] [--clips 36] [--train ROW] [-o
    runs/decoders]

Encoder and quantiser are those that ship and stay as they are. Each decoder begins with random weights, sees the same
crops and has the same losses; a smaller HiFi-GAN learns for longer. A run that was stopped goes on; one that is done is
only measured.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import judges
import torch
from codec import GRIFFIN_LIM, clips
from report import line, made_by, source, write_section
from torch import Tensor, nn
from tqdm import tqdm

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.audio.mel import mel_to_wav
from wavelldm.codec.losses import PULSE_WEIGHTS, MelLoss, listening_distances, pulse_distances_of
from wavelldm.codec.model import Codec
from wavelldm.codec.pulse import PulseDecoder
from wavelldm.data import corpora, voices
from wavelldm.data.clips import Clips
from wavelldm.data.degrade import Degradation
from wavelldm.data.loader import batches
from wavelldm.nn.layers import count_parameters
from wavelldm.training.loop import save_checkpoint, update, update_average

SR, BATCH, SECONDS, RATE, EMA = 16_000, 4, 1.024, 1e-3, 0.998
RECIPE = Degradation(noise=0.0, snr=None, level=1.0)
SCORES = ("pesq_wb", "stoi", "lsd", "dnsmos_ovrl", "visqol")
SIZES = {  # changes to the codec that ships
    "pulses and noise": {"correction": 0},
    "pulses, noise and a correction": {},
    "inverse STFT": {"decoder": "istft", "correction": 0},
    "HiFi-GAN": {"decoder": "hifigan", "correction": 0, "decoder_dim": 256, "upsample": (8, 8, 2, 2)},
}
LONG = "HiFi-GAN, half as wide"  # it makes twice as many steps in the same time, and learns for longer


def with_decoder(shipped: Codec, changes: dict) -> Codec:
    """The codec that ships with a new decoder; only that learns."""
    torch.manual_seed(0)
    codec = Codec(replace(shipped.config, **changes))
    for part in ("encoder", "quantiser"):
        getattr(codec, part).load_state_dict(getattr(shipped, part).state_dict())
    codec.requires_grad_(False).decoder.requires_grad_(True)
    return codec


def loss_of(codec: Codec, wav: Tensor, mels: nn.ModuleList) -> Tensor:
    with torch.no_grad():
        z_q = codec.quantise(codec.encode(wav, SR))[0]
    if isinstance(codec.decoder, PulseDecoder):
        parts = pulse_distances_of(codec, z_q, wav, mels)[1]
    else:
        parts = listening_distances(codec.decode(z_q, wav.shape[-1]), wav, SR, mels)
    return sum(PULSE_WEIGHTS[name] * part for name, part in parts.items())


def train(name: str, codec: Codec, speech: Clips, minutes: float, path: Path) -> tuple[Codec, int]:
    """Train for so many minutes of one thread's time, on a cosine -> the averaged codec, how many steps it took."""
    average = with_decoder(codec, {})
    average.load_state_dict(codec.state_dict())
    optimiser = torch.optim.AdamW(codec.decoder.parameters(), RATE, (0.9, 0.99))
    mels, step, spent, whole = MelLoss(SR).mels, 0, 0.0, 60 * minutes
    if path.exists():
        state = torch.load(path, weights_only=True)
        codec.load_state_dict(state["model"]), average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]

    def save() -> None:
        found = {"model": codec.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        save_checkpoint(path, {**found, "step": step, "spent": spent})

    with tqdm(total=round(whole), initial=round(spent), desc=name, unit="s", mininterval=10) as bar:
        for _, wav in batches(speech, None, RECIPE, SR, SECONDS, BATCH, 0, 0, step) if spent < whole else ():
            began = time.process_time()
            torch.manual_seed(step)
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(codec, wav, mels)
            loss.backward()
            rate = RATE * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent / whole)))
            update(optimiser, rate, 1.0)
            update_average(average, codec, EMA, step)
            step, took = step + 1, time.process_time() - began
            spent += took
            bar.update(took)
            if step % 100 == 0 or spent >= whole:
                bar.set_postfix_str(f"step {step}, loss {float(loss):.3f}")
                save()
            if spent >= whole:
                break
    return average.eval(), step


@torch.no_grad()
def measure(given: Callable[[Tensor], Tensor], decode: Callable[[Tensor, int], Tensor], items: list) -> tuple:
    """`given`: wav (1, 1, N) -> what the decoder is given; `decode`: that and N -> wav. Scores of all clips, and CPU
    seconds of decoding for each second of sound."""
    found, took, length = {name: [] for name in SCORES}, 0.0, 0.0
    for item in tqdm(items, "measuring", delay=2, leave=False):
        wav = files.load(item.path, SR, mono=True)[0]  # (1, N)
        told = given(wav[None])
        began = time.process_time()
        decoded = decode(told, wav.shape[-1]).reshape(-1).numpy()
        took, length = took + time.process_time() - began, length + wav.shape[-1] / SR
        for name, value in judges.score((wav[0].numpy(), decoded, SR, SCORES, None)).items():
            found[name].append(value)
    return found, took / length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv (default: the embedded corpus)")
    parser.add_argument("--minutes", type=float, default=20.0, help="of one thread, for each decoder (default: 20)")
    parser.add_argument("--long", type=float, default=70.0, help=f"for '{LONG}' (default: 70)")
    parser.add_argument("--clips", type=int, default=36)
    parser.add_argument("--train", metavar="ROW", help="this row alone, and measure nothing")
    parser.add_argument("-o", "--output", default="runs/decoders", help="folder of the runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder, shipped = Path(args.output), weights.load("voice16k", Codec)
    folder.mkdir(parents=True, exist_ok=True)
    speech = corpora.read_manifest(args.manifest or voices.build_corpus(), "train", ("speech",))[0]
    speech, items = Clips(speech, SR), clips(args.manifest, args.clips)
    runs = {name: (changes, args.minutes) for name, changes in SIZES.items()}  # row -> what differs, minutes
    runs[f"{LONG}, {args.long:g} minutes"] = SIZES["HiFi-GAN"] | {"decoder_dim": 128}, args.long
    if args.train and args.train not in runs:
        parser.error(f"no row '{args.train}'; choose one of: {'; '.join(runs)}")

    def trained(name: str) -> tuple[Codec, int]:
        changes, minutes = runs[name]
        path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.pt"
        return train(name, with_decoder(shipped, changes), speech, minutes, path)

    if args.train:
        trained(args.train)
        return
    table = [["decoder", "parameters", "steps", *(judges.LABELS[s] for s in SCORES), "CPU s per s"]]
    table += [["---", *["---:"] * (len(table[0]) - 1)]]

    def add(name: str, given: Callable, decode: Callable, parameters: str = "", steps: str = "") -> None:
        found, cost = measure(given, decode, items)
        table.append([name, parameters, steps, *(judges.cell(found[s], s) for s in SCORES), f"{cost:.4f}"])
        print(line(table[-1]), flush=True)

    def add_codec(name: str, codec: Codec, steps: str) -> None:
        parameters = f"{count_parameters(codec.decoder) / 1e6:.2f} M"
        add(name, lambda wav: codec.quantise(codec.encode(wav, SR))[0], codec.decode, parameters, steps)

    mel = shipped.mel
    add(GRIFFIN_LIM, lambda wav: mel(wav, SR), lambda x, n: mel_to_wav(x, mel.config, iterations=60, length=n))
    for name in runs:
        average, steps = trained(name)
        add_codec(name, average, f"{steps:,}")
    add_codec("pulses, noise and a correction, as shipped", shipped, "62,500")
    text = f"""## Decoders

{args.minutes:g} minutes of one thread for each, more for the one where it says so, from random weights, on the codes of
`voice16k`, without critics: the same crops, the same losses (`PULSE_WEIGHTS`; the pitch for pulses alone).
{len(items)} held-out clips of {source(args.manifest)}, the encoder's own codes. The first row is not
trained, and is given the recording's mel, which tells far more than codes. The last row learnt for hours, most of them
together with its encoder.
{judges.REACH}

{chr(10).join(map(line, table))}

{made_by("decoders.py", args.manifest, *(f"--{x} {getattr(args, x):g}" for x in ("minutes", "long", "clips")))}."""
    print(text)
    write_section("decoders", text)


if __name__ == "__main__":
    main()
