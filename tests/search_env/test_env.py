import copy
import json

import gymnasium as gym
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics, TimeAwareObservation, TimeLimit

from search_env import SearchQAEnv
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.types import StopReason

SEARCH = "Hm. <begin_of_query> capital of Norway <end_of_query>"
ANSWER = "I see. </think> <answer> Oslo </answer>"


def test_an_episode_by_hand(settings, watched_retriever):
    env = SearchQAEnv(**settings)
    prompt, info = env.reset(seed=1, options={"question": "munch"})
    assert "What is the capital of the country where Edvard Munch was born?" in prompt
    assert prompt == info["prompt_user"] + info["prompt_prefill"] and prompt.endswith("<think>")
    assert info["question_id"] == "munch" and info["hops"] == 2.0 and info["kind"] == "bridge"
    documents, reward, terminated, truncated, info = env.step(SEARCH)
    assert documents.startswith("\n\n<begin_of_documents>\n(1) Norway: Norway is a country. Its capital is Oslo.\n")
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert watched_retriever.batches == [(["capital of Norway"], 3)]
    assert env.step(ANSWER)[:4] == ("", 1.0, True, False)
    assert env.transcript.stop_reason is StopReason.ANSWERED and env.transcript.answer == "Oslo"


def test_neither_info_nor_observation_gives_the_answer_away(settings):
    env = SearchQAEnv(**settings)
    for question in env.dataset.questions[:2]:
        prompt, opening = env.reset(options={"question": question.id})
        *_, running = env.step("<begin_of_query> nothing like it <end_of_query>")
        *_, final = env.step("</think> <answer> dunno </answer>")
        shown = json.dumps([prompt, opening, running, final])
        assert not any(answer in shown for answer in question.answers)


def test_a_question_is_drawn_by_seed_and_every_one_is_reached(settings):
    env = SearchQAEnv(**settings)
    drawn = [env.reset(seed=seed)[1]["question_id"] for seed in range(30)]
    assert drawn == [env.reset(seed=seed)[1]["question_id"] for seed in range(30)]
    assert set(drawn) == {"munch", "peru", "älg"}


def test_a_question_is_chosen_by_id_or_index(settings):
    env = SearchQAEnv(**settings)
    assert env.reset(options={"question": 1})[1]["question_id"] == "peru"
    assert env.reset(options={"question": "älg"})[1]["question_id"] == "älg"
    with pytest.raises(ConfigError, match="no question with id 'mønch'"):
        env.reset(options={"question": "mønch"})
    with pytest.raises(ConfigError, match=r"unknown reset option 'qestion'. Did you mean 'question'"):
        env.reset(options={"qestion": 1})


def test_two_copies_do_the_same_info_included(settings):
    env = SearchQAEnv(**settings)
    other = copy.deepcopy(SearchQAEnv(**settings))
    env.action_space.seed(3)
    for seed in range(8):
        results, other_results = [env.reset(seed=seed)], [other.reset(seed=seed)]
        assert data_equivalence(results, other_results, exact=True)
        ended = False
        while not ended:
            action = env.action_space.sample()
            result, other_result = env.step(action), other.step(action)
            assert data_equivalence(tuple(result), tuple(other_result), exact=True)
            ended = result.terminated or result.truncated
        assert env.transcript == other.transcript


def test_sampled_actions_are_a_search_and_an_answer_in_every_dialect(settings):
    for dialect in ("r1-searcher", "r1-searcher-pipes", "search-r1", "research"):
        env = SearchQAEnv(**settings, dialect=dialect)
        kinds = [env.rules.dialect.parse(action).kind for action in env.action_space.examples]
        assert kinds == ["search", "answer"]


def test_a_malformed_first_action_never_truncates(settings):
    for dialect, terminated in (
        ("r1-searcher", True), ("r1-searcher-pipes", True), ("search-r1", False), ("research", True),
    ):  # fmt: skip
        env = SearchQAEnv(**settings, dialect=dialect)
        env.reset(seed=0)
        assert env.step("no tag")[2:4] == (terminated, False)


def test_a_broken_retriever_raises_and_leaves_the_episode_as_it_was(settings, watched_retriever):
    env = SearchQAEnv(**settings)
    env.reset(seed=0, options={"question": "munch"})
    before = env.transcript
    watched_retriever.broken = True
    with pytest.raises(RetrieverUnavailable, match="the index is gone"):
        env.step(SEARCH)
    assert env.transcript == before and before.turns == ()
    watched_retriever.broken = False
    assert "Oslo" in env.step(SEARCH)[0]
    assert env.transcript.queries == ("capital of Norway",)


