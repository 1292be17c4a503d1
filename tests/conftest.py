"""One thread for each process, set before torch is imported: sums then come out the same everywhere, and a busy
machine does not make two threads wait for each other."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest


@pytest.fixture(scope="session")
def playwright():
    """What drives browsers: one for all tests, as there can be only one in a process."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("pages are tested with Playwright; install it: pip install playwright", pytrace=False)
    with sync_playwright() as found:
        yield found


def pytest_collection_modifyitems(items: list) -> None:
    """Side by side, tests of one file stay together, as they share what they set up; notebooks go one by one."""
    for item in items:
        if item.get_closest_marker("notebook") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
