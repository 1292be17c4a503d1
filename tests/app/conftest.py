"""A real browser, real servers, small tests."""

import pytest
import torch
from pages import CHROMIUM, SWITCHES
from signals import noisy, speechlike

from wavelldm.app.listen import build
from wavelldm.audio import files

SR = 16_000


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Three short clips: clean, by a good system and by a worse one."""
    root = tmp_path_factory.mktemp("systems")
    for i in range(3):
        clean = 0.4 * speechlike(0.3, seed=i)
        for name, wav in (("clean", clean), ("good", noisy(clean, 25)), ("bad", noisy(clean, 5))):
            files.save(root / name / f"c{i}.wav", torch.as_tensor(wav).float(), SR)
    return root


@pytest.fixture
def make(folders, tmp_path):
    """make("acr") -> a test of that kind."""

    def made(kind, name="test", **more):
        reference = folders / "clean" if kind in ("acr", "mushra") else None
        more = {"reference": reference, "progress": False, **more}
        return build(tmp_path / name, kind, [folders / "good", folders / "bad"], **more)

    return made


@pytest.fixture(scope="session")
def browser(playwright):
    if CHROMIUM is None:
        pytest.fail("these tests drive Chromium, and it is not installed: apt-get install chromium")
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
    yield chromium
    chromium.close()


@pytest.fixture
def visit(browser):
    """visit(url) -> a page of a listener of its own, that fails at the end if a script failed or anything outside was
    asked for."""
    opened, faults = [], []

    def visited(url, base=None, **more):
        context = browser.new_context(**more)
        page = context.new_page()
        page.set_default_timeout(8000)
        home = "/".join(url.split("/")[:3])
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda r: r.url.startswith((home, "blob:" + home, "data:")) or faults.append(f"asked for {r.url}"),
        )
        opened.append(context)
        page.goto(url, timeout=60_000)  # a busy machine
        return page

    yield visited
    for context in opened:
        context.close()
    assert faults == []
