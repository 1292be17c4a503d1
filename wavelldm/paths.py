"""Where downloads and caches live."""

import os
from pathlib import Path


def data_home() -> Path:
    """$WAVELLDM_DATA if set; else `data/` of the checkout this runs from; else ~/.cache/wavelldm. May not exist."""
    chosen = os.environ.get("WAVELLDM_DATA")
    if chosen:
        return Path(chosen).expanduser().absolute()
    root = Path(__file__).resolve().parent.parent
    if (root / "pyproject.toml").is_file() and (root / "data").is_dir():
        return root / "data"
    return Path.home() / ".cache" / "wavelldm"