def test_a_document_cannot_answer_nor_change_the_reward(settings):
    env = SearchQAEnv(**settings, reward="stage2")
    env.reset(options={"question": "peru"})
    documents, *_ = env.step("<begin_of_query> Poison capital <end_of_query>")
    assert "Lima" in documents and "<answer>" not in documents and "<|im_end|>" not in documents
    assert env.step("</think> <answer> Quito </answer>").reward == 0.0


def test_a_reward_set_later_holds_from_the_next_reset(settings):
    env = SearchQAEnv(**settings, reward="stage1")
    env.reset(options={"question": "munch"})
    env.set_reward("stage2-em")
    env.step(SEARCH)
    assert env.step(ANSWER).info["reward_parts"] == {"retrieval": 0.5, "format": 0.5}
    env.reset(options={"question": "munch"})
    assert env.step(ANSWER).info["reward_parts"] == {"em": 1.0, "format": 0.0}
    with pytest.raises(ConfigError, match="unknown reward 'stage3'"):
        env.set_reward("stage3")


def test_stepping_without_a_running_episode_says_what_to_do(settings):
    env = SearchQAEnv(**settings)
    for use in (lambda: env.step(ANSWER), lambda: env.transcript):
        with pytest.raises(ResetNeeded, match=r"no episode yet; call reset\(\)"):
            use()
    env.reset()
    env.step(ANSWER)
    with pytest.raises(ResetNeeded, match=r"has ended \(answered\); call reset\(\)"):
        env.step(ANSWER)


def test_a_prompt_file_words_the_prompt(settings, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Q: {question}\n<think>\n")
    prompt, info = SearchQAEnv(**settings, prompt=file).reset(options={"question": "peru"})
    assert prompt == "Q: What is the capital of Peru?\n<think>"
    assert info["prompt_prefill"] == "<think>"
    prompt, info = SearchQAEnv(**settings, prompt="instruct").reset(options={"question": "peru"})
    assert info["prompt_user"] == "What is the capital of Peru?" and info["prompt_system"]


def test_observations_never_leave_their_space_however_tight_the_budget(settings):
    for max_chars in (1, 60, 200, 40_000):
        env = SearchQAEnv(**settings, max_chars=max_chars, top_k=4)
        assert env.action_space.sample() in env.action_space
        for index in range(3):
            observation, _ = env.reset(options={"question": index})
            assert observation in env.observation_space
            assert env.step(SEARCH)[0] in env.observation_space


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dataset": "fictional-wikki"}, r"unknown dataset 'fictional-wikki'. Did you mean 'fictional-wiki'"),
        ({"dataset": 3}, "dataset must be a name or a Dataset, got int"),
        ({"dialect": "r1-seacher"}, r"unknown dialect 'r1-seacher'. Did you mean 'r1-searcher'"),
        ({"prompt": "bass"}, r"unknown prompt 'bass'. Did you mean 'base'.*Or give the path of a text file"),
        ({"reward": "stage-2"}, r"unknown reward 'stage-2'. Did you mean 'stage2'"),
        ({"reward": {"formt": 1.0}}, r"unknown reward part 'formt'. Did you mean 'format'"),
        ({"retriever": "bm26"}, r"unknown retriever 'bm26'. Did you mean 'bm25'"),
        ({"retriever": object()}, r"a retriever is a name, a mapping, or has search\(\) and fingerprint, got object"),
        ({"render_mode": "rgb_array"}, r"unknown render mode 'rgb_array'. Known: ansi, human"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1, got 0"),
        ({"max_turns": 0}, "max_turns must be a whole number of at least 1, got 0"),
        ({"max_chars": 0}, "max_chars must be a whole number of at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(settings, setting, message):
    with pytest.raises(ConfigError, match=message):
        SearchQAEnv(**settings | setting)


def test_gymnasium_wrappers_work(settings):
    env = RecordEpisodeStatistics(SearchQAEnv(**settings))
    env.reset(options={"question": "munch"})
    env.step(SEARCH)
    assert env.step(ANSWER)[4]["episode"]["r"] == 1.0
    aware = TimeAwareObservation(TimeLimit(SearchQAEnv(**settings), 5), flatten=False)
    observation, _ = aware.reset(seed=0)
    assert observation in aware.observation_space
    flat = FlattenObservation(SearchQAEnv(**settings))
    observation, _ = flat.reset(seed=0)
    assert observation in flat.observation_space


def test_sync_vector_env_of_single_envs_works(settings):
    envs = gym.vector.SyncVectorEnv([lambda: SearchQAEnv(**settings)] * 2)
    prompts, infos = envs.reset(seed=[5, 5])
    assert prompts[0] == prompts[1] and prompts in envs.observation_space
    assert infos["stop"].tolist() == [["<end_of_query>", "</answer>"]] * 2
    assert envs.step([SEARCH, ANSWER])[2].tolist() == [False, True]
    envs.close()
