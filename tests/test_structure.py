"""The house rules, held by reading the source: floors, length, one address, one list of packages."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))

# A module imports only from lower floors. Leaves may import anything and are imported by no module but those above all.
FLOORS = [
    ["errors", "paths", "manual", "ladder_config"],
    ["config"],
    [
        "audio",
        "stft",
        "layers",
        "fsq",
        "noise",
        "levels",
        "espeak",
        "sentences",
        "plots",
        "parallel",
        "entropy",
        "schedule",
        "published",
    ],
    [
        "pitch",
        "mel",
        "perceptual",
        "degrade",
        "logmmse",
        "synth",
        "fetch",
        "container",
        "masknet",
        "samplers",
        "unet",
        "mdct",
        "phase",
        "windowed",
    ],
    [
        "griffin",
        "grow",
        "clips",
        "composite",
        "source",
        "refine",
        "unet2d",
        "vae",
        "refinenet",
        "autoencoder",
        "segan",
        "wavedenoiser",
    ],
    ["decoders", "diffusion", "prior", "vocoder"],
    ["codec"],
    ["weights", "data", "delay", "metrics", "analysis", "adversarial", "train"],
    ["material", "latents", "finish", "quality", "voice"],
    ["search", "mixtures"],
    [
        "evaluate",
        "mix",
        "train_codec",
        "train_mask",
        "train_diffusion",
        "train_prior",
        "train_segan",
        "train_wave",
        "nb",
        "widgets",
        "compress",
        "train_ladder",
    ],
    ["restore", "rungs"],
    ["cleaner", "ladder"],
    ["enhance"],
    ["pipe", "refiner"],
    ["demo", "describe"],
    ["cli"],
    ["__main__"],
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
MODULES = sorted((ROOT / "wavelldm").glob("*.py"))


def imported(path: Path) -> set[str]:
    """Names of the package's own modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{path.name}: import from above the package"
            if node.level == 1 and node.module:
                found.add(node.module.split(".")[0])
            elif node.level == 1:
                found |= {alias.name for alias in node.names if alias.name != "__version__"}
            elif node.module and node.module.split(".")[0] == "wavelldm":
                found |= {node.module.split(".")[1]} if "." in node.module else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("wavelldm.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_point_to_lower_floors(path):
    if path.stem == "__init__":
        return
    assert path.stem in FLOOR, f"{path.name} stands on no floor; give it one in FLOORS"
    upward = [name for name in imported(path) if FLOOR[name] >= FLOOR[path.stem]]
    assert not upward, f"{path.stem} (floor {FLOOR[path.stem]}) imports {upward}"


def test_the_floor_check_sees_every_form_of_import(tmp_path):
    (tmp_path / "m.py").write_text(
        "from . import cli\nfrom .mel import x\ndef f():\n    import wavelldm.nb\n    from wavelldm import data\n"
    )
    assert imported(tmp_path / "m.py") == {"cli", "mel", "nb", "data"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 320, f"{path.name} is two rooms"


def test_no_notebook_is_named_after_a_module():
    names = {p.stem for p in MODULES}
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
    return re.match(r"[A-Za-z0-9_.-]+", spec.strip())[0].lower().replace("_", "-")


def in_pyproject() -> set[str]:
    p = project()
    specs = [*p["dependencies"], *(s for extra in p["optional-dependencies"].values() for s in extra)]
    return {package(s) for s in specs} - {"wavelldm"}


def in_environment() -> set[str]:
    lines = re.findall(r"^\s+- ([a-z][\w.-]*)(?:[<>=].*)?$", (ROOT / "environment.yml").read_text(), re.M)
    return {CONDA.get(name, name) for name in lines} - {"conda-forge", "python", "pip"}


def in_constraints() -> set[str]:
    return {package(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"}


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
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all("==" in line.split(";")[0] for line in pins)
    p = project()
    specs = [
        *p["dependencies"],
        *(s for e in p["optional-dependencies"].values() for s in e if not s.startswith("wavelldm")),
    ]
    assert all(">=" in s and "==" not in s.split(";")[0] for s in specs)  # Colab keeps the torch it has


def test_the_tested_versions_satisfy_the_bounds():
    bounds = {}
    p = project()
    for spec in [*p["dependencies"], *(s for e in p["optional-dependencies"].values() for s in e)]:
        if ">=" in spec:
            bounds[package(spec)] = spec.split(";")[0].split(">=")[1].strip()
    number = lambda v: [int(x) for x in re.findall(r"\d+", v)]
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and line[0] != "#":
            version = line.split(";")[0].split("==")[1].strip()
            assert number(version) >= number(bounds[package(line)]), line


# --- one address ----------------------------------------------------------------------------------------------------


def test_the_address_of_the_repository_stands_in_one_place():
    address = project()["urls"]["Repository"].removeprefix("https://")
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


def test_the_file_tree_in_the_readme_names_every_module():
    tree = (ROOT / "README.md").read_text().split("## What lies where")[1].split("```")[1]
    assert [p.name for p in MODULES if p.stem not in ("__init__", "__main__") and p.name not in tree] == []


# --- notebooks as they are committed --------------------------------------------------------------------------------

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_follow_the_template(path):
    import build

    cells = json.loads(path.read_text())["cells"]
    source = ["".join(c["source"]) for c in cells]
    code = [c for c in cells if c["cell_type"] == "code"]
    outputs = [o for c in code for o in c.get("outputs", [])]
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
