"""Readers pair by name and keep the held-out apart; a step is the same whatever the workers or the start."""

import pytest
import torch

from wavelldm.audio import files
from wavelldm.data import corpora
from wavelldm.data.clips import Clips
from wavelldm.errors import DataError

SR = 16_000


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


def test_pairs_go_by_name_not_by_position(tmp_path, write):
    for name in ("b", "a", "sub/c"):
        write(tmp_path / "clean" / f"{name}.wav")
        write(tmp_path / "noisy" / f"{name}.flac")
    for item in corpora.paired(tmp_path / "clean", tmp_path / "noisy"):
        assert item.path.stem == item.noisy.stem
    assert len(corpora.paired(tmp_path / "clean", tmp_path / "noisy")) == 3


@pytest.mark.parametrize("side", ["clean", "noisy"])
def test_a_missing_partner_is_named(tmp_path, side, write):
    for folder in ("clean", "noisy"):
        for name in ("one", "two", "three"):
            write(tmp_path / folder / f"{name}.wav")
    (tmp_path / side / "two.wav").unlink()
    with pytest.raises(DataError, match="two.wav has no partner"):
        corpora.paired(tmp_path / "clean", tmp_path / "noisy")


def test_two_files_of_one_name_are_refused(tmp_path, write):
    write(tmp_path / "a.wav")
    write(tmp_path / "a.flac")
    with pytest.raises(DataError, match="same name"):
        corpora.folder(tmp_path)


def test_voicebank_speakers_do_not_leak(voicebank, write):
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


def test_a_manifest_gives_its_kinds_and_splits(tmp_path, write):
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
    sounds = [corpora.Item(tmp_path / f"{i // 20}.tar", member=f"{i}.wav") for i in range(40)]
    train, valid = corpora.hold_out(sounds)
    assert len(valid) == 4, "of two shards some sounds, not a half"
    many = [corpora.Item(tmp_path / f"{i // 2}.tar", member=f"{i}.wav") for i in range(40)]
    train, valid = corpora.hold_out(many)
    assert len(valid) == 4 and not {i.path for i in train} & {i.path for i in valid}, "of twenty whole ones"


def test_measured_rooms_begin_just_before_their_direct_path(tmp_path):
    response = torch.zeros(2, 20_000)
    response[:, 4_000], response[0, 4_800] = 0.9, 0.3
    files.save(tmp_path / "hall.wav", response, SR)
    rooms = corpora.room_responses(corpora.folder(tmp_path), SR, seconds=0.5)
    assert rooms.shape == (1, 8_000) and rooms[0].nonzero()[:, 0].tolist() == [80, 880]


def test_measured_rooms_of_a_manifest_are_found(tmp_path, write):
    rows = [
        f"{kind}/{i}.wav {kind} x {split}" for kind in ("speech", "noise") for i, split in enumerate(("train", "valid"))
    ]
    rows.append("rir/hall.wav rir hall train")
    for row in rows:
        write(tmp_path / row.split()[0])
    table = tmp_path / "manifest.tsv"
    table.write_text("\n".join(["path kind label split", *rows]).replace(" ", "\t"))
    corpus = corpora.gather(manifest=table)
    assert [item.path.name for item in corpus.rooms] == ["hall.wav"]
    assert corpus.room_responses(SR).shape == (1, SR)
    assert [len(x) for x in (corpus.speech, corpus.noise, corpus.valid_speech, corpus.valid_noise)] == [1] * 4
    table.write_text("\n".join(["path kind label split", *rows[:-1]]).replace(" ", "\t"))
    assert corpora.gather(manifest=table).room_responses(SR) is None


def test_what_a_user_gives_decides_where_the_material_comes_from(tmp_path, write, voicebank):
    assert corpora.gather(voicebank).recorded
    for i in range(12):
        write(tmp_path / "clean" / f"{i}.wav")
        write(tmp_path / "noisy" / f"{i}.wav")
    corpus = corpora.gather(tmp_path / "clean", tmp_path / "noisy")
    assert corpus.recorded and corpus.noise is None and len(corpus.speech) == 11 and len(corpus.valid_speech) == 1
    for wrong in ({"clean": "a", "manifest": "b"}, {"noisy": "a"}):
        with pytest.raises(DataError, match="give"):
            corpora.gather(**wrong)
