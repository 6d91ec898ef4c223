"""The methods of the results table, each one answering questions in its own way under one `Setting`.

A config names one by a *spec*: a name (``ircot``), or a mapping with the name and that
method's options (``{name: ircot, variant: flashrag}``). A package of yours adds one through
the entry point group ``search_env.agents``: an `Agent`, or a class of methods like those here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_agents.engines.base import Capability
from search_agents.methods.agent import Agent, AgentMethod
from search_agents.methods.base import Method, Setting, able
from search_env.errors import ConfigError, PluginError, unknown_name, wrong_settings
from search_env.plugins import AGENTS, load_plugin, plugins
from search_env.types import Question

__all__ = [
    "BUILT_IN",
    "Agent",
    "Method",
    "MethodSpec",
    "Setting",
    "check_method",
    "fit_method",
    "fit_options",
    "make_method",
    "method_key",
    "method_name",
    "method_names",
    "needs_model",
]

MethodSpec = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and that method's options."""

BUILT_IN = {
    "naive-generation": "search_agents.methods.naive:NaiveGeneration",
    "standard-rag": "search_agents.methods.standard_rag:StandardRAG",
    "sure": "search_agents.methods.sure:SuRe",
    "replug": "search_agents.methods.replug:REPLUG",
    "longllmlingua": "search_agents.methods.longllmlingua:LongLLMLingua",
    "recomp": "search_agents.methods.recomp:Recomp",
    "selective-context": "search_agents.methods.selective_context:SelectiveContext",
    "skr": "search_agents.methods.skr:SKR",
    "self-ask": "search_agents.methods.self_ask:SelfAsk",
    "iter-retgen": "search_agents.methods.iter_retgen:IterRetGen",
    "ircot": "search_agents.methods.ircot:IRCoT",
    "cr-planner": "search_agents.methods.cr_planner:CRPlanner",
    "rearter": "search_agents.methods.rearter:ReARTeR",
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
"""Our own methods by name, in the order of the table, each with the place of what makes it."""


def method_names() -> Mapping[str, str]:
    """Every name there is, in the order of the table, with the place of what makes the method."""
    return {**BUILT_IN, **{name: point.value for name, point in plugins(AGENTS).items() if name not in BUILT_IN}}


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


def method_key(method: MethodSpec) -> str:
    """The name of a method in folders and tables, its options included: ``ircot-variant=flashrag``."""
    if isinstance(method, str):
        return method
    options = [f"{key}={Path(str(value)).name}" for key, value in method.items() if key != "name"]
    return "-".join([method_name(method), *options])


def check_method(spec: MethodSpec) -> None:
    """Check a spec; no method is made.

    Raises:
        ConfigError: If there is no such method, or an option is wrong.
        PluginError: If it is of another package, and that is broken.
    """
    _kind_and_options(spec)


def fit_method(spec: MethodSpec, setting: Setting, questions: Sequence[Question], folder: Path) -> dict[str, Any]:
    """Train the part that a method has of its own.

    Args:
        spec: The method, with the options of the training: what its `fit_options` returns.
        setting: What it works with; the labels come from its model.
        questions: Training questions.
        folder: Where labels and part go; labels that are there are kept.

    Returns:
        What came of it: counts, and how well the part does on what was held out.

    Raises:
        ConfigError: If the method has no such part, an option is wrong, or the engine cannot do what the method needs.
        PluginError: See `check_method`.
    """
    kind, options = fit_options(spec)
    _require(kind, spec, setting)
    figures: dict[str, Any] = kind.fit(setting, questions, folder, options)
    return figures


def fit_options(spec: MethodSpec) -> tuple[Any, Any]:
    """What trains the part of a method, and the options of the training; see `fit_method`."""
    kind = _kind(method_name(spec))
    if not hasattr(kind, "fit"):
        having = ", ".join(name for name in BUILT_IN if hasattr(_kind(name), "fit"))
        raise ConfigError(
            f"the method {method_name(spec)!r} has no part of its own to train. Those that have one: {having}."
        )
    return kind, _options(spec, kind.fit_options())


def needs_model(spec: MethodSpec) -> bool:
    """Whether the method asks the model of the setting anything.

    Raises:
        ConfigError: See `check_method`.
        PluginError: See `check_method`.
    """
    return bool(_needs(_kind_and_options(spec)[0]))


def make_method(spec: MethodSpec, setting: Setting) -> Method:
    """Make a method.

    Args:
        spec: Its name, or a mapping with its options.
        setting: What it works with.

    Raises:
        ConfigError: If there is no such method, an option is wrong, or the engine cannot do what the method needs.
    """
    kind, options = _kind_and_options(spec)
    _require(kind, spec, setting)
    made: Method = kind(setting) if options is None else kind(setting, options)
    return made


def _require(kind: Any, spec: MethodSpec, setting: Setting) -> None:
    """Refuse an engine that cannot do what the method needs."""
    if lacking := _needs(kind) - setting.engine.capabilities:
        raise ConfigError(
            f"the method {method_name(spec)!r} needs an engine that can {', '.join(sorted(lacking))}, and "
            f"{setting.engine.name} cannot: it can {able(setting.engine)}. Use the engine 'transformers'."
        )


def _needs(kind: Any) -> frozenset[Capability]:
    needs: frozenset[Capability] = getattr(kind, "needs", frozenset())
    return needs


def _kind(name: str) -> Any:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(import_module(module), attribute)
    found = load_plugin(AGENTS, name)
    if isinstance(found, type) and issubclass(found, Agent):
        return partial(AgentMethod, name, found)
    if not callable(getattr(found, "run", None)):
        raise PluginError(
            f"the plug-in {name!r} is neither an agent nor a method: {found!r} has no reset() and act(), and no run(). "
            "`search-env new agent NAME` writes one to begin with."
        )
    return found


def _kind_and_options(spec: MethodSpec) -> tuple[Any, Any]:
    """What makes the method, and its options; None where it has none."""
    kind = _kind(method_name(spec))
    return kind, _options(spec, getattr(kind, "Options", None))


def _options(spec: MethodSpec, schema: Any) -> Any:
    name = method_name(spec)
    given = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    if schema is None:
        if given:
            raise ConfigError(f"the method {name!r} has no options; got {', '.join(given)}. Remove them.")
        return None
    try:
        return schema(**given)
    except ValidationError as error:
        problems = wrong_settings(error.errors(), schema.model_fields)
        allowed = ", ".join(schema.model_fields) or "none"
        raise ConfigError(f"method {name!r}: {problems} Its options: {allowed}.") from None
