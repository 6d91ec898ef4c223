from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_agents.engines.base import FinishReason, SamplingParams
from search_agents.engines.scripted import ByteTokenizer, ScriptedEngine

from search_env.errors import ConfigError, ModelError
from search_env.types import Prompt

PARAMS = SamplingParams(stop=("</s>", "</q>"))


@given(text=st.text())
def test_bytes_read_as_they_were_written(text: str) -> None:
    assert ByteTokenizer().decode(ByteTokenizer().encode(text)) == text


def test_each_question_has_its_own_script_and_the_longest_match_counts() -> None:
    engine = ScriptedEngine({"Who": ["short</q>"], "Who is it?": ["long</q>"], "": ["other</q>"]})
    prompts = [engine.encode_prompt(Prompt(user=text), chat=False) for text in ("Who is it?", "Who?", "Where?")]
    session = engine.open(prompts, seeds=[0, 0, 0], max_tokens=99)
    assert [segment.text for segment in session.sample([2, 0, 1], PARAMS)] == ["other</q>", "long</q>", "short</q>"]


def test_a_segment_is_cut_after_its_first_stop_string_and_the_script_goes_on_by_turns() -> None:
    session = ScriptedEngine({"": ["a</q> b </s>", "plain"]}).open([[1]], seeds=[0], max_tokens=99)
    (first,) = session.sample([0], PARAMS)
    assert (first.text, first.finish, first.logprobs) == ("a</q>", FinishReason.STOP, [0.0] * 5)
    session.extend([0], [ByteTokenizer().encode("obs")])
    (second,) = session.sample([0], PARAMS)
    assert (second.text, second.finish, second.token_ids[-1]) == ("plain", FinishReason.EOS, 256)
    (third,) = session.sample([0], PARAMS)
    assert (third.text, third.finish, third.token_ids) == ("", FinishReason.EOS, [256])
    assert ByteTokenizer().decode(session.contexts[0]) == "\x01a</q>obsplain"


def test_budgets_hold() -> None:
    session = ScriptedEngine({"": ["abcdef</q>", "ghijkl"]}).open([[1]], seeds=[0], max_tokens=9)
    (short,) = session.sample([0], SamplingParams(max_tokens=4, stop=("</q>",)))
    assert (short.text, short.finish, session.room(0)) == ("abcd", FinishReason.LENGTH, 4)
    with pytest.raises(ValueError, match="room for 4"):
        session.extend([0], [[1] * 5])
    (last,) = session.sample([0], PARAMS)
    assert (last.text, last.finish, session.room(0)) == ("ghij", FinishReason.LENGTH, 0)


def test_what_it_cannot_do_is_said() -> None:
    engine = ScriptedEngine({})
    with pytest.raises(ModelError, match="chat template"):
        engine.encode_prompt(Prompt(user="Who?"), chat=True)
    with pytest.raises(ConfigError, match="prompt 0 has 0 tokens"):
        engine.open([[]], seeds=[0], max_tokens=9)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"stop": ("",)}, "stop is"),
        ({"stop": "</q>"}, "tuple of non-empty strings"),
    ],
)
def test_impossible_sampling_is_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SamplingParams(**settings)  # type: ignore[arg-type]
