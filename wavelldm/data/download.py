"""Download of public data sets: resumed after a break, verified by checksum, unpacked safely.

`data/sources.toml` lists them. An archive is downloaded to HOME/NAME/FILE.part and verified before it is unpacked. Its
contents are moved into place as one folder by one rename, so they are complete or absent; the folder keeps the checksum
of its archive.
"""

import errno
import hashlib
import lzma
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from ..errors import DataError
from ..paths import data_home
from ..progress import progress_bar

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

MARK = ".fetched"  # in an unpacked folder: the checksum of the archive it came from
TRIES = 4  # failures in a row that bring no new byte
PAUSE = 0.5  # seconds after the first of them, doubled each time
TIMEOUT = 30.0  # seconds of silence
CHUNK = 1 << 18  # bytes read at a time
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers worth a second try
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)
DISTRUST = "nothing of it was unpacked: remove it and do not trust where it came from"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def _toml() -> Path:
    """In a wheel the table lies in the package, in a checkout in data/."""
    package = Path(__file__).resolve().parents[1]
    beside = package / "sources.toml"
    return beside if beside.is_file() else package.parent / "data" / "sources.toml"


def _size(archive: dict) -> int:
    return archive.get("bytes") or archive["about_bytes"]


def sources() -> list[dict]:
    """What can be downloaded: name, title, home, licence, credit, archives; in bytes `size` (to download),
    `unpacked`.
    """
    table = tomllib.loads(_toml().read_text(encoding="utf-8"))
    return [
        {
            "name": name,
            "size": sum(_size(archive) for archive in entry["archives"]),
            "unpacked": sum(archive["unpacked_bytes"] for archive in entry["archives"]),
            **entry,
        }
        for name, entry in table.items()
    ]


def get(name: str, folder: str | Path | None = None, progress: bool = True) -> Path:
    """Fetch and unpack a data set into FOLDER/NAME (default: the data folder); return the folder to read from.

    That is FOLDER/NAME, or the one folder in it if the data set is a single archive: what the readers in `data` take.
    What is already there is not fetched again; what a break has left behind is continued.
    """
    known = {source["name"]: source for source in sources()}
    if name not in known:
        raise DataError(f"there is no data set '{name}' to fetch; choose one of {', '.join(known)}")
    root = (Path(folder).expanduser() if folder else data_home()).absolute() / name
    archives = known[name]["archives"]
    try:
        missing = [archive for archive in archives if not _ready(root, archive)]
        _check_room(root, missing)
        for archive in missing:
            root.mkdir(parents=True, exist_ok=True)
            path = _download(root, archive, known[name]["home"], progress)
            _unpack(path, root / archive["unpacks_to"], archive["checksum"], progress)
            path.unlink()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        raise DataError(
            f"{root} cannot be written ({reason}); make room there or choose another folder, "
            "and run the command again: what has arrived is kept"
        ) from None
    return root / archives[0]["unpacks_to"] if len(archives) == 1 else root


def _ready(root: Path, archive: dict) -> bool:
    target = root / archive["unpacks_to"]
    if not target.exists():
        return False
    mark = target / MARK
    if mark.is_file() and mark.read_text().strip() == archive["checksum"]:
        return True
    raise DataError(
        f"{target} is already there, without the mark of a finished download of {archive['file']}; "
        "move it away and run the command again, or use it as it is"
    )


def _part(root: Path, archive: dict) -> Path:
    return root / f"{archive['file']}.part"


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_room(root: Path, missing: list[dict]) -> None:
    """Archives are unpacked and removed one by one; the peak: what is unpacked, the next archive, its contents."""
    need = held = 0
    for archive in missing:
        arrived = _length(root / archive["file"]) or _length(_part(root, archive))
        need = max(need, held + _size(archive) - arrived + archive["unpacked_bytes"])
        held += archive["unpacked_bytes"] - arrived
    there = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < need:
        raise DataError(
            f"{root} needs {need / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free; "
            "make room or choose another folder"
        )


def _bar(what: str, total: int, progress: bool, initial: int = 0) -> tqdm:
    return progress_bar(show=progress, desc=what, total=total, initial=initial, unit="B", unit_scale=True)


def _download(root: Path, archive: dict, home: str, progress: bool) -> Path:
    """The whole, checked archive at root/FILE; a file that somebody put there by hand will do."""
    path, part = root / archive["file"], _part(root, archive)
    if path.exists():
        if not _matches(path, archive["checksum"], progress):
            raise DataError(f"{path} has not the checksum of that archive at {home}; remove it and run this again")
        return path
    refusals = []
    for url in archive["urls"]:
        try:
            with _bar(path.name, _size(archive), progress, _length(part)) as bar:
                _fetch(url, part, archive.get("bytes"), bar)
            _tag(part).unlink(missing_ok=True)
            if _matches(part, archive["checksum"], progress):
                return part.replace(path)
            part.unlink()
            refusals.append(f"{urlsplit(url).hostname} sent {path.name} with a wrong checksum, it was removed")
        except DataError as error:
            refusals.append(str(error))
    by_hand = f"or first put {path.name} from {home} into {root} by hand"
    raise DataError(f"{refusals[0]}; run the command again later, {by_hand}")


