"""The rungs of the reconstruction ladder: ways from a clip to what is left of it, and what each of them keeps in between."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import weights
from ..audio.mel import MELS, LogMel, MelConfig, fit_normalisation, mel_to_wav
from ..codec.model import Codec
from ..errors import WavelldmError
from ..mel import vae, vocoder
from ..nn.layers import count_parameters
from . import autoencoder
from .refinement import Refinement, post_filter

FAMILIES = ("griffin-lim", "vocoder", "grid", "normalisation", "vae", "stages", "codec", "phase", "words")
ROLES = {"vocoder": vocoder.Vocoder, "vae": vae.MelVAE, "wide": vae.MelVAE, "words": vae.MelVAE, "refinement": Refinement,
         "autoencoder": autoencoder.Autoencoder, "codec": Codec}  # fmt: skip
SHIPPED = {"wide": "ladder-wide-vae", "words": "ladder-words-vae", "codec": "voice16k"}  # the others: ladder-ROLE
ITERATIONS = 60  # of Griffin-Lim
LEVELS = 8  # three bits a number, where normalisations are compared
END = math.tanh(2.5)  # where the normalisation puts the extremes; beyond it is what no clip has
REACH = {"zscore": (-3.0, 3.0), "percentile": (-1.0, 1.0), "tanh": (-END, END)}  # the range those levels share
KBITS = (2, 4, 8, 16)


@dataclass(frozen=True)
class Left:
    """What a rung makes of a clip."""

    wav: Tensor  # (1, 1, N)
    bits: float | None = None  # a second, if it is a code
    floats: float | None = None  # a second, if it is not


@dataclass(frozen=True)
class Rung:
    name: str
    family: str
    run: Callable[[Tensor, str], Left]  # (wav (1, 1, N), words about it)
    parameters: int = 0
    sr: int = 16_000


def role_of(path) -> str:
    """What weights are for, by their JSON."""
    about = weights.about(path)
    if about["kind"] == "MelVAE":
        config = about["config"]
        return "words" if config["words"] else "wide" if config["shortcut"] else "vae"
    found = [role for role, kind in ROLES.items() if kind.__name__ == about["kind"]]
    if not found:
        raise WavelldmError(f"{path} holds a {about['kind']}, which is on no rung; give weights of {', '.join(ROLES)}")
    return found[0]


def networks(paths=()) -> tuple[dict, dict]:
    """Weights given, else those that ship -> {role: network}, {role: why it is not there}."""
    given = {role_of(path): path for path in paths}
    found, missing = {}, {}
    for role, kind in ROLES.items():
        name = given.get(role) or SHIPPED.get(role, f"ladder-{role}")
        if role not in given and not (weights.SHIPPED / f"{name}.safetensors").exists():
            missing[role] = f"no weights '{name}' ship; train them (wavelldm train --help) and give --weights"
        else:
            found[role] = weights.load(name, kind)
    return found, missing


def _mel_rung(name: str, family: str, config: MelConfig, change=None, speak=None, floats=None, parameters=0) -> Rung:
    """Mel, then `change` (mel, words) -> mel, then `speak` (mel, N) -> wav; by default nothing, and Griffin-Lim."""
    front = LogMel(config)
    speak = speak or (lambda mel, n: mel_to_wav(mel, config, ITERATIONS, length=n))

    def run(wav: Tensor, words: str) -> Left:
        mel = front(wav, config.sr)
        return Left(
            speak(mel if change is None else change(mel, words), wav.shape[-1]),
            floats=floats or config.n_mels * config.frame_rate,
        )

    return Rung(name, family, run, parameters, config.sr)


def mel_rungs(nets: dict, published: dict) -> list[Rung]:
    """Griffin-Lim and vocoders, from true mels and from the VAE's; wider VAEs; several stages. The best voice there is speaks for the latter."""
    out, spoken = [], {}
    if "vocoder" in nets:
        spoken["our vocoder"] = nets["vocoder"], nets["vocoder"].config.mel, nets["vocoder"]
    for name, (net, config) in published.get("vocoder", {}).items():
        spoken[name] = net, config, lambda mel, n, net=net, config=config: vocoder.speak(net, mel, config, n)
    base = nets["vae"].config.mel if "vae" in nets else MELS["audioldm2"]

    def add(name, family, config, change=None, voice=None, nets_used=(), floats=None):
        net, _, speak = spoken[voice] if voice else (None, None, None)
        size = sum(count_parameters(n) for n in (*nets_used, *([net] if net else [])))
        out.append(_mel_rung(f"{name}, {voice or 'Griffin-Lim'}", family, config, change, speak, floats, size))

    def through(net):
        return lambda mel, words: net(mel)

    add("true mel", "griffin-lim", base)
    for voice, (_, config, _) in spoken.items():
        add("true mel", "vocoder", config, None, voice)
    coders = {"VAE": nets.get("vae"), "wide VAE": nets.get("wide")} | published.get("vae", {})
    for name, net in coders.items():
        if net is None:
            continue
        config, size = net.config.mel, net.floats_per_second
        voices = [None, *(v for v, (_, c, _) in spoken.items() if c == config)]
        for voice in voices:
            family = ("vocoder" if voice else "griffin-lim") if name == "VAE" else "vae"
            add(f"{name}'s mel", family, config, through(net), voice, [net], size)
        add(
            f"{name}'s mel, post-filter",
            "stages",
            config,
            lambda mel, words, net=net: post_filter(net(mel)),
            voices[-1],
            [net],
            size,
        )
    if {"vae", "refinement"} <= set(nets):
        net, fix = nets["vae"], nets["refinement"]
        voices = [None, *(v for v, (_, c, _) in spoken.items() if c == base)]
        used = {"nets_used": [net, fix], "floats": net.floats_per_second}
        add("VAE's mel, refined", "stages", base, lambda mel, words, net=net: fix(net(mel)), voices[-1], **used)
        add(
            "VAE's mel, refined, post-filter",
            "stages",
            base,
            lambda mel, words, net=net: post_filter(fix(net(mel))),
            voices[-1],
            **used,
        )
    if "words" in nets:
        net = nets["words"]
        voices = [None, *(v for v, (_, c, _) in spoken.items() if c == net.config.mel)]
        for kind, said in (
            ("its words", lambda words: words),
            ("no words", lambda words: ""),
            ("wrong words", lambda words: "noise rain"),
        ):
            change = lambda mel, words, said=said: net(mel, [said(words)])
            add(
                f"narrow VAE's mel, told {kind}",
                "words",
                net.config.mel,
                change,
                voices[-1],
                [net],
                net.floats_per_second,
            )
    return out


