"""Byte-pair encoding: merges learnt by hand, equality with the reference implementation on real text, bad files."""

from pathlib import Path

import numpy as np
import pytest
import tokenizers

from wavelldm.data import scenes
from wavelldm.errors import WavelldmError
from wavelldm.text.bpe import BYTES, SIGNS, Tokenizer, learn, split

ROOT = Path(__file__).parent.parent.parent
HARD = [
    "a bell, then rain",
    "it's the dog's; they'll we've I'd",
    "  two  blanks\n\nand\tlines  ",
    "café naïve Ünïcode",
    "ДОЖДЬ и ветер",
    "雨の音 123 ½ ²",
    "🔔🌧️ ok_under_score",
    "x" * 300,
    "'S 't don't",
    " nbsp　ideographic",
]


def captions(count):
    generators = [np.random.default_rng([5, i]) for i in range(count)]
    return [scenes.caption(scenes.draw(g), g) for g in generators]


def test_the_most_frequent_pair_is_joined_first():
    """ "lo" stands in all four words, "low" too, and " low" in three."""
    found = learn(["low low low lower"], 3)
    assert found.merges == [(b"o", b"w"), (b"l", b"ow"), (b" ", b"low")]
    assert found.encode("low low") == [257, 258] and len(found) == 256 + 3 + 1


def test_text_comes_back_from_its_tokens():
    found = learn(captions(300), 200)
    for text in HARD:
        assert found.decode(found.encode(text)) == text
    assert found.end == len(found) - 1 and found.decode([found.end]) == ""


def test_the_pieces_of_a_text_make_the_text():
    assert split("a bell, then 12 rain's") == ["a", " bell", ",", " then", " 12", " rain", "'s"]
    for text in HARD:
        assert "".join(split(text)) == text


def test_it_equals_the_reference_on_real_text():
    """The library that GPT-2's published tokenizer runs on, with the same merges."""
    prose = (ROOT / "README.md").read_text(encoding="utf-8")
    ours = learn([prose, *captions(200)], 500)
    signs = ["".join(SIGNS[b] for b in token) for token in ours.tokens]
    merges = [tuple("".join(SIGNS[b] for b in part) for part in pair) for pair in ours.merges]
    theirs = tokenizers.ByteLevelBPETokenizer({sign: i for i, sign in enumerate(signs)}, merges)
    for text in [prose, (ROOT / "docs" / "house.md").read_text(encoding="utf-8"), *HARD]:
        assert ours.encode(text) == theirs.encode(text).ids, text[:40]


def test_the_first_numbers_are_those_of_gpt2():
    """`!` is 0 and the blank, written as U+0120, is 220 in GPT-2's vocabulary."""
    assert BYTES[0] == ord("!") and BYTES.index(ord(" ")) == 220 and SIGNS[ord(" ")] == "Ġ"


def test_merges_go_through_their_file():
    found = learn(captions(100), 120)
    again = Tokenizer.from_text("#version: 0.2\n" + found.text + "\n")
    assert again.merges == found.merges and again.encode(HARD[0]) == found.encode(HARD[0])


def test_captions_are_a_token_for_each_word():
    found = learn(captions(2000), 400)
    text = "a loud bell ringing"
    assert len(found.encode(text)) == 4


@pytest.mark.parametrize("text, words", [("a b c", "is not a pair"), ("雨 b", "not a sign")])
def test_other_files_are_refused(text, words):
    with pytest.raises(WavelldmError, match=words):
        Tokenizer.from_text(text)


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(WavelldmError, match="cannot be read"):
        Tokenizer.from_file(tmp_path / "merges.txt")
