"""Text to sound with small untrained networks: guidance, what the text can change, lengths, refusals."""

import numpy as np
import pytest
import torch

from wavelldm.data import scenes
from wavelldm.errors import WavelldmError
from wavelldm.text import conditioned
from wavelldm.text.bpe import learn
from wavelldm.text.conditioned import TextDiffusion, TextDiffusionConfig, guided
from wavelldm.text.contrastive import PairConfig, TextAudioPair
from wavelldm.text.encoder import TextConfig, words_of
from wavelldm.text.htsat import HTSATConfig
from wavelldm.text.latent import SoundVAE, SoundVAEConfig
from wavelldm.text.text2audio import SoundMaker


@pytest.fixture(scope="module")
def maker():
    torch.manual_seed(0)
    generators = [np.random.default_rng([5, i]) for i in range(300)]
    texts = [scenes.caption(scenes.draw(g), g) for g in generators]
    words = " ".join({w for text in texts for w in words_of(text)})
    text = TextConfig(learn(texts, 150).text, words, width=32, layers=2)
    pair = TextAudioPair(PairConfig(text, HTSATConfig(width=16, heads=(2, 4)), 32)).eval()
    diffusion = TextDiffusion(TextDiffusionConfig(6, 2, 32, 2, 2, 32, 32)).eval()
    with torch.no_grad():  # what begins at zero would hide mistakes
        for p in diffusion.parameters():
            p += 0.05 * torch.randn_like(p)
    return SoundMaker(pair, SoundVAE(SoundVAEConfig(size=6, width=32)).eval(), diffusion)


def inputs(maker, batch=2, places=9):
    z = torch.randn(batch, 6, places, generator=torch.Generator().manual_seed(1))
    return z, torch.full((batch,), 500), maker.condition(["rain", "two low beeps followed by wind"][:batch])


def test_the_text_changes_what_is_predicted_and_padding_does_not(maker):
    z, t, (states, real, whole) = inputs(maker)
    v = maker.diffusion(z, t, (states, real, whole))
    assert v.shape == z.shape
    other = maker.diffusion(z, t, maker.condition(["a bell", "two low beeps followed by wind"]))
    assert not torch.allclose(v[0], other[0], atol=1e-4) and torch.allclose(v[1], other[1], atol=1e-5)
    states = torch.where(real[..., None], states, 9.0)  # at the places behind the end of text
    assert not real.all() and torch.allclose(v, maker.diffusion(z, t, (states, real, whole)), atol=1e-5)


def test_both_ways_in_are_used(maker):
    """FiLM by the vector of the whole, cross-attention by those of the tokens."""
    z, t, (states, real, whole) = inputs(maker)
    v = maker.diffusion(z, t, (states, real, whole))
    assert not torch.allclose(v, maker.diffusion(z, t, (states, real, -whole)), atol=1e-4)
    assert not torch.allclose(v, maker.diffusion(z, t, (-states, real, whole)), atol=1e-4)


def test_withheld_texts_are_all_alike(maker):
    z, t, condition = inputs(maker)
    z = z[:1].expand(2, -1, -1)
    v = maker.diffusion(z, t, maker.diffusion.without(condition, torch.tensor([True, True])))
    assert torch.allclose(v[0], v[1], atol=1e-5)
    one = maker.diffusion(z, t, maker.diffusion.without(condition, torch.tensor([True, False])))
    assert torch.allclose(one[0], v[0], atol=1e-5) and not torch.allclose(one[1], v[1], atol=1e-4)


@pytest.mark.parametrize("places", (1, 2, 7, 50))
def test_any_number_of_places(maker, places):
    z, t, condition = inputs(maker, places=places)
    assert maker.diffusion(z, t, condition).shape == z.shape


def test_guidance_is_a_straight_line(maker):
    """0: without text; 1: as trained; 3: three times the way (arXiv 2207.12598, eq. 6)."""
    z, t, condition = inputs(maker)
    z0 = [guided(maker.diffusion, condition, g, rescale=0.0)(z, t) for g in (0.0, 1.0, 3.0)]
    assert torch.allclose(z0[2], z0[0] + 3 * (z0[1] - z0[0]), atol=1e-3)
    everything = maker.diffusion.without(condition, torch.tensor([True, True]))
    assert torch.allclose(z0[0], guided(maker.diffusion, everything, 1.0)(z, t), atol=1e-4)


def test_rescaling_gives_back_the_spread(maker):
    z, t, condition = inputs(maker)
    plain = guided(maker.diffusion, condition, 1.0)(z, t)
    far = guided(maker.diffusion, condition, 8.0, rescale=1.0)(z, t)
    assert torch.allclose(far.std((1, 2)), plain.std((1, 2)), rtol=1e-3)


@pytest.mark.parametrize("places", (5, 20, 21, 50, 73))
def test_windows_that_agree_give_what_they_agree_on(places):
    """Each window answers with the place's own number: the joined answer is that, whatever the overlap."""
    seen = []

    def denoise(z_t, t):
        seen.append(z_t.shape[-1])
        return 2 * z_t

    z = torch.randn(2, 3, places)
    assert torch.allclose(conditioned.in_windows(denoise, 20, 12)(z, torch.tensor([5, 5])), 2 * z, atol=1e-5)
    assert set(seen) == {min(places, 20)}


def test_two_conditions_of_other_lengths_stack(maker):
    a, b = maker.condition(["rain"]), maker.condition(["two low beeps followed by wind"])
    states, real, whole = conditioned._stacked(a, b)
    assert len(states) == len(whole) == 2 and real[0].sum() == a[1].sum() and real[1].sum() == b[1].sum()


@pytest.mark.parametrize("seconds", (0.25, 1.0, 2.347))
def test_a_sound_is_as_long_as_was_asked_and_the_same_each_time(maker, seconds):
    wav, sr = maker.generate("a low hum with rain", seconds, steps=2)
    again, _ = maker.generate("a low hum with rain", seconds, steps=2)
    assert wav.shape == (1, round(seconds * 16_000)) and sr == 16_000 and torch.equal(wav, again)
    assert torch.isfinite(wav).all() and wav.abs().max() <= 1
    other, _ = maker.generate("a low hum with rain", seconds, steps=2, seed=1)
    assert not torch.equal(wav, other)


def test_a_negative_text_changes_the_sound(maker):
    wav, _ = maker.generate("a bell", 0.5, steps=2)
    other, _ = maker.generate("a bell", 0.5, steps=2, negative="rain")
    assert not torch.equal(wav, other)


@pytest.mark.parametrize(
    "text, settings, words",
    [
        ("", {}, "empty"),
        (" \n", {}, "empty"),
        ("rain " * 2000, {}, "too long"),
        ("дождь и ветер", {}, "no word"),
        ("雨の音", {}, "no word"),
        ("🔔🔔", {}, "no word"),
        ("rain", {"seconds": 0}, "not 0"),
        ("rain", {"seconds": 1000}, "not 1000"),
        ("rain", {"seconds": float("nan")}, "not nan"),
        ("rain", {"guidance": -1}, "guidance"),
        ("rain", {"steps": 0}, "1 to 1000 steps"),
        ("rain", {"negative": " "}, "the negative text is empty"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(maker, text, settings, words):
    with pytest.raises(WavelldmError, match=words) as error:
        maker.generate(text, **settings)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_unknown_words_are_named_and_the_rest_is_made(maker):
    with pytest.warns(UserWarning, match="'flugelhorn'"):
        wav, _ = maker.generate("rain and a flugelhorn", 0.25, steps=1)
    assert wav.shape[1] == 4000
