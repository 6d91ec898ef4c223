import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_env.dialects import DIALECTS, PromptStyle, get_dialect
from search_env.episode import Budget, EpisodeState, Rules
from search_env.errors import ConfigError
from search_env.rewards import get_reward
from search_env.types import ActionKind, Document, Hit, Question, StopReason

QUESTION = Question(
    id="q", text="Which city?", answers=("Oslo", "Christiania"), kind="bridge", hops=2, gold_titles=("Norway",)
)
HITS = (Hit(document=Document(id="d", title="Norway", text="Its capital is Oslo."), score=1.0),)
SEARCH = "Hm. <begin_of_query> Norway capital <end_of_query>"
ANSWER = "I see. </think> <answer> Oslo </answer>"


def open_episode(dialect="r1-searcher", reward="stage2", question=QUESTION, **budget):
    rules = Rules(
        dialect=get_dialect(dialect), style=PromptStyle.BARE, reward=get_reward(reward), budget=Budget(**budget)
    )
    return EpisodeState(question, rules)


def play(state, *segments, hits=HITS):
    steps = []
    for segment in segments:
        state.act(segment)
        steps.append(state.resolve(hits if state.query is not None else ()))
    return steps


def test_a_search_and_an_answer():
    state = open_episode()
    search, answer = play(state, SEARCH, ANSWER)
    assert search.observation == "\n\n<begin_of_documents>\n(1) Norway: Its capital is Oslo.\n<end_of_documents>\n\n"
    assert search[1:4] == (0.0, False, False)
    assert search.info == {
        "action": "search",
        "stop_reason": "",
        "searches": 1.0,
        "valid": 1.0,
        "format_ok": 0.0,
        "em": 0.0,
        "f1": 0.0,
        "cem": 0.0,
        "cem_contiguous": 0.0,
        "reward_parts": {"f1": 0.0, "format": 0.0},
    }
    assert answer[:4] == ("", 1.0, True, False)
    assert answer.info == {
        "action": "answer",
        "stop_reason": "answered",
        "searches": 1.0,
        "valid": 1.0,
        "format_ok": 1.0,
        "em": 1.0,
        "f1": 1.0,
        "cem": 1.0,
        "cem_contiguous": 1.0,
        "reward_parts": {"f1": 1.0, "format": 0.0},
    }


def test_the_transcript_holds_segments_hits_and_observations_apart():
    state = open_episode()
    search, _ = play(state, SEARCH, ANSWER)
    transcript = state.transcript
    assert transcript.segments == (SEARCH, ANSWER)
    assert transcript.turns[0].hits == HITS
    assert transcript.turns[0].observation == search.observation
    assert transcript.queries == ("Norway capital",)
    assert (transcript.answer, transcript.stop_reason, transcript.format.ok) == ("Oslo", StopReason.ANSWERED, True)


def test_any_accepted_answer_counts():
    assert play(open_episode(), SEARCH, ANSWER.replace("Oslo", "Christiania"))[-1].info["em"] == 1.0


def test_reading_a_segment_changes_nothing_until_it_is_resolved():
    state = open_episode()
    assert state.act(SEARCH).kind is ActionKind.SEARCH
    assert state.query == "Norway capital"
    assert state.transcript.turns == () and not state.ended
    assert state.act(ANSWER).kind is ActionKind.ANSWER
    assert state.query is None
    assert state.resolve().terminated
    assert state.transcript.segments == (ANSWER,)


def test_a_malformed_segment_ends_an_r1_searcher_episode_terminated():
    (step,) = play(open_episode(), "no tag at all")
    assert step[:4] == ("", -2.0, True, False)
    assert step.info["stop_reason"] == "malformed" and step.info["action"] == "malformed"
    assert step.info["reward_parts"] == {"f1": 0.0, "format": -2.0}


def test_a_malformed_segment_gets_a_notice_in_search_r1_and_costs_the_format():
    state = open_episode(dialect="search-r1", reward="stage1")
    notice, answer = play(state, "no tag at all", "<think> so </think> <answer> Oslo </answer>")
    assert "not understood" in notice.observation and notice[1:4] == (0.0, False, False)
    assert answer.terminated and answer.info["f1"] == 1.0 and answer.info["format_ok"] == 0.0
    assert state.transcript.queries == ()


def test_one_search_more_than_the_budget_truncates_and_is_not_run():
    state = open_episode(max_searches=2)
    steps = play(state, SEARCH, SEARCH)
    assert not steps[-1].truncated
    state.act(SEARCH)
    assert state.query is None
    step = state.resolve()
    assert step[2:4] == (False, True) and step.observation == ""
    assert step.info["stop_reason"] == "max_searches" and step.info["searches"] == 2.0
    assert state.transcript.queries == ("Norway capital",) * 2


def test_no_searches_at_all_is_closed_book():
    (step,) = play(open_episode(max_searches=0), SEARCH)
    assert step.truncated and step.info["stop_reason"] == "max_searches"
    (step,) = play(open_episode(max_searches=0), ANSWER)
    assert step.terminated and step.reward == 1.0


def test_the_last_segment_may_answer_but_not_search():
    state = open_episode(max_turns=2)
    play(state, SEARCH)
    state.act(SEARCH)
    assert state.query is None
    step = state.resolve()
    assert step[2:4] == (False, True) and step.info["stop_reason"] == "max_turns"
    assert play(open_episode(max_turns=2), SEARCH, ANSWER)[-1].info["stop_reason"] == "answered"


