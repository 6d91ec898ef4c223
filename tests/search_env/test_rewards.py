from __future__ import annotations

import pickle

import pytest

from search_env.dialects import get_dialect
from search_env.errors import ConfigError
from search_env.rewards import PARTS, REWARDS, Reward, RewardPart, get_reward
from search_env.types import Action, ActionKind, Document, FormatVerdict, Hit, Question, StopReason, Transcript, Turn

DIALECT = get_dialect("r1-searcher")
QUESTION = Question(id="q", text="Who?", answers=("Marianne Borgen",), gold_titles=("Oslo", "Marianne  Borgen"))
SEARCH = "hm <begin_of_query> Oslo mayor <end_of_query>"
ANSWER = "So: </think> <answer> Marianne Borgen </answer>"
HALF = "So: </think> <answer> Marianne </answer>"
WRONG = "So: </think> <answer> Raymond Johansen </answer>"


def played(*segments: str, question: Question = QUESTION, titles: tuple[str, ...] = ("Oslo",)) -> Transcript:
    """An episode as the environment records it: every search finds one document for each title."""
    hits = tuple(Hit(document=Document(id=title, title=title, text="an assistant 东"), score=1.0) for title in titles)
    turns = []
    for segment in segments:
        action = DIALECT.parse(segment)
        searched = action.kind is ActionKind.SEARCH
        observation = DIALECT.render_documents(hits) if searched else ""
        turns.append(Turn(segment=segment, action=action, hits=hits if searched else (), observation=observation))
    return Transcript(question=question, turns=tuple(turns), format=DIALECT.judge_format(segments))


def refused(transcript: Transcript) -> Transcript:
    """The same episode ended by its search budget at the last search, which was not run."""
    last = transcript.turns[-1]
    unanswered = Turn(segment=last.segment, action=last.action)
    turns = (*transcript.turns[:-1], unanswered)
    return Transcript(
        question=transcript.question, turns=turns, format=transcript.format, stop_reason=StopReason.MAX_SEARCHES
    )


@pytest.mark.parametrize(
    ("name", "segments", "parts"),
    [
        ("stage1", [SEARCH, WRONG], {"retrieval": 0.5, "format": 0.5}),
        ("stage1", [ANSWER], {"retrieval": 0.0, "format": 0.5}),
        ("stage1", [SEARCH, "no tags"], {"retrieval": 0.5, "format": 0.0}),
        ("stage1", ["no tags"], {"retrieval": 0.0, "format": 0.0}),
        ("stage2", [SEARCH, ANSWER], {"f1": 1.0, "format": 0.0}),
        ("stage2", [HALF], {"f1": 2 / 3, "format": 0.0}),
        ("stage2", [WRONG], {"f1": 0.0, "format": 0.0}),
        ("stage2", ["<answer> Marianne Borgen </answer>"], {"f1": 1.0, "format": -2.0}),
        ("stage2", [SEARCH], {"f1": 0.0, "format": -2.0}),
        ("stage2-em", [ANSWER], {"em": 1.0, "format": 0.0}),
        ("stage2-em", [HALF], {"em": 0.0, "format": 0.0}),
        ("stage2-em", ["hm"], {"em": 0.0, "format": -2.0}),
        ("stage2-cem", ["</think> <answer> Borgen, Marianne of SV </answer>"], {"cem": 1.0, "format": 0.0}),
        ("stage2-cem", [HALF], {"cem": 0.0, "format": 0.0}),
        ("code-llama-stage1", [SEARCH, ANSWER], {"cem": 1.0, "retrieval": 0.5, "format": 0.5}),
        ("code-llama-stage1", [WRONG], {"cem": -1.0, "retrieval": 0.0, "format": 0.5}),
        ("code-llama-stage1", [SEARCH, "hm"], {"cem": -1.0, "retrieval": 0.5, "format": 0.0}),
        ("code-llama-stage1", ["<begin_of_query> " + SEARCH, ANSWER], {"cem": 1.0, "retrieval": 0.0, "format": 0.5}),
        ("code-llama-stage2", [SEARCH, HALF], {"f1": 2 / 3, "format": 0.0}),
        ("code-llama-stage2", [SEARCH, "<think> " + HALF], {"f1": 2 / 3, "format": -1.0}),
        ("code-qwen-zero", [SEARCH, ANSWER], {"f1": 1.0, "format": 0.0}),
        ("code-qwen-zero", ["hm"], {"f1": 0.0, "format": -2.0}),
    ],
)
def test_presets_compute_the_papers_and_the_authors_arithmetic(name, segments, parts):
    result = REWARDS[name](played(*segments))
    assert result.parts == pytest.approx(parts)
    assert result.total == pytest.approx(sum(parts.values()))
    assert all(type(value) is float for value in (*result.parts.values(), result.total))


BREAKS_BOTH = [
    "<begin_of_query> " + ANSWER,
    "<end_of_documents> " + ANSWER,
    "<|begin_of_documents|>\n(1) forged" + ANSWER,
    "<think> " + ANSWER,
    "</think> " + ANSWER,
    "<answer> " + ANSWER,
    "东 " + ANSWER,
]
BREAKS_QWEN_ONLY = [
    "The Assistant: " + ANSWER,
    "an assistant, " + ANSWER,
    "</think> <answer> Marianne Borgen begin_of_query </answer>",
    "</think> <answer> one two three four five six seven eight nine Marianne Borgen </answer>",
]


@pytest.mark.parametrize("segment", BREAKS_BOTH)
def test_rules_of_both_code_variants_cost_one_penalty(segment):
    assert REWARDS["code-qwen-zero"](played(SEARCH, segment)).parts["format"] == -2.0
    assert REWARDS["code-llama-stage2"](played(SEARCH, segment)).parts["format"] == -1.0


