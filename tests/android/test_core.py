"""The Android app, as far as it can be built here: its core runs the graph that ships, and the app compiles.

They need javac, JUnit 4, aapt and Android's resources; where one is missing they fail, with a sentence that says what
to install.
"""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ANDROID = Path(__file__).parents[2] / "android"
APP = ANDROID / "app" / "src" / "main"


def build(part: str, out: Path, **more: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHON": sys.executable, "OUT": str(out), **more}
    return subprocess.run(["bash", ANDROID / "build.sh", part], env=env, capture_output=True, text=True)


def test_the_core_gives_what_python_gives_on_the_graph_that_ships(tmp_path):
    done = build("core", tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    written = sum(path.read_text().count("@Test\n") for path in ANDROID.glob("core/src/test/**/*.java"))
    ran = int(re.search(r"^OK \((\d+) tests\)$", done.stdout, re.M)[1])
    assert ran == written > 15


def test_the_app_compiles(tmp_path):
    done = build("app", tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "app/org/wavelldm/app/LiveService.class").is_file()
    assert (tmp_path / "r/resources.apk").stat().st_size > 1000


def test_what_is_missing_is_named(tmp_path):
    for part, variable, package in (("core", "JUNIT", "junit4"), ("app", "FRAMEWORK", "android-framework-res")):
        done = build(part, tmp_path, **{variable: str(tmp_path / "nowhere")})
        assert done.returncode == 1
        assert f"apt-get install {package}" in done.stderr


def test_the_manifest_asks_for_the_permissions_that_live_sound_needs():
    name = "{http://schemas.android.com/apk/res/android}name"
    manifest = ElementTree.parse(APP / "AndroidManifest.xml").getroot()
    asked = {node.get(name).removeprefix("android.permission.") for node in manifest.iter("uses-permission")}
    service = "FOREGROUND_SERVICE"  # nothing that could leave the phone: no network
    assert asked == {"RECORD_AUDIO", service, f"{service}_MICROPHONE", "POST_NOTIFICATIONS"}
    classes = [node.get(name) for kind in ("activity", "service") for node in manifest.iter(kind)]
    assert [c for c in classes if not (APP / f"java/org/wavelldm/app/{c.lstrip('.')}.java").is_file()] == []


def test_every_text_of_the_app_is_used():
    source = "".join(path.read_text() for path in APP.rglob("*.java"))
    source += "".join(path.read_text() for path in APP.rglob("*.xml"))
    names = [node.get("name") for node in ElementTree.parse(APP / "res/values/strings.xml").getroot()]
    assert [n for n in names if f"R.string.{n}" not in source and f"@string/{n}" not in source] == []
