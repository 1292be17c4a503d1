"""What notebook 17 builds by hand is what the module has."""

import math

import numpy as np
import pytest
import torch
from lift import definitions
from torch import nn

from wavelldm.course.steps_late import contrastive as pair_loss
from wavelldm.course.steps_late import last_token
from wavelldm.data import scenes
from wavelldm.text import bpe, conditioned, contrastive, encoder, htsat
from wavelldm.text.conditioned import TextBlock, TextDiffusion, TextDiffusionConfig, guided

torch.set_num_threads(1)
HAND = definitions("17")
NAMES = "my_join my_learn my_tokens my_head my_windows my_look my_without my_guided"
SMALL = TextDiffusionConfig(6, 2, 32, 2, 2, 16, 8)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(mine, theirs, atol=1e-5):
    assert mine.shape == theirs.shape
    assert torch.allclose(mine, theirs, atol=atol), f"differ by {(mine - theirs).abs().max():.2g}"


def condition():
    real = torch.arange(5) < torch.tensor([[3], [5], [1]])
    return noise(3, 5, 16), real, noise(3, 8, seed=2)


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = TextDiffusion(SMALL).eval()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p += 0.1 * noise(*p.shape, seed=i)
    return net


def test_the_definitions_are_the_notebooks_own():
    for name in NAMES.split():
        assert HAND[name].__module__ == "17_text_to_audio"


def test_byte_pairs():
    generators = [np.random.default_rng([9, i]) for i in range(80)]
    texts = [scenes.caption(scenes.draw(g), g) for g in generators] + ["Regen 雨 über alles"]
    pairs, theirs = HAND["my_learn"](texts, 70), bpe.learn(texts, 70)
    assert pairs == theirs.merges
    for text in (*texts[:20], "flugelhorn 🔔", texts[-1]):
        assert [theirs.numbers[t] for t in HAND["my_tokens"](text, pairs)] == theirs.encode(text)
    assert HAND["my_join"]([b"a", b"a", b"a"], (b"a", b"a")) == bpe.join([b"a", b"a", b"a"], (b"a", b"a"))


def test_an_attention_head():
    layer = encoder.SelfAttention(encoder.TextConfig(width=8, heads=1))
    nn.init.eye_(layer.c_proj.weight)
    x = noise(7, 8)
    mine, share = HAND["my_head"](x, *(10 * w for w in layer.c_attn.weight.split(8, 1)))
    layer.c_attn.weight.data *= 10
    same(mine, layer(x[None])[0], 1e-4)
    assert torch.allclose(share.sum(1), torch.ones(7)) and not share.triu(1).any()


def test_the_last_real_token():
    _, real, _ = condition()
    states = noise(3, 5, 16)
    same(last_token(states, real), encoder.last_real(states, real))


def test_windows():
    x = noise(2, 8, 16, 3)
    same(HAND["my_windows"](x, 4), htsat.windows(x, 4))


def test_the_contrastive_loss():
    a, t = (nn.functional.normalize(noise(9, 12, seed=s), dim=1) for s in (1, 2))
    for scale in (1.0, 30.0):
        mine = pair_loss(a, t, torch.tensor(scale))
        assert math.isclose(mine, contrastive.contrastive_loss(a, t, torch.tensor(scale)), rel_tol=1e-5)


def test_cross_attention():
    torch.manual_seed(0)
    block, (states, real, _) = TextBlock(SMALL), condition()
    nn.init.normal_(block.answer.weight), nn.init.normal_(block.answer.bias)
    x = noise(3, 11, 32)
    same(HAND["my_look"](block, x, states, real), block.look(x, states, real), 1e-4)


def test_withheld_conditions(network):
    withheld = torch.tensor([True, False, True])
    for mine, theirs in zip(HAND["my_without"](network, condition(), withheld), network.without(condition(), withheld)):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("guidance, rescale", [(0.0, 0.5), (3.5, 0.0), (6.0, 1.0)])
@torch.no_grad()
def test_guidance(network, guidance, rescale):
    z, t = noise(3, 6, 10), torch.tensor([10, 500, 999])
    mine = HAND["my_guided"](network, condition(), guidance, rescale)(z, t)
    same(mine, guided(network, condition(), guidance, rescale=rescale)(z, t), 1e-3)


def test_the_notebook_imports_what_it_compares_with():
    assert HAND["conditioned"] is conditioned and HAND["contrastive"] is contrastive
