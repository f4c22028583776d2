"""Whether what lies there is what is asked for: the one rule that records, sweeps, parts and feature caches ask."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import Any

__all__ = ["describe", "differences", "key", "plain", "require"]


def describe(config: Any, inputs: Mapping[str, str] | None = None, version: int = 1) -> dict[str, Any]:
    """All that a result depends on, as JSON holds it: its configuration, the version of its code, and its inputs.

    ``inputs`` are digests of what no configuration can hold, such as weights and images.
    """
    return {"config": plain(config), "version": version, "inputs": dict(inputs or {})}


def differences(
    described: Mapping[str, Any], config: Any, inputs: Mapping[str, str] | None = None, version: int = 1
) -> list[str]:
    """Why ``described``, from :func:`describe`, is not what is asked for: a line for each reason, none if it is.

    The recorded configuration is read as one of today's kind: a field that it lacks has its default, so that a new
    field with a default makes nothing stale; a field that there is no more, another type or another value does. A
    class with a ``from_dict`` reads its own, and may convert what an older form of it recorded. A description without
    a version has version 1.
    """
    found = _differences(described.get("config"), config, "")
    asked = {"version": version, **(inputs or {})}
    there = {"version": described.get("version", 1), **described.get("inputs", {})}
    names = list(dict.fromkeys([*asked, *there]))
    return found + [
        _line(name, there.get(name), asked.get(name)) for name in names if there.get(name) != asked.get(name)
    ]


def require(
    path: str | os.PathLike, described: Mapping[str, Any], config: Any, inputs: Mapping[str, str] | None = None
) -> None:
    """Raise ``ValueError``, with what differs, unless the file ``path``, so ``described``, is what is asked for.

    The one rule of what is kept on the way: what belongs to another measurement is refused, never used or replaced.
    """
    reasons = differences(described, config, inputs)
    if reasons:
        raise ValueError(
            f"{path} belongs to another measurement ({'; '.join(reasons)}): remove the folder, or choose another cache"
        )


def plain(config: Any) -> Any:
    """A configuration as JSON gives it back: dictionaries, lists, numbers, words."""
    return json.loads(json.dumps(config, default=asdict))


def key(config: Any) -> str:
    """Sixteen digits to name a file after a configuration; a new field with a default leaves them as they are."""
    return hashlib.sha256(json.dumps(_told(config)).encode()).hexdigest()[:16]


def _differences(there: Any, asked: Any, name: str) -> list[str]:
    if hasattr(asked, "from_dict") and isinstance(there, dict):
        return _of_its_own_making(there, asked, name)
    if is_dataclass(asked) and isinstance(there, dict):
        known = {field.name: field for field in fields(asked)}
        found = [f"{_within(name, key)}: is a field no more" for key in there if key not in known]
        for key, field in known.items():
            value = there[key] if key in there else _default(field)
            found += _differences(value, getattr(asked, key), _within(name, key))
        return found
    if isinstance(asked, tuple | list) and isinstance(there, list) and len(there) == len(asked):
        if any(map(is_dataclass, asked)):
            pairs = enumerate(zip(there, asked, strict=True))
            return [line for i, (a, b) in pairs for line in _differences(a, b, f"{name}[{i}]")]
    return [] if _alike(there, asked := plain(asked)) else [_line(name or "config", there, asked)]


def _of_its_own_making(there: dict[str, Any], asked: Any, name: str) -> list[str]:
    try:
        built = type(asked).from_dict(there)
    except (ValueError, TypeError, KeyError) as error:
        return [f"{name or 'config'}: {error}"]
    found = []
    for field in fields(asked):
        have, want = getattr(built, field.name, _default(field)), getattr(asked, field.name)
        if is_dataclass(have) and not isinstance(want, type(have)):  # kinds whose fields may be the same
            found.append(_line(_within(name, field.name), repr(have), repr(want)))
        else:
            found += _differences(plain(have), want, _within(name, field.name))
    return found


def _alike(there: Any, asked: Any) -> bool:
    return there == asked and isinstance(there, bool) == isinstance(asked, bool)


def _default(field: Field) -> Any:
    if field.default_factory is not MISSING:
        return plain(field.default_factory())
    return None if field.default is MISSING else plain(field.default)


def _told(config: Any) -> Any:
    """A configuration without the fields that have their default."""
    if isinstance(config, tuple | list):
        return [_told(value) for value in config]
    if not is_dataclass(config):
        return plain(config)
    values = {field.name: (getattr(config, field.name), _default(field)) for field in fields(config)}
    return [type(config).__name__, {name: _told(a) for name, (a, default) in values.items() if plain(a) != default}]


def _within(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _line(name: str, there: Any, asked: Any) -> str:
    return f"{name}: {_short(there)} there, {_short(asked)} asked for"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