def grid_rungs(sr: int) -> list[Rung]:
    """Every front end of the grid, heard through Griffin-Lim. At 16 kHz the full band ends at 8 kHz, so there is one band there, not two."""
    out = []
    tops = sorted({min(8_000.0, sr / 2), sr / 2})
    for mels, n_fft, hop, top, power in itertools.product((64, 128), (1024, 2048), (128, 160, 256), tops, (1, 2)):
        config = MelConfig(
            sr, n_fft, n_fft, hop, mels, 0.0, top, power=float(power), floor=1e-5**power, padding="center"
        )
        name = f"{mels} mels, n_fft {n_fft}, hop {hop}, to {top / 1000:g} kHz, power {power}"
        out.append(_mel_rung(name, "grid", config, speak=lambda mel, n, c=config: mel_to_wav(mel, c, 32, length=n)))
    return out


def normalisation_rungs(config: MelConfig = MELS["audioldm2"]) -> list[Rung]:
    """What a normalisation is worth: each number is rounded to one of 8 levels of its range. Its two numbers are the clip's own, and sent along."""
    front = LogMel(config)

    def rung(kind: str) -> Rung:
        def run(wav: Tensor, words: str) -> Left:
            mel = front(wav, config.sr)
            norm = fit_normalisation(kind, mel)
            low, high = REACH.get(kind) or (norm.forward(torch.tensor(x)).item() for x in (math.log(config.floor), 4.0))
            y = ((norm.forward(mel) - low) / (high - low)).clamp(0, 1)
            mel = norm.inverse((y * (LEVELS - 1)).round() / (LEVELS - 1) * (high - low) + low)
            bits = config.n_mels * config.frame_rate * math.log2(LEVELS) + 64 * config.sr / wav.shape[-1]
            return Left(mel_to_wav(mel, config, ITERATIONS, length=wav.shape[-1]), bits=bits)

        return Rung(f"{kind}, 3 bits a number", "normalisation", run)

    return [rung(kind) for kind in ("log", "zscore", "percentile", "tanh")]


