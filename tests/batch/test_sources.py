import json

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
from pyarrow import parquet

from wavelldm.batch.places import Place
from wavelldm.batch.sources import items_of
from wavelldm.errors import DataError


@pytest.fixture
def tree(tmp_path):
    """Two recordings in two folders."""
    for name in ("a.wav", "deep/b.flac"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.zeros(8_000, np.float32), 8_000)
    (tmp_path / "in/notes.txt").write_text("no sound")
    return tmp_path


def names(source, tree):
    return [item.name for item in items_of(str(source), Place(str(tree / "out")))]


def test_a_folder_gives_its_sound_files_and_nothing_that_was_written(tree):
    sf.write(tree / "in/.hidden.wav", np.zeros(10), 8_000)
    assert names(tree / "in", tree) == ["a.wav", "deep/b.flac"]
    assert names(tree / "in/*.wav", tree) == ["a.wav"]
    inside = Place(str(tree / "in/deep"))  # the target lies in the source
    assert [item.name for item in items_of(str(tree / "in"), inside)] == ["a.wav"]
    with pytest.raises(DataError, match="holds no sound files"):
        names(tree / "in/*.mp3", tree)


def test_tables_of_sounds_are_shards_and_other_tables_are_not(tree):
    for name, columns in (("b", {"audio": [b"RIFF"]}), ("list", {"path": ["a.wav"]}), ("report", {"text": ["x"]})):
        parquet.write_table(pa.table(columns), tree / f"in/{name}.parquet")
    (tree / "in/broken.parquet").write_bytes(b"PAR1")
    items = items_of(str(tree / "in"), Place(str(tree / "out")))
    shards = [item.name for item in items if item.shard]
    assert shards == ["b.parquet", "broken.parquet"], "the report will name the broken one"
    assert [item.name for item in items if not item.shard] == ["a.wav", "deep/b.flac"]
    assert names(tree / "in/b.parquet", tree) == ["b.parquet"] and names(tree / "in/list.parquet", tree) == ["a.wav"]
    with pytest.raises(DataError, match="no Parquet file"):
        names(tree / "in/broken.parquet", tree)


def manifest(tree, kind):
    rows = [("in/a.wav", 1.0), ("in/deep/b.flac", 1.0)]
    path = tree / f"list{kind}"
    if kind == ".tsv":
        path.write_text("path\tseconds\n" + "".join(f"{name}\t{s}\n" for name, s in rows))
    elif kind == ".parquet":
        parquet.write_table(pa.table({"path": [n for n, _ in rows], "duration": [s for _, s in rows]}), path)
    elif kind == ".nemo.jsonl":
        path.write_text("\n".join(json.dumps({"audio_filepath": n, "duration": s, "text": "x"}) for n, s in rows))
    else:  # recordings of Lhotse, whose paths are usually absolute
        found = [{"id": n, "sources": [{"type": "file", "source": str(tree / n)}], "duration": s} for n, s in rows]
        path.write_text("\n".join(map(json.dumps, found)))
    return path


@pytest.mark.parametrize("kind", [".tsv", ".parquet", ".nemo.jsonl", ".lhotse.jsonl"])
def test_manifests_of_every_kind_name_the_same_files(tree, kind):
    items = items_of(str(manifest(tree, kind)), Place(str(tree / "out")))
    assert [item.name for item in items] == ["a.wav", "deep/b.flac"]
    assert [item.seconds for item in items] == [1.0, 1.0]
    assert all(Place(item.root).exists(item.path) for item in items)


def test_cuts_are_parts_with_names_of_their_own(tree):
    cut = {"recording": {"sources": [{"source": str(tree / "in/a.wav")}]}, "duration": 0.25}
    lines = [{"id": f"cut-{i}", "start": 0.25 * i, **cut} for i in range(2)]
    (tree / "cuts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    items = items_of(str(tree / "cuts.jsonl"), Place(str(tree / "out")))
    assert [(i.name, i.start, i.length) for i in items] == [("cut-0.wav", 0.0, 0.25), ("cut-1.wav", 0.25, 0.25)]
    part = {"audio_filepath": "in/a.wav", "offset": 0.5, "duration": 0.25}
    (tree / "parts.jsonl").write_text(json.dumps(part))
    assert names(tree / "parts.jsonl", tree) == ["a-000000500.wav"]


@pytest.mark.parametrize(
    "text, message",
    [("{}", "names no file"), ("{", "no JSON object on line 1"), ('{"path": "a", "duration": "x"}', "is no number")],
)
def test_a_broken_manifest_is_named_with_its_row(tree, text, message):
    (tree / "bad.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        names(tree / "bad.jsonl", tree)


def test_a_missing_source_is_an_error(tree):
    with pytest.raises(DataError, match="does not exist"):
        names(tree / "none.tsv", tree)
