"""What `restore.py` compares: plain ways without training, ours, other programs, and the best there could be."""

import argparse
import importlib.util
from collections.abc import Callable

import numpy as np
import peers
import torch
from damaged import TASKS, Clip
from denoise import SR
from scipy.interpolate import CubicSpline
from torch import Tensor

from wavelldm import weights
from wavelldm.audio.stft import istft, magnitude, stft
from wavelldm.denoise.chain import Settings
from wavelldm.denoise.denoiser import BEST, Denoiser, Untouched, load
from wavelldm.restore.filler import Filler, fill
from wavelldm.restore.find import Damage
from wavelldm.restore.gaps import FREE, HOP, N_FFT, assemble, known_share, rung_on, spectrum, straight
from wavelldm.restore.latent import UNIT, SpeechLatent, heard_pitch, level, seen

ASIS, PLAIN, CEILING = "as it is", "plain", "ceiling: true magnitudes"
RESTORE, BOTH = "`restore`", "`denoise --restore`"  # what a user gets
ROUNDS = 32  # of Griffin-Lim in the plain rows and the ceilings
MIRROR_DB = -24.0  # of a mirrored band against its original
GAPS = ("gaps", "gaps, noise", "packets")
BANDS = ("band", "band, noise")
HARD = tuple(name for name in TASKS if name.startswith("clipping"))
CLIPPED = (*HARD, "overload")
PLAINLY = {  # what the plain row is
    **dict.fromkeys(GAPS, f"log-magnitudes on straight lines across the gap, phases by {ROUNDS} rounds of Griffin-Lim"),
    **dict.fromkeys(BANDS, f"the band below the cutoff mirrored at it, {-MIRROR_DB:.0f} dB lower"),
    **dict.fromkeys(CLIPPED, "a cubic spline through what is not clipped"),
    "room": "nara-wpe",
    "cuts and band": "straight lines and Griffin-Lim, and the band mirrored",
}
Run = Callable[[Tensor, Clip], Tensor]  # damaged (1, N), and the clip that it is -> (1, N)


# --- what needs no training


def with_phases(known: Tensor, size: Tensor, free: Tensor, sound: Callable[[Tensor], Tensor]) -> Tensor:
    """A spectrum (1, 513, T) whose free bins take other magnitudes -> (1, N): phases begin at random, and every round
    goes through the sound that it gives."""
    turn = 2 * torch.pi * torch.rand(size.shape, generator=torch.Generator().manual_seed(0))
    spec = torch.where(free, torch.polar(size, turn), known)
    for _ in range(ROUNDS):
        now = stft(sound(spec), N_FFT, HOP, N_FFT, "center")
        spec = torch.where(free, size * now / magnitude(now.real, now.imag), now)
    return sound(spec)


def straight_lines(damaged: Tensor, clip: Clip) -> Tensor:
    def sound(spec: Tensor) -> Tensor:
        return torch.where(clip.gaps, istft(spec, N_FFT, HOP, N_FFT, "center", damaged.shape[-1]), damaged)

    free = (known_share(clip.gaps) < FREE)[:, None]
    return with_phases(stft(damaged, N_FFT, HOP, N_FFT, "center"), straight(damaged, clip.gaps), free, sound)


def mirrored(damaged: Tensor, clip: Clip) -> Tensor:
    spec = stft(damaged, N_FFT, HOP, N_FFT, "center")  # (1, 513, T)
    edge = round(0.95 * clip.cutoff / SR * N_FFT)  # the filter begins below the cutoff
    count = min(edge, spec.shape[1] - edge)
    spec[:, edge : edge + count] += 10 ** (MIRROR_DB / 20) * spec[:, edge - count : edge].flip(1).conj()
    return istft(spec, N_FFT, HOP, N_FFT, "center", damaged.shape[-1])


