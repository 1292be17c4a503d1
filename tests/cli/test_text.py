"""`generate` and `tag` with the weights that ship: files, JSON, the same each time, and what is refused."""

import json

import numpy as np
import pytest
import torch

import wavelldm
from wavelldm.audio import files
from wavelldm.data import scenes
from wavelldm.text.text2audio import load_maker
from wavelldm.training.text_recipe import TextRecipe

FAST = ["--steps", "4", "--seconds", "1"]


def test_a_sentence_becomes_a_file_and_the_same_one_again(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("generate", "a bell, then rain", *FAST)
    assert code == 0 and "a-bell-then-rain.wav: 1 s" in out
    wav, sr = files.load(tmp_path / "a-bell-then-rain.wav")
    assert wav.shape == (1, 16_000) and sr == 16_000 and 0.001 < wav.abs().max() <= 1
    code, out, _ = cli("generate", "a bell, then rain", *FAST, "-o", "again.wav", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["unknown"] == [] and facts["seconds"] == 1.0
    assert torch.equal(files.load(tmp_path / "again.wav")[0], wav)
    code, _, err = cli("generate", "a bell, then rain", *FAST, "-o", "again.wav")
    assert code == 1 and "--force" in err


def test_options_change_the_sound(cli, tmp_path):
    made = {}
    for name, more in {
        "plain": [],
        "seed": ["--seed", "1"],
        "guided": ["--guidance", "6"],
        "not": ["--negative", "wind"],
    }.items():
        assert cli("generate", "rain", *FAST, *more, "-o", tmp_path / f"{name}.wav")[0] == 0
        made[name] = files.load(tmp_path / f"{name}.wav")[0]
    assert all(not torch.equal(made["plain"], made[name]) for name in ("seed", "guided", "not"))


def test_an_unknown_word_is_named(cli, tmp_path):
    code, out, _ = cli("generate", "rain and a flugelhorn", *FAST, "-o", tmp_path / "x.wav")
    assert code == 0 and "'flugelhorn'" in out and (tmp_path / "x.wav").exists()


@pytest.mark.parametrize(
    "argv, code, words",
    [
        (["   "], 1, "empty"),
        (["rain " * 2000], 1, "too long"),
        (["дождь"], 1, "no word"),
        (["🌧️"], 1, "no word"),
        (["rain", "--seconds", "0"], 2, "0.25 to 60"),
        (["rain", "--seconds", "1000"], 2, "0.25 to 60"),
        (["rain", "--guidance", "-1"], 2, "from 0 to 20"),
        (["rain", "--steps", "0"], 2, "from 1 to 1000"),
        (["rain", "--model", "none"], 1, "no weights called 'none'"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(cli, tmp_path, argv, code, words):
    found, out, err = cli("generate", *argv, "-o", tmp_path / "x.wav")
    assert found == code and words in err and not out and not (tmp_path / "x.wav").exists()


def test_tagging_a_scene_names_it(cli, tmp_path):
    for kind in ("rain", "siren", "dog"):
        scene = scenes.Scene((scenes.Event(kind),))
        wav = scenes.render(scene, np.random.default_rng(5))
        files.save(tmp_path / f"{kind}.wav", torch.tensor(wav), scenes.SR)
        code, out, _ = cli("tag", tmp_path / f"{kind}.wav", "--json")
        rows = json.loads(out)["labels"]
        assert code == 0 and rows[0]["label"] == scenes.label(kind) and len(rows) == 5
    code, out, _ = cli("tag", tmp_path / "rain.wav", "--labels", "a dog barking", "rain", "--top", "1")
    assert code == 0 and out.strip().endswith("rain")


def test_a_recording_that_is_too_short_or_none_is_refused(cli, tmp_path):
    files.save(tmp_path / "short.wav", torch.zeros(1, 100), 16_000)
    code, _, err = cli("tag", tmp_path / "short.wav")
    assert code == 1 and "too short" in err
    assert cli("tag", tmp_path / "none.wav")[0] == 1


def test_from_python():
    wav, sr = wavelldm.generate("wind", seconds=0.5, steps=2)
    assert wav.shape == (1, 8000) and sr == 16_000


def test_what_ships_has_the_sizes_of_the_recipe_and_knows_what_it_needs():
    maker, recipe = load_maker(), TextRecipe()
    assert maker.diffusion.config == recipe.diffusion and maker.vae.config == recipe.vae
    assert maker.pair.config.audio == recipe.audio and maker.pair.config.text.width == recipe.text.width
    assert "rain" in maker.pair.text.words


def test_training_by_a_yaml_file_that_is_wrong_is_a_sentence(cli, tmp_path):
    (tmp_path / "c.yaml").write_text("train: {vae: {stesp: 3}}\n")
    code, _, err = cli("train", "text2audio", "-c", tmp_path / "c.yaml")
    assert code == 1 and "did you mean 'steps'" in err
