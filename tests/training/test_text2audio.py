"""Text to sound, trained: YAML that is wrong, captioned folders, conditions withheld in training only, tiny runs."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from wavelldm.audio import files
from wavelldm.data.scenes import held_out
from wavelldm.errors import WavelldmError
from wavelldm.text.conditioned import TextDiffusionConfig
from wavelldm.text.htsat import HTSATConfig
from wavelldm.text.latent import SoundVAEConfig
from wavelldm.text.text2audio import load_maker
from wavelldm.training import captioned, contrastive, text_recipe
from wavelldm.training.captioned import Captioned, collect, folder
from wavelldm.training.contrastive import alike, kinds_of
from wavelldm.training.text2audio import Frozen, TextDiffusionOptions, TextDiffusionTask
from wavelldm.training.text_recipe import Data, Stage, Stages, TextRecipe, TextSizes, read

TINY = TextRecipe(
    data=Data(scenes=20, valid=6, pairs=5),
    merges=100,
    text=TextSizes(32, 1, 2),
    audio=HTSATConfig(width=16, heads=(2, 4)),
    joint=16,
    vae=SoundVAEConfig(size=4, width=16, encoder_depth=1, depth=1),
    diffusion=TextDiffusionConfig(width=32, depth=2, heads=2),
    train=Stages(*[Stage(3, 1e-3, 4)] * 4),
)


@pytest.mark.parametrize(
    "text, words",
    [
        ("seed: 1\n\toutput: x\n", "line 2: a tab"),
        ("sed: 1\n", "did you mean 'seed'"),
        ("train: {pair: {stps: 3}}\n", "'train.pair.stps'; did you mean 'steps'"),
        ("train: {pair: {steps: many}}\n", "train.pair.steps is a whole number, not 'many'"),
        ("train: {pair: {steps: 0}}\n", "greater than 0"),
        ("joint: 1.5\n", "joint is a whole number"),
        ("joint: true\n", "joint is a whole number"),
        ("output: 3\n", "output is a text"),
        ("audio: {depths: [2, x]}\n", "audio.depths is a list of whole numbers"),
        ("train: 3\n", "train holds settings"),
        ("- a\n- b\n", "the file holds settings"),
        ("a: [1\n", "line 2"),
    ],
)
def test_a_yaml_file_that_is_wrong_is_a_sentence(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(WavelldmError) as error:
        read(path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_missing_yaml_file_is_a_sentence(tmp_path):
    with pytest.raises(WavelldmError, match="cannot be read"):
        read(tmp_path / "none.yaml")


def test_the_yaml_file_that_ships_says_what_the_defaults_are():
    from pathlib import Path

    assert read(Path(__file__).parents[2] / "configs" / "text2audio.yaml") == TextRecipe()


def test_an_empty_file_is_the_defaults_and_single_values_change(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("")
    assert read(path) == TextRecipe()
    path.write_text("train: {vae: {lr: 1}}\naudio: {depths: [2, 2, 2], heads: [2, 4, 8]}\n")
    found = read(path)
    assert found.train.vae.lr == 1.0 and found.train.pair == TextRecipe().train.pair
    assert found.audio.depths == (2, 2, 2)


def test_a_whole_system_is_trained_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(captioned, "SECONDS", (1.0,))
    monkeypatch.setattr(text_recipe, "CAPTIONS", 200)
    monkeypatch.setattr(text_recipe, "synthesised", partial(captioned.synthesised, seconds=(1.0,)))
    result = text_recipe.follow(TINY, tmp_path / "run")
    assert result["step"] == 3 and not result["stopped"]
    maker = load_maker(tmp_path / "run" / "diffusion" / "mine-diffusion")
    wav, sr = maker.generate("a bell, then rain", 0.5, steps=2)
    assert wav.shape == (1, 8000) and "rain" in maker.pair.text.words
    longer = replace(TINY, train=replace(TINY.train, diffusion=Stage(5, 1e-3, 4)))
    assert text_recipe.follow(longer, tmp_path / "run")["step"] == 5
    (tmp_path / "run" / "diffusion" / "last.pt").write_bytes(b"half")
    with pytest.raises(WavelldmError, match="not a whole checkpoint"):
        text_recipe.follow(longer, tmp_path / "run")


def test_scenes_of_two_events_can_stand_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(text_recipe, "synthesised", partial(captioned.synthesised, seconds=(1.0,)))
    few = captioned.synthesised(4, 1, seconds=(1.0,))
    both = text_recipe.with_pairs(few, Data(pairs=10), 0)
    added = both.about[100][4:]
    assert [scene.relation for scene in added] == 2 * list(captioned.PAIRS) and len(both.mels[100]) == 14
    assert not any(held_out(scene.relation, *(e.kind for e in scene.events)) for scene in added)
    again = text_recipe.with_pairs(few, Data(pairs=10), 0)  # from the disk
    assert torch.equal(again.mels[100], both.mels[100]) and again.about == both.about
    assert text_recipe.with_pairs(few, Data(pairs=0), 0) is few
    mixed = captioned.synthesised(10, 3, seconds=(1.0,), relations=(None, *captioned.PAIRS))  # has a file of its own
    assert not torch.equal(mixed.mels[100], both.mels[100][4:])


def sounds(tmp_path, table, names=("a.wav", "b.wav")):
    for name in names:
        files.save(tmp_path / name, torch.randn(1, 8000) * 0.1, 16_000)
    (tmp_path / "captions.csv").write_text(table, encoding="utf-8")
    return tmp_path


def test_a_folder_like_clotho_and_one_like_audiocaps(tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    clotho = sounds(tmp_path / "one", "file_name,caption_1,caption_2\na.wav,rain,much rain\nb.wav,a bell,\n")
    found = folder(clotho, 1.0)
    assert found.mels[100].shape == (2, 64, 100) and found.about[100] == [["rain", "much rain"], ["a bell"]]
    caps = sounds(tmp_path / "two", "audiocap_id,youtube_id,start_time,caption\n1,a,0,rain\n2,zz,0,lost\n")
    assert folder(caps, 1.0).about[100] == [["rain"]]


@pytest.mark.parametrize(
    "table, words", [("x,y\n1,2\n", "needs a column"), ("file_name,caption\nz.wav,rain\n", "none of the names")]
)
def test_a_table_that_does_not_fit_is_a_sentence(tmp_path, table, words):
    with pytest.raises(WavelldmError, match=words):
        folder(sounds(tmp_path, table))
    (tmp_path / "second.csv").write_text("")
    with pytest.raises(WavelldmError, match="one CSV file"):
        folder(tmp_path)


def scenes(count=12):
    def pairs():
        for i in range(count):
            wav, _, scene = captioned.scenes.example(4, i, seconds=(1.0, 2.0)[i % 2])
            yield wav, scene

    return collect(pairs())


def test_batches_depend_on_seed_and_step_alone():
    found = scenes()
    stream = found.batches(3, 5)
    rows = [next(stream) for _ in range(4)]
    later = next(found.batches(3, 5, first=3))
    assert torch.equal(rows[3][0], later[0]) and rows[3][1] == later[1]
    assert {row[0].shape[-1] for row in rows + [next(stream) for _ in range(8)]} == {100, 200}
    assert sum(len(words) for _, words, _ in found.in_order(4)) == len(found) == 12


def test_what_a_scene_holds_is_known_and_of_captions_it_is_not():
    scene = captioned.scenes.Scene((captioned.scenes.Event("rain"), captioned.scenes.Event("bell")), "then")
    rows = kinds_of([scene, ["some caption"]])
    assert rows[0].sum() == 2 and (rows[1] == -1).all()
    assert alike([scene, ["x"], scene]).tolist() == [0, 1, 0]


class Counted(torch.nn.Module):
    """A conditioner whose condition is random, and constant."""

    def tokens(self, texts):
        return torch.zeros(len(texts), 2, dtype=torch.long), torch.ones(len(texts), 2, dtype=torch.bool)

    def forward(self, numbers, real):
        return torch.ones(len(numbers), 2, 8), real, torch.ones(len(numbers), 8)


def test_text_is_withheld_in_training_and_never_in_validation(monkeypatch):
    task = TextDiffusionTask(
        TextDiffusionConfig(4, 2, 16, 2, 2, 8, 8), Counted(), TextDiffusionOptions(40, withheld=0.5)
    )
    sounds = Captioned({50: torch.randn(40, 4, 50).half()}, {50: [["x"]] * 40})
    task.read_latents(sounds, sounds)
    asked = []
    plain = task.networks["model"].without
    monkeypatch.setattr(task.networks["model"], "without", lambda c, w: asked.append(w) or plain(c, w))
    batch = next(iter(task.batches(0)))
    next(task.losses(batch))
    assert len(asked) == 1 and 8 < int(asked[0].sum()) < 32
    asked.clear()
    figures = task.validate(task.networks["model"])
    assert [int(w.sum()) for w in asked] == [40], "only the figure that says so is without text"
    assert np.isfinite(list(figures.values())).all()


def test_a_frozen_encoder_is_not_trained():
    from wavelldm.text.bpe import learn
    from wavelldm.text.contrastive import PairConfig, TextAudioPair
    from wavelldm.text.encoder import TextConfig

    pair = TextAudioPair(PairConfig(TextConfig(learn(["rain"], 3).text, "", 32, 1, 2), TINY.audio, 16))
    task = TextDiffusionTask(TextDiffusionConfig(4, 2, 16, 2, 2, 32, 16), Frozen(pair))
    assert list(task.networks) == ["model"] and task.groups == {"diffusion": ["model"]}
    states, real, whole = task.conditioner(*task.conditioner.tokens(["rain", "a bell"]))
    assert not states.requires_grad and states.shape[:2] == real.shape and whole.shape == (2, 16)


def test_labelled_recordings_beside_scenes(tmp_path):
    """Long ones are cut into parts, silence around short ones goes, labels that say nothing are left out."""
    rows = ["path\tkind\tlabel\tsplit"]
    for name, label, seconds in (("a", "001 - Dog bark", 1), ("b", "waterfall_deep", 9), ("c", "vapour", 2)):
        wav = torch.cat([torch.zeros(1, 4000), torch.randn(1, 16_000 * seconds) * 0.1], 1)
        files.save(tmp_path / f"{name}.wav", wav, 16_000)
        rows.append(f"{name}.wav\tnoise\t{label}\ttrain")
    (tmp_path / "m.tsv").write_text("\n".join(rows))
    found = captioned.labelled(tmp_path / "m.tsv")
    assert list(found.mels) == [400] and len(found) == 3
    assert "the sound of a dog barking" in found.about[400][0] and "a waterfall" in found.about[400][1]
    assert found.mels[400][0, :, 0].mean() > found.mels[400][0, :, -1].mean()
    scenes_too = captioned.joined(captioned.synthesised(3, 9, seconds=(4.0,)), found)
    assert len(scenes_too) == 6 and len(scenes_too.about[400]) == 6
    assert len(contrastive.wrong_captions(scenes_too.about[400], 0)) == 3
