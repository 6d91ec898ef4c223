"""What the verbs share: a parser whose mistakes are `ConfigError`, and settings as dotted flags."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NoReturn, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from search_agents.config import Override, parse_flags, parse_setting
from search_agents.config.load import closest_flag, dotted_keys, parse_yaml
from search_agents.config.recipes import read_retriever
from search_env.errors import ConfigError

__all__ = [
    "RETRIEVER_HELP",
    "Parser",
    "add_settings",
    "add_skip_malformed",
    "gigabytes",
    "no_settings",
    "overrides",
    "retriever_spec",
    "settings_help",
    "whole_number",
]

RETRIEVER_HELP = "what searches: a name, '{name: NAME, …}' with its settings, or a YAML file of these"


class Parser(argparse.ArgumentParser):
    """An argument parser for one verb.

    Args:
        verb: Name of the verb.
        purpose: One line on what it does.
        examples: Three commands to copy, without the leading spaces.
        more: Text after the options, for example the list of settings.
    """

    def __init__(self, verb: str, purpose: str, *, examples: Sequence[str], more: str = "") -> None:
        shown = "\n".join(f"  {example}" for example in examples)
        super().__init__(
            prog=f"search-env {verb}",
            description=f"{purpose[:1].upper()}{purpose[1:]}.",
            epilog=f"examples:\n{shown}" + (f"\n\n{more}" if more else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag that it knows."""
        return tuple(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing usage: every mistake is reported in one way.

        Raises:
            ConfigError: Always.
        """
        end = "" if message.endswith("?") else "."
        raise ConfigError(f"{message}{end} `{self.prog} --help` shows the options and three examples.")


def no_settings(parser: Parser, settings: Sequence[str]) -> None:
    """Refuse arguments that a verb does not know.

    Raises:
        ConfigError: If there are any.
    """
    if settings:
        close = closest_flag(settings[0].partition("=")[0], parser.flags)
        parser.error(f"unknown argument {settings[0]!r}" + (f". Did you mean {close}?" if close else ""))


def retriever_spec(text: str) -> str | dict[str, Any]:
    """A retriever as the command line has it: a name, a mapping in YAML's short form, or a YAML file.

    Raises:
        ConfigError: If it begins like a mapping and is none, or the file holds no retriever.
    """
    if not text.lstrip().startswith("{"):
        return read_retriever(text)
    try:
        spec: dict[str, Any] = parse_yaml(text)
    except yaml.YAMLError as error:
        reason = "" if isinstance(error, yaml.MarkedYAMLError) else f": {error}"
        raise ConfigError(
            f"{text!r} is not a mapping{reason}. Write for example '{{name: bm25, index: FOLDER}}'."
        ) from None
    return spec


def whole_number(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number, not less than `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return read


def gigabytes(text: str) -> float:
    """The type of an argument that is an amount of memory."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of gigabytes above 0")
    return amount


def add_skip_malformed(parser: Parser, where: str = "") -> None:
    """Add ``--skip-malformed N``, the cap of `search_env.datasets.SkippedRows`.

    Args:
        parser: What to add it to.
        where: What it holds for, where that is not plain.
    """
    parser.add_argument(
        "--skip-malformed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help=f"leave out at most N malformed rows{where} and tell which [%(default)s]",
    )


def add_settings(
    parser: Parser, short: Mapping[str, tuple[str, str]], *, also: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Add ``--config``, ``--set`` and short flags for some settings.

    Args:
        parser: The parser of a verb.
        short: Dotted key and help of each short flag.
        also: Another name of a short flag.
    """
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="recipe: YAML files or shipped names, the last wins; may be repeated",
    )
    for flag, (key, text) in short.items():
        names = [flag, also[flag]] if flag in also else [flag]
        parser.add_argument(*names, dest=key, metavar=flag[2:].upper(), help=f"{text} (--{key.replace('_', '-')})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set one key; may be repeated")
    parser.set_defaults(short=short, parser=parser)


def overrides(
    arguments: argparse.Namespace, settings: Sequence[str], schema: type[BaseModel] | None = None
) -> list[Override]:
    """All settings of a command line: short flags, then ``--set KEY=VALUE``, then dotted flags; the last wins.

    Args:
        arguments: Of a parser that `add_settings` has extended.
        settings: The arguments that the parser left over.
        schema: The config class, to name its closest setting where one is unknown.

    Raises:
        ConfigError: If one of them is no setting.
    """
    given = {flag: (key, getattr(arguments, key)) for flag, (key, _) in arguments.short.items()}
    short = [Override(key=key, value=value, source=flag) for flag, (key, value) in given.items() if value is not None]
    return [
        *short,
        *map(parse_setting, arguments.set),
        *parse_flags(settings, flags=arguments.parser.flags, schema=schema),
    ]


def settings_help(schema: type[BaseModel]) -> str:
    """The settings of a config class as help text: flag, type, meaning and default."""
    lines = ["settings (defaults in brackets; the recipe's values come before, flags win):"]
    for key, field in dotted_keys(schema):
        flag = f"--{key.replace('_', '-')} {_metavar(field.annotation)}"
        default = "" if field.is_required() else f" [{_shown(field)}]"
        lines.append(f"  {flag:44}{field.description or ''}{default}")
    return "\n".join(lines)


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, get_args(annotation))) + "}"
    kinds = {bool: "BOOL", int: "INT", float: "FLOAT", str: "TEXT"}
    if annotation in kinds:
        return kinds[annotation]
    if get_origin(annotation) is tuple:
        return "[...]"
    return next((kinds[inner] for inner in get_args(annotation) if inner in kinds), "VALUE")


def _shown(field: FieldInfo) -> str:
    value = field.default
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
