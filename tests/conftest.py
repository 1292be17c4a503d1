"""One thread for each process, set before torch is imported: sums then come out the same everywhere, and a busy
machine does not make two threads wait for each other."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest


@pytest.fixture
def two_recordings(tmp_path, monkeypatch) -> tuple[list, list]:
    """A second of noise to learn from and another that is held out, a list of one item each; what is decoded of them
    stays in the folder of the test."""
    import torch

    from wavelldm.audio import files
    from wavelldm.data.corpora import Item

    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "data"))
    items = [Item(tmp_path / "0.wav", split="train"), Item(tmp_path / "1.wav", split="valid")]
    for i, item in enumerate(items):
        files.save(item.path, 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(i)), 16_000)
    return items[:1], items[1:]


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
