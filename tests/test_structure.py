"""The rules of the house, held by reading the source: imports one way, one address, one list of packages."""

import ast
import json
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))

# Packages, and the files beside them, from the bottom up: each imports only from itself and from those before it.
ORDER = (
    "errors paths progress light config plots audio weights nn data metrics codec diffusion mel text restore".split()
)
ORDER += "denoise refine ladder training export batch course app cli".split()
MODULES = sorted((ROOT / "wavelldm").rglob("*.py"))
PACKAGES = sorted(path.parent for path in (ROOT / "wavelldm").glob("*/__init__.py"))


def imported(path: Path, source: str) -> set[str]:
    """What a file at `path` (relative to wavelldm/) imports from other packages of wavelldm, wherever in the file."""
    found, depth = set(), len(path.parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [a.name for a in node.names if a.name != "__version__"]
            if node.level == depth:  # from wavelldm itself
                found |= {name.split(".")[0] for name in names}
            elif not node.level and names[0].split(".")[0] == "wavelldm":
                found |= {names[0].split(".")[1]} if "." in names[0] else {a.name for a in node.names}
            assert node.level <= depth, f"{path}: import from above wavelldm"
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("wavelldm.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT / "wavelldm").as_posix())
def test_imports_point_one_way_between_packages(path):
    own = path.relative_to(ROOT / "wavelldm")
    room = own.with_suffix("").parts[0]
    if room in ("__init__", "__main__"):  # the public face and the way in
        return
    assert room in ORDER, f"{own} has no place in ORDER"
    upward = [name for name in imported(own, path.read_text()) if ORDER.index(name) > ORDER.index(room)]
    assert not upward, f"{own} imports from {upward}, which stand above {room}"


def test_the_check_of_imports_sees_every_form_of_them():
    source = "from .. import cli\nfrom ..mel.vae import x\nfrom .stft import y\nfrom . import z\n"
    source += "def f():\n    import wavelldm.course\n    from wavelldm import data\n"
    source += "    from wavelldm.codec.fsq import FSQ\n"
    assert imported(Path("audio/files.py"), source) == {"cli", "mel", "course", "data", "codec"}
    assert imported(Path("weights.py"), "from .audio.files import a\nfrom . import plots\n") == {"audio", "plots"}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: p.name)
def test_every_package_says_what_is_inside(folder):
    tree = ast.parse((folder / "__init__.py").read_text())
    files = [p.stem for p in folder.glob("*.py") if p.name != "__init__.py"]
    text = ast.get_docstring(tree) or ""
    assert len(files) > 1, f"{folder.name} holds one file: then it needs no folder"
    assert [name for name in files if not re.search(rf"\b{name}\b", text)] == [], "the docstring names every file"
    brought = {
        a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module for a in n.names
    }
    assert not brought & set(files), "an exported name hides the file of that name"


def unannotated(body: list, owner: str = "") -> list[str]:
    """Public functions and methods that leave the type of an argument or of their result open."""
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += unannotated(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            if missing or node.returns is None:
                found.append(f"{owner}{node.name}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT / "wavelldm").as_posix())
def test_every_public_function_is_annotated(path):
    assert unannotated(ast.parse(path.read_text()).body) == []


def test_no_notebook_is_named_after_a_module():
    names = {p.stem for p in MODULES} | {p.name for p in PACKAGES}
    assert not [p for p in (ROOT / "notebooks").rglob("*.ipynb") if p.stem in names]


# --- one list of packages -------------------------------------------------------------------------------------------

CONDA = {
    "pytorch": "torch",
    "pysoundfile": "soundfile",
    "soxr-python": "soxr",
}  # conda-forge's names for the same things
ASKED = "jupyterlab torch torchaudio librosa matplotlib ipywidgets soundfile pesq pystoi numpy".split()


def project() -> dict:
    try:
        import tomllib
    except ModuleNotFoundError:
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def package(spec: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", spec.strip())[0].lower().replace("_", "-").replace(".", "-")


def in_pyproject() -> set[str]:
    p = project()
    specs = [*p["dependencies"], *(s for extra in p["optional-dependencies"].values() for s in extra)]
    return {package(s) for s in specs} - {"wavelldm"}


def in_environment() -> set[str]:
    lines = re.findall(r"^\s+- ([a-z][\w.-]*)(?:[<>=].*)?$", (ROOT / "environment.yml").read_text(), re.M)
    return {CONDA.get(name, name) for name in lines} - {"conda-forge", "python", "pip"}


def pins(part: int | None = None) -> list[str]:
    """Lines of constraints.txt: all, those of what pyproject.toml names (0), or of what these need (1)."""
    text = (ROOT / "constraints.txt").read_text()
    text = text if part is None else text.split("# What those need.")[part]
    return [line for line in text.splitlines() if line and line[0] != "#"]


def in_constraints() -> set[str]:
    return {package(line) for line in pins(0)}


def test_the_three_lists_of_packages_agree():
    assert in_constraints() == in_pyproject()
    assert in_environment() <= in_pyproject()
    core = {package(s) for s in project()["dependencies"]} | {
        package(s) for s in project()["optional-dependencies"]["dev"]
    }
    course = core | {
        package(s)
        for s in project()["optional-dependencies"]["metrics"] + project()["optional-dependencies"]["notebooks"]
    }
    assert course - {"wavelldm", "tomli"} <= in_environment()
    assert set(ASKED) <= in_environment()


def test_constraints_pin_and_pyproject_does_not():
    assert all("==" in line.split(";")[0] for line in pins())
    p = project()
    specs = [
        *p["dependencies"],
        *(s for e in p["optional-dependencies"].values() for s in e if not s.startswith("wavelldm")),
    ]
    assert all(">=" in s and "==" not in s.split(";")[0] for s in specs)  # Colab keeps the torch it has


def numbers(version: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", version)]


def test_the_tested_versions_satisfy_the_bounds():
    bounds = {}
    p = project()
    for spec in [*p["dependencies"], *(s for e in p["optional-dependencies"].values() for s in e)]:
        if ">=" in spec:
            bounds[package(spec)] = spec.split(";")[0].split(">=")[1].strip()
    for line in pins(0):
        version = line.split(";")[0].split("==")[1].strip()
        assert numbers(version) >= numbers(bounds[package(line)]), line


def test_all_that_comes_along_is_pinned():
    """What the tests stand on, and what that needs in turn, as it is installed here."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    optional = project()["optional-dependencies"]
    named = [*project()["dependencies"], *(s for e in optional.values() for s in e)]
    left, seen = [Requirement(s) for s in named if not s.startswith("wavelldm")], set()
    while left:
        one = left.pop()
        name, extras = package(one.name), one.extras or {""}
        if (name, *sorted(extras)) in seen:
            continue
        seen.add((name, *sorted(extras)))
        with suppress(PackageNotFoundError):  # an extra that is not installed here
            for wanted in map(Requirement, requires(name) or []):
                if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
                    left.append(wanted)
            assert name in {package(line) for line in pins()} | {"setuptools"}, f"{name} is pinned nowhere"
    assert len(seen) > 100


# --- one address ----------------------------------------------------------------------------------------------------


def test_the_address_of_the_repository_stands_in_one_place():
    address = project().get("urls", {}).get("Repository", "").removeprefix("https://")
    if not address:  # nothing may lead to a place that somebody else may own
        for path in [ROOT / "README.md", *sorted((ROOT / "notebooks").rglob("*.ipynb"))]:
            assert "colab.research.google.com/github/" not in path.read_text(), f"{path.name}: run build.py --heads"
            assert "git+https" not in path.read_text(), path.name
        return
    owner = "/".join(address.split("/")[1:3])
    badge = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/")
    for path in [ROOT / "README.md", *sorted((ROOT / "notebooks").rglob("*.ipynb"))]:
        found = badge.findall(path.read_text())
        assert found, f"{path.name} has no Colab badge"
        assert set(found) == {owner}, f"{path.name}: run `make notebooks`"
    for path in [*MODULES, *ROOT.glob("data/*"), ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "CITATION.cff"]:
        if path.is_file():
            assert address not in path.read_text(), f"{path.name} repeats the address of the repository"


def test_the_syllabus_in_the_readme_is_up_to_date():
    import build

    assert build.syllabus() in (ROOT / "README.md").read_text(), "run `make notebooks`"


def test_the_file_tree_in_the_readme_names_every_package():
    blocks = (ROOT / "README.md").read_text().split("```")
    tree = next(block for block in blocks if "notebooks/" in block and "tests/" in block)
    assert [p.name for p in PACKAGES if f"{p.name}/" not in tree] == []
    assert len(tree.strip().splitlines()) <= 40, "the tree fits one screen"


# --- notebooks as they are committed --------------------------------------------------------------------------------

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_follow_the_template(path):
    import build

    cells = json.loads(path.read_text())["cells"]
    source = ["".join(c["source"]) for c in cells]
    code = [c for c in cells if c["cell_type"] == "code"]
    outputs = [o for c in code for o in c.get("outputs", [])]
    told = "".join("".join(o.get("text", "")) for o in outputs)
    assert not re.search(r"/(home|root|work|tmp|Users)/\w", told), "outputs name no folder of a machine"
    assert source[0].startswith(build.badge(path)), "first comes the Colab badge: run `make notebooks`"
    assert source[1] == build.setup(path), "then the set-up cell: run `make notebooks`"
    assert outputs and not [o for o in outputs if o["output_type"] == "error"], "committed with outputs, without errors"
    assert max(len("".join(c["source"]).splitlines()) for c in code) <= 40, "a code cell of over 40 lines"
    sounds = [len(json.dumps(o)) for o in outputs if "<audio" in json.dumps(o)]
    assert max(sounds, default=0) < 200_000, "a sound of over 200 kB"
    text = "\n".join(source)
    assert "sys.path" not in text
    if path.parent.name != "solutions":
        for wanted in ("You need", "You make", "Takes", "## Exercises", "## Recap", "Next:"):
            assert wanted in text, f"the template wants '{wanted}'"
        assert len(re.findall(r"^\*\*Exercise \d", text, re.M)) >= 2
        assert [o for o in outputs if "image/png" in o.get("data", {})], "not one picture"
