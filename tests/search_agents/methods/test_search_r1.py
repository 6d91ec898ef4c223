"""Search-R1 and ZeroSearch: the same questions under the same budgets, in another dialect or with another engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.evaluation.evaluate import evaluate
from search_agents.methods import Setting, make_method
from search_agents.methods.base import env_like

from search_env.dialects import PromptStyle
from search_env.errors import ConfigError, ModelError
from search_env.types import StopReason

PAGES = (("Ondo", "Ondo lies in Varr."), ("Varr", "Varr is a land."))
SAID = ["<think> a </think> <search> Ondo </search>", "what?", "<think> b </think> <answer> Varr </answer>"]


def scripted(said: list[str] = SAID, documents: str = "") -> ScriptedEngine:
    """Says the segments; asked for passages, it writes the documents."""
    return ScriptedEngine({"Where is it?": said, "You are a search engine": [documents] * 9})


@pytest.mark.parametrize("dialect", ["r1-searcher", "search-r1"])
def test_the_policy_plays_in_its_own_dialect_whatever_the_settings_is(
    make_page_setting: Callable[..., Setting], dialect: str
) -> None:
    setting = make_page_setting(scripted(), PAGES, env={"dialect": dialect})
    (transcript,) = make_method("search-r1", setting).run(setting.env.dataset.questions)
    assert transcript.answer == "Varr" and transcript.queries == ("Ondo",)
    assert setting.env.retriever.queries == ["Ondo"], "the setting's own retriever"
    search, malformed, _ = transcript.turns
    assert search.observation == '\n\n<information>Doc 1(Title: "Ondo") Ondo lies in Varr.</information>\n\n'
    assert "That step was not understood" in malformed.observation
    assert [len(turn.calls) for turn in transcript.turns] == [1, 1, 1]
    assert setting.env.rules.dialect.name == dialect, "the setting stays what it was"


def test_a_model_of_another_dialect_is_told_the_rules(make_page_setting: Callable[..., Setting]) -> None:
    def prompt(dialect: str) -> str:
        setting = make_page_setting(scripted(), PAGES, env={"dialect": dialect, "prompt": "bare"})
        method: Any = make_method("search-r1", setting)
        env = method._setting.env
        return str(env.rules.dialect.prompt("q", env.rules.style).text)

    assert "<search> keywords </search>" in prompt("r1-searcher")
    assert prompt("search-r1") == "Question: q\n", "trained on it, it knows them"


def test_the_budgets_are_the_settings(make_page_setting: Callable[..., Setting]) -> None:
    search = "<think> a </think> <search> Ondo </search>"
    setting = make_page_setting(scripted([search] * 5), PAGES, env={"max_searches": 2})
    (transcript,) = make_method("search-r1", setting).run(setting.env.dataset.questions)
    assert transcript.stop_reason is StopReason.MAX_SEARCHES and len(transcript.queries) == 2


def test_an_environment_like_another_differs_in_nothing_else(make_page_setting: Callable[..., Setting]) -> None:
    env = make_page_setting(scripted(), PAGES, env={"max_turns": 4, "max_chars": 99, "reward": "stage1"}).env
    made = env_like(env, dialect="search-r1")
    assert made.rules.dialect.name == "search-r1" and made.rules.budget == env.rules.budget
    assert made.rules.reward is env.rules.reward and made.rules.style is env.rules.style
    same = ("num_envs", "dataset", "retriever", "top_k")
    assert [getattr(made, name) for name in same] == [getattr(env, name) for name in same]


def test_an_environment_like_another_keeps_the_users_own_prompt(
    make_page_setting: Callable[..., Setting], tmp_path: Path
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Please answer {question}")
    env = make_page_setting(scripted(), PAGES, env={"prompt": str(file)}).env
    assert env_like(env, top_k=1).rules.dialect.prompt("q", PromptStyle.BASE).user.startswith("Please answer q")
    other = env_like(env, dialect="search-r1").rules.dialect
    assert not other.prompt("q", PromptStyle.BASE).user.startswith("Please")


def test_the_documents_of_zerosearch_are_written_by_the_model(make_page_setting: Callable[..., Setting]) -> None:
    setting = make_page_setting(scripted(documents="1. Ondo: It is a lake.\n2. A second one.\n3. A third one."), PAGES)
    evaluation = evaluate(make_method("zerosearch", setting), setting.env.dataset.questions)
    (transcript,) = evaluation.transcripts
    assert transcript.answer == "Varr" and setting.env.retriever.queries == []
    assert [hit.document.text for hit in transcript.turns[0].hits] == ["It is a lake.", "A second one."]
    assert evaluation.to_dict()["note"] == "its documents are written by scripted; the corpus is not searched"


def test_zerosearch_takes_another_model_for_the_search_engine(make_page_setting: Callable[..., Setting]) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        make_method({"name": "zerosearch", "model": "./nowhere"}, make_page_setting(scripted(), PAGES))
    with pytest.raises(ConfigError, match="noise: Input should be less than or equal to 1"):
        make_method({"name": "zerosearch", "noise": 2}, make_page_setting(scripted(), PAGES))
