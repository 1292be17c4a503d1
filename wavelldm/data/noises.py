"""Synthetic noises: white, pink, rain, engines and more, without any recording.

All are made with three tools and a slowly varying random curve: *coloured* noise is white noise whose spectrum is
multiplied by a gain; a *wavetable* is one period of a sound, read repeatedly at a varying speed; *scatter* places
copies of a short sound at given times. Every function takes (n, sr, generator) and returns n float32 samples with a
root mean square of 1. All parameters are drawn from the generator, so the same seed gives the same noise.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy.fft import irfft, next_fast_len, rfft

from ..errors import AudioError

LOWEST = 20.0  # Hz; below it the spectrum is flat, as 1/f would go to infinity


def _unit(x: np.ndarray) -> np.ndarray:
    """Scale to a root mean square of 1."""
    return (x / np.sqrt(np.mean(np.square(x, dtype=np.float64)))).astype(np.float32)


def _coloured(n: int, sr: int, generator: Generator, gain: Callable) -> np.ndarray:
    """White noise whose spectrum is multiplied by `gain(frequencies)`, of unit power: (n,)."""
    if n < 1:
        raise AudioError(f"a noise has at least one sample, not {n}")
    size = next_fast_len(max(n, 2), real=True)
    spectrum = rfft(generator.standard_normal(size, dtype=np.float32))  # (size // 2 + 1,)
    frequencies = np.linspace(0, sr / 2, len(spectrum), dtype=np.float32)
    return _unit(irfft(spectrum * gain(frequencies), size)[:n])


def _band(low: float, high: float, order: int = 2) -> Callable[[np.ndarray], np.ndarray]:
    """The magnitude of a Butterworth band-pass from `low` (above 0, so that no offset passes) to `high` Hz."""
    return lambda f: 1 / np.sqrt((1 + (low / np.maximum(f, 1e-3)) ** (2 * order)) * (1 + (f / high) ** (2 * order)))


def _wander(n: int, sr: int, generator: Generator, rate: float) -> np.ndarray:
    """A smooth random curve with mean 0, deviation about 1 and about `rate` turning points per second: (n,)."""
    fine = 16  # points on a cubic step from one turning point to the next; straight lines join them
    t = np.arange(fine, dtype=np.float32) / fine
    turns = generator.standard_normal(int(n / sr * rate) + 3, dtype=np.float32)[:, None]  # (turns, 1)
    points = (turns[:-1] + np.diff(turns, axis=0) * (3 - 2 * t) * t * t).ravel()  # (turns * fine,)
    start = fine * generator.random()
    where = np.linspace(start, start + fine * rate * n / sr, n)  # (n,)
    return np.interp(where, np.arange(len(points)), points).astype(np.float32)


def _wavetable(period: np.ndarray, frequency: np.ndarray, sr: int, start: float) -> np.ndarray:
    """Repeat one period; `frequency` (n,) in Hz may change from sample to sample, and the phase is its sum."""
    phase = start + np.cumsum(frequency) / sr  # in periods
    return period[((phase % 1) * len(period)).astype(np.intp)]


def _scatter(n: int, starts: np.ndarray, gains: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Copies of `sound`, each with its gain, at the sample numbers `starts` (below n): (n,)."""
    out = np.zeros(n + len(sound), np.float32)
    for start, gain in zip(starts, gains, strict=True):
        out[start : start + len(sound)] += np.float32(gain) * sound
    return out[:n]


def _burst(sr: int, generator: Generator, seconds: float, low: float, high: float) -> np.ndarray:
    """A click: band-limited noise with a short attack and an exponential decay."""
    n = max(8, int(5 * seconds * sr))
    t = np.arange(n) / sr
    attack = np.minimum(1, t / 0.0005)
    hiss = _coloured(n, sr, generator, _band(low, min(high, 0.45 * sr)))
    return (hiss * attack * np.exp(-t / seconds)).astype(np.float32)


def white(n: int, sr: int, generator: Generator) -> np.ndarray:
    """The same power in every hertz."""
    return _coloured(n, sr, generator, np.ones_like)


def pink(n: int, sr: int, generator: Generator) -> np.ndarray:
    """The same power in every octave: power falls as 1/f, 3 dB per octave."""
    return _coloured(n, sr, generator, lambda f: np.maximum(f, LOWEST) ** -0.5)


def brown(n: int, sr: int, generator: Generator) -> np.ndarray:
    """The path of a random walk (Brownian motion): power falls as 1/f^2, 6 dB per octave."""
    return _coloured(n, sr, generator, lambda f: np.maximum(f, LOWEST) ** -1.0)


