"""Files on this machine and in object stores, opened by pyarrow, or by fsspec where pyarrow does not know the scheme.

A place is a folder's path or address (`talks`, `s3://bucket/talks`). Whatever is put into one is there whole or not at
all.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

from pyarrow import ArrowException, fs

from ..errors import DataError

OWN = "_batch"  # the folder inside a target that holds what a run needs to go on


@lru_cache(maxsize=64)
def opened(address: str) -> tuple[fs.FileSystem, str]:
    """A file system, and the path in it that an address stands for."""
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme in ("", "file"):
        path = address.removeprefix("file://")
        return fs.LocalFileSystem(), str(Path(path).absolute())
    try:
        if scheme in ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"):
            found, path = fs.FileSystem.from_uri(address)
            return found, path.rstrip("/")
        import fsspec

        found, path = fsspec.core.url_to_fs(address)
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path.rstrip("/")
    except (ArrowException, ImportError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{address} cannot be opened ({reason}); check the address and its credentials") from None


@dataclass(frozen=True)
class Place:
    """A folder somewhere. Names of files are relative to it, with / between folders."""

    address: str

    @property
    def files(self) -> fs.FileSystem:
        return opened(self.address)[0]

    @property
    def root(self) -> str:
        return opened(self.address)[1]

    @cached_property
    def local(self) -> bool:
        return isinstance(self.files, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        return self.files.get_file_info(self.path(name)).type == fs.FileType.File

    def listing(self, name: str = "") -> Iterator[tuple[str, int]]:
        """Name and bytes of every file in the folder `name` and below, hidden ones left out, in order of names."""
        selector = fs.FileSelector(f"{self.root}/{name}".rstrip("/"), allow_not_found=True, recursive=True)
        start = len(self.root.rstrip("/")) + 1
        found = [
            (info.path[start:], info.size)
            for info in self.files.get_file_info(selector)
            if info.type == fs.FileType.File
        ]
        return iter(sorted((n, size) for n, size in found if not any(p.startswith(".") for p in n.split("/"))))

    def read(self, name: str) -> bytes:
        with self.files.open_input_stream(self.path(name)) as stream:
            return stream.read()

    @contextmanager
    def reading(self, name: str, anywhere: bool = False) -> Iterator[IO[bytes]]:
        """A stream from the beginning of a file to its end, or one that can be read anywhere."""
        opening = self.files.open_input_file if anywhere else self.files.open_input_stream
        with opening(self.path(name)) as stream:
            yield stream

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""
        if not self.local:
            with self._sending(name) as stream:
                stream.write(data)
            return
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(self.path(f"{OWN}/scratch/{uuid.uuid4().hex}"))
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def put(self, finished: Path, name: str) -> None:
        """Move a finished file, which lies in `scratch()`, to its name."""
        if self.local:
            target = Path(self.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(finished, target)
            return
        with open(finished, "rb") as file, self._sending(name) as stream:
            shutil.copyfileobj(file, stream, 1 << 20)
        finished.unlink()

    @contextmanager
    def _sending(self, name: str) -> Iterator[IO[bytes]]:
        """A stream into an object store, where a file is seen once it is closed; after an error it is taken away."""
        stream = self.files.open_output_stream(self.path(name))
        try:
            yield stream
            stream.close()
        except BaseException:
            with suppress(Exception):
                stream.close()
            self.remove(name)
            raise

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError, OSError):
            self.files.delete_file(self.path(name))

    def clear(self, name: str) -> None:
        """Take a folder away with all that is in it."""
        with suppress(FileNotFoundError, OSError):
            self.files.delete_dir(self.path(name))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of this machine for files that are being made; gone afterwards. Of a folder on this machine it is
        on the same disk, so that a finished file only has to be renamed."""
        if self.local:
            parent = Path(self.path(f"{OWN}/scratch"))
            parent.mkdir(parents=True, exist_ok=True)
        else:
            parent = None
        folder = Path(tempfile.mkdtemp(prefix="wavelldm-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
