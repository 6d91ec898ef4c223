"""``search-env list``: everything that has a name, without loading a model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence

from search_agents.cli.arguments import Parser, no_settings
from search_agents.cli.terminal import write
from search_agents.config import recipes
from search_env.errors import ConfigError, unknown_name

__all__ = ["parser", "run"]

_VERBS = ("train", "algorithms", "tune", "sample", "sft", "eval", "ablations")


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=("search-env list", "search-env list rewards", "search-env list environments --json"),
    )
    made.add_argument("kind", nargs="?", help=f"one of {', '.join(_KINDS)} [all]")
    made.add_argument("--json", action="store_true", help="print one JSON object of lists")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Print the names."""
    no_settings(parser("list", ""), settings)
    if arguments.kind is not None and arguments.kind not in _KINDS:
        raise ConfigError(unknown_name("kind", arguments.kind, _KINDS))
    kinds = [arguments.kind] if arguments.kind else list(_KINDS)
    named = {kind: list(_KINDS[kind]()) for kind in kinds}
    if arguments.json:
        write(json.dumps(named, indent=2))
    else:
        write("\n\n".join("\n".join([f"{kind}:", *(f"  {name}" for name in names)]) for kind, names in named.items()))
    return 0


def _environments() -> Iterable[str]:
    from search_env.registration import ENVIRONMENTS

    working = set(_datasets())
    return [env_id for env_id, dataset in ENVIRONMENTS.items() if dataset in working]


def _dialects() -> Iterable[str]:
    from search_env.dialects import DIALECTS

    return DIALECTS


def _rewards() -> Iterable[str]:
    from search_env.plugins import REWARDS as PLUGINS
    from search_env.plugins import working_plugins
    from search_env.rewards import REWARDS

    return [*REWARDS, *working_plugins(PLUGINS, taken=REWARDS)]


def _reward_parts() -> Iterable[str]:
    from search_env.rewards import PARTS

    return PARTS


def _datasets() -> Iterable[str]:
    from search_env.datasets import DATASETS
    from search_env.plugins import DATASETS as PLUGINS
    from search_env.plugins import working_plugins

    return [*DATASETS, *working_plugins(PLUGINS, taken=DATASETS)]


def _methods() -> Iterable[str]:
    from search_agents.methods import BUILT_IN
    from search_env.plugins import AGENTS, working_plugins

    return [*BUILT_IN, *working_plugins(AGENTS, taken=BUILT_IN)]


def _retrievers() -> Iterable[str]:
    from search_env.plugins import RETRIEVERS, is_ours, plugins, working_plugins
    from search_env.retrieval import BUILT_IN

    own = {name for name, point in plugins(RETRIEVERS).items() if is_ours(point)}
    return sorted({*BUILT_IN, *own, *working_plugins(RETRIEVERS, taken=BUILT_IN)})


def _recipes() -> Iterable[str]:
    return [f"{verb}/{name}" for verb in _VERBS for name in recipes(verb)]


_KINDS: dict[str, Callable[[], Iterable[str]]] = {
    "environments": _environments,
    "dialects": _dialects,
    "rewards": _rewards,
    "reward-parts": _reward_parts,
    "datasets": _datasets,
    "methods": _methods,
    "retrievers": _retrievers,
    "recipes": _recipes,
}
