"""Readers pair by name and keep the held-out apart; a step is the same whatever the workers or the start."""

from itertools import islice

import numpy as np
import pytest
import torch

from wavelldm.audio import files
from wavelldm.data import corpora, loader
from wavelldm.data.clips import Clips
from wavelldm.data.degrade import RECIPES, Degradation
from wavelldm.errors import DataError

SR = 16_000


def write(path, seconds: float = 1.0, sr: int = SR, seed: int = 0, gain: float = 0.1):
    wav = gain * torch.randn(1, round(seconds * sr), generator=torch.Generator().manual_seed(seed))
    return files.save(path, wav.clamp(-1, 1), sr)


@pytest.fixture
def corpus(tmp_path):
    """Six files of speech in two folders and three of noise, of different lengths -> speech items, noise items."""
    for i in range(6):
        write(tmp_path / "speech" / f"reader{i % 2}" / f"{i}.wav", 0.4 + 0.5 * i, seed=i)
    for i in range(3):
        write(tmp_path / "noise" / f"{i}.flac", 0.3 + i, seed=10 + i)
    return corpora.folders(tmp_path / "speech", tmp_path / "noise")


@pytest.fixture
def voicebank(tmp_path):
    parts = {"trainset_28spk": ("p226_001", "p228_001", "p287_003", "p250_010"), "testset": ("p232_001", "p257_001")}
    for part, names in parts.items():
        for i, name in enumerate(names):
            for side in ("clean", "noisy"):
                write(tmp_path / f"{side}_{part}_wav" / f"{name}.wav", 0.3, 48_000, seed=2 * i + (side == "noisy"))
    return tmp_path


# readers


def test_folders_list_every_sound_below(corpus, tmp_path):
    (tmp_path / "speech" / "notes.txt").write_text("not sound")
    (tmp_path / "speech" / ".hidden.wav").write_text("not sound")
    speech, noise = corpora.folders(tmp_path / "speech", tmp_path / "noise")
    assert sorted(item.path.stem for item in speech) == list("012345") and len(noise) == 3
    assert {item.label for item in speech} == {"reader0", "reader1"}


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_sound_is_named(tmp_path, made):
    if made:
        (tmp_path / "lost").mkdir()
    with pytest.raises(DataError, match="lost"):
        corpora.folder(tmp_path / "lost")


def test_pairs_go_by_name_not_by_position(tmp_path):
    for name in ("b", "a", "sub/c"):
        write(tmp_path / "clean" / f"{name}.wav")
        write(tmp_path / "noisy" / f"{name}.flac")
    for item in corpora.paired(tmp_path / "clean", tmp_path / "noisy"):
        assert item.path.stem == item.noisy.stem
    assert len(corpora.paired(tmp_path / "clean", tmp_path / "noisy")) == 3


@pytest.mark.parametrize("side", ["clean", "noisy"])
def test_a_missing_partner_is_named(tmp_path, side):
    for folder in ("clean", "noisy"):
        for name in ("one", "two", "three"):
            write(tmp_path / folder / f"{name}.wav")
    (tmp_path / side / "two.wav").unlink()
    with pytest.raises(DataError, match="two.wav has no partner"):
        corpora.paired(tmp_path / "clean", tmp_path / "noisy")


def test_two_files_of_one_name_are_refused(tmp_path):
    write(tmp_path / "a.wav")
    write(tmp_path / "a.flac")
    with pytest.raises(DataError, match="same name"):
        corpora.folder(tmp_path)


def test_voicebank_speakers_do_not_leak(voicebank):
    splits = {
        split: {item.label for item in corpora.voicebank(voicebank, split)} for split in ("train", "valid", "test")
    }
    assert splits == {"train": {"p228", "p250"}, "valid": {"p226", "p287"}, "test": {"p232", "p257"}}
    for split in splits:
        items = corpora.voicebank(voicebank, split)
        assert all(item.split == split and item.path.name == item.noisy.name for item in items)
    for side in ("clean", "noisy"):
        write(voicebank / f"{side}_trainset_28spk_wav" / "p232_005.wav")
    with pytest.raises(DataError, match="p232_005.*test speaker"):
        corpora.voicebank(voicebank)


