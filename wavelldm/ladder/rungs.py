"""The rungs of the reconstruction ladder: ways to encode a clip and decode it again, from Griffin-Lim to keeping phase.

A rung turns a clip into a `Reconstruction` and tells how many bits or floats a second it keeps in between. Families
go from mel spectrograms (Griffin-Lim, vocoder, VAEs, repair in several stages) to codec tokens and MDCT coefficients.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import weights
from ..audio.mel import MELS, LogMel, MelConfig, fit_normalisation, mel_to_wav
from ..codec.model import Codec
from ..errors import WavelldmError
from ..mel import vae, vocoder
from ..nn.layers import count_parameters
from . import autoencoder
from .refinement import Refinement, post_filter

FAMILIES = ("griffin-lim", "vocoder", "grid", "normalisation", "vae", "stages", "codec", "phase", "words")
ROLES = {
    "vocoder": vocoder.Vocoder,
    "vae": vae.MelVAE,
    "wide": vae.MelVAE,
    "words": vae.MelVAE,
    "refinement": Refinement,
    "autoencoder": autoencoder.Autoencoder,
    "codec": Codec,
}
NEEDED_BY = {  # role -> families that cannot be complete without it
    "vocoder": ("vocoder",),
    "vae": ("griffin-lim", "vocoder", "vae", "stages"),
    "wide": ("vae",),
    "words": ("words",),
    "refinement": ("stages",),
    "autoencoder": ("phase",),
    "codec": ("codec",),
}
SHIPPED = {"wide": "ladder-wide-vae", "words": "ladder-words-vae", "codec": "voice16k"}  # the others: ladder-ROLE
ITERATIONS = 60  # of Griffin-Lim
QUANTISER_LEVELS = 8  # 3 bits for each value, where normalisations are compared
TANH_END = math.tanh(2.5)  # where the tanh normalisation puts the extremes of the clip
RANGES = {"zscore": (-3.0, 3.0), "percentile": (-1.0, 1.0), "tanh": (-TANH_END, TANH_END)}  # that the levels cover
KBITS = (2, 4, 8, 16)

MelTransform = Callable[[Tensor, str], Tensor]  # (mel, words about the clip) -> mel
MelToWav = Callable[[Tensor, int], Tensor]  # (mel, samples) -> wav


@dataclass(frozen=True)
class Reconstruction:
    """What a rung makes of a clip, and how much it keeps of it per second."""

    wav: Tensor  # (1, 1, N)
    bits: float | None = None  # if it is a code
    floats: float | None = None  # if it is not


@dataclass(frozen=True)
class Rung:
    """A way to encode and decode: `run` takes wav (1, 1, N) and words about it."""

    name: str
    family: str
    run: Callable[[Tensor, str], Reconstruction]
    parameters: int = 0
    sr: int = 16_000


# --- the networks


def role_of(path: str | Path) -> str:
    """Which role weights have, by their JSON file."""
    about = weights.about(path)
    if about["kind"] == "MelVAE":
        config = about["config"]
        return "words" if config["words"] else "wide" if config["shortcut"] else "vae"
    found = [role for role, kind in ROLES.items() if kind.__name__ == about["kind"]]
    if not found:
        raise WavelldmError(f"{path} holds a {about['kind']}, which is on no rung; give weights of {', '.join(ROLES)}")
    return found[0]


def networks(paths: Iterable[str | Path] = ()) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Weights given, else those that ship -> {role: network}, {role: why it is missing}."""
    given = {role_of(path): path for path in paths}
    found, missing = {}, {}
    for role, kind in ROLES.items():
        name = given.get(role) or SHIPPED.get(role, f"ladder-{role}")
        if role not in given and not (weights.SHIPPED / f"{name}.safetensors").exists():
            missing[role] = f"no weights '{name}' ship; train them (wavelldm train --help) and give --weights"
        else:
            found[role] = weights.load(name, kind)
    return found, missing


# --- through a mel spectrogram


@dataclass(frozen=True)
class _Speaker:
    """A vocoder, the mel it takes, and the function that calls it."""

    network: nn.Module
    mel: MelConfig
    mel_to_wav: MelToWav


def _griffin_lim(config: MelConfig, iterations: int | None = None) -> MelToWav:
    def speak(mel: Tensor, length: int) -> Tensor:
        return mel_to_wav(mel, config, iterations or ITERATIONS, length=length)

    return speak


def _published_speaker(network: nn.Module, config: MelConfig) -> _Speaker:
    def speak(mel: Tensor, length: int) -> Tensor:
        return vocoder.speak(network, mel, config, length)

    return _Speaker(network, config, speak)


