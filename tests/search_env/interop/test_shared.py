from __future__ import annotations

import threading

import pytest

from search_env.errors import ConfigError
from search_env.interop.shared import EnvFactory, chat_messages, find_factory, numbers, reward_of_unfinished

ENV = "SearchQA-FictionalWiki-v0"
SEARCH = "<think> Who? </think> <search> film </search>"


def test_environments_of_a_factory_share_questions_and_index_and_nothing_else():
    make = EnvFactory(ENV)
    one, other = make(), make()
    assert one.retriever is other.retriever
    assert one.dataset is other.dataset
    one.reset(options={"question": 0})
    other.reset(options={"question": 1})
    one.step("<begin_of_query> film <end_of_query>")
    assert (len(one.transcript.turns), len(other.transcript.turns)) == (1, 0)


def test_settings_reach_every_environment():
    env = EnvFactory(ENV, dialect="search-r1", top_k=1, max_searches=1, reward={"em": 1.0}, split="test")()
    env.reset(options={"question": 0})
    observation, *_ = env.step(SEARCH)
    assert "Doc 1(" in observation
    assert "Doc 2(" not in observation
    *_, truncated, info = env.step(SEARCH)
    assert truncated
    assert info["stop_reason"] == "max_searches"
    assert list(info["reward_parts"]) == ["em"]
    assert env.dataset.split == "test"


@pytest.mark.parametrize("dialect", ["r1-searcher", "search-r1", "research"])
@pytest.mark.parametrize("prompt", ["base", "instruct", "bare"])
def test_no_prompt_for_chat_speaks_for_the_model_and_the_format_wants_the_tag_of_it(dialect, prompt):
    env = EnvFactory(ENV, chat=True, dialect=dialect, prompt=prompt)()
    _, info = env.reset(options={"question": 0})
    assert info["prompt_prefill"] == ""
    tags = env.rules.dialect
    answer = f"{tags.answer.open} \\boxed{{x}} {tags.answer.close}"
    assert not tags.judge_format([f"So. {tags.think.close} {answer}"]).ok
    assert tags.judge_format([f"{tags.think.open} So. {tags.think.close} {answer}"]).ok


def test_a_prompt_file_that_opens_the_message_is_refused_for_chat(tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Q: {question} <think>")
    EnvFactory(ENV, prompt=file)
    with pytest.raises(ConfigError, match="Take the tag away from the end"):
        EnvFactory(ENV, chat=True, prompt=file)


def test_chat_messages_are_the_prompt_of_the_environment():
    env = EnvFactory(ENV, chat=True)()
    _, info = env.reset(options={"question": 3})
    system, user = chat_messages(info)
    assert system["role"] == "system"
    assert "<search>" in system["content"]
    assert user == {"role": "user", "content": env.dataset.question(3).text}


def test_plain_settings_name_one_factory_also_for_threads():
    found = []
    settings = {"top_k": 2, "reward": {"f1": 1.0}}
    threads = [threading.Thread(target=lambda: found.append(find_factory(ENV, settings, chat=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1
    assert find_factory(ENV, {**settings, "top_k": 3}, chat=True) is not found[0]


def test_an_unfinished_episode_is_judged_as_one_without_an_answer():
    env = EnvFactory(ENV, chat=True, reward={"f1": 1.0, "format_penalty": 2.0, "search_cost": 0.25})()
    env.reset(options={"question": 0})
    env.step(SEARCH)
    assert reward_of_unfinished(env) == -2.25
    assert env.transcript.stop_reason is None


def test_numbers_are_the_metrics_and_the_parts_of_the_reward():
    env = EnvFactory(ENV, chat=True, reward="stage2")()
    env.reset(options={"question": 0})
    gold = env.dataset.question(0).answers[0]
    *_, info = env.step(f"<think> So. </think> <answer> {gold} </answer>")
    found = numbers(info)
    assert found["em"] == found["reward/f1"] == 1.0
    assert found["reward/format"] == 0.0
    assert "action" not in found
