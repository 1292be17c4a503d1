"""Tar files of samples, as WebDataset keeps them: files that stand one after the other and share their name up to the
first dot are one sample. Written bytes depend on the contents alone."""

import io
import tarfile
from collections.abc import Iterator
from typing import IO

from ..errors import DataError

Sample = tuple[str, dict[str, bytes]]  # its key, with folders; suffix without the first dot -> contents


def key_and_suffix(name: str) -> tuple[str, str]:
    """talks/a.seg.wav -> talks/a, seg.wav"""
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return folder + slash + key, suffix


def samples(file: IO[bytes], what: str) -> Iterator[Sample]:
    """The samples of a shard that is read from its beginning to its end. `what`: its name, for messages."""
    try:
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            key, parts = None, {}
            for member in tar:
                if not member.isfile():
                    continue
                its_key, suffix = key_and_suffix(member.name)
                if parts and its_key != key:
                    yield key, parts
                    parts = {}
                key, parts[suffix] = its_key, tar.extractfile(member).read()
            if parts:
                yield key, parts
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{what} is no whole tar file ({error}); copy it again") from None


def add(tar: tarfile.TarFile, sample: Sample) -> None:
    """Put a sample at the end of a tar file."""
    key, parts = sample
    for suffix, data in parts.items():
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
