"""What notebook 07 builds by hand is what the module has, and its sliders change what is heard."""

import math

import pytest
import torch
from lift import catch_displays, definitions, move, slider_cell

from wavelldm.codec.fsq import code_to_digits
from wavelldm.codec.model import Codec
from wavelldm.course import codes as analysis
from wavelldm.course import notebook, widgets
from wavelldm.training.presets import preset

HAND = definitions("07")
SR, HOP, LEVELS, ENTRIES = 16_000, 256, (8, 8, 8, 6, 5), 15_360


def some_codes(frames=200, seed=0, high=ENTRIES):
    return torch.randint(high, (4, frames), generator=torch.Generator().manual_seed(seed))


def some_sound(seconds=1.0, seed=0):
    t = torch.arange(round(seconds * SR)) / SR
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(seed))
    return (0.3 * torch.sin(2 * math.pi * 200 * t) * (t % 0.3 < 0.1) + 0.05 * noise * (t % 0.3 > 0.2))[None]


def test_the_definitions_are_the_notebooks_own():
    for name in ("usage", "perplexity", "flip_rate", "neighbours", "information", "frame_features", "frame_classes"):
        assert HAND[name] is not getattr(analysis, name)


@pytest.mark.parametrize("high", (3, 300, ENTRIES))
def test_counting_is_the_modules(high):
    codes, others = some_codes(high=high), some_codes(high=high, seed=1)
    assert torch.equal(HAND["usage"](codes, ENTRIES), analysis.usage(codes, ENTRIES))
    assert torch.allclose(HAND["perplexity"](codes, ENTRIES), analysis.perplexity(codes, ENTRIES))
    assert torch.equal(HAND["flip_rate"](codes, others), analysis.flip_rate(codes, others))


def test_changes_and_phonemes_are_the_modules():
    codes, marks = some_codes(high=3), [(0.02, "ʃ"), (0.105, "ˈiː"), (0.15, "")]
    assert torch.equal(HAND["changes"](codes), analysis.change_rate(codes)) and HAND["changes"](codes).min() > 0.5
    assert HAND["frame_phonemes"](marks, 12, 62.5) == analysis.frame_phonemes(marks, 12, 62.5)


def test_neighbours_are_the_modules():
    for code in (0, 1, 777, 9_000, ENTRIES - 1):
        assert set(HAND["neighbours"](code, LEVELS).tolist()) == set(analysis.neighbours(code, LEVELS).tolist())


def test_information_is_the_modules():
    digits, classes = some_codes(high=8)[0], some_codes(high=4, seed=1)[0]
    assert HAND["information"](digits, classes) == pytest.approx(analysis.information(digits, classes))


@pytest.mark.parametrize("hop", (HOP, 441))
def test_frames_are_the_modules(hop):
    wav = some_sound()
    assert torch.equal(HAND["frame_features"](wav, SR, hop), analysis.frame_features(wav, SR, hop))
    classes = HAND["frame_classes"](wav, SR, hop)
    assert torch.equal(classes, analysis.frame_classes(wav, SR, hop)) and len(classes.unique()) > 2
    assert (HAND["frame_classes"](0 * wav, SR, hop) == analysis.SILENCE).all()
    for number, name in enumerate(analysis.CLASSES):
        assert HAND["CLASSES"][number] == name and HAND[name.upper()] == number == getattr(analysis, name.upper())


def test_edits_move_the_digits_they_name_and_stop_at_the_last_level():
    codes = some_codes()
    moved = HAND["shifted"](codes, LEVELS, 2, [3, 0, -2, 0, 9], 50, 100)
    before, after = code_to_digits(codes, LEVELS), code_to_digits(moved, LEVELS)
    assert torch.equal(moved[[0, 1, 3]], codes[[0, 1, 3]])
    assert torch.equal(moved[2, :50], codes[2, :50]) and torch.equal(moved[2, 100:], codes[2, 100:])
    assert torch.equal(after[2, 50:100, 0], (before[2, 50:100, 0] + 3).clamp(max=7))
    assert torch.equal(after[2, 50:100, 2], (before[2, 50:100, 2] - 2).clamp(min=0))
    assert torch.equal(after[2, 50:100, 1], before[2, 50:100, 1]) and (after[2, 50:100, 4] == 4).all()


def test_operations_touch_one_codebook_alone():
    codes, other = some_codes(), some_codes(seed=1)
    operate = HAND["operate"]
    assert torch.equal(operate(codes, other, 1, "nothing"), codes)
    assert torch.equal(operate(codes, other, 1, "swap")[1], other[1])
    assert (operate(codes, other, 1, "drop")[1] == -1).all()
    assert (operate(codes, other, 1, "hold")[1] == codes[1, 0]).all()
    shuffled = operate(codes, other, 1, "shuffle")[1]
    assert torch.equal(shuffled.sort().values, codes[1].sort().values) and not torch.equal(shuffled, codes[1])
    for what in ("drop", "swap", "hold", "shuffle"):
        assert torch.equal(operate(codes, other, 1, what)[[0, 2, 3]], codes[[0, 2, 3]])


def test_principal_components_are_those_of_the_covariance():
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 1, 1, 1, 1]) + 7
    place, shares = HAND["principal"](x, 2)
    values = torch.linalg.eigvalsh(x.T.cov()).flip(0)
    assert torch.allclose(place.T.cov(), torch.diag(values[:2]), atol=1e-3)
    assert torch.allclose(shares, values[:2] / values.sum(), atol=1e-5)


# --- the sliders, moved from code, with a small untrained codec in place of the shipped one


def explorer(name: str, monkeypatch):
    """Run the notebook's cell that shows the sliders of function `name` -> its controls, what it displayed."""
    torch.manual_seed(0)
    codec = Codec(preset("tiny").codec).eval()
    space, places, cell = definitions("07"), catch_displays(monkeypatch, widgets), slider_cell("07", name)
    wav, other = some_sound(), some_sound(seed=1)
    with torch.no_grad():
        z, codes = space["encode"](codec, wav)
        high = space["encode"](codec, other)[1]
        plain = space["decode"](codec, codes, wav.shape[-1])
        space |= {
            "codec": codec,
            "course": notebook,
            "plt": space["plots"].pyplot(),
            "sr": SR,
            "hop": HOP,
            "levels": LEVELS,
        }
        space |= {
            "rate": SR / HOP,
            "codebooks": 4,
            "entries": ENTRIES,
            "wav": wav,
            "z": z,
            "codes": codes,
            "plain": plain,
        }
        space |= {"before": plain, "low_codes": codes, "high_codes": high, "length": wav.shape[-1]}
        space |= {"classes": space["frame_classes"](wav, SR, HOP)}
        exec(cell, space)
    return space["controls"], places


MOVES = [
    ("surgery", {"what": "shuffle"}),
    ("surgery", {"what": "drop", "codebook": 4}),
    ("keep", {"number": 4}),
    ("weather", {"snr": -5.0}),
    ("weather", {"kind": "keyboard"}),
]


@pytest.mark.parametrize("name, values", MOVES, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_moving_a_slider_changes_the_sound(name, values, monkeypatch):
    controls, places = explorer(name, monkeypatch)
    with torch.no_grad():
        move(controls, places, values)


def test_a_slider_that_is_put_back_brings_the_same_sound_back(monkeypatch):
    controls, places = explorer("surgery", monkeypatch)
    with torch.no_grad():
        for value in ("drop", "shuffle", "drop"):
            controls["what"].value = value
    _, first, moved, again = (sound.data for sound in places[1].items)
    assert first == again != moved
