"""A browser without a window, and the server of the page. Where there is no Chromium, tests fail and say so."""

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from wavelldm.app.web_server import Server

FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --use-fake-device-for-media-stream --use-fake-ui-for-media-stream "
    "--autoplay-policy=no-user-gesture-required"
).split()
SECOND = 1000  # milliseconds, as Playwright counts


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server(0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("the browser app is tested in Chromium; install it: apt-get install chromium", pytrace=False)
    return found


@pytest.fixture(scope="session")
def launch(playwright) -> Callable:
    """A browser whose microphone hears a WAV file, over and over."""

    def launch(microphone: Path | None = None, flags: tuple[str, ...] = ()):
        mark = f"--wavelldm-test={uuid.uuid4().hex}"
        extra = [f"--use-file-for-fake-audio-capture={microphone}"] if microphone else []
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*FLAGS, *extra, *flags, mark])
        hurry(mark)
        return browser

    return launch


def hurry(mark: str) -> None:
    """Asks for a larger share of a busy machine, which Linux gives to groups of processes; not everybody may ask."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "cmdline").read_text():
                (folder / "autogroup").write_text("-10")


@pytest.fixture(scope="session")
def browser(launch):
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture
def visit(browser, server) -> Iterator[Callable]:
    """The page, opened anew. What it says of faults in its console fails the test."""
    contexts, faults = [], []

    def visit(path: str = "", browser=browser, **options):
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60 * SECOND)
        page.on("console", lambda m: m.type == "error" and faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.address + path)
        return page

    visit.faults = faults  # for tests that want some
    yield visit
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def parts(visit) -> Callable:
    """Runs a piece of JavaScript with the parts of the page as `p` and arguments as `a`; arrays become lists."""
    page = visit("build.json")  # a page on which nothing runs

    def run(code: str, **arguments):
        arguments = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        return page.evaluate(f"async (a) => {{ const p = await import('/parts.js'); {code} }}", arguments)

    return run
