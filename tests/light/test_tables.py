"""Tables of sounds: which column, every row, everything else as it was, in constant memory."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from wavelldm.errors import DataError
from wavelldm.light.tables import Table, sound_column


def rows_of(path):
    return parquet.read_table(path).to_pylist()


@pytest.mark.parametrize(
    "columns, wanted",
    [
        ({"text": ["x"], "audio": [b"a"]}, "audio"),
        ({"picture": [b"a"], "wav": [b"a"]}, "wav"),
        ({"id": [1], "anything": [b"a"]}, "anything"),
        ({"audio": [{"bytes": b"a", "path": "a.wav"}]}, "audio"),
        ({"path": ["a.wav"], "picture": [b"a"]}, None),  # it names files
        ({"path": ["a.wav"], "bytes": [b"a"]}, "bytes"),
        ({"audio": ["a.wav"]}, None),
    ],
)
def test_the_column_of_sounds_is_found(columns, wanted):
    assert sound_column(pa.table(columns).schema) == wanted


def test_sounds_are_exchanged_and_all_else_stays(tmp_path):
    sounds = [{"bytes": b"RIFF0", "path": "deep/a.wav"}, None, {"bytes": b"fLaC2", "path": None}]
    sounds += [{"bytes": b"RIFF3", "path": "deep/a.wav"}]
    table = pa.table({"text": ["0", "1", "2", "3"], "audio": sounds, "n": pa.array([0, 1, 2, 3], pa.int8())})
    table = table.replace_schema_metadata({"huggingface": "features"})
    parquet.write_table(table, tmp_path / "in.parquet")
    names = []
    with open(tmp_path / "in.parquet", "rb") as file, Table(file, "in", tmp_path / "out.parquet") as shard:
        for group in shard.groups(3):
            names += group
            new = {i: (key, {s: data.lower() for s, data in parts.items()}) for i, (key, parts) in enumerate(group)}
            shard.add({i: sample for i, sample in new.items() if i != 2})  # one that went wrong is left out
    assert names[0] == ("deep/a", {"wav": b"RIFF0"}) and names[1][1] == {}
    assert names[2] == ("00000002", {"flac": b"fLaC2"}) and names[3][0] == "deep/a-00000003"
    found, expected = rows_of(tmp_path / "out.parquet"), table.to_pylist()
    for row in expected:
        if row["audio"]:
            row["audio"]["bytes"] = row["audio"]["bytes"].lower()
    del expected[2]
    assert found == expected
    assert parquet.read_schema(tmp_path / "out.parquet").equals(table.schema, check_metadata=True)


def test_rows_are_listed_without_their_sounds_and_read_by_number(tmp_path):
    data = [None if i == 3 else b"RIFF%d" % i for i in range(10)]
    table = pa.table({"speaker": [f"s{i % 2}" for i in range(10)], "audio": data})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    with Table(tmp_path / "t.parquet", "t") as shard:
        listed = list(shard.listing())
        assert [row for row, *_ in listed] == [0, 1, 2, 4, 5, 6, 7, 8, 9] and listed[4] == (5, "00000005.wav", "s1")
        assert list(shard.sounds([1, 5, 9])) == [b"RIFF1", b"RIFF5", b"RIFF9"]


def test_a_row_group_larger_than_memory_is_read_in_pieces(tmp_path):
    """As far as its pages are small; those that we write are of one sound each."""
    sounds = [bytes([i]) * 1_000_000 for i in range(64)]
    small = {"compression": "none", "use_dictionary": False, "write_batch_size": 1}
    parquet.write_table(pa.table({"audio": sounds}), tmp_path / "in.parquet", **small)
    held, sizes, before = [], [], pa.total_allocated_bytes()
    with Table(tmp_path / "in.parquet", "in", tmp_path / "out.parquet") as shard:
        for group in shard.groups(64):
            held.append(pa.total_allocated_bytes() - before)
            sizes.append(len(group))
            shard.add(dict(enumerate(group)))
    assert sum(sizes) == 64 and max(sizes) <= 17 and max(held) < 24_000_000
    with Table(tmp_path / "out.parquet", "out") as shard:
        assert list(shard.sounds(range(64))) == sounds


def test_what_is_no_table_of_sounds_is_told(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="no whole Parquet file"):
        Table(tmp_path / "bad.parquet", "bad.parquet")
    parquet.write_table(pa.table({"text": ["x"]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match="no column of sounds"):
        Table(tmp_path / "text.parquet", "text.parquet")
