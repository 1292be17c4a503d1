"""Recipes: what they say fits the networks that ship, and their legs follow each other."""

from dataclasses import fields

import pytest

from wavelldm import weights
from wavelldm.config import from_dict, override
from wavelldm.data.corpora import Corpus
from wavelldm.errors import WavelldmError
from wavelldm.training import NETWORKS, recipes, task_of
from wavelldm.training.presets import preset
from wavelldm.training.recipes import RECIPES, Leg, Recipe

SHIPPED = {  # network, recipe -> the weights that it made
    ("codec", "shipped"): "voice16k",
    ("codec", "shipped-live"): "voice16k-live",
    ("looks", "shipped"): "voice16k-looks",
    ("diffusion", "shipped"): "voice16k-diffusion",
    ("mask", "shipped"): "base16k-mask",
    ("mask", "shipped-studio"): "studio16k",
    ("latent", "shipped"): "restore16k-latent",
    ("filler", "shipped"): "restore16k-filler",
    ("prior", "shipped"): "prior16k",
    ("segan", "shipped"): "segan16k",
    ("waveform", "shipped"): "waveform16k",
    ("vocoder", "shipped"): "ladder-vocoder",
    ("vae", "shipped"): "ladder-vae",
    ("vae", "shipped-wide"): "ladder-wide-vae",
    ("vae", "shipped-words"): "ladder-words-vae",
    ("refinement", "shipped"): "ladder-refinement",
    ("autoencoder", "shipped"): "ladder-autoencoder",
}


def test_there_is_a_recipe_for_all_that_ships():
    assert set(SHIPPED) == {(network, name) for network in NETWORKS for name in RECIPES[network]}
    by_yaml = {f"scenes16k-{part}" for part in ("pair", "vae", "diffusion")}  # configs/text2audio.yaml
    assert {*SHIPPED.values(), *by_yaml} == {path.stem for path in weights.SHIPPED.glob("*.safetensors")}


@pytest.mark.parametrize("network, name", SHIPPED)
def test_the_last_leg_has_the_sizes_of_the_weights_that_ship(network, name):
    recipe, task = RECIPES[network][name], task_of(network)
    for leg in recipe.legs:
        task.plan(leg.steps, **leg.plan)
        task.Options(**leg.options)
    config = override(getattr(preset(recipe.preset), network), list(recipe.legs[-1].changes))
    facts = weights.about(SHIPPED[network, name])
    assert config == from_dict(task.Network.Config, facts["config"])
    plan = task.plan(recipe.legs[-1].steps, **recipe.legs[-1].plan)
    for field in fields(plan):
        kept = facts.get("plan", {}).get(field.name)
        kept = tuple(kept) if isinstance(kept, list) else kept
        same = kept is None or kept == pytest.approx(getattr(plan, field.name))
        assert same or field.name == "save_every", field.name  # which changes nothing


def test_legs_start_where_those_before_them_stopped(two_recordings, tmp_path, monkeypatch):
    speech, held_out = two_recordings
    corpus = Corpus(speech, None, held_out, None, False)
    options = {"batch_size": 2, "seconds": 0.25}
    legs = (Leg("one", 2, {"warmup": 1}, options=options), Leg("two", 1, options=options, seed=1))
    monkeypatch.setitem(RECIPES["codec"], "short", Recipe("tiny", legs, hours=0.0))
    started = []
    begin = task_of("codec").start_from
    monkeypatch.setattr(task_of("codec"), "start_from", lambda self, name: started.append(name) or begin(self, name))
    result = recipes.follow("codec", "short", corpus, tmp_path / "run", progress=False)
    assert started == [str(tmp_path / "run" / "one" / "tiny.safetensors")] and result["step"] == 1
    facts = weights.about(tmp_path / "run" / "two" / "tiny")
    assert facts["seed"] == 1 and facts["options"]["seconds"] == 0.25 and facts["plan"]["steps"] == 1
    with pytest.raises(WavelldmError, match="no recipe 'long' for codec"):
        recipes.follow("codec", "long", corpus, tmp_path)