def hum(n: int, sr: int, generator: Generator) -> np.ndarray:
    """Mains hum: 50 or 60 Hz with harmonics, at a slightly varying frequency, and a little hiss."""
    mains = (50.0, 60.0)[generator.integers(2)]
    k = np.arange(1, 1 + min(16, int(0.45 * sr / mains)))[:, None]  # (harmonics, 1)
    weight = generator.uniform(0.3, 1, k.shape) / k * np.where(k % 2, 1, 0.5)  # odd harmonics are stronger
    turn = np.arange(4096) / 4096 + generator.random(k.shape)
    period = np.sum(weight * np.sin(2 * np.pi * k * turn), axis=0)  # (4096,)
    frequency = mains + 0.05 * _wander(n, sr, generator, 0.5)
    tone = _wavetable(period, frequency, sr, generator.random()) * (1 + 0.1 * _wander(n, sr, generator, 0.3))
    return _unit(tone / period.std() + 0.02 * pink(n, sr, generator))


def babble(n: int, sr: int, generator: Generator, voices: list | None = None) -> np.ndarray:
    """Eight people at once: `voices` (arrays, repeated as needed) or, without any, noise with the rhythm of speech."""
    voices = [np.ravel(voice) for voice in voices or [] if np.any(voice)]
    speech_like = None if voices else _coloured(n, sr, generator, _band(120, 500, 1))  # the average spectrum of speech
    room = 0.003 * pink(n, sr, generator)
    for _ in range(8):
        if voices:
            voice = voices[generator.integers(len(voices))]
            voice = np.resize(np.roll(voice, generator.integers(len(voice))), n)
        else:  # the same noise from another place on, with about four syllables a second and pauses
            syllables = np.maximum(0, 0.3 + _wander(n, sr, generator, generator.uniform(6, 9)))
            voice = np.roll(speech_like, generator.integers(n)) * syllables
        distance = generator.uniform(1, 4)
        room += voice / (distance * (np.sqrt(voice @ voice / n) + 1e-6))
    return _unit(room)


def rain(n: int, sr: int, generator: Generator) -> np.ndarray:
    """Far drops add up to a hiss; a few near ones are heard separately, each with its own strength."""
    near = generator.poisson(generator.uniform(5, 80) * n / sr)
    drop = _burst(sr, generator, 0.002, generator.uniform(700, 1500), 7000)
    drops = _scatter(n, generator.integers(0, n, near), generator.lognormal(0, 0.7, near), drop)
    hiss = _coloured(n, sr, generator, _band(400, 5000, 1))
    return _unit(hiss * (1 + 0.1 * _wander(n, sr, generator, 2)) + drops)


def wind(n: int, sr: int, generator: Generator) -> np.ndarray:
    """Gusts: stronger wind makes the rumble louder, and the whistle above it even more."""
    gust = np.exp(0.6 * _wander(n, sr, generator, generator.uniform(0.5, 1.5)))
    pitch = generator.uniform(300, 700)
    rumble = brown(n, sr, generator)
    whistle = _coloured(n, sr, generator, _band(pitch, 1.5 * pitch, 3))
    return _unit(rumble * gust + 0.15 * whistle * gust**2)


def engine(n: int, sr: int, generator: Generator) -> np.ndarray:
    """Ignitions of slightly different cylinders at a varying speed, and noise of the road."""
    cylinders = int(generator.integers(3, 7))
    turns = generator.uniform(10, 25)  # cycles of all cylinders per second
    t = np.arange(1024) / 1024
    ring = np.exp(-6 * t) * np.sin(2 * np.pi * generator.uniform(2, 5) * t)
    period = np.concatenate([generator.uniform(0.6, 1.2) * ring for _ in range(cylinders)])
    audible = np.arange(len(period) // 2 + 1) * turns < 0.4 * sr  # no partial beyond sr / 2, where it would fold back
    period = irfft(rfft(period) * audible, len(period))
    period -= period.mean()
    frequency = turns * (1 + 0.03 * _wander(n, sr, generator, 0.7) + 0.004 * _wander(n, sr, generator, 15))
    motor = _wavetable(period / period.std(), frequency, sr, generator.random())
    road = _coloured(n, sr, generator, lambda f: np.maximum(f, 60) ** -0.8)
    return _unit(motor + generator.uniform(0.15, 0.5) * road)


def keyboard(n: int, sr: int, generator: Generator) -> np.ndarray:
    """Typing: a click when a key goes down and a softer one when it comes up, in words with pauses between them."""
    count = 2 + int(n / sr * 12)
    gaps = generator.gamma(4, 0.035, count) + (generator.random(count) < 0.15) * generator.exponential(0.5, count)
    down = np.cumsum(gaps) - 0.5 * gaps[0]  # seconds
    up = down + generator.uniform(0.06, 0.12, count)
    sound = 0.02 * pink(n, sr, generator)  # the room
    key = generator.integers(0, 4, count)  # four keys that sound different
    for k in range(4):
        for when, strength in ((down, 1.0), (up, 0.4)):
            starts = (when[key == k] * sr).astype(np.intp)
            starts = starts[starts < n]
            gains = strength * generator.lognormal(0, 0.3, len(starts))
            click = _burst(sr, generator, generator.uniform(0.003, 0.008), generator.uniform(300, 2000), 8000)
            sound = sound + 5 * _scatter(n, starts, gains, click)
    return _unit(sound)


NOISES = {f.__name__: f for f in (white, pink, brown, hum, babble, rain, wind, engine, keyboard)}
