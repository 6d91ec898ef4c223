"""The methods of the results table, each one answering questions in its own way under one `Setting`.

A config names one by a *spec*: a name (``ircot``), or a mapping with the name and that
method's options (``{name: ircot, variant: flashrag}``).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from search_agents.engines.base import Capability
from search_agents.methods.base import Method, Setting, able
from search_env.errors import ConfigError, unknown_name

__all__ = ["Method", "MethodSpec", "Setting", "check_method", "make_method", "method_name", "method_names"]

MethodSpec = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and that method's options."""

_BUILT_IN = {
    "naive-generation": "search_agents.methods.naive:NaiveGeneration",
    "standard-rag": "search_agents.methods.standard_rag:StandardRAG",
    "marco-o1": "search_agents.methods.marco_o1:MarcoO1",
    "skywork-o1": "search_agents.methods.skywork_o1:SkyworkO1",
    "r1-searcher": "search_agents.methods.r1_searcher:R1Searcher",
    "r1-searcher-forced-query": "search_agents.methods.r1_searcher:ForcedQuery",
    "search-r1": "search_agents.methods.search_r1:SearchR1",
    "search-o1": "search_agents.methods.search_o1:SearchO1",
    "react": "search_agents.methods.react:ReAct",
    "zerosearch": "search_agents.methods.zerosearch:ZeroSearch",
    "human": "search_agents.methods.human:make_human",
    "oracle": "search_agents.methods.floor_and_ceiling:make_oracle",
    "random": "search_agents.methods.floor_and_ceiling:make_random_agent",
}


def method_names() -> Mapping[str, str]:
    """Every name there is, in the order of the table, with the place of what makes the method."""
    return _BUILT_IN


def method_name(spec: MethodSpec) -> str:
    """The name in a spec.

    Raises:
        ConfigError: If there is none, or no method of that name.
    """
    name = spec if isinstance(spec, str) else spec.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"a method is a name or a mapping with the key 'name', got {spec!r}. For example: ircot.")
    if name not in method_names():
        raise ConfigError(unknown_name("method", name, method_names()))
    return name


def check_method(spec: MethodSpec) -> None:
    """Check a spec; no method is made.

    Raises:
        ConfigError: If there is no such method, or an option is wrong.
    """
    _kind_and_options(spec)


def make_method(spec: MethodSpec, setting: Setting) -> Method:
    """Make a method.

    Args:
        spec: Its name, or a mapping with its options.
        setting: What it works with.

    Raises:
        ConfigError: If there is no such method, an option is wrong, or the engine cannot do what the method needs.
    """
    kind, options = _kind_and_options(spec)
    needs: frozenset[Capability] = getattr(kind, "needs", frozenset())
    if lacking := needs - setting.engine.capabilities:
        raise ConfigError(
            f"the method {method_name(spec)!r} needs an engine that can {', '.join(sorted(lacking))}, and "
            f"{setting.engine.name} cannot: it can {able(setting.engine)}. Use the engine 'transformers'."
        )
    made: Method = kind(setting) if options is None else kind(setting, options)
    return made


def _kind_and_options(spec: MethodSpec) -> tuple[Any, Any]:
    """What makes the method, and its options; None where it has none."""
    name = method_name(spec)
    module, _, attribute = method_names()[name].partition(":")
    kind = getattr(import_module(module), attribute)
    given = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    schema = getattr(kind, "Options", None)
    if schema is None:
        if given:
            raise ConfigError(f"the method {name!r} has no options; got {', '.join(given)}. Remove them.")
        return kind, None
    try:
        return kind, schema(**given)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
        allowed = ", ".join(schema.model_fields) or "none"
        raise ConfigError(f"method {name!r}: {'; '.join(problems)}. Its options: {allowed}.") from None