def test_voicebank_pairs_come_at_the_models_rate(voicebank, tmp_path):
    clips = Clips(corpora.voicebank(voicebank), SR, tmp_path / "cache")
    clean = files.load(clips.items[1].path, SR)[0]
    noisy = files.load(clips.items[1].noisy, SR)[0]
    rows = torch.tensor(clips.rows(1) / 32768.0, dtype=torch.float32)
    assert torch.allclose(rows, torch.cat([clean, noisy]), atol=2**-15)


def test_ljspeech_reads_its_table(tmp_path):
    for name in ("LJ001-0001", "LJ050-0001"):
        write(tmp_path / "wavs" / f"{name}.wav")
    table = tmp_path / "metadata.csv"
    table.write_text('LJ001-0001|He said "12"|He said "twelve"\nLJ050-0001|End|End\n')
    (train,), (valid,) = corpora.ljspeech(tmp_path), corpora.ljspeech(tmp_path, "valid")
    assert train.path.stem == "LJ001-0001" and train.text == 'He said "twelve"' and valid.path.stem == "LJ050-0001"
    table.write_text("LJ001-0001|a|a\nLJ002-0001|b|b\n")
    with pytest.raises(DataError, match="LJ002-0001.wav is named"):
        corpora.ljspeech(tmp_path)
    with pytest.raises(DataError, match="metadata.csv is missing"):
        corpora.ljspeech(tmp_path / "wavs")


def test_a_manifest_gives_its_kinds_and_splits(tmp_path):
    rows = ["s/a.wav speech anna train", "s/b.wav speech bert valid", "n/r.wav noise rain train"]
    for row in rows:
        write(tmp_path / row.split()[0])
    table = tmp_path / "manifest.tsv"
    lines = ["path kind label split note", *(f'{row} "quoted' for row in rows)]
    table.write_text("\n".join(lines).replace(" ", "\t"))
    speech, noise = corpora.read_manifest(table)
    assert [item.path for item in speech] == [tmp_path / "s/a.wav"] and noise[0].label == "rain"
    assert corpora.read_manifest(table, "valid", ("speech",))[0][0].label == "bert"
    with pytest.raises(DataError, match="noise.*no files for 'valid'"):
        corpora.read_manifest(table, "valid")
    (tmp_path / "s/a.wav").unlink()
    with pytest.raises(DataError, match="a.wav is named"):
        corpora.read_manifest(table)
    table.write_text("path\tkind\n")
    with pytest.raises(DataError, match="lacks the column label, split"):
        corpora.read_manifest(table)
    with pytest.raises(DataError, match="does not exist"):
        corpora.read_manifest(tmp_path / "other.tsv")


def test_hold_out_keeps_whole_speakers_apart(tmp_path):
    items = [corpora.Item(tmp_path / f"{i}.wav", label=f"speaker{i // 5}") for i in range(100)]
    train, valid = corpora.hold_out(items)
    assert len(train) == 90 and len(valid) == 10
    assert not {item.label for item in train} & {item.label for item in valid}
    assert {item.split for item in valid} == {"valid"}
    train, valid = corpora.hold_out([corpora.Item(tmp_path / f"{i}.wav") for i in range(20)])
    assert len(train) == 18 and len(valid) == 2 and not {i.path for i in train} & {i.path for i in valid}
    with pytest.raises(DataError, match="add more files"):
        corpora.hold_out(items[:1])


def test_measured_rooms_begin_just_before_their_direct_path(tmp_path):
    response = torch.zeros(2, 20_000)
    response[:, 4_000], response[0, 4_800] = 0.9, 0.3
    files.save(tmp_path / "hall.wav", response, SR)
    rooms = corpora.room_responses(corpora.folder(tmp_path), SR, seconds=0.5)
    assert rooms.shape == (1, 8_000) and rooms[0].nonzero()[:, 0].tolist() == [80, 880]


# the loader


