"""Voices of people and made-up music that ship."""

from pathlib import Path

import pytest
import torch

from wavelldm import course
from wavelldm.audio import files
from wavelldm.cli import demo
from wavelldm.data.examples import PEOPLE, VOICES, music, voice
from wavelldm.errors import DataError


def test_eight_people_speak_for_over_a_minute_in_less_than_half_a_megabyte():
    lengths = {name: files.info(PEOPLE / f"{name}.opus").seconds for name in VOICES}
    assert 60 < sum(lengths.values()) < 90
    assert lengths == pytest.approx({name: known.seconds for name, known in VOICES.items()}, abs=0.01)
    assert {path.stem for path in PEOPLE.glob("*.opus")} == set(VOICES)
    assert sum(path.stat().st_size for path in PEOPLE.iterdir()) < 500_000
    pitches = sorted(known.pitch for known in VOICES.values())
    assert pitches[3] < 140 and pitches[4] > 180  # four low voices, four high ones


@pytest.mark.parametrize("name", VOICES)
def test_every_voice_is_sound_at_the_rate_that_is_asked_for(name):
    wav, sr = voice(name)
    assert sr == 16_000 and wav.shape == (1, pytest.approx(VOICES[name].seconds * sr, abs=200))
    assert 0.02 < wav.std() < 0.3 and wav.abs().max() <= 1
    other, rate = course.voice(name, 48_000)
    assert rate == 48_000 and other.shape[-1] == pytest.approx(3 * wav.shape[-1], abs=3)


def test_licence_and_credit_lie_beside_the_voices_and_in_the_page_on_data():
    for path in (PEOPLE / "README.md", Path(__file__).parents[2] / "data" / "README.md"):
        text = path.read_text()
        assert "CC BY 4.0" in text and "LibriSpeech" in text and "Panayotov" in text


def test_music_is_the_same_for_the_same_seed_and_has_no_gap():
    wav, sr = music()
    assert wav.shape == (1, 10 * sr) and torch.equal(wav, course.music()[0])
    assert not torch.equal(wav, music(seed=1)[0])
    assert wav.unfold(1, sr // 2, sr // 2).std(2)[:, :-1].min() > 0.01  # the last notes fade


def test_mistakes_are_sentences():
    with pytest.raises(DataError, match="there is no voice 'p232'; choose one of: 1183"):
        voice("p232")
    with pytest.raises(DataError, match="at least 2 seconds"):
        music(1.0)


def test_the_demo_takes_a_person_instead_of_the_synthesiser():
    clean, rainy = demo.clip(16_000, "1363")
    wav = voice("1363")[0]
    assert torch.allclose(clean / clean.abs().max(), wav / wav.abs().max(), atol=1e-6)
    assert rainy.shape == clean.shape and not torch.equal(demo.clip(16_000)[0], clean)
