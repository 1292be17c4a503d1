import pytest
import soundfile as sf
from batched import begun, tree

from wavelldm.batch import ledger
from wavelldm.batch.places import Place
from wavelldm.errors import DataError
from wavelldm.light import denoiser


@pytest.fixture(scope="module")
def bucket():
    """An S3 server of our own, with a bucket -> what turns a name into an address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="bucket")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield lambda name: f"s3://bucket/{name}?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


def test_a_run_from_an_object_store_into_one(tmp_path, bucket):
    source = tree(tmp_path / "in", 2)
    far = Place(bucket("in"))
    for path in source.rglob("*.wav"):
        far.write(path.relative_to(source).as_posix(), path.read_bytes())
    worker, batches, place = begun(bucket("in"), bucket("out"))
    assert sum(worker(batch)["files"] for batch in batches) == 2
    for path in source.rglob("*.wav"):
        denoiser.load().enhance_file(path, tmp_path / "alone.wav", force=True, progress=False)
        assert place.read(path.relative_to(source).as_posix()) == (tmp_path / "alone.wav").read_bytes()
    table = ledger.finish(place)
    assert len(ledger.finished(table)) == 2 and table["path"][0].as_py().startswith("bucket/in/")
    assert [name for name, _ in place.listing(ledger.DONE)] == [], "the ledger became the report"


def test_what_breaks_on_its_way_into_a_store_is_not_there(bucket):
    place = Place(bucket("broken"))
    with pytest.raises(RuntimeError), place._sending("half.wav") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert not place.exists("half.wav")


def test_a_folder_by_its_address_and_by_fsspec(tmp_path):
    sf.write(tmp_path / "a.wav", [0.0] * 100, 8_000)
    assert [name for name, _ in Place(f"file://{tmp_path}").listing()] == ["a.wav"]
    memory = Place("memory://folder")
    memory.write("deep/x.txt", b"text")
    assert list(memory.listing()) == [("deep/x.txt", 4)] and memory.read("deep/x.txt") == b"text"
    with pytest.raises(DataError, match="cannot be opened"):
        Place("nothing://folder").exists("x")