@pytest.mark.parametrize("segment", BREAKS_QWEN_ONLY)
def test_rules_of_the_qwen_variant_only(segment):
    assert REWARDS["code-qwen-zero"](played(SEARCH, segment)).parts["format"] == -2.0
    assert REWARDS["code-llama-stage2"](played(SEARCH, segment)).parts["format"] == 0.0


def test_ten_words_are_no_more_than_ten():
    segment = "</think> <answer> one two three four five six seven eight Marianne Borgen </answer>"
    assert REWARDS["code-qwen-zero"](played(segment)).parts["format"] == 0.0


def test_what_the_documents_say_costs_nothing_in_the_code_variants():
    # The documents of `played` hold "assistant" and a Chinese character, for which the authors' code takes 2 points.
    transcript = played(SEARCH, ANSWER)
    assert "assistant" in transcript.turns[0].observation
    assert REWARDS["code-qwen-zero"](transcript).total == 1.0


def test_a_search_that_finds_nothing_costs_nothing():
    assert REWARDS["code-qwen-zero"](played(SEARCH, ANSWER, titles=())).total == 1.0
    assert REWARDS["stage1"](played(SEARCH, ANSWER, titles=())).total == 1.0


def test_a_search_refused_for_its_budget_is_no_search():
    transcript = refused(played(SEARCH))
    assert REWARDS["stage1"](transcript).total == 0.0
    assert REWARDS["code-qwen-zero"](transcript).total == -2.0
    assert PARTS["search_cost"](transcript) == 0.0


def test_gold_recall_is_the_share_of_gold_titles_found_by_any_search():
    recall = PARTS["gold_recall"]
    assert recall(played(SEARCH, ANSWER, titles=("Bergen",))) == 0.0
    assert recall(played(SEARCH, ANSWER, titles=("OSLO", "Oslo", "Bergen"))) == 0.5
    assert recall(played(SEARCH, ANSWER, titles=("Oslo", "Marianne Borgen"))) == 1.0
    unknown = Question(id="q", text="Who?", answers=("x",))
    assert recall(played(SEARCH, ANSWER, question=unknown)) == 0.0


def test_query_diversity_is_the_mean_novelty_of_the_queries():
    def diversity(*queries: str) -> float:
        return PARTS["query_diversity"](played(*(f"<begin_of_query>{query}<end_of_query>" for query in queries)))

    assert diversity() == 0.0
    assert diversity("Oslo mayor") == 1.0
    assert diversity("Oslo mayor", "the OSLO mayor!") == 0.5
    assert diversity("Oslo mayor", "Bergen mayor") == pytest.approx((1 + 2 / 3) / 2)
    assert diversity("Oslo mayor", "Bergen fish", "Oslo mayor") == pytest.approx(2 / 3)
    assert diversity("?", "!") == 0.5


def test_search_cost_counts_searches():
    assert PARTS["search_cost"](played(SEARCH, SEARCH, ANSWER)) == -2.0


def test_parts_beyond_the_paper_are_in_no_preset():
    used = {part.function for reward in REWARDS.values() for part in reward.parts}
    assert used.isdisjoint({PARTS["gold_recall"], PARTS["query_diversity"], PARTS["search_cost"]})


def test_a_mapping_weighs_parts_by_name():
    reward = get_reward({"f1": 1, "format_penalty": 2, "gold_recall": 0.5, "search_cost": 0.1})
    result = reward(played(SEARCH, "<answer> Marianne Borgen </answer>"))
    assert result.parts == {"f1": 1.0, "format_penalty": -2.0, "gold_recall": 0.25, "search_cost": -0.1}
    assert result.total == pytest.approx(-0.85)


def test_a_reward_of_ones_own_passes_through():
    reward = Reward((RewardPart("short", 1.0, lambda transcript: -float(len(transcript.segments))),))
    assert get_reward(reward) is reward
    assert reward(played(SEARCH, ANSWER)).total == -2.0


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_presets_survive_pickling(name):
    assert pickle.loads(pickle.dumps(get_reward(name))) == REWARDS[name]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("stage3", "unknown reward 'stage3'. Did you mean 'stage2'"),
        ({"recall": 1.0}, "unknown reward part 'recall'.*gold_recall"),
        ({"f1": float("nan")}, "weight of reward part 'f1' is nan"),
        ({"f1": True}, "weight of reward part 'f1' is True"),
        ({"f1": "1"}, "weight of reward part 'f1' is '1'"),
        ({}, "at least one part"),
        (["f1"], r"not \['f1'\]"),
    ],
)
def test_a_wrong_reward_is_refused_with_what_is_allowed(spec, message):
    with pytest.raises(ConfigError, match=message):
        get_reward(spec)


def test_two_parts_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="names that differ"):
        Reward((RewardPart("f1", 1.0, PARTS["f1"]), RewardPart("f1", 2.0, PARTS["em"])))


def test_an_episode_without_turns_earns_no_answer_reward():
    empty = Transcript(question=QUESTION, format=FormatVerdict(problems=("the episode ends without an answer",)))
    assert {name: reward(empty).total for name, reward in REWARDS.items()} == {
        "stage1": 0.0,
        "stage2": -2.0,
        "stage2-em": -2.0,
        "stage2-cem": -2.0,
        "code-qwen-zero": -2.0,
        "code-llama-stage1": -1.0,
        "code-llama-stage2": -1.0,
    }


def test_an_answer_in_an_observation_is_no_answer():
    malformed = Action(kind=ActionKind.MALFORMED, problem="x")
    told = Turn(segment="hm", action=malformed, observation="<answer> Marianne Borgen </answer>")
    assert REWARDS["stage2"](Transcript(question=QUESTION, turns=(told,))).parts["f1"] == 0.0
