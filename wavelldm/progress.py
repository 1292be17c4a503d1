"""Progress bars: on standard error, where a person looks at it, and nowhere else."""

from collections.abc import Iterable

from tqdm import tqdm


def progress_bar(iterable: Iterable | None = None, show: bool = True, **settings) -> tqdm:
    """A tqdm bar that appears after a second and is gone at the end; none where standard error is not a terminal."""
    return tqdm(iterable, disable=None if show else True, **{"delay": 1.0, "leave": False, **settings})
