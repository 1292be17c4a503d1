"""Run the notebooks and save them with their outputs; write the Colab badge and the set-up cell of each.

python notebooks/build.py [NAME ...] [--heads]     # --heads: only write badges and set-up cells, run nothing
"""

import argparse
import base64
import io
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "notebooks"


def urls() -> dict[str, str]:
    """The public addresses of the project, from the one place where they stand; none until it has a home."""
    found = re.search(r"^\[project\.urls\]\n((?:\w+ = .+\n)*)", (ROOT / "pyproject.toml").read_text(), re.M)
    return dict(re.findall(r'^(\w+) = "(.+)"$', found[1], re.M)) if found else {}


def badge(path: Path) -> str:
    """A link that opens the notebook in Colab; nothing as long as nobody knows where it would lead."""
    if "Repository" not in urls():
        return ""
    home = urls()["Repository"].removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{home}/blob/main/{path.resolve().relative_to(ROOT).as_posix()}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"


def setup(path: Path) -> str:
    """The one set-up cell. It installs a wheel that lies beside the notebook, or that of the project's home with its
    checksum, never what somebody else may have put under our name; and it stops if that fails. Without version pins, so
    that pip leaves the torch that is there alone; and with the extra `metrics` only, because Colab's own Jupyter and
    widgets must stay as they are."""
    home = f'"{urls()["Wheel"]}"' if "Wheel" in urls() else "None"
    return f"""try:
    import wavelldm
except ModuleNotFoundError:  # Colab, or a fresh environment
    import subprocess
    import sys
    from pathlib import Path

    wheel = next((path.resolve().as_uri() for path in Path().glob("wavelldm-*.whl")), {home})
    if wheel is None:
        raise RuntimeError("put a wheel of wavelldm (`make wheel`) beside this notebook, and run this cell again")
    command = [sys.executable, "-m", "pip", "install", "-q", f"wavelldm[metrics] @ {{wheel}}"]
    if subprocess.run(command).returncode:
        raise RuntimeError("wavelldm could not be installed; the lines above say why")

from wavelldm import course

session = course.start("{path.stem}")"""


def heads(notebook, path: Path) -> None:
    """Put the badge on the first cell and the set-up code into the second."""
    first, second = notebook.cells[0], notebook.cells[1]
    rest = re.sub(r"\A\[!\[Open in Colab\].*\n+", "", first.source)
    first.source = f"{badge(path)}\n\n{rest}".lstrip()
    assert second.cell_type == "code", f"{path.name}: the second cell is the set-up cell"
    second.source = setup(path)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def syllabus() -> str:
    """The README's table: one row for each notebook, from what its first cell says."""
    import json

    rows = ["| notebook | minutes | what you make |", "| --- | ---: | --- |"]
    for path in sorted(HERE.glob("[0-9]*.ipynb")):
        head = "".join(json.loads(path.read_text())["cells"][0]["source"])
        title = re.search(r"^# (.+)$", head, re.M)[1]
        fields = {
            k: " ".join(v.split())
            for k, v in re.findall(r"\*\*(You make|Takes)\*\*(.*?)(?=\n\*\*|\n\n|\Z)", head, re.S)
        }
        minutes = re.search(r"\d+", fields["Takes"])[0]
        link = f"[{title}]({path.relative_to(ROOT).as_posix()})"
        rows.append(f"| {' '.join([link, badge(path)]).strip()} | {minutes} | {fields['You make'].rstrip('.')} |")
    return "\n".join(rows)


def write_syllabus() -> None:
    readme = ROOT / "README.md"
    begin, end = "<!-- syllabus:begin -->\n", "\n<!-- syllabus:end -->"
    before, rest = readme.read_text().split(begin)
    readme.write_text(before + begin + syllabus() + end + rest.split(end)[1])


def write_map() -> None:
    """The README's picture of which notebook needs which."""
    from wavelldm.course import overview

    overview.needs().savefig(ROOT / "docs" / "prerequisites.png")


def execute(notebook, folder: Path, timeout: int, profile: str):
    """Run all cells in a fresh kernel that starts in `folder`."""
    from nbclient import NotebookClient

    os.environ["WAVELLDM_PROFILE"] = profile
    os.environ.setdefault("PYTHONWARNINGS", "error::UserWarning:wavelldm")
    quiet = ["--log-level=ERROR"]  # or every kernel warns that it listens on this machine's own ports
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        extra_arguments=quiet,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:  # execution times and the like change every time and say nothing
        cell.metadata = {k: v for k, v in cell.metadata.items() if k != "execution"}
    notebook.metadata.pop("widgets", None)
    return notebook


EXCERPT, QUALITY = 6.0, 0.2  # seconds of a sound that a saved notebook keeps, and of Vorbis: near to transparent


def shrink(notebook) -> None:
    """Pictures with 256 colours: a spectrogram of noise then takes a third of the space, and looks the same. Sounds as
    excerpts in Ogg Vorbis; who runs the notebook hears them whole and without loss."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = small_picture(data["image/png"])
            if "text/html" in data:
                data["text/html"] = re.sub(
                    r"data:audio/(?:flac|x?-?wav);base64,([\w+/=]+)",
                    lambda m: f"data:audio/ogg;base64,{small_sound(m[1])}",
                    data["text/html"],
                )


def small_picture(encoded: str) -> str:
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    small = io.BytesIO()
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def small_sound(encoded: str) -> str:
    import soundfile

    wav, sr = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="float32")
    small = io.BytesIO()
    soundfile.write(small, wav[: int(EXCERPT * sr)], sr, format="OGG", subtype="VORBIS", compression_level=QUALITY)
    return base64.b64encode(small.getvalue()).decode()


def main() -> int:
    import tempfile

    import nbformat

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", help="beginnings of notebook names, such as 01 (default: all)")
    options.add_argument("--heads", action="store_true", help="only write badges and set-up cells")
    options.add_argument("--profile", default="cpu", choices=("quick", "cpu", "gpu"))
    args = options.parse_args()
    paths = sorted(HERE.rglob("[0-9]*.ipynb"))
    for path in [p for p in paths if not args.names or any(p.name.startswith(n) for n in args.names)]:
        notebook = nbformat.read(path, as_version=4)
        heads(notebook, path)
        began = time.time()
        if not args.heads:
            with tempfile.TemporaryDirectory() as folder:
                execute(notebook, Path(folder), timeout=3600, profile=args.profile)
            shrink(notebook)
            for cell in notebook.cells:
                for output in cell.get("outputs", ()):
                    if output.output_type == "stream":  # where this checkout lies is nobody's business
                        output.text = output.text.replace(f"{ROOT}/", "")
        nbformat.write(notebook, path)
        print(f"{path.relative_to(ROOT)}: {time.time() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB")
    write_syllabus()
    write_map()
    return 0


if __name__ == "__main__":
    sys.exit(main())