def spline(damaged: Tensor, clip: Clip) -> Tensor:
    """Through every sample below the ceiling (the largest magnitude there is); never less than it, at most twice."""
    x = damaged[0].double().numpy()
    top = np.abs(x).max()
    cut = np.abs(x) >= 0.999 * top
    places = np.arange(len(x))
    y = np.sign(x) * np.clip(np.abs(CubicSpline(places[~cut], x[~cut])(places)), top, 2 * top)
    return torch.from_numpy(np.where(cut, y, x)).float()[None]


def plain(damaged: Tensor, clip: Clip) -> Tensor:
    if clip.task == "room":
        return peers.weighted_prediction(damaged)
    if clip.task in CLIPPED:
        return spline(damaged, clip)
    if clip.gaps is not None:
        damaged = straight_lines(damaged, clip)
    return damaged if clip.cutoff is None else mirrored(damaged, clip)


# --- ours


def truth(clip: Clip) -> Damage:
    """What is damaged, for a restorer that need not look."""
    lost = torch.zeros_like(clip.damaged) if clip.gaps is None else clip.gaps.float()
    edges = torch.diff(lost[0], prepend=torch.zeros(1), append=torch.zeros(1)).nonzero()[:, 0].tolist()
    top = float(clip.damaged.abs().max())
    ceiling = None if clip.clipped is None else (-top, top)
    return Damage(tuple(zip(edges[::2], edges[1::2])), clip.cutoff, ceiling)


def using(model: Denoiser, told: bool = False, **settings) -> Run:
    settings = Settings(**settings)
    return lambda damaged, clip: model.enhance(damaged, SR, settings, damages=(truth(clip),) if told else None)


def filling(args: argparse.Namespace, steps: int) -> Run:
    """Gaps filled by the network over its latent, told where they are; no step: without it."""
    latent, filler = weights.load(args.latent, SpeechLatent), weights.load(args.filler, Filler)
    return lambda damaged, clip: fill(latent, filler, damaged, clip.gaps, steps)


def cleaned_first(run: Run) -> Run:
    """The denoiser, what was lost cut out again, then `run`."""
    clean = using(load(BEST))

    def both(damaged: Tensor, clip: Clip) -> Tensor:
        cleaned = clean(damaged, clip)
        return run(cleaned if clip.gaps is None else cleaned.masked_fill(clip.gaps, 0.0), clip)

    return both


def cleaned_afterwards(run: Run) -> Run:
    clean = using(load(BEST))
    return lambda damaged, clip: clean(run(damaged, clip), clip)


# --- ceilings


def put(damaged: Tensor, clip: Clip, size: Tensor) -> Tensor:
    """Magnitudes (1, 513, T) put where they are missing."""
    if clip.gaps is not None:
        return assemble(damaged, clip.gaps, size)
    free = (torch.arange(size.shape[1]) > 0.9 * clip.cutoff / SR * N_FFT)[:, None]
    known = stft(damaged, N_FFT, HOP, N_FFT, "center")

    def sound(spec: Tensor) -> Tensor:
        return istft(torch.where(free, spec, known), N_FFT, HOP, N_FFT, "center", damaged.shape[-1])

    return with_phases(known, size, free, sound)


def decoded(args: argparse.Namespace) -> Run:
    """What the latent of the clean sound says, put where something is missing."""
    latent = weights.load(args.latent, SpeechLatent)

    def run(damaged: Tensor, clip: Clip) -> Tensor:
        gain = level(clip.clean)
        z, _ = latent.encode(seen(clip.clean * gain))
        return put(damaged, clip, latent.decode(z, heard_pitch(clip.clean * gain)).exp() * UNIT / gain[..., None])

    return run


# --- the list


