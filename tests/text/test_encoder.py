"""The text encoder: equal to transformers' GPT-2, the last real token in batches of mixed lengths, loading."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from reference import torchaudio  # noqa: F401  (transformers imports it)
from transformers import GPT2Config, GPT2Model

from wavelldm.data import scenes
from wavelldm.errors import WavelldmError
from wavelldm.text.bpe import SIGNS, Tokenizer, learn
from wavelldm.text.encoder import TextConfig, TextEncoder, from_gpt2, last_real, load_gpt2, published_merges

CAPTIONS = ["rain", "a low hum with steady rain", "two beeps, then wind blowing in the distance"]


@pytest.fixture(scope="module")
def merges():
    generators = [np.random.default_rng([5, i]) for i in range(300)]
    return learn([scenes.caption(scenes.draw(g), g) for g in generators], 150).text


@pytest.fixture(scope="module")
def encoder(merges):
    torch.manual_seed(0)
    return TextEncoder(TextConfig(merges, "rain a low hum with", 32, 2, 4)).eval()


@pytest.fixture(scope="module")
def gpt2(merges):
    """A random GPT2Model of transformers, with our vocabulary."""
    torch.manual_seed(1)
    size = 257 + len(merges.split("\n"))
    config = GPT2Config(vocab_size=size, n_positions=64, n_embd=128, n_layer=3, n_head=2)
    return GPT2Model(config).eval()


def test_hidden_states_equal_those_of_transformers(gpt2, merges):
    ours = from_gpt2(gpt2.state_dict(), merges)
    numbers = torch.randint(0, len(ours.tokenizer), (3, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(numbers), gpt2(numbers).last_hidden_state, atol=2e-5)


def test_a_folder_as_published_loads(gpt2, merges, tmp_path):
    tensors = {f"transformer.{k}": v.contiguous() for k, v in gpt2.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges + "\n", encoding="utf-8")
    ours = load_gpt2(str(tmp_path))
    numbers, _ = ours.tokens(CAPTIONS)
    with torch.no_grad():
        assert torch.allclose(ours(numbers), gpt2(numbers).last_hidden_state, atol=2e-5)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(WavelldmError, match="no whole model.safetensors"):
        load_gpt2(str(tmp_path))


def test_merges_come_through_the_published_tokenizer(merges, tmp_path):
    tokenizer = Tokenizer.from_text(merges)
    signs = ["".join(SIGNS[b] for b in token) for token in tokenizer.tokens]
    vocabulary = {sign: i for i, sign in enumerate([*signs, "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges + "\n", encoding="utf-8")
    assert published_merges(str(tmp_path)).merges == tokenizer.merges


def test_weights_of_another_kind_are_refused(merges):
    with pytest.raises(WavelldmError, match="no wte"):
        from_gpt2({"x": torch.zeros(2)}, merges)


def test_a_caption_is_the_same_alone_and_in_a_batch(encoder):
    """The embedding is read at the last real token, not at the padding."""
    numbers, real = encoder.tokens(CAPTIONS)
    together = last_real(encoder(numbers), real)
    assert sorted(real.sum(1).tolist()) != [real.shape[1]] * 3  # of mixed lengths
    for i, caption in enumerate(CAPTIONS):
        alone = last_real(encoder(encoder.tokens([caption])[0]), torch.ones(1, int(real[i].sum()), dtype=torch.bool))
        assert torch.allclose(together[i], alone[0], atol=1e-5)
    padded = encoder(numbers)[:, -1]
    assert not torch.allclose(together[0], padded[0], atol=1e-3)


def test_nothing_looks_ahead(encoder):
    numbers, _ = encoder.tokens([CAPTIONS[2]])
    changed = numbers.clone()
    changed[0, -1] = 5
    a, b = encoder(numbers), encoder(changed)
    assert torch.allclose(a[:, :-1], b[:, :-1]) and not torch.allclose(a[:, -1], b[:, -1])


def test_long_captions_are_cut_and_end_with_the_end(encoder):
    numbers, real = encoder.tokens(["rain " * 200])
    assert numbers.shape == (1, 77) and real.all() and numbers[0, -1] == encoder.tokenizer.end
    with pytest.raises(WavelldmError, match="77 tokens at most"):
        encoder(torch.zeros(1, 78, dtype=torch.long))


def test_unknown_words_are_named_once(encoder):
    assert encoder.unknown("Rain with a flugelhorn, flugelhorn and 雨") == ["flugelhorn", "and", "雨"]
    assert encoder.unknown("A low hum!") == []
