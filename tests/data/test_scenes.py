"""Scenes: seeded, grammatical captions, what is held out never met in training, attributes that can be measured."""

import re

import numpy as np
import pytest

from wavelldm.data import scenes
from wavelldm.data.scenes import KINDS, NAMES, Event, Scene, caption, changed, draw, held_out, loudest, render
from wavelldm.errors import DataError


def generator(*seed):
    return np.random.default_rng([11, *seed])


def alone(kind, seed=0, seconds=4.0, **said):
    said = {"glide": "rising", **said} if kind == "sweep" else said
    return render(Scene((Event(kind, **said),)), generator(seed), seconds)


def centre(x):
    """Hz below which half of the power lies."""
    power = np.abs(np.fft.rfft(x)) ** 2
    return np.searchsorted(np.cumsum(power), power.sum() / 2) * scenes.SR / len(x)


def peaks(x, gap=0.2):
    """How many times the loudness rises above a quarter of its highest, at least `gap` seconds apart."""
    size = scenes.SR // 100
    level = np.sqrt(np.mean(x[: len(x) // size * size].reshape(-1, size) ** 2, 1))
    starts = np.flatnonzero(level > 0.25 * level.max())
    return 1 + int(np.sum(np.diff(starts) * 0.01 > gap))


@pytest.mark.parametrize("kind", NAMES)
def test_every_kind_can_be_heard_and_comes_again_from_its_seed(kind):
    x = alone(kind)
    assert x.dtype == np.float32 and x.shape == (64_000,) and np.isfinite(x).all()
    assert -32 < loudest(x) < -20 and np.abs(x).max() <= 0.951
    assert np.array_equal(x, alone(kind)) and not np.array_equal(x, alone(kind, 1))


@pytest.mark.parametrize("seconds", (0.25, 1.0, 7.3))
def test_scenes_of_any_length(seconds):
    for i in range(12):
        x, _, _ = scenes.example(3, i, seconds=seconds)
        assert len(x) == round(seconds * scenes.SR) and np.isfinite(x).all()
        assert seconds < 1 or np.abs(x).max() > 1e-4  # in a quarter of a second a clock need not tick


def test_no_scene_lasts_for_ever():
    with pytest.raises(DataError, match="60 seconds"):
        render(Scene((Event("rain"),)), generator(), 61)


@pytest.mark.parametrize("kind", ("bell", "beep", "hum"))
def test_high_ones_lie_above_low_ones(kind):
    assert centre(alone(kind, pitch="high")) > 1.8 * centre(alone(kind, pitch="low"))


@pytest.mark.parametrize("count", (1, 2, 3, 4))
@pytest.mark.parametrize("kind", ("beep", "knock"))
def test_events_are_counted_right(kind, count):
    assert peaks(alone(kind, count=count), 0.15) == count


@pytest.mark.parametrize("kind", ("steps", "clock", "typing"))
def test_fast_ones_come_more_often(kind):
    assert peaks(alone(kind, rate="fast"), 0.05) > 1.4 * peaks(alone(kind, rate="slow"), 0.05)


def test_loud_and_quiet_and_far():
    quiet, plain, loud = (loudest(alone("hum", level=level)) for level in ("quiet", "", "loud"))
    assert quiet < plain - 8 and plain < loud - 8
    assert centre(alone("rain", far=True)) < 0.7 * centre(alone("rain"))


def test_the_second_follows_the_first():
    x = render(Scene((Event("hiss"), Event("drum", count=1)), "then"), generator(2))
    assert centre(x[:24_000]) > 2000 > 500 > centre(x[40_000:])


def test_a_pair_is_held_out_in_one_order_only():
    pairs = [(a, b) for a in NAMES for b in NAMES if a != b and held_out("then", a, b)]
    assert 40 < len(pairs) < 60 and not [p for p in pairs if held_out("then", p[1], p[0])]
    assert {a for a, _ in pairs} == set(NAMES) == {b for _, b in pairs}


def test_training_never_meets_what_is_held_out():
    for i in range(400):
        scene, new = draw(generator(i)), draw(generator(i), new=True)
        for found, wanted in ((scene, False), (new, True)):
            if found.relation:
                assert held_out(found.relation, *(e.kind for e in found.events)) is wanted
        words = caption(scene, generator(i, 1))
        assert not re.match(r"we can hear|a sound of|first .* followed by|we hear .* and then", words)


def test_captions_are_grammatical():
    for i in range(600):
        scene = draw(generator(i), new=i % 2 == 1)
        words = caption(scene, generator(i, 2), new=i % 2 == 1)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |\bone \w+s\b", words)
        assert not re.search(r"\b(two|three|four) (\w+ )?(bell|knock|beep)\b", words)
        for event in scene.events:
            assert all(word in words for word in (event.pitch, event.rate, event.glide, event.level) if word)
            assert not event.count > 1 or scenes.NUMBERS[event.count] in words


def test_a_changed_scene_says_something_else_and_is_not_held_out():
    what = set()
    for i in range(300):
        scene = draw(generator(5, i))
        other = changed(scene, generator(6, i))
        assert other.relation == scene.relation and len(other.events) == len(scene.events)
        assert caption(other, generator(7)) != caption(scene, generator(7))
        kinds, others = ([e.kind for e in s.events] for s in (scene, other))
        if scene.relation:
            assert not held_out(other.relation, *others) and len(set(others)) == 2
        if kinds == others:
            pairs = list(zip(scene.events, other.events))
            different = [n for n in Event.__dataclass_fields__ for a, b in pairs if getattr(a, n) != getattr(b, n)]
            assert len(different) == 1
            what.add(different[0])
        elif kinds == others[::-1]:
            what.add("order")
        else:
            assert sum(a != b for a, b in zip(kinds, others)) == 1
            what.add("kind")
    assert what >= {"order", "kind", "pitch", "rate", "count", "level"}


@pytest.mark.parametrize("front", ["rain", "bell"])
def test_what_is_behind_is_neither_lost_nor_louder(front):
    """A quiet and a loud background end within the limits."""
    least, most = scenes.BEHIND_STEADY if KINDS[front].steady else scenes.BEHIND
    for level in ("quiet", "loud"):
        scene = Scene((Event(front), Event("hum", "low", level=level)), "with")
        both = render(scene, generator(1))
        a = scenes.sound(scene.events[0], len(both), generator(1))
        scale = 1.0 if np.abs(both).max() < 0.95 else both[0] / a[0]
        back = both / scale - a
        assert least - 0.5 <= loudest(a) - loudest(back) <= most + 0.5