def _matches(path: Path, checksum: str, progress: bool) -> bool:
    algorithm, expected = checksum.split(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file, _bar(f"checking {path.name}", _length(path), progress) as bar:
        while block := file.read(CHUNK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest() == expected


def _tag(part: Path) -> Path:
    """Where the server's name for the version in `part` is kept, so that a resume never joins two versions."""
    return part.with_name(part.name + ".tag")


def _fetch(url: str, part: Path, size: int | None, bar: tqdm) -> None:
    """Ask until `part` is complete; give up after TRIES failures in a row that bring nothing new."""
    failures, best, host = 0, _length(part), urlsplit(url).hostname
    while _length(part) != size:
        have = _length(part)
        try:
            if _request(url, part, size, bar):
                return
            problem = "breaks off"
        except HTTPError as error:
            error.close()
            problem = f"answers {error.code} {error.reason}"
            if error.code == 416 and have:  # nothing left to send, or what we hold is no beginning of it
                if error.headers.get("Content-Range") == f"bytes */{have}":
                    return
                part.unlink()
            elif error.code not in BUSY:
                raise DataError(f"{host} {problem} for {url}") from None
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) in DISK:
                raise
            reason = error.reason if isinstance(error, URLError) else error
            problem = f"cannot be reached ({getattr(reason, 'strerror', None) or reason or type(reason).__name__})"
        failures = 0 if _length(part) > best else failures + 1
        best = max(best, _length(part))
        if failures == TRIES:
            kept = f", {best / 1e6:.1f} MB of {part.stem} have arrived and are kept" if best else ""
            raise DataError(f"{host} {problem}{kept}")
        time.sleep(PAUSE * 2**failures)


def _request(url: str, part: Path, size: int | None, bar: tqdm) -> bool:
    """One request, from where `part` ends (RFC 9110, sections 13.1.5 and 14.2); True if the file is complete."""
    have, tag = _length(part), _tag(part)
    headers = {"User-Agent": "wavelldm", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.exists():
            headers["If-Range"] = tag.read_text()
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.headers.get_content_type() == "text/html":
            raise DataError(f"{urlsplit(url).hostname} sent a web page instead of {part.stem}")
        if answer.status == 206:
            if not re.match(rf"bytes {have}-", answer.headers.get("Content-Range", "")):
                part.unlink()  # not the bytes that were asked for: begin again
                return False
        else:
            have = 0
        total = None if answer.length is None else have + answer.length
        if size and total not in (None, size):
            raise DataError(
                f"{urlsplit(url).hostname} offers {total:,} bytes for {part.stem} where {size:,} are expected"
            )
        version = answer.headers.get("ETag", "W/")
        version = answer.headers.get("Last-Modified", "") if version.startswith("W/") else version
        tag.write_text(version) if version else tag.unlink(missing_ok=True)
        bar.update(have - bar.n)
        with open(part, "ab" if have else "wb") as file:
            while block := answer.read(CHUNK):
                have += len(block)
                if size and have > size:
                    raise DataError(f"{urlsplit(url).hostname} sends more than the {size:,} bytes of {part.stem}")
                file.write(block)
                bar.update(len(block))
    return have == (size or total or have)


def _members(file, name: str):
    """Yield (name, stream) for each plain file of a zip or tar, (name, None) for each folder; refuse all else."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{name} holds the link or device '{entry.filename}'; {DISTRUST}")
                yield entry.filename, None if entry.is_dir() else archive.open(entry)
    else:
        with tarfile.open(fileobj=file, mode="r|*") as archive:  # as a stream: seeking back in bz2 costs a new start
            for entry in archive:
                if not (entry.isreg() or entry.isdir()):
                    raise DataError(f"{name} holds the link or device '{entry.name}'; {DISTRUST}")
                yield entry.name, None if entry.isdir() else archive.extractfile(entry)


def _inside(folder: Path, name: str, archive: str) -> Path:
    parts = PureWindowsPath(name)  # the stricter reading: both slashes part, C: is a drive
    if parts.drive or parts.root or ".." in parts.parts:
        raise DataError(f"{archive} holds '{name}', which leads out of its folder; {DISTRUST}")
    return folder / name


def _unpack(path: Path, target: Path, checksum: str, progress: bool) -> None:
    """Unpack beside `target`, then rename. A single folder at the top of the archive becomes `target` itself."""
    temporary = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
    try:
        temporary.mkdir()
        with open(path, "rb") as file, _bar(f"unpacking {path.name}", _length(path), progress) as bar:
            for name, stream in _members(file, path.name):
                place = _inside(temporary, name, path.name)
                if "__MACOSX" in place.parts:
                    continue
                (place if stream is None else place.parent).mkdir(parents=True, exist_ok=True)
                if stream is not None:
                    with stream, open(place, "wb") as out:
                        shutil.copyfileobj(stream, out, CHUNK)
                bar.update(file.tell() - bar.n)
        top = list(temporary.iterdir())
        whole = top[0] if len(top) == 1 and top[0].is_dir() else temporary
        (whole / MARK).write_text(f"{checksum}\n")
        whole.rename(target)
    except DAMAGED as error:
        raise DataError(f"{path} cannot be unpacked ({error}); remove it and run the command again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
