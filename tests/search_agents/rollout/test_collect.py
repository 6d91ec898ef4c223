from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ByteTokenizer, ScriptedEngine
from search_agents.rollout import Episode, SegmentKind, Task, collect, derive_seed

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, ModelError, RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Question, StopReason

DOCUMENTS = (
    Document(id="1", title="Norway", text="Its capital is Oslo."),
    Document(id="2", title="Peru", text="Its capital is Lima."),
)
QUESTIONS = (
    Question(id="norway", text="Capital of Norway?", answers=("Oslo",), kind="bridge", hops=1),
    Question(id="peru", text="Capital of Peru?", answers=("Lima",), hops=2),
    Question(id="mars", text="Capital of Mars?", answers=("none",)),
)
SEARCH = "<begin_of_query> Norway <end_of_query>"
ANSWER = "</think> <answer> Oslo </answer>"
SCRIPTS = {
    "Norway": [SEARCH, ANSWER],
    "Peru": ["<begin_of_query> Peru <end_of_query>", "<begin_of_query> capital <end_of_query>", ANSWER],
    "Mars": ["no idea"],
}


class Counting(InMemoryRetriever):
    """Counts its calls; breaks on queries with the word broken in them."""

    def __init__(self) -> None:
        super().__init__(DOCUMENTS)
        self.calls: list[list[str]] = []

    def search(self, queries: Any, top_k: int) -> Any:
        self.calls.append(list(queries))
        if any("broken" in query for query in queries):
            raise RetrieverUnavailable("the index is gone")
        return super().search(queries, top_k)


def make_env(num_envs: int = 3, retriever: Any = None, **settings: Any) -> SearchQAVectorEnv:
    dataset = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)
    defaults = {"prompt": "bare", "top_k": 1, "reward": "stage2"}
    return SearchQAVectorEnv(num_envs, dataset=dataset, retriever=retriever or Counting(), **{**defaults, **settings})


def play(
    env: SearchQAVectorEnv, scripts: dict[str, list[str]], *questions: int | str, max_tokens: int = 2000, **more: Any
) -> list[Episode]:
    tasks = [Task(question, group, seed=group) for group, question in enumerate(questions)]
    settings = {"sampling": SamplingParams(max_tokens=200), "chat": False} | more
    return collect(ScriptedEngine(scripts), env, tasks, max_tokens=max_tokens, **settings)


def kinds(episode: Episode) -> list[str]:
    return [segment.kind.value for segment in episode.segments]


def test_an_episode_goes_from_its_question_through_searches_to_its_answer() -> None:
    (episode,) = play(make_env(), SCRIPTS, 0)
    assert kinds(episode) == ["prompt", "sampled", "observation", "sampled"]
    assert [segment.text for segment in episode.segments] == [
        "Question: Capital of Norway?\n<think>",
        SEARCH,
        "\n\n<begin_of_documents>\n(1) Norway: Its capital is Oslo.\n<end_of_documents>\n\n",
        ANSWER,
    ]
    assert (episode.question_id, episode.reward, episode.stop_reason) == ("norway", 1.0, StopReason.ANSWERED)
    assert episode.reward_parts == {"f1": 1.0, "format": 0.0} and episode.valid
    assert episode.metrics == {
        "em": 1.0,
        "f1": 1.0,
        "cem": 1.0,
        "cem_contiguous": 1.0,
        "searches": 1.0,
        "format_ok": 1.0,
    }
    assert episode.transcript.answer == "Oslo" and episode.transcript.queries == ("Norway",)


def test_tokens_and_mask_are_those_of_the_segments() -> None:
    (episode,) = play(make_env(), SCRIPTS, 0)
    text = "".join(segment.text for segment in episode.segments)
    assert ByteTokenizer().decode(episode.token_ids.tolist()) == text
    assert episode.action_mask.sum() == len(SEARCH) + len(ANSWER)
    sampled = bytes(episode.token_ids[episode.action_mask].tolist()).decode()
    assert sampled == SEARCH + ANSWER