def _mel_rung(
    name: str,
    family: str,
    config: MelConfig,
    transform: MelTransform | None = None,
    speak: MelToWav | None = None,
    floats: float | None = None,
    parameters: int = 0,
) -> Rung:
    """wav -> mel -> `transform` (by default nothing) -> `speak` (by default Griffin-Lim) -> wav."""
    front, speak = LogMel(config), speak or _griffin_lim(config)

    def run(wav: Tensor, words: str) -> Reconstruction:
        mel = front(wav, config.sr)
        mel = mel if transform is None else transform(mel, words)
        return Reconstruction(speak(mel, wav.shape[-1]), floats=floats or config.n_mels * config.frame_rate)

    return Rung(name, family, run, parameters, config.sr)


def _chain(*steps: Callable[[Tensor], Tensor]) -> MelTransform:
    """One function after the other, on the mel alone."""

    def transform(mel: Tensor, words: str) -> Tensor:
        for step in steps:
            mel = step(mel)
        return mel

    return transform


def _with_words(network: vae.MelVAE, given: str | None) -> MelTransform:
    """A VAE whose decoder gets words: those of the clip (None), or always the same."""

    def transform(mel: Tensor, words: str) -> Tensor:
        return network(mel, [words if given is None else given])

    return transform


def mel_rungs(nets: dict[str, nn.Module], published: dict[str, dict]) -> list[Rung]:
    """Griffin-Lim and vocoders on true mels and on a VAE's; wider VAEs; repair in several stages; a VAE that gets
    words.

    Where there are several vocoders, the last one speaks for the stages and the words.
    """
    speakers = {}
    if "vocoder" in nets:
        speakers["our vocoder"] = _Speaker(nets["vocoder"], nets["vocoder"].config.mel, nets["vocoder"])
    for name, (network, config) in published.get("vocoder", {}).items():
        speakers[name] = _published_speaker(network, config)
    rungs = []

    def voices(config: MelConfig) -> list[str | None]:
        """Names of what turns such a mel into sound; None stands for Griffin-Lim."""
        return [None, *(name for name, speaker in speakers.items() if speaker.mel == config)]

    def add(
        name: str,
        family: str,
        config: MelConfig,
        voice: str | None,
        transform: MelTransform | None = None,
        used: Iterable[nn.Module] = (),
        floats: float | None = None,
    ) -> None:
        speaker = speakers.get(voice)
        parameters = sum(map(count_parameters, used)) + (count_parameters(speaker.network) if speaker else 0)
        speak = speaker.mel_to_wav if speaker else None
        rungs.append(
            _mel_rung(f"{name}, {voice or 'Griffin-Lim'}", family, config, transform, speak, floats, parameters)
        )

    base = nets["vae"].config.mel if "vae" in nets else MELS["audioldm2"]
    add("true mel", "griffin-lim", base, None)
    for name, speaker in speakers.items():
        add("true mel", "vocoder", speaker.mel, name)

    for name, net in ({"VAE": nets.get("vae"), "wide VAE": nets.get("wide")} | published.get("vae", {})).items():
        if net is None:
            continue
        config, floats = net.config.mel, net.floats_per_second
        for voice in voices(config):
            family = ("vocoder" if voice else "griffin-lim") if name == "VAE" else "vae"
            add(f"{name}'s mel", family, config, voice, _chain(net), [net], floats)
        sharpened = _chain(net, post_filter)
        add(f"{name}'s mel, post-filter", "stages", config, voices(config)[-1], sharpened, [net], floats)

    if {"vae", "refinement"} <= set(nets):
        net, repair = nets["vae"], nets["refinement"]
        for name, steps in (("refined", (net, repair)), ("refined, post-filter", (net, repair, post_filter))):
            transform, voice = _chain(*steps), voices(base)[-1]
            add(f"VAE's mel, {name}", "stages", base, voice, transform, [net, repair], net.floats_per_second)

    if "words" in nets:
        net = nets["words"]
        config = net.config.mel
        for name, given in (("its words", None), ("no words", ""), ("wrong words", "noise rain")):
            transform, voice = _with_words(net, given), voices(config)[-1]
            add(f"narrow VAE's mel, told {name}", "words", config, voice, transform, [net], net.floats_per_second)
    return rungs


def grid_rungs(sr: int) -> list[Rung]:
    """Griffin-Lim on every front end of a grid. At 16 kHz, 8 kHz is the full band, so the grid has one band there,
    not two.
    """
    rungs = []
    tops = sorted({min(8_000.0, sr / 2), sr / 2})
    for mels, n_fft, hop, top, power in itertools.product((64, 128), (1024, 2048), (128, 160, 256), tops, (1, 2)):
        config = MelConfig(
            sr, n_fft, n_fft, hop, mels, 0.0, top, power=float(power), floor=1e-5**power, padding="center"
        )
        name = f"{mels} mels, n_fft {n_fft}, hop {hop}, to {top / 1000:g} kHz, power {power}"
        rungs.append(_mel_rung(name, "grid", config, speak=_griffin_lim(config, 32)))
    return rungs


