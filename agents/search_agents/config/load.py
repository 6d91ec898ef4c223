"""From YAML files and flags to one checked config: defaults < files, in order < flags.

Whatever is wrong is told with the place it was written (file or flag), the key, what
is allowed and the closest key that exists. A file or flag can only hold plain values:
nothing is imported or run because of a config.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from search_env.errors import ConfigError, pydantic_message

__all__ = [
    "Override",
    "closest_flag",
    "differing_keys",
    "dotted_keys",
    "load_config",
    "parse_flags",
    "parse_setting",
    "parse_yaml",
    "read_yaml",
]

Key = tuple[str | int, ...]
C = TypeVar("C", bound=BaseModel)

_DEFAULTS = "the defaults"

_ALSO_CALLED = {"limit": "questions"}  # short flags named otherwise than their setting


@dataclass(frozen=True, slots=True)
class Override:
    """One setting given on the command line."""

    key: str
    """Dotted key: ``learner.lr``, ``stages.0.max_steps``."""
    value: str
    source: str
    """How it was written, for messages."""


def parse_flags(
    arguments: Sequence[str], *, flags: Sequence[str] = (), schema: type[BaseModel] | None = None
) -> list[Override]:
    """Read dotted flags: ``--learner.lr 1e-4`` or ``--learner.lr=1e-4``.

    Args:
        arguments: What a parser left over.
        flags: The flags that the parser knows, to name the closest of them.
        schema: The config class, to name the closest setting.

    Raises:
        ConfigError: If an argument is no dotted flag or has no value.
    """
    overrides = []
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not re.fullmatch(r"--[\w-]+(\.[\w-]+)+", flag):
            close = closest_flag(flag, flags, schema)
            raise ConfigError(
                f"unknown argument {flag!r}.{f' Did you mean {close}?' if close else ''} "
                "A setting is written --section.key VALUE; see --help."
            )
        if not equals:
            if not rest or re.match(r"--[A-Za-z]", rest[0]):
                raise ConfigError(f"{flag} has no value. Write {flag} VALUE.")
            value = rest.pop(0)
        overrides.append(Override(key=_snake(flag[2:]), value=value, source=flag))
    return overrides


def closest_flag(given: str, flags: Sequence[str], schema: type[BaseModel] | None = None) -> str | None:
    """The flag, or else the setting as a flag, that an unknown argument may have meant; None if nothing is close.

    Args:
        given: The argument.
        flags: The flags that there are.
        schema: The config class whose settings may be meant, too.
    """
    if not given.startswith("--"):
        return None
    if close := difflib.get_close_matches(given, flags, n=1, cutoff=0.8):
        return close[0]
    name = _snake(given[2:])
    keys = [key for key, _ in dotted_keys(schema)] if schema else []
    asks_only = schema is not None and not {"learner", "sampling", "sft"} & schema.model_fields.keys()
    if asks_only:  # then --temperature is not the one of rollouts
        keys.sort(key=lambda key: key.startswith("rollout."))
    within = [key for key in keys if key.startswith(f"{name}.")]
    found = within or _close_leaf(name, keys, 0.85 if asks_only else 1.0) or _close_leaf(name, keys, 0.75)
    return f"--{found[0].replace('_', '-')}" if found else None


def parse_setting(text: str) -> Override:
    """Read the argument of ``--set``: ``learner.lr=1e-4``.

    Raises:
        ConfigError: If it is not of the form KEY=VALUE.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
        raise ConfigError(f"--set {text!r} is not of the form KEY=VALUE. Write for example --set learner.lr=1e-4.")
    return Override(key=_snake(key.strip()), value=value, source=f"--set {key.strip()}")


def load_config(
    schema: type[C],
    files: Sequence[Path] = (),
    overrides: Sequence[Override] = (),
    *,
    base: Mapping[str, Any] | None = None,
    base_source: str = _DEFAULTS,
) -> C:
    """Put a config together and check it.

    Args:
        schema: The config class.
        files: YAML files; a later one wins.
        overrides: Settings of the command line; they win over the files.
        base: Values that come before the files, for example those of a finished run.
        base_source: Name of `base` in messages.

    Raises:
        ConfigError: If a file cannot be read, or a key or value is wrong. All problems are told at once.
    """
    sources: dict[Key, str] = {}
    values = schema.model_construct().model_dump(mode="json")  # without the keys that have no default
    if base is not None:
        values = _merged(values, dict(base), base_source, sources)
    for file in files:
        values = _merged(values, read_yaml(file), str(file), sources)
    for override in overrides:
        _assign(values, override, sources)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_messages(schema, error, sources))) from None