def test_more_tasks_than_slots_are_played_in_waves_and_come_back_in_order() -> None:
    order = (1, 0, 2, 0, 1)
    episodes = play(make_env(num_envs=2), SCRIPTS, *order)
    assert [episode.question_id for episode in episodes] == [QUESTIONS[index].id for index in order]
    assert [episode.group for episode in episodes] == [0, 1, 2, 3, 4]
    assert [len(episode.transcript.queries) for episode in episodes] == [2, 1, 0, 1, 2]


def test_fewer_tasks_than_slots_leave_the_other_slots_idle() -> None:
    retriever = Counting()
    (episode,) = play(make_env(num_envs=5, retriever=retriever), SCRIPTS, "peru")
    assert episode.question_id == "peru"
    assert retriever.calls == [["Peru"], ["capital"]]


def test_a_turn_asks_the_retriever_once_for_all_slots() -> None:
    retriever = Counting()
    play(make_env(num_envs=3, retriever=retriever), SCRIPTS, 0, 1, 2)
    assert retriever.calls == [["Norway", "Peru"], ["capital"]]


def test_a_malformed_segment_ends_the_episode_where_the_dialect_says_so() -> None:
    (episode,) = play(make_env(), SCRIPTS, 2)
    assert (episode.stop_reason, episode.reward) == (StopReason.MALFORMED, -2.0)
    assert kinds(episode) == ["prompt", "sampled"]
    assert episode.token_ids[-1] == ByteTokenizer.eos_token_id and episode.action_mask[-1]


def test_a_notice_is_an_observation_and_the_episode_goes_on() -> None:
    scripts = {"Mars": ["no idea", "<think>so</think><answer>none</answer>"]}
    (episode,) = play(make_env(dialect="search-r1"), scripts, 2)
    assert kinds(episode) == ["prompt", "sampled", "observation", "sampled"]
    assert (episode.stop_reason, episode.metrics["em"], episode.metrics["format_ok"]) == (StopReason.ANSWERED, 1.0, 0.0)


def test_the_environments_own_budgets_end_an_episode_too() -> None:
    (episode,) = play(make_env(max_searches=1), SCRIPTS, 1)
    assert (episode.stop_reason, kinds(episode)[-1]) == (StopReason.MAX_SEARCHES, "sampled")
    assert episode.transcript.queries == ("Peru",)


def test_an_episode_that_runs_out_of_tokens_as_it_writes_is_judged_unfinished() -> None:
    prompt = len("Question: Capital of Norway?\n<think>")
    (episode,) = play(make_env(), SCRIPTS, 0, max_tokens=prompt + 10)
    assert episode.stop_reason is StopReason.MAX_TOKENS and episode.valid
    assert len(episode.token_ids) == prompt + 10
    assert episode.transcript.segments == (SEARCH[:10],)
    assert episode.transcript.format.problems and episode.transcript.answer is None
    assert episode.reward == -2.0 and episode.reward_parts == {"f1": 0.0, "format": -2.0}
    assert episode.metrics["format_ok"] == 0.0 and episode.metrics["searches"] == 0.0


def test_documents_that_do_not_fit_are_not_read() -> None:
    (whole,) = play(make_env(), SCRIPTS, 0)
    read = sum(len(segment.token_ids) for segment in whole.segments[:3])
    (episode,) = play(make_env(), SCRIPTS, 0, max_tokens=read)  # no room for a token after the documents
    assert episode.stop_reason is StopReason.MAX_TOKENS
    assert kinds(episode) == ["prompt", "sampled"]
    assert episode.metrics["searches"] == 1.0  # the search was run, and stage 1 rewards it
    (longer,) = play(make_env(), SCRIPTS, 0, max_tokens=read + 1)
    assert kinds(longer) == ["prompt", "sampled", "observation", "sampled"]
    assert (longer.stop_reason, longer.transcript.segments[-1]) == (StopReason.MAX_TOKENS, ANSWER[:1])


def test_stage_one_rewards_the_search_of_an_episode_that_ran_out_of_tokens() -> None:
    (episode,) = play(make_env(reward="stage1"), SCRIPTS, 0, max_tokens=120)
    assert episode.stop_reason is StopReason.MAX_TOKENS
    assert episode.reward_parts == {"retrieval": 0.5, "format": 0.0} and episode.reward == 0.5


