"""Scenes: an endless corpus of short sounds with captions, all synthesised, for learning what words sound like.

A `Scene` is one event, or two that follow each other or sound together. `draw` makes one from a random generator,
`render` turns it into samples, `caption` into a sentence in one of several phrasings. Some phrasings and some pairs of
events are held out: training never meets them, so that validation asks for something new.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy.signal import lfilter

from ..errors import DataError
from . import noises

SR = 16_000
LEVELS = {"quiet": -40.0, "": -26.0, "loud": -13.0}  # dB of the loudest 100 ms
BEHIND = (8.0, 16.0)  # dB by which the loudest of a background is below the loudest of what is in front
BEHIND_STEADY = (2.0, 10.0)  # where both go on all the time
LENGTHS = (0.25, 60.0)  # seconds that a scene may have


@dataclass(frozen=True)
class Kind:
    """One kind of event: its names in a caption, and which attributes can be told from its sound."""

    one: str  # "a bell ringing"
    many: str = ""  # "bells ringing", after a number; empty: it cannot be counted
    pitch: bool = False  # low or high
    rate: bool = False  # slow or fast
    glide: bool = False  # rising or falling
    steady: bool = False  # it goes on through the whole scene and so can be a background
    other: str = ""  # another name for `one`


KINDS = {
    "rain": Kind("rain", steady=True, other="rain falling"),
    "wind": Kind("wind", steady=True, other="wind blowing"),
    "engine": Kind("an engine", steady=True, other="an engine running"),
    "hum": Kind("a hum", steady=True, pitch=True, other="a humming sound"),
    "hiss": Kind("white noise", steady=True, other="hissing noise"),
    "crowd": Kind("people talking", steady=True, other="a crowd talking"),
    "typing": Kind("typing on a keyboard", steady=True, rate=True, other="keyboard typing"),
    "siren": Kind("a siren", steady=True, other="a siren wailing"),
    "bell": Kind("a bell ringing", "bells ringing", pitch=True, other="a bell"),
    "knock": Kind("a knock", "knocks", other="knocking on a door"),
    "beep": Kind("a beep", "beeps", pitch=True, other="a beep sounding"),
    "dog": Kind("a dog barking", "barks of a dog", other="a barking dog"),
    "drum": Kind("a drum hit", "drum hits", other="a drum"),
    "sweep": Kind("a tone", glide=True, other="a whistle"),
    "bird": Kind("a bird singing", steady=True, other="a bird chirping"),
    "steps": Kind("footsteps", steady=True, rate=True, other="someone walking"),
    "clock": Kind("a clock ticking", steady=True, rate=True, other="the ticking of a clock"),
}
NAMES = tuple(KINDS)
NUMBERS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Event:
    """One event of a scene. An attribute that is empty, or a count of 0, is left to chance and not in the caption."""

    kind: str
    pitch: str = ""  # "low" or "high"
    rate: str = ""  # "slow" or "fast"
    glide: str = ""  # "rising" or "falling"
    count: int = 0  # 1 to 4
    level: str = ""  # "quiet" or "loud"
    far: bool = False  # heard from a distance


@dataclass(frozen=True)
class Scene:
    """One or two events. `relation`: "" (one event), "then" (the second follows) or "with" (the second is behind)."""

    events: tuple
    relation: str = ""


def held_out(relation: str, first: str, second: str) -> bool:
    """Whether training never meets this pair; if so, it does meet the two in the other order ("then") or apart."""
    a, b = NAMES.index(first), NAMES.index(second)
    if relation == "with":
        return (3 * a + b) % 7 == 2
    return (a - b) % len(NAMES) in (3, 8, 12)  # of a and b in one order only: 17 - 3, 17 - 8, 17 - 12 are not here


def draw(generator: Generator, new: bool = False, relation: str | None = None) -> Scene:
    """A random scene. `new`: if it has two events, they are a pair that is held out; otherwise one that is not."""
    if relation is None:
        relation = ("", "", "then", "with")[generator.integers(4)]
    if not relation:
        return Scene((draw_event(generator, NAMES[generator.integers(len(NAMES))]),))
    steady = [name for name in NAMES if KINDS[name].steady]
    while True:
        first = NAMES[generator.integers(len(NAMES))]
        second = steady[generator.integers(len(steady))] if relation == "with" else NAMES[generator.integers(17)]
        if first != second and held_out(relation, first, second) == new:
            break
    return Scene((draw_event(generator, first, 0.5), draw_event(generator, second, 0.5)), relation)


def draw_event(generator: Generator, kind: str, share: float = 1.0) -> Event:
    """An event of this kind with some attributes. `share`: how likely attributes are, beside those of a lone event."""
    k, said = KINDS[kind], {}

    def perhaps(chance: float) -> bool:
        return generator.random() < chance * share

    def one(*choices: str) -> str:
        return choices[generator.integers(len(choices))]

    if k.pitch and perhaps(0.7):
        said["pitch"] = one("low", "high")
    if k.rate and perhaps(0.6):
        said["rate"] = one("slow", "fast")
    if k.glide:
        said["glide"] = one("rising", "falling")
    if k.many and perhaps(0.8):
        said["count"] = int(generator.integers(1, 5))
    if perhaps(0.3):
        said["level"] = one("quiet", "loud")
    elif perhaps(0.15):
        said["far"] = True
    return Event(kind, **said)


OPPOSITE = {"low": "high", "slow": "fast", "rising": "falling", "quiet": "loud"}
OPPOSITE |= {b: a for a, b in OPPOSITE.items()}


def changed(scene: Scene, generator: Generator) -> Scene:
    """The scene with one thing that its caption says made wrong: the order, one kind, one attribute or one number.
    What is held out stays so.

    Captions of such scenes are hard negatives for a contrastive loss (arXiv 2210.01936, section 4).
    """
    while True:
        if scene.relation == "then" and generator.random() < 0.5:
            events = list(scene.events[::-1])
        else:
            events, place = list(scene.events), int(generator.integers(len(scene.events)))
            events[place] = altered(events[place], generator)
        kinds = [event.kind for event in events]
        if scene.relation == "with" and not KINDS[kinds[1]].steady or len(set(kinds)) < len(kinds):
            continue
        if not scene.relation or not held_out(scene.relation, *kinds):
            return Scene(tuple(events), scene.relation)


def altered(event: Event, generator: Generator) -> Event:
    """Another kind of event, or the same with one attribute or its number changed."""
    said = [name for name in ("pitch", "rate", "glide", "level", "count") if getattr(event, name)]
    what = ["kind", *said][generator.integers(1 + len(said))]
    if what == "kind":
        others = [name for name in NAMES if name != event.kind]
        return draw_event(generator, others[generator.integers(len(others))], 0.5)
    if what == "count":
        return replace(event, count=int(generator.choice([n for n in range(1, 5) if n != event.count])))
    return replace(event, **{what: OPPOSITE[getattr(event, what)]})


# --- words ----------------------------------------------------------------------------------------------------------

SINGLE = ("{a}", "{a}.", "the sound of {a}", "we hear {a}", "{a} can be heard", "a recording of {a}")
THEN = ("{a}, then {b}", "{a} followed by {b}", "first {a}, then {b}", "{b} after {a}", "{a} and then {b}")
WITH = ("{a} with {b}", "{a} along with {b}", "{a} over {b}", "{a} and {b} at the same time", "{a} with {b} behind")
NEW = {
    "": ("we can hear {a}", "a sound of {a}"),
    "then": ("we hear {a} and then {b}", "first {a} followed by {b}"),
    "with": ("{a} with {b} at the same time", "the sound of {a} over {b}"),
}


def phrase(event: Event, generator: Generator) -> str:
    """The event as a noun phrase: "three low bells ringing in the distance"."""
    k = KINDS[event.kind]
    adjectives = [word for word in (event.level, event.pitch, event.rate, event.glide) if word]
    generator.shuffle(adjectives)
    if event.count > 1:
        words = [NUMBERS[event.count], *adjectives, k.many]
    else:
        name = k.other if k.other and event.count == 0 and generator.random() < 0.4 else k.one
        article, _, noun = name.partition(" ")
        if event.count == 1:
            words = [("one", "a single")[generator.integers(2)], *adjectives, noun]
        elif article in ("a", "an", "the", "someone"):
            if article == "someone":
                article, noun = "", "footsteps" if adjectives else name
            elif adjectives and article != "the":
                article = "an" if adjectives[0][0] in "aeiou" else "a"
            elif adjectives:
                article, noun = "the", noun
            words = [article, *adjectives, noun]
        else:
            words = [*adjectives, name]
    text = " ".join(word for word in words if word)
    return text + (" in the distance", " far away")[generator.integers(2)] if event.far else text


def caption(scene: Scene, generator: Generator, new: bool = False) -> str:
    """The scene in words. `new`: in a phrasing that is held out."""
    patterns = NEW[scene.relation] if new else {"": SINGLE, "then": THEN, "with": WITH}[scene.relation]
    parts = [phrase(event, generator) for event in scene.events]
    return patterns[generator.integers(len(patterns))].format(a=parts[0], b=parts[-1])


def label(kind: str) -> str:
    """The shortest caption of a kind, for tagging."""
    return KINDS[kind].one


# --- sounds ---------------------------------------------------------------------------------------------------------


def _ring(seconds: float, partials: list, decay: float, sr: int = SR) -> np.ndarray:
    """Partials [(Hz, strength, share of the decay)] that die away."""
    t = np.arange(round(seconds * sr)) / sr
    return sum(g * np.sin(2 * np.pi * f * t) * np.exp(-t / (decay * d)) for f, g, d in partials if f < 0.45 * sr)


def _fade(x: np.ndarray, seconds: float = 0.01, sr: int = SR) -> np.ndarray:
    """Rise and fall at the ends."""
    n = min(len(x) // 2, round(seconds * sr))
    x[:n] *= np.linspace(0, 1, n)
    x[len(x) - n :] *= np.linspace(1, 0, n)
    return x


def _pitched(g: Generator, pitch: str, low: tuple, high: tuple) -> float:
    """Hz from the range of low or high ones."""
    chosen = {"low": low, "high": high}[pitch or ("low", "high")[g.integers(2)]]
    return float(np.exp(g.uniform(*np.log(chosen))))


def bell(g: Generator, e: Event) -> np.ndarray:
    f, decay = _pitched(g, e.pitch, (220, 420), (1000, 2000)), g.uniform(0.3, 0.6)
    strengths = g.uniform(0.3, 1, 5)
    ratios = (0.5, 1.0, 1.19, 2.0, 2.76)
    return _ring(1.2, [(f * r, s, 1 / r**0.5) for r, s in zip(ratios, strengths)], decay)


def knock(g: Generator, e: Event) -> np.ndarray:
    f = g.uniform(150, 300)
    body = _ring(0.25, [(f, 1, 1), (f * 2.3, 0.5, 0.6), (f * 3.7, 0.3, 0.4)], 0.03)
    click = noises._burst(SR, g, 0.004, 300, 3000)
    body[: len(click)] += 0.4 * click[: len(body)]
    return body


def drum(g: Generator, e: Event) -> np.ndarray:
    t = np.arange(round(0.5 * SR)) / SR
    f = g.uniform(60, 90)
    phase = 2 * np.pi * np.cumsum(f * (1 + 1.5 * np.exp(-t / 0.03))) / SR
    skin = np.sin(phase) * np.exp(-t / 0.15)
    return skin + 0.25 * g.standard_normal(len(t)) * np.exp(-t / g.uniform(0.03, 0.08))


def beep(g: Generator, e: Event) -> np.ndarray:
    f = _pitched(g, e.pitch, (250, 500), (1500, 3000))
    t = np.arange(round(g.uniform(0.15, 0.25) * SR)) / SR
    tone = np.sin(2 * np.pi * f * t) + g.uniform(0, 0.3) * np.sin(4 * np.pi * f * t)
    return _fade(tone)


def dog(g: Generator, e: Event) -> np.ndarray:
    n = round(g.uniform(0.18, 0.28) * SR)
    t = np.arange(n) / n
    f = g.uniform(350, 600) * (1 + 0.5 * np.sin(np.pi * t**0.7) - 0.3 * t)
    phase = np.cumsum(f) / SR
    voice = sum(np.sin(2 * np.pi * k * phase) / k**0.7 for k in range(1, 7))
    rough = noises._coloured(n, SR, g, noises._band(600, 2500)) * 0.8
    return (voice / 2 + rough) * np.sin(np.pi * t**0.5) ** 0.7


def chirp(g: Generator) -> np.ndarray:
    """One note of a bird."""
    n = round(g.uniform(0.06, 0.16) * SR)
    t = np.arange(n) / n
    f = g.uniform(2500, 4500) * (1 + g.uniform(-0.3, 0.3) * t + 0.1 * np.sin(2 * np.pi * g.uniform(1, 4) * t))
    return np.sin(2 * np.pi * np.cumsum(f) / SR) * np.sin(np.pi * t)


def step(g: Generator) -> np.ndarray:
    heel = noises._burst(SR, g, 0.012, 80, 700) + 0.3 * noises._burst(SR, g, 0.012, 1000, 4000)
    return np.concatenate([heel, np.zeros(300)])


def tick(g: Generator) -> np.ndarray:
    return _ring(0.05, [(g.uniform(2200, 2800), 1, 1), (g.uniform(4500, 5500), 0.8, 0.7)], 0.006)


HITS = {"bell": bell, "knock": knock, "drum": drum, "beep": beep, "dog": dog}
GAPS = {"bell": (0.45, 0.6), "knock": (0.25, 0.4), "drum": (0.3, 0.5), "beep": (0.35, 0.5), "dog": (0.4, 0.6)}


def hits(n: int, g: Generator, e: Event) -> np.ndarray:
    """So many hits one after the other, all alike but for a little."""
    count = e.count or int(g.integers(1, 5))
    gap = min(g.uniform(*GAPS[e.kind]), 0.9 * n / SR / count)
    first = g.uniform(0.02, max(0.03, min(0.3, n / SR - gap * count)))
    out, state = np.zeros(n + 2 * SR), g.bit_generator.state
    for i in range(count):
        g.bit_generator.state = state
        sound = HITS[e.kind](g, e) * (1 - 0.15 * (i % 2))
        start = round((first + i * gap) * SR)
        out[start : start + len(sound)] += sound
    return out[:n]


def repeated(n: int, g: Generator, make: Callable, gap: float, wobble: float) -> np.ndarray:
    """`make(g)` again and again, `gap` seconds apart, each a little early or late."""
    out = np.zeros(n + SR)
    for start in np.arange(g.uniform(0, gap), n / SR, gap) + 0.0:
        sound = make(g) * g.uniform(0.7, 1)
        at = round(max(0.0, start + g.normal(0, wobble * gap)) * SR)
        out[at : at + len(sound)] += sound[: len(out) - at]
    return out[:n]


def _rate(g: Generator, rate: str, slow: tuple, fast: tuple) -> float:
    """Seconds between two, slow or fast."""
    return g.uniform(*{"slow": slow, "fast": fast}[rate or ("slow", "fast")[g.integers(2)]])


def hum(n: int, g: Generator, e: Event) -> np.ndarray:
    f = _pitched(g, e.pitch, (60, 120), (300, 600))
    k = np.arange(1, 7)[:, None]
    t = np.arange(n) / SR
    weight = g.uniform(0.3, 1, k.shape) / k
    return np.sum(weight * np.sin(2 * np.pi * (k * f * t + g.random(k.shape))), 0) + 0.01 * g.standard_normal(n)


def siren(n: int, g: Generator, e: Event) -> np.ndarray:
    t = np.arange(n) / SR
    turn = np.sin(2 * np.pi * (g.uniform(0.4, 0.8) * t + g.random()))
    phase = np.cumsum(g.uniform(700, 1000) * 2 ** (0.5 * turn)) / SR
    return sum(np.sin(2 * np.pi * k * phase) / k for k in (1, 2, 3))


def sweep(n: int, g: Generator, e: Event) -> np.ndarray:
    low, high = g.uniform(250, 450), g.uniform(1800, 3000)
    if e.glide == "falling":
        low, high = high, low
    m = min(n, round(g.uniform(1.0, 1.8) * SR))
    t = np.arange(m) / m
    tone = _fade(np.sin(2 * np.pi * np.cumsum(low * (high / low) ** t) / SR), 0.05)
    out, start = np.zeros(n), int(g.uniform(0, min(0.3 * SR, n - m + 1)))
    out[start : start + m] = tone
    return out


def birds(n: int, g: Generator, e: Event) -> np.ndarray:
    out, at = np.zeros(n + SR), g.uniform(0, 0.3)
    while at < n / SR:
        note = chirp(g)
        for _ in range(g.integers(1, 5)):
            start = round(at * SR)
            if start < n:
                out[start : start + len(note)] += note
            at += len(note) / SR + g.uniform(0.02, 0.08)
        at += g.uniform(0.15, 0.5)
    return out[:n]


STEADY = {
    "rain": lambda n, g, e: noises.rain(n, SR, g),
    "wind": lambda n, g, e: noises.wind(n, SR, g),
    "engine": lambda n, g, e: noises.engine(n, SR, g),
    "hum": hum,
    "hiss": lambda n, g, e: noises.white(n, SR, g),
    "crowd": lambda n, g, e: noises.babble(n, SR, g),
    "typing": lambda n, g, e: repeated(
        n, g, lambda g: noises._burst(SR, g, 0.006, 1000, 7000), _rate(g, e.rate, (0.3, 0.4), (0.09, 0.13)), 0.25
    ),
    "siren": siren,
    "sweep": sweep,
    "bird": birds,
    "steps": lambda n, g, e: repeated(n, g, step, _rate(g, e.rate, (0.7, 0.95), (0.28, 0.36)), 0.03),
    "clock": lambda n, g, e: repeated(n, g, tick, _rate(g, e.rate, (0.8, 1.0), (0.2, 0.3)), 0.0),
}


def loudest(x: np.ndarray) -> float:
    """dB of the root mean square of the loudest 100 ms."""
    size = min(len(x), SR // 10)
    power = np.convolve(np.square(x, dtype=np.float64), np.ones(size) / size, "valid")
    return 10 * np.log10(power.max() + 1e-12)


def sound(event: Event, n: int, generator: Generator) -> np.ndarray:
    """One event of n samples at its level (n,)."""
    make = hits if event.kind in HITS else STEADY[event.kind]
    x = np.asarray(make(n, generator, event), np.float64)
    if event.far:  # the air takes the treble, the surroundings answer
        x = lfilter([0.25], [1, -0.75], x)
        for delay, gain in ((0.031, 0.5), (0.047, 0.4), (0.071, 0.3), (0.113, 0.2)):
            late = np.zeros(n)
            late[min(n, round(delay * SR)) :] = x[: max(0, n - round(delay * SR))]
            x = x + gain * late
    level = LEVELS[event.level] + generator.uniform(-2, 2) - 6 * event.far
    return x * 10 ** ((level - loudest(x)) / 20)


def render(scene: Scene, generator: Generator, seconds: float = 4.0) -> np.ndarray:
    """The scene as samples at 16 kHz, float32 (seconds * SR,)."""
    if not LENGTHS[0] <= seconds <= LENGTHS[1]:
        raise DataError(f"a scene lasts {LENGTHS[0]:g} to {LENGTHS[1]:g} seconds, not {seconds:g}")
    n = round(seconds * SR)
    if scene.relation == "then":
        cut = round(n * generator.uniform(0.45, 0.55))
        parts = [sound(e, m, generator) for e, m in zip(scene.events, (cut, n - cut))]
        x = np.concatenate([_fade(part, 0.02) for part in parts])
    elif scene.relation == "with":
        front, back = (sound(event, n, generator) for event in scene.events)
        below = loudest(front) - loudest(back)  # dB
        least, most = BEHIND_STEADY if KINDS[scene.events[0].kind].steady else BEHIND
        x = front + back * 10 ** ((below - min(max(below, least), most)) / 20)  # so that both can be heard
    else:
        x = sound(scene.events[0], n, generator)
    return (x * min(1.0, 0.95 / (np.abs(x).max() + 1e-9))).astype(np.float32)


def example(
    seed: int, index: int, new: bool = False, seconds: float = 4.0, relation: str | None = None
) -> tuple[np.ndarray, str, Scene]:
    """The scene number `index` of a seed: samples, caption, and what it is. `new`: of what is held out; `relation`: how
    many events, and how they are related, as in `Scene`."""
    generator = np.random.default_rng([seed, index, int(new)])
    scene = draw(generator, new, relation)
    words = caption(scene, generator, new)
    return render(scene, generator, seconds), words, scene