def dotted_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a config class as (dotted key, pydantic field), in order; an item of a list is ``0``."""
    for name, field in schema.model_fields.items():
        inner = _section_in(field.annotation)
        if inner is None:
            yield prefix + name, field
        else:
            listed = "0." if _is_list(field.annotation) else ""
            yield from dotted_keys(inner, f"{prefix}{name}.{listed}")


def differing_keys(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Dotted keys at which two plain (JSON) values differ, sorted."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        pairs = {key: (one.get(key), other.get(key)) for key in sorted({*one, *other})}
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = {str(index): pair for index, pair in enumerate(zip(one, other, strict=True))}
    else:
        return [] if one == other else [prefix]
    return [key for name, pair in pairs.items() for key in differing_keys(*pair, f"{prefix}.{name}".lstrip("."))]


def parse_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        yaml.YAMLError: If it is not YAML, or cannot be the value that it looks like: a month of 13, ``!!int x``; or
            has a key that is no text: ``off`` is false in YAML.
    """
    try:
        values = yaml.safe_load(text)
        _require_text_keys(values, set())
        return values
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # Its constructors check nothing.
        raise yaml.YAMLError(f"a value cannot be read ({error}); put it in quotes if it is text") from error


def _require_text_keys(value: Any, seen: set[int]) -> None:
    if id(value) in seen:  # an anchor, which may stand for a thousand places, or for a place in itself
        return
    seen.add(id(value))
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise yaml.YAMLError(f"one of its keys means {wrong[0]!r}; put it in quotes if it is text")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _require_text_keys(item, seen)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a file that holds a mapping, or nothing.

    Raises:
        ConfigError: If it cannot be read or holds something else; names file and line.
    """
    try:
        values = parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}. Give the path of a YAML file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text. Give the path of a YAML file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{line}: is not YAML: {getattr(error, 'problem', None) or error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds a {type(values).__name__}; a config is a mapping of keys to values.")
    return values


def _merged(under: Any, over: Any, source: str, sources: dict[Key, str], at: Key = ()) -> Any:
    sources[at] = source
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    merged = dict(under)
    for key, value in over.items():
        merged[key] = _merged(under.get(key), value, source, sources, (*at, key))
    return merged


def _assign(values: dict[str, Any], override: Override, sources: dict[Key, str]) -> None:
    parts = [int(part) if part.isdecimal() else part for part in override.key.split(".")]
    place: Any = values
    for depth, part in enumerate(parts):
        where = ".".join(map(str, parts[:depth]))
        if isinstance(place, list):
            if not isinstance(part, int) or part >= len(place):
                raise ConfigError(f"{override.source}: {where} has items 0 to {len(place) - 1}, not {part!r}.")
        elif not isinstance(place, dict):
            raise ConfigError(f"{override.source}: {where} is a value, it has no keys of its own.")
        if depth == len(parts) - 1:
            place[part] = _plain(override)
        elif isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        place = place[part]
    sources[tuple(parts)] = override.source


def _plain(given: Override) -> Any:
    # Numbers and booleans stay text here: the schema knows which of them a key wants.
    text = given.value
    if text in ("null", "none", "None") or text[:1] in "[{":
        try:
            return parse_yaml("null" if text.lower() == "none" else text)
        except yaml.YAMLError as error:
            if text[:1] + text[-1:] in ("[]", "{}"):
                reason = getattr(error, "problem", None) or error
                raise ConfigError(f"{given.source}: {text} cannot be read as YAML: {reason}.") from None
    return text


def _messages(schema: type[BaseModel], error: ValidationError, sources: Mapping[Key, str]) -> list[str]:
    problems: dict[Key, dict[str, None]] = {}  # a dict keeps the order and drops repetitions
    for detail in error.errors(include_url=False):
        # pydantic counts the items of a list that are valid, so a wrong item is told twice.
        if detail["type"] == "too_short" and detail["input"]:
            continue
        key = _key_within(schema, detail["loc"])
        problems.setdefault(key, {})[_problem(schema, key, detail)] = None
    return [f"{_source(key, sources)}: {_name(key)}{' or '.join(texts)}" for key, texts in problems.items()]


def _problem(schema: type[BaseModel], key: Key, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        section = _section_at(schema, key[:-1]) or schema
        place = ".".join(map(str, key[:-1])) or "the config"
        known = f"Allowed keys in {place}: {', '.join(section.model_fields)}."
        close = _closest(schema, key)
        return "unknown key." + (f" Did you mean {close!r}? " if close else " ") + known
    if detail["type"] == "missing":
        return "the key is missing."
    text = pydantic_message(detail["msg"])
    if detail["type"] in ("tuple_type", "list_type"):
        item = detail["input"]
        text = "input should be a list" + ("" if isinstance(item, dict) else f", for example '[{item}]'")
    leaf = str(key[-1]) if key else ""
    told = not isinstance(detail["input"], dict | list | tuple) and not (leaf == "url" or leaf.endswith("_env"))
    given = f" (given: {detail['input']!r})" if told else ""  # a wrong address, or what is no variable, may be secret
    return f"{text[:1].lower()}{text[1:]}{given}"


def _closest(schema: type[BaseModel], key: Key) -> str | None:
    """The key that an unknown one may have meant: of its own section if one is close, else of another."""
    *around, leaf = key
    place = ".".join("0" if isinstance(part, int) else part for part in around)
    keys = [name for name, _ in dotted_keys(schema)]
    inside = [f"{place}.{name}".lstrip(".") for name in (_section_at(schema, key[:-1]) or schema).model_fields]
    close = (
        _close_leaf(str(leaf), inside, 0.9)
        or _close_leaf(str(leaf), keys, 1.0)
        or _close_leaf(str(leaf), inside, 0.7)
        or [name for name in inside if sorted(name.rsplit(".", 1)[-1]) == sorted(str(leaf))]
    )
    if not close:
        return None
    index = next((str(part) for part in key if isinstance(part, int)), "0")
    return close[0].replace(".0.", f".{index}.")


def _close_leaf(name: str, keys: Sequence[str], cutoff: float) -> list[str]:
    """The keys whose last part is close to a name, in the order of the keys."""
    leaves = [key.rsplit(".", 1)[-1] for key in keys]
    close = difflib.get_close_matches(_ALSO_CALLED.get(name, name), leaves, max(len(leaves), 1), cutoff)
    return [key for key, leaf in zip(keys, leaves, strict=True) if leaf in close]


def _source(key: Key, sources: Mapping[Key, str]) -> str:
    """Where the value at a key was written: last of the key and what is in it, else the section around it."""
    inside = [source for place, source in sources.items() if place[: len(key)] == key]
    around = [sources[key[:n]] for n in range(len(key), -1, -1) if key[:n] in sources]
    return [_DEFAULTS, *reversed(around), *inside][-1]


def _name(key: Key) -> str:
    return f"{'.'.join(map(str, key))}: " if key else ""


def _key_within(schema: type[BaseModel], loc: Key) -> Key:
    """Cut what pydantic adds to a location (the branch of a union, the key of a mapping)."""
    section: type[BaseModel] | None = schema
    for depth, part in enumerate(loc):
        if isinstance(part, int):
            continue
        if section is None:
            return loc[:depth]
        field = section.model_fields.get(part)
        section = _section_in(field.annotation) if field else None
    return loc


def _section_at(schema: type[BaseModel], key: Key) -> type[BaseModel] | None:
    section: type[BaseModel] | None = schema
    for part in key:
        if isinstance(part, str):
            field = section.model_fields.get(part) if section else None
            section = _section_in(field.annotation) if field else None
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_in(inner))), None)


def _is_list(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list)


def _snake(key: str) -> str:
    return key.replace("-", "_")
