"""Configs are frozen dataclasses, one for each network, beside it.

Here they are built from JSON and changed from the command line.
"""

from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from .errors import WavelldmError

C = TypeVar("C")


def from_dict(kind: type[C], values: dict) -> C:
    """Plain values (JSON) -> the config dataclass `kind`, dataclasses inside it too; keys it does not know are
    refused."""
    known = {f.name: f.type for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise WavelldmError(f"{kind.__name__} does not know {', '.join(unknown)}; it knows {', '.join(known)}")
    built = {k: from_dict(known[k], v) if is_dataclass(known[k]) else v for k, v in values.items()}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in built.items()})


def to_dict(config: Any) -> dict:
    return asdict(config)


def settings(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all numbers in a config."""
    for f in fields(config):
        value = getattr(config, f.name)
        yield from settings(value, f"{prefix}{f.name}.") if is_dataclass(value) else [prefix + f.name]


def override(config: C, changes: list[str]) -> C:
    """Change single values of a config: "latent_dim=32", "mel.n_mels=80", "levels=8,8,8"."""
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or key not in settings(config):
            near = get_close_matches(key, settings(config), 3, 0.5) or list(settings(config))
            raise WavelldmError(f"'{change}' is not a setting of {type(config).__name__}; there are {', '.join(near)}")
        config = _changed(config, key.split("."), text, key)
    return config


def _changed(config, path: list[str], text: str, key: str):
    old = getattr(config, path[0])
    new = _changed(old, path[1:], text, key) if len(path) > 1 else _parsed(old, text, key)
    return replace(config, **{path[0]: new})


def _parsed(old: Any, text: str, key: str):
    """`text` as a value of the kind that `old` is."""
    try:
        if isinstance(old, tuple):
            return tuple(int(x) for x in text.split(",") if x)
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(old)(text)
    except (ValueError, KeyError):
        raise WavelldmError(f"'{text}' does not fit {key}, which is {old!r} now; give a value of that kind") from None
