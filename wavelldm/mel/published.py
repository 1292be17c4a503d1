"""Networks that others published, fetched through their own libraries: a name on their hub, or a folder that they
wrote."""

import importlib
from typing import Any

from ..errors import WavelldmError


def fetch(package: str, kind: str, name: str, subfolder: str) -> Any:
    """`package`.`kind`.from_pretrained(name); where `name` holds a whole pipeline, the part in `subfolder`."""
    try:
        cls = getattr(importlib.import_module(package), kind)
    except ModuleNotFoundError as error:
        raise WavelldmError(
            f"published weights are read by the package '{error.name}'; install it with: pip install {package}"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:  # a package that it finds, but cannot load
        why = str(error).strip().splitlines()[-1]
        raise WavelldmError(
            f"{package} is installed but does not load ({why}); repair or remove the package it stumbles over"
        ) from None
    reasons = []
    for where in ({}, {"subfolder": subfolder}):
        try:
            return cls.from_pretrained(name, **where)
        except (OSError, ValueError) as error:
            reasons.append(str(error).strip().splitlines()[0])
    raise WavelldmError(
        f"'{name}' gives no {kind} ({reasons[0]}); check the name and the connection, or name a folder that holds one"
    )