def missing(args: argparse.Namespace) -> dict:
    """Peers that are not at hand, and what they lack."""
    lacks = {}
    if not args.tplcnet:
        lacks["tPLCNet"] = "its file: give --tplcnet"
    elif not importlib.util.find_spec("ai_edge_litert"):
        lacks["tPLCNet"] = "the package ai-edge-litert"
    if not peers.libopus():
        lacks["Opus's concealment"] = "libopus: install the package opuscodec"
    if not peers.ffmpeg():
        lacks["adeclip"] = "the package imageio-ffmpeg"
    if not importlib.util.find_spec("nara_wpe"):
        lacks["nara-wpe"] = "the package nara-wpe"
    return lacks


def systems(args: argparse.Namespace) -> dict:
    """name -> (tasks, function that builds a Run)."""
    rows, every, lacks = {}, tuple(TASKS), missing(args)

    def add(name: str, tasks: tuple, make: Callable[[], Run], order: Callable = cleaned_first) -> None:
        """In noise, with the denoiser before or after it."""
        quiet, noisy = ([t for t in tasks if TASKS[t].noisy == wanted] for wanted in (False, True))
        if quiet:
            rows[name] = (quiet, make)
        if noisy:
            title = f"{BEST}, then {name}" if order is cleaned_first else f"{name}, then {BEST}"
            rows[title] = (noisy, lambda: order(make()))

    plainly = tuple(t for t in PLAINLY if t != "room" or "nara-wpe" not in lacks)
    rows[ASIS] = (every, lambda: lambda damaged, clip: damaged)
    rows[PLAIN] = (plainly, lambda: plain)
    rows[BEST] = (every, lambda: using(load(BEST)))
    add(PLAIN, ("gaps, noise", "band, noise", "cuts and band"), lambda: plain)
    add(PLAIN, tuple(t for t in ("overload", "room") if t in plainly), lambda: plain, cleaned_afterwards)
    add("ringing on", GAPS, lambda: lambda damaged, clip: rung_on(damaged, clip.gaps))
    add("no network", GAPS, lambda: filling(args, 0))
    add("network, one step", GAPS, lambda: filling(args, 1))
    for steps in args.steps:
        add(f"network, {steps} steps", GAPS, lambda steps=steps: filling(args, steps))
    rows[f"{RESTORE}, told"] = ((*GAPS, *BANDS, *HARD), lambda: using(Untouched(), True, restore=True))
    rows[RESTORE] = (every, lambda: using(Untouched(), restore=True))
    told = ("gaps, noise", "band, noise", "cuts and band")
    rows[f"{BOTH}, told"] = (told, lambda: using(load(BEST), True, restore=True))
    rows[BOTH] = (every, lambda: using(load(BEST), restore=True))
    if "tPLCNet" not in lacks:

        def concealing() -> Run:
            conceal = peers.tplcnet(args.tplcnet)
            return lambda damaged, clip: conceal(damaged, clip.gaps)

        rows["tPLCNet"] = (GAPS, concealing)
        rows[f"{BEST}, then tPLCNet"] = (("gaps, noise",), lambda: cleaned_first(concealing()))
    if "Opus's concealment" not in lacks:

        def decoding() -> Run:
            conceal = peers.opus(SR)
            return lambda damaged, clip: conceal(clip.clean, clip.gaps)

        rows["Opus's concealment, 64 kbit/s"] = (("gaps", "packets"), decoding)
    if "adeclip" not in lacks:

        def declipping() -> Run:
            declip = peers.adeclip(SR)
            return lambda damaged, clip: declip(damaged)

        rows["adeclip"] = (CLIPPED, declipping)
        rows[f"adeclip, then {BEST}"] = (("overload",), lambda: cleaned_afterwards(declipping()))
    add("ceiling: the clean latent, decoded", (*GAPS, *BANDS), lambda: decoded(args))
    add(CEILING, (*GAPS, *BANDS), lambda: lambda damaged, clip: put(damaged, clip, spectrum(clip.clean)))
    chosen = {}
    for name, (tasks, make) in rows.items():
        tasks = [t for t in tasks if t in args.tasks]
        if tasks and (not args.only or any(o in name for o in args.only)):
            chosen[name] = (tasks, make)
    return chosen