def draw(corpus, tmp_path, steps: int, **options):
    recipe = options.pop("recipe", RECIPES["everything"])
    found = loader.batches(*corpus, recipe, SR, 0.5, 3, cache=tmp_path / "cache", **options)
    return list(islice(found, steps))


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_batches_depend_on_seed_and_step_alone(corpus, tmp_path):
    alone = draw(corpus, tmp_path, 5, seed=1)
    assert all(x.shape == (3, 1, SR // 2) and x.dtype == torch.float32 for pair in alone for x in pair)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert same(alone, draw(corpus, tmp_path, 5, seed=1))
    assert torch.equal(before, torch.get_rng_state())  # nobody else's random numbers are used up
    assert same(alone[3:], draw(corpus, tmp_path, 2, seed=1, start=3))
    assert not same(alone, draw(corpus, tmp_path, 5, seed=2))
    assert not torch.equal(alone[0][1], alone[1][1])


def test_batches_do_not_depend_on_the_number_of_workers(corpus, tmp_path):
    alone = draw(corpus, tmp_path, 5, seed=1)
    for workers in (1, 2):
        assert same(alone, draw(corpus, tmp_path, 5, seed=1, workers=workers))
    assert same(alone[2:], draw(corpus, tmp_path, 3, seed=1, workers=2, start=2))


def test_recorded_pairs_stay_pairs(voicebank, tmp_path):
    items = corpora.voicebank(voicebank)
    (noisy, clean), *_ = islice(
        loader.batches(items, None, RECIPES["recorded"], SR, 0.2, 8, cache=tmp_path / "cache"), 1
    )
    clips = Clips(items, SR, tmp_path / "cache")
    for a, b in zip(noisy[:, 0].numpy(), clean[:, 0].numpy(), strict=True):
        places = [
            (rows, at)
            for rows in map(clips.rows, range(len(clips)))
            for at in np.flatnonzero(rows[0, : rows.shape[1] - len(b) + 1] == b[0] * 32768)
            if np.array_equal(rows[0, at : at + len(b)], b * 32768)
        ]
        (rows, at), *_ = places  # the clean crop lies in a file, and the noisy one at the same place of its partner
        assert np.array_equal(rows[1, at : at + len(a)], a * 32768)


def test_clean_speech_alone_trains_a_codec(corpus, tmp_path):
    noisy, clean = draw((corpus[0], None), tmp_path, 1, recipe=Degradation(noise=0))[0]
    assert torch.equal(noisy, clean) and clean.abs().max() > 0
    with pytest.raises(DataError, match="noise"):
        draw((corpus[0], None), tmp_path, 1, recipe=Degradation())


def test_held_out_files_are_not_trained_on_nor_the_other_way_round(voicebank, corpus, tmp_path):
    for split in ("valid", "test"):
        with pytest.raises(DataError, match="held out"):
            draw((corpora.voicebank(voicebank, split), None), tmp_path, 1)
    with pytest.raises(DataError, match="is for training"):
        loader.valid_pairs(*corpus, RECIPES["noise"], SR, 0.5, 4, cache=tmp_path / "cache")


def test_validation_pairs_are_the_same_for_every_batch_size(corpus, tmp_path):
    speech = [corpora.replace(item, split="valid") for item in corpus[0]]

    def made(batch, **options):
        options["cache"] = tmp_path / "cache"
        pairs = loader.valid_pairs(speech, corpus[1], RECIPES["noise"], SR, 0.5, batch, **options)
        return pairs, [torch.cat(part) for part in zip(*pairs, strict=True)]

    pairs, whole = made(4)
    assert [len(noisy) for noisy, _ in pairs] == [4, 2] and whole[0].shape == (6, 1, SR // 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, made(1)[1], strict=True))
    assert not torch.equal(whole[0], made(4, seed=1)[1][0])
    first = files.load(speech[5].path)[0][0]  # crop 5 is cut from file 5
    assert (first.unfold(0, 16, 1) == whole[1][5, 0, :16]).all(-1).any()
    assert sum(len(noisy) for noisy, _ in made(4, count=9)[0]) == 9