def test_a_notice_on_the_last_turn_is_never_shown():
    (step,) = play(open_episode(dialect="search-r1", max_turns=1), "no tag at all")
    assert step[0] == "" and step.truncated and step.info["stop_reason"] == "max_turns"


def test_characters_of_segments_and_documents_are_counted_together():
    documents = len(play(open_episode(), SEARCH)[0].observation)
    exact = len(SEARCH) + documents + len(ANSWER)
    assert play(open_episode(max_chars=exact), SEARCH, ANSWER)[-1].info["stop_reason"] == "answered"
    step = play(open_episode(max_chars=exact - 1), SEARCH, ANSWER)[-1]
    assert step[2:4] == (False, True) and step.info["stop_reason"] == "max_chars"


def test_an_answer_beyond_the_budget_of_characters_does_not_count():
    state = open_episode(max_chars=len(ANSWER) - 1)
    (step,) = play(state, ANSWER)
    assert step.truncated and step.info["action"] == "malformed" and step.info["f1"] == 0.0
    assert state.transcript.answer is None
    assert (
        state.transcript.turns[0].action.problem == f"it exceeds the episode's budget of {len(ANSWER) - 1} characters"
    )


def test_documents_beyond_the_budget_of_characters_are_not_shown_and_not_counted():
    state = open_episode(max_chars=len(SEARCH) + 10, reward="stage1")
    (step,) = play(state, SEARCH)
    assert step[0] == "" and step.truncated and step.info["stop_reason"] == "max_chars"
    assert step.info["searches"] == 0.0 and state.transcript.turns[0].hits == ()


def test_a_search_without_hits_still_counts_and_says_none():
    (step,) = play(open_episode(), SEARCH, hits=())
    assert step.observation == "\n\n<begin_of_documents>\nNone\n<end_of_documents>\n\n"
    assert step.info["searches"] == 1.0


def test_an_invalid_episode_is_truncated_and_not_judged():
    state = open_episode(reward="stage1")
    play(state, SEARCH)
    state.act(SEARCH)
    step = state.invalidate()
    assert step[:4] == ("", 0.0, False, True)
    assert step.info["valid"] == 0.0 and step.info["stop_reason"] == "retriever_unavailable"
    assert set(step.info["reward_parts"].values()) == {0.0}
    assert state.transcript.stop_reason is StopReason.RETRIEVER_UNAVAILABLE


def test_the_parts_add_up_to_the_reward_on_every_step():
    for reward in ("stage1", "stage2", {"f1": 1.0, "search_cost": 0.1, "gold_recall": 0.5}):
        for step in play(open_episode(reward=reward), SEARCH, SEARCH, ANSWER):
            assert sum(step.info["reward_parts"].values()) == step.reward
            assert all(type(value) is float for value in step.info["reward_parts"].values())


def test_info_is_plain_floats_and_strings_with_the_same_keys_always():
    infos = [step.info for step in play(open_episode(), SEARCH, ANSWER)]
    infos += [step.info for step in play(open_episode(), "?")]
    for info in infos:
        assert list(info) == list(infos[0])
        assert {type(value) for value in info.values()} == {str, float, dict}


def test_the_opening_says_how_to_run_the_episode_but_not_the_answer():
    state = open_episode()
    info = state.opening_info()
    assert info == {
        "question_id": "q",
        "question": "Which city?",
        "kind": "bridge",
        "hops": 2.0,
        "stop": ["<end_of_query>", "</answer>"],
        "prompt_system": "",
        "prompt_user": "Question: Which city?\n",
        "prompt_prefill": "<think>",
    }
    bare = dataclasses.replace(QUESTION, hops=None, kind="")
    assert open_episode(question=bare).opening_info()["hops"] == 0.0


def test_only_text_is_an_action():
    with pytest.raises(ConfigError, match=r"one segment of the model's text \(str\), got int"):
        open_episode().act(3)


@pytest.mark.parametrize(
    "budget", [{"max_searches": -1}, {"max_turns": 0}, {"max_chars": 0}, {"max_turns": 2.5}, {"max_searches": True}]
)
def test_a_budget_is_a_whole_number(budget):
    (name,) = budget
    with pytest.raises(ConfigError, match=f"{name} must be a whole number of at least"):
        Budget(**budget)


FRAGMENTS = st.sampled_from(sorted({tag for dialect in DIALECTS.values() for tag in dialect.tags}))
SEGMENTS = st.lists(FRAGMENTS | st.text(max_size=20), max_size=8).map("".join)


@settings(max_examples=200, deadline=None)
@given(dialect=st.sampled_from(sorted(DIALECTS)), segments=st.lists(SEGMENTS, min_size=6, max_size=6))
def test_whatever_the_model_writes_the_episode_keeps_its_budgets_and_ends_once(dialect, segments):
    state = open_episode(dialect=dialect, max_searches=2, max_turns=5, max_chars=600)
    steps = []
    for segment in segments:
        if not state.ended:
            steps += play(state, segment)
    transcript = state.transcript
    assert state.ended and len(steps) <= 5 and len(transcript.queries) <= 2
    shown = sum(len(turn.observation) for turn in transcript.turns)
    assert shown + sum(len(turn.segment) for turn in transcript.turns[:-1]) <= 600
    assert [step.terminated or step.truncated for step in steps] == [False] * (len(steps) - 1) + [True]
    assert all(step.terminated + step.truncated <= 1 for step in steps)
    assert all(step.reward == 0.0 and step.observation for step in steps[:-1]) and steps[-1].observation == ""