def test_one_episode_out_of_tokens_does_not_disturb_the_others() -> None:
    scripts = SCRIPTS | {"Mars": ["x" * 190]}
    spent, answered = play(make_env(), scripts, 2, 0, max_tokens=210)
    assert spent.stop_reason is StopReason.MAX_TOKENS
    assert (answered.stop_reason, answered.reward) == (StopReason.ANSWERED, 1.0)


def test_a_segment_over_its_own_budget_is_malformed_and_not_the_episodes_end_by_tokens() -> None:
    (episode,) = play(make_env(), SCRIPTS, 0, sampling=SamplingParams(max_tokens=10))
    assert episode.stop_reason is StopReason.MALFORMED


def test_an_episode_whose_search_failed_for_good_is_invalid_and_the_others_go_on() -> None:
    # An episode that does not search while the retriever is down is not touched.
    scripts = SCRIPTS | {"Peru": ["<begin_of_query> broken <end_of_query>"], "Norway": [ANSWER]}
    invalid, answered = play(make_env(), scripts, 1, 0)
    assert (invalid.valid, invalid.stop_reason, invalid.reward) == (False, StopReason.RETRIEVER_UNAVAILABLE, 0.0)
    assert (answered.valid, answered.reward) == (True, 1.0)


def test_a_forced_beginning_is_prompt_for_the_learner_and_speech_for_the_environment() -> None:
    scripts = {"Norway": [" Norway <end_of_query>", ANSWER]}
    (episode,) = play(make_env(), scripts, 0, prefill="<begin_of_query>")
    assert episode.segments[0].text.endswith("<think><begin_of_query>")
    assert episode.transcript.segments == ("<begin_of_query> Norway <end_of_query>", ANSWER)
    assert episode.action_mask.sum() == len(" Norway <end_of_query>") + len(ANSWER)
    assert (episode.reward, episode.metrics["format_ok"]) == (1.0, 1.0)


def test_the_engine_stops_at_the_dialects_strings_whatever_it_was_given() -> None:
    scripts = {"Norway": [SEARCH + " and more", ANSWER]}
    (episode,) = play(make_env(), scripts, 0, sampling=SamplingParams(max_tokens=200, stop=("and",)))
    assert episode.transcript.segments == (SEARCH, ANSWER)


@pytest.mark.parametrize(
    ("dialect", "script"),
    [
        ("r1-searcher-pipes", ["<|begin_of_query|> Norway <|end_of_query|>", ANSWER]),
        ("search-r1", ["<think>?</think><search> Norway </search>", "<think>!</think><answer> Oslo </answer>"]),
    ],
)
def test_every_dialect_is_played_alike(dialect: str, script: list[str]) -> None:
    (episode,) = play(make_env(dialect=dialect), {"": script}, 0)
    assert (episode.reward, episode.metrics["searches"], episode.metrics["format_ok"]) == (1.0, 1.0, 1.0)
    assert kinds(episode) == ["prompt", "sampled", "observation", "sampled"]


def test_no_task_is_no_episode() -> None:
    assert play(make_env(), SCRIPTS) == []


def test_what_cannot_be_played_is_said() -> None:
    with pytest.raises(ConfigError, match="raise the budget"):
        play(make_env(), SCRIPTS, 0, max_tokens=15)
    with pytest.raises(ConfigError, match="no question with id"):
        play(make_env(), SCRIPTS, "venus")
    with pytest.raises(ModelError, match="chat template"):
        play(make_env(), SCRIPTS, 0, chat=True)


def test_seeds_differ_by_place_and_are_the_same_every_time() -> None:
    assert derive_seed(1, 2, 3) == derive_seed(1, 2, 3)
    seeds = {derive_seed(*keys) for keys in np.ndindex(3, 4, 5)}
    assert len(seeds) == 60 and all(0 <= seed < 2**64 for seed in seeds)


def test_kinds_of_segments_alternate_as_the_loop_does() -> None:
    for episode in play(make_env(), SCRIPTS, 0, 1, 2):
        expected = [SegmentKind.PROMPT] + [SegmentKind.SAMPLED, SegmentKind.OBSERVATION] * len(episode.segments)
        assert [segment.kind for segment in episode.segments] == expected[: len(episode.segments)]