def codec_rungs(codec: Codec) -> list[Rung]:
    def rung(k: int) -> Rung:
        def run(wav: Tensor, words: str) -> Left:
            codes = codec.quantise(codec.encode(wav, codec.sr))[1][:, :k]
            return Left(codec.codes_to_wav(codes, wav.shape[-1]), bits=codec.config.bitrate(k))

        return Rung(
            f"{codec.name}, {k} of {codec.quantiser.codebooks} codebooks",
            "codec",
            run,
            count_parameters(codec),
            codec.sr,
        )

    return [rung(k) for k in range(1, codec.quantiser.codebooks + 1)]


def phase_rungs(trained: autoencoder.Autoencoder | None) -> list[Rung]:
    """MDCT coefficients cut off; the autoencoder before it has learnt anything, which is a transform coder; and after."""
    torch.manual_seed(0)
    plain = autoencoder.Autoencoder(trained.config if trained else autoencoder.AutoencoderConfig(follow=0.5)).eval()
    hop, sr = plain.hop, plain.sr

    def cut(keep: int) -> Rung:
        def run(wav: Tensor, words: str) -> Left:
            return Left(autoencoder.lowest(wav, hop, keep), floats=keep * sr / hop)

        return Rung(f"the lowest {keep} of {hop} MDCT numbers", "phase", run, 0, sr)

    def coded(net, name: str, kbits: float, size: int) -> Rung:
        def run(wav: Tensor, words: str) -> Left:
            found = autoencoder.at_bitrate(net, wav, kbits)
            return Left(found.wav, bits=autoencoder.bits_per_second(found, wav.shape[-1], sr))

        return Rung(f"{name} at {kbits} kbit/s", "phase", run, size, sr)

    out = [cut(hop // 8), cut(hop // 4)] + [coded(plain, "transform coder", kbits, 0) for kbits in KBITS]
    if trained is not None:
        out += [coded(trained, "autoencoder", kbits, count_parameters(trained)) for kbits in KBITS]
    return out


def choose(names) -> list[str]:
    wanted = list(FAMILIES) if not names or "all" in names else list(names)
    if unknown := [name for name in wanted if name not in FAMILIES]:
        raise WavelldmError(f"there is no rung '{unknown[0]}'; choose among all, {', '.join(FAMILIES)}")
    return wanted


def build(
    names=None, paths=(), published_vocoder=None, published_vae=None, grid_sr: int = 16_000
) -> tuple[list[Rung], dict]:
    """The rungs of those families, lowest first, and what is left out: {role: why}."""
    wanted = choose(names)
    nets, missing = networks(paths)
    published = {}
    if published_vocoder:
        published["vocoder"] = {published_vocoder: vocoder.load_hifigan(published_vocoder)}
    if published_vae:
        published["vae"] = {published_vae: vae.load_published(published_vae)}
    rungs = [
        *mel_rungs(nets, published),
        *grid_rungs(grid_sr),
        *normalisation_rungs(),
        *phase_rungs(nets.get("autoencoder")),
    ]
    rungs += codec_rungs(nets["codec"]) if "codec" in nets else []
    rungs = sorted((r for r in rungs if r.family in wanted), key=lambda r: FAMILIES.index(r.family))
    needs = {"vocoder": ("vocoder",), "vae": ("griffin-lim", "vocoder", "vae", "stages"), "wide": ("vae",), "refinement": ("stages",),
             "autoencoder": ("phase",), "codec": ("codec",), "words": ("words",)}  # fmt: skip
    missing = {role: why for role, why in missing.items() if set(needs[role]) & set(wanted)}
    if not rungs:
        raise WavelldmError("no rung is left: " + "; ".join(f"{role}: {why}" for role, why in missing.items()))
    return rungs, missing
