"""``search-env play``: a person takes the place of the model.

How lines are read is told in `search_agents.methods.human`, by which a person takes part in
an evaluation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, no_settings, retriever_spec, whole_number
from search_agents.cli.terminal import write
from search_agents.methods.human import HOW_TO_PLAY, as_segment, read_line, shown_turn
from search_env.render import end_spans, plain, visible

if TYPE_CHECKING:
    from search_env import SearchQAEnv
    from search_env.dialects import Dialect

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env play",
            "search-env play --env SearchQA-HotpotQA-v0 --data ../shared/data/hotpotqa --split dev --question 3",
            "printf 'mayor of Oslo\\nanswer: nobody\\n' | search-env play --seed 7",
        ),
    )
    made.add_argument("--env", default="SearchQA-FictionalWiki-v0", metavar="ID", help="environment [%(default)s]")
    made.add_argument("--data", metavar="FOLDER", help="data of the environment, if it is not embedded")
    made.add_argument("--split", default="train", help="split of the questions [%(default)s]")
    made.add_argument("--question", metavar="ID", help="id of a question, or its number from 0 [drawn by --seed]")
    made.add_argument("--seed", type=whole_number(0), default=0, help="which question is drawn [%(default)s]")
    made.add_argument("--dialect", default="r1-searcher", help="protocol of tags [%(default)s]")
    made.add_argument("--retriever", default="bm25", metavar="SPEC", help=f"{RETRIEVER_HELP} [%(default)s]")
    made.add_argument("--reward", default="stage2", metavar="NAME", help="reward of the episode [%(default)s]")
    made.add_argument("--top-k", type=int, default=3, metavar="N", help="documents of one search [%(default)s]")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Play one episode."""
    no_settings(parser("play", ""), settings)
    from search_agents.config import Override, load_config
    from search_agents.config.sections import EnvSection
    from search_agents.evaluation.environments import make_env
    from search_env.dialects import get_dialect

    flags = {"id": "--env", "data": "--data", "dialect": "--dialect", "top_k": "--top-k"}
    values = {key: getattr(arguments, flag[2:].replace("-", "_")) for key, flag in flags.items()}
    section = load_config(
        EnvSection,
        overrides=[Override(key, str(value), flags[key]) for key, value in values.items() if value is not None],
        base={"retriever": retriever_spec(arguments.retriever)},
        base_source="--retriever",
    )
    env = make_env(section, split=arguments.split, reward=arguments.reward)
    dialect = get_dialect(section.dialect)
    asked = arguments.question
    if asked is not None:
        asked = int(asked) if asked.isdecimal() else asked
    env.reset(seed=arguments.seed, options=None if asked is None else {"question": asked})
    write(f"Question: {visible(env.transcript.question.text)}\n{HOW_TO_PLAY}")
    reward_parts = _play(env, dialect)
    if reward_parts is None:
        write("\nLeft without an answer.")
    else:
        write(plain(end_spans(env.transcript, reward_parts)))
        write(f"Right answer: {visible(' / '.join(env.transcript.question.answers))}")
    return 0


def _play(env: SearchQAEnv, dialect: Dialect) -> dict[str, float] | None:
    """Read lines until the episode ends; returns what it earned, or None if the player leaves before."""
    while (line := read_line()) is not None and line.strip().lower() != "quit":
        if not line.strip():
            continue
        _, _, terminated, truncated, info = env.step(as_segment(line, dialect))
        if terminated or truncated:
            parts: dict[str, float] = info["reward_parts"]
            return parts
        write(shown_turn(env.transcript))
    return None