def normalisation_rungs(config: MelConfig = MELS["audioldm2"]) -> list[Rung]:
    """Compare normalisations: each value of the mel is rounded to one of 8 levels of the range they share.

    The two numbers of a normalisation are fitted to the clip, so they count as sent with it (64 bits).
    """
    front = LogMel(config)

    def rung(kind: str) -> Rung:
        def run(wav: Tensor, words: str) -> Reconstruction:
            mel = front(wav, config.sr)
            norm = fit_normalisation(kind, mel)
            whole = (norm.forward(torch.tensor(x)).item() for x in (math.log(config.floor), 4.0))
            low, high = RANGES.get(kind) or whole
            steps = QUANTISER_LEVELS - 1
            y = ((norm.forward(mel) - low) / (high - low)).clamp(0, 1)
            mel = norm.inverse((y * steps).round() / steps * (high - low) + low)
            bits = config.n_mels * config.frame_rate * math.log2(QUANTISER_LEVELS) + 64 * config.sr / wav.shape[-1]
            return Reconstruction(mel_to_wav(mel, config, ITERATIONS, length=wav.shape[-1]), bits=bits)

        return Rung(f"{kind}, 3 bits a number", "normalisation", run)

    return [rung(kind) for kind in ("log", "zscore", "percentile", "tanh")]


# --- without a mel spectrogram


def codec_rungs(codec: Codec) -> list[Rung]:
    """The codec's own decoder on the first k codebooks."""
    whole, parameters = codec.quantiser.codebooks, count_parameters(codec)

    def rung(k: int) -> Rung:
        def run(wav: Tensor, words: str) -> Reconstruction:
            codes = codec.quantise(codec.encode(wav, codec.sr))[1][:, :k]
            return Reconstruction(codec.codes_to_wav(codes, wav.shape[-1]), bits=codec.config.bitrate(k))

        return Rung(f"{codec.name}, {k} of {whole} codebooks", "codec", run, parameters, codec.sr)

    return [rung(k) for k in range(1, whole + 1)]


def phase_rungs(trained: autoencoder.Autoencoder | None) -> list[Rung]:
    """Some of the MDCT coefficients; the untrained autoencoder, which is a plain transform coder; the trained one."""
    torch.manual_seed(0)
    plain = autoencoder.Autoencoder(trained.config if trained else autoencoder.AutoencoderConfig(follow=0.5)).eval()
    hop, sr = plain.hop, plain.sr

    def lowest(keep: int) -> Rung:
        def run(wav: Tensor, words: str) -> Reconstruction:
            return Reconstruction(autoencoder.lowest(wav, hop, keep), floats=keep * sr / hop)

        return Rung(f"the lowest {keep} of {hop} MDCT numbers", "phase", run, 0, sr)

    def coded(net: autoencoder.Autoencoder, name: str, kbits: float, parameters: int) -> Rung:
        def run(wav: Tensor, words: str) -> Reconstruction:
            found = autoencoder.at_bitrate(net, wav, kbits)
            return Reconstruction(found.wav, bits=autoencoder.bits_per_second(found, wav.shape[-1], sr))

        return Rung(f"{name} at {kbits} kbit/s", "phase", run, parameters, sr)

    rungs = [lowest(hop // 8), lowest(hop // 4)] + [coded(plain, "transform coder", kbits, 0) for kbits in KBITS]
    if trained is not None:
        rungs += [coded(trained, "autoencoder", kbits, count_parameters(trained)) for kbits in KBITS]
    return rungs


# --- all of them


def choose(names: Iterable[str] | None) -> list[str]:
    """Names of families, checked; None, or "all" among them: every family."""
    wanted = list(names or ["all"])
    wanted = list(FAMILIES) if "all" in wanted else wanted
    if unknown := [name for name in wanted if name not in FAMILIES]:
        raise WavelldmError(f"there is no rung '{unknown[0]}'; choose among all, {', '.join(FAMILIES)}")
    return wanted


def build(
    names: Iterable[str] | None = None,
    paths: Iterable[str | Path] = (),
    published_vocoder: str | Path | None = None,
    published_vae: str | Path | None = None,
    grid_sr: int = 16_000,
) -> tuple[list[Rung], dict[str, str]]:
    """The rungs of those families, in the order of FAMILIES, and the roles left out: {role: why}."""
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
        *(codec_rungs(nets["codec"]) if "codec" in nets else []),
    ]
    rungs = sorted((r for r in rungs if r.family in wanted), key=lambda r: FAMILIES.index(r.family))
    missing = {role: why for role, why in missing.items() if set(NEEDED_BY[role]) & set(wanted)}
    if not rungs:
        raise WavelldmError("no rung is left: " + "; ".join(f"{role}: {why}" for role, why in missing.items()))
    return rungs, missing
