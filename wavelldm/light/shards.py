"""Tar files of samples, as WebDataset keeps them: files that stand one after the other and share their name up to the
first dot are one sample. Written bytes depend on the contents alone."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import DataError

Sample = tuple[str, dict[str, bytes]]  # its key, with folders; suffix without the first dot -> contents
MOST = 1 << 24  # bytes of samples that are held at a time


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


class Tar:
    """A shard that is read in groups of samples, and written again with others in their place."""

    def __init__(self, source: IO[bytes], what: str, target: Path):
        self.found, self.tar = samples(source, what), tarfile.open(target, "w")

    def __enter__(self) -> "Tar":
        return self

    def __exit__(self, *_: object) -> None:
        self.tar.close()

    def groups(self, size: int) -> Iterator[list[Sample]]:
        """`size` samples at a time, or fewer large ones."""
        group, held = [], 0
        for sample in self.found:
            group.append(sample)
            held += sum(map(len, sample[1].values()))
            if len(group) == size or held > MOST:
                yield group
                group, held = [], 0
        if group:
            yield group

    def add(self, ready: dict[int, Sample]) -> None:
        """Write samples in the order of their numbers."""
        for i in sorted(ready):
            add(self.tar, ready[i])
