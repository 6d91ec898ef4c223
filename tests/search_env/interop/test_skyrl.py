"""SkyRL-Gym makes and steps our episodes through its own registry."""

from __future__ import annotations

import pytest

from search_env.errors import ConfigError, RetrieverUnavailable

skyrl_gym = pytest.importorskip("skyrl_gym", reason="pip install 'search-env[skyrl]'")

ENV = "SearchQA-FictionalWiki-v0"
SEARCH = "<think> Who? </think> <search> film director </search>"


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    monkeypatch.setattr("skyrl_gym.envs.registration.registry", {})


def make(question=0, **settings):
    from search_env.interop.skyrl import register

    name = f"search-{len(skyrl_gym.envs.registration.registry)}"
    register(name, ENV, **settings)
    # As SkyRL's generator calls it for a name that its config does not know.
    return skyrl_gym.make(name, env_config={}, extras={"question": question, "max_turns": 2})


def test_an_episode_through_the_registry():
    with make(question=4, reward="stage2", split="test", max_turns=3) as env:
        messages, metadata = env.init([{"role": "user", "content": "the row's own prompt"}])
        assert [message["role"] for message in messages] == ["system", "user"]
        assert metadata["stop"] == ["</search>", "</answer>"]
        assert env.max_turns == 3
        step = env.step(SEARCH)
        assert step["observations"][0]["role"] == "user"
        assert "<information>Doc 1(Title: " in step["observations"][0]["content"]
        assert (step["reward"], step["done"], step["metadata"]["searches"]) == (0.0, False, 1.0)
        gold = env._env.transcript.question.answers[0]
        assert set(metadata) == {"question_id", "stop"}
        step = env.step(f"<think> So. </think> <answer> {gold} </answer>")
        assert (step["observations"], step["reward"], step["done"]) == ([], 1.0, True)
        assert env.get_metrics()["reward/f1"] == env.get_metrics()["em"] == 1.0


def test_a_malformed_segment_gets_the_notice_of_the_dialect():
    env = make()
    env.init([])
    step = env.step("I wonder.")
    assert "That step was not understood" in step["observations"][0]["content"]
    assert not step["done"]


def test_budgets_end_the_episode_as_in_the_environment():
    env = make(max_searches=1, reward="stage2")
    env.init([])
    assert not env.step(SEARCH)["done"]
    step = env.step(SEARCH)
    assert (step["done"], step["reward"], step["metadata"]["stop_reason"]) == (True, -2.0, "max_searches")


def test_a_search_that_fails_for_good_raises_and_gives_no_reward():
    env = make(retriever={"name": "http", "url": "http://127.0.0.1:9/retrieve", "timeout": 1.0})
    env.init([])
    with pytest.raises(RetrieverUnavailable):
        env.step(SEARCH)
    assert env.get_metrics() == {}
    assert env._env.transcript.turns == ()


def test_metrics_of_episodes_are_averaged_by_skyrl_itself():
    found = []
    for question in (0, 1):
        env = make(question=question)
        env.init([])
        gold = env._env.transcript.question.answers[0]
        env.step(f"<think> So. </think> <answer> {gold if question else 'nobody'} </answer>")
        found.append(env.get_metrics())
    assert type(env).aggregate_metrics(found)["em"] == 0.5


def test_a_row_without_a_question_draws_one():
    from search_env.interop.skyrl import register

    register("drawn", ENV)
    env = skyrl_gym.make("drawn", env_config={}, extras={})
    assert env.init([])[0][-1]["content"].endswith("?")


def test_a_wrong_setting_is_named():
    from search_env.interop.skyrl import register

    register("wrong", "SearchQA-Hotpot-v0")
    with pytest.raises(ConfigError, match="unknown environment 'SearchQA-Hotpot-v0'"):
        skyrl_gym.make("wrong", env_config={})
