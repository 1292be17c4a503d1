"""The pair: its loss by hand, equal scenes are no mistake, retrieval after a little training, tagging."""

import math

import pytest
import torch

from wavelldm.data import scenes
from wavelldm.errors import WavelldmError
from wavelldm.text.bpe import learn
from wavelldm.text.contrastive import PairConfig, TextAudioPair, contrastive_loss, tag
from wavelldm.text.encoder import TextConfig
from wavelldm.text.htsat import HTSATConfig

LABELS = [scenes.label(name) for name in scenes.NAMES]


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    text = TextConfig(learn(LABELS, 60).text, width=32, layers=2)
    return TextAudioPair(PairConfig(text, HTSATConfig(width=16, heads=(2, 4)), 32)).eval()


def test_the_loss_by_hand():
    """Two pairs of unit vectors; scale 1."""
    sound, text = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    rows = -math.log(math.e / (math.e + math.exp(0.6))) - math.log(math.exp(0.8) / (1 + math.exp(0.8)))
    columns = -math.log(math.e / (math.e + 1)) - math.log(math.exp(0.8) / (math.exp(0.6) + math.exp(0.8)))
    assert float(contrastive_loss(sound, text, torch.tensor(1.0))) == pytest.approx((rows + columns) / 4, abs=1e-5)


def test_equal_scenes_are_no_mistake():
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    strict = contrastive_loss(vectors, vectors, torch.tensor(20.0))
    kind = contrastive_loss(vectors, vectors, torch.tensor(20.0), torch.tensor([0, 0, 1]))
    assert float(kind) < 1e-3 < 0.4 < float(strict)


def test_wrong_captions_are_refused_by_sounds_alone():
    """One sound, its own caption, and a wrong one that fits half as well: ln(1 + e^(0.5 - 1)) from the sound's side."""
    sound, text = torch.eye(2)[:1], torch.eye(2)[:1]
    wrong = torch.tensor([[0.5, 0.75**0.5]])
    loss = contrastive_loss(sound, text, torch.tensor(1.0), wrong=wrong)
    assert float(loss) == pytest.approx(0.5 * math.log(1 + math.exp(-0.5)), abs=1e-6)


def test_vectors_have_length_one_and_the_scale_an_end(pair):
    text = pair.embed_text(LABELS[:3])
    sound = pair.embed_sound(torch.randn(2, 20_000), 16_000)
    assert torch.allclose(torch.cat([text, sound]).norm(dim=1), torch.ones(5), atol=1e-5)
    pair.log_scale.data.fill_(9.0)
    assert pair.scale.item() == 100
    pair.log_scale.data.fill_(math.log(1 / 0.07))


def test_tags_are_sorted_and_sum_to_one(pair):
    wav = torch.randn(2, 30_000) * 0.1
    rows = tag(pair, wav, 22_050, LABELS)
    scores = [score for _, score in rows]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-5)
    assert {label for label, _ in rows} == set(LABELS)


def test_what_cannot_be_tagged_is_refused(pair):
    with pytest.raises(WavelldmError, match="no label"):
        tag(pair, torch.zeros(1, 16_000), 16_000, [])
    with pytest.raises(WavelldmError, match="shorter than 50 ms"):
        tag(pair, torch.zeros(1, 100), 16_000, ["rain"])
