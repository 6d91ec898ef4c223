import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from search_env import SearchQAEnv, SearchQAVectorEnv
from search_env.errors import ConfigError
from search_env.types import StopReason

NORWAY = "Hm. <begin_of_query> capital of Norway <end_of_query>"
PERU = "Hm. <begin_of_query> capital of Peru <end_of_query>"
OSLO = "I see. </think> <answer> Oslo </answer>"
LIMA = "I see. </think> <answer> Lima </answer>"


def test_slots_play_the_episodes_of_single_environments(settings):
    envs = SearchQAVectorEnv(4, **settings)
    singles = [SearchQAEnv(**settings) for _ in range(4)]
    rounds = [[NORWAY, PERU, OSLO, "?"], [OSLO, LIMA, "", ""]]
    prompts, infos = envs.reset(seed=11)
    for slot, single in enumerate(singles):
        prompt, info = single.reset(seed=11 + slot)
        assert prompts[slot] == prompt
        assert {key: infos[key][slot] for key in info} == info
    for actions in rounds:
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        for slot, single in enumerate(singles):
            if single.transcript.stop_reason is None:
                observation, reward, terminated, truncated, info = single.step(actions[slot])
                assert observations[slot] == observation
                assert (rewards[slot], terminations[slot], truncations[slot]) == (reward, terminated, truncated)
                parts = info.pop("reward_parts")
                assert {key: infos[key][slot] for key in info} == info
                assert {key: infos["reward_parts"][key][slot] for key in parts} == parts
    assert envs.transcripts == [single.transcript for single in singles]


def test_every_number_in_the_infos_keeps_its_fraction(settings):
    envs = SearchQAVectorEnv(2, **settings, reward={"f1": 1.0, "em": 0.25})
    envs.reset(options={"question": ["munch", "munch"]})
    # The first slot's metrics are whole numbers; the second slot's must survive beside them.
    *_, infos = envs.step([OSLO, OSLO.replace("Oslo", "Oslo city")])
    assert infos["f1"].dtype == np.float64 and infos["f1"].tolist() == [1.0, pytest.approx(2 / 3)]
    assert infos["reward_parts"]["f1"].tolist() == [1.0, pytest.approx(2 / 3)]
    assert infos["reward_parts"]["em"].tolist() == [0.25, 0.0]


def test_infos_are_what_gymnasium_makes_of_the_infos_of_single_environments(settings):
    envs, by_gymnasium = SearchQAVectorEnv(4, **settings), SearchQAVectorEnv(4, **settings)
    singles = [SearchQAEnv(**settings) for _ in range(4)]
    columns = {}
    for slot, single in enumerate(singles):
        columns = by_gymnasium._add_info(columns, single.reset(seed=slot)[1], slot)
    _, infos = envs.reset(seed=0)
    assert data_equivalence(infos, columns, exact=True)
    for actions in ([NORWAY, NORWAY, OSLO, "?"], [OSLO, NORWAY, "", ""]):
        columns = {}
        for slot, single in enumerate(singles):
            if single.transcript.stop_reason is None:
                columns = by_gymnasium._add_info(columns, single.step(actions[slot])[4], slot)
        *_, infos = envs.step(actions)
        assert data_equivalence(infos, columns, exact=True)


def test_infos_of_slots_are_independent_of_each_other(settings):
    envs = SearchQAVectorEnv(2, **settings)
    envs.reset(seed=0)
    *_, infos = envs.step([NORWAY, NORWAY])
    infos["f1"][0] = infos["reward_parts"]["f1"][0] = 9.0
    infos["_f1"][0] = False
    assert infos["f1"][1] == 0.0 and infos["_em"].all()
    *_, infos = envs.step([NORWAY, NORWAY])
    assert infos["f1"].tolist() == infos["reward_parts"]["f1"].tolist() == [0.0, 0.0]


def test_slots_of_different_rewards_tell_their_own_parts(settings):
    envs = SearchQAVectorEnv(2, **settings, reward="stage1")
    envs.reset(seed=0)
    envs.set_reward({"em": 1.0})
    envs.reset(options={"reset_mask": np.array([False, True])})
    *_, infos = envs.step([NORWAY, NORWAY])
    assert infos["reward_parts"]["_em"].tolist() == [False, True]
    assert infos["reward_parts"]["_retrieval"].tolist() == [True, False]
    assert infos["searches"].tolist() == [1.0, 1.0]


def test_a_step_asks_the_retriever_once_for_all_searching_slots(settings, watched_retriever):
    envs = SearchQAVectorEnv(4, **settings, top_k=2)
    envs.reset(seed=0)
    envs.step([NORWAY, OSLO, PERU, "malformed"])
    assert watched_retriever.batches == [(["capital of Norway", "capital of Peru"], 2)]
    envs.step([OSLO, NORWAY, LIMA, NORWAY])
    assert len(watched_retriever.batches) == 1


def test_documents_go_to_the_slot_that_asked(settings):
    envs = SearchQAVectorEnv(3, **settings, top_k=1)
    envs.reset(seed=0)
    observations, *_ = envs.step([PERU, OSLO, NORWAY])
    assert "(1) Peru: " in observations[0] and observations[1] == "" and "(1) Norway: " in observations[2]


def test_an_ended_slot_idles_until_it_is_reset(settings, watched_retriever):
    envs = SearchQAVectorEnv(2, **settings)
    envs.reset(options={"question": "munch"})
    _, rewards, terminations, _, _ = envs.step([OSLO, NORWAY])
    assert rewards.tolist() == [1.0, 0.0] and terminations.tolist() == [True, False]
    ended = envs.transcripts[0]
    for ignored in (NORWAY, None):
        observations, rewards, terminations, truncations, infos = envs.step([ignored, NORWAY])
        assert (observations[0], rewards[0], terminations[0], truncations[0]) == ("", 0.0, True, False)
        assert infos["_action"].tolist() == [False, True]
    assert envs.transcripts[0] == ended
    assert [batch for batch, _ in watched_retriever.batches] == [["capital of Norway"]] * 3
    assert envs.step([None, OSLO])[2].tolist() == [True, True]
    *_, infos = envs.step([None, None])
    assert infos == {}


def test_a_truncated_slot_keeps_its_flag_and_earlier_returned_flags_do_not_change(settings):
    envs = SearchQAVectorEnv(2, **settings, max_searches=0)
    envs.reset(options={"question": "munch"})
    _, _, first_terminations, first_truncations, infos = envs.step([NORWAY, OSLO])
    assert infos["stop_reason"].tolist() == ["max_searches", "answered"]
    *_, terminations, truncations, _ = envs.step(["", ""])
    assert truncations.tolist() == first_truncations.tolist() == [True, False]
    assert terminations.tolist() == first_terminations.tolist() == [False, True]
    envs.reset()
    assert first_truncations.tolist() == [True, False]


def test_a_reset_mask_resets_its_slots_only(settings):
    envs = SearchQAVectorEnv(3, **settings)
    envs.reset(options={"question": ["munch", "peru", "peru"]})
    observations, *_ = envs.step([OSLO, PERU, LIMA])
    mask = np.array([True, False, False])
    prompts, infos = envs.reset(options={"reset_mask": mask, "question": ["peru", None, None]})
    assert infos["_question_id"].tolist() == [True, False, False] and infos["question_id"][0] == "peru"
    assert "capital of Peru" in prompts[0] and prompts[1:] == observations[1:]
    _, rewards, terminations, _, _ = envs.step([LIMA, LIMA, ""])
    assert rewards.tolist() == [1.0, 1.0, 0.0] and terminations.tolist() == [True, True, True]
    assert [len(transcript.turns) for transcript in envs.transcripts] == [1, 2, 1]


def test_a_first_reset_of_some_slots_leaves_the_others_idle(settings, watched_retriever):
    envs = SearchQAVectorEnv(2, **settings)
    envs.reset(options={"reset_mask": np.array([True, False]), "question": "munch"})
    observations, _, terminations, _, _ = envs.step([NORWAY, NORWAY])
    assert terminations.tolist() == [False, True] and observations[1] == ""
    assert watched_retriever.batches == [(["capital of Norway"], 3)]
    assert envs.transcripts[1].turns == ()


def test_groups_ask_the_same_question(settings):
    envs = SearchQAVectorEnv(4, **settings)
    prompts, infos = envs.reset(options={"question": ["munch", "munch", 1, 1]})
    assert infos["question_id"].tolist() == ["munch", "munch", "peru", "peru"]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
    prompts, _ = envs.reset(seed=[7, 7, 7, 7])
    assert len(set(prompts)) == 1
    prompts, _ = envs.reset(options={"question": 2})
    assert len(set(prompts)) == 1


def test_the_same_seed_and_actions_do_the_same_info_included(settings):
    def play():
        envs = SearchQAVectorEnv(3, **settings)
        envs.action_space.seed(9)
        log = [envs.reset(seed=5)]
        for _ in range(4):
            log.append(envs.step(envs.action_space.sample()))
            ended = log[-1][2] | log[-1][3]
            if ended.any():
                log.append(envs.reset(options={"reset_mask": ended}))
        return log

    assert data_equivalence(play(), play(), exact=True)


def test_a_broken_retriever_invalidates_the_searching_slots_only(settings, watched_retriever):
    envs = SearchQAVectorEnv(4, **settings, reward="stage1")
    envs.reset(options={"question": "munch"})
    envs.step([NORWAY, NORWAY, NORWAY, OSLO])
    watched_retriever.broken = True
    observations, rewards, terminations, truncations, infos = envs.step([NORWAY, OSLO, PERU, ""])
    assert observations == ("", "", "", "")
    assert rewards.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert terminations.tolist() == [False, True, False, True]
    assert truncations.tolist() == [True, False, True, False]
    assert infos["valid"].tolist()[:3] == [0.0, 1.0, 0.0]
    assert infos["stop_reason"].tolist()[:3] == ["retriever_unavailable", "answered", "retriever_unavailable"]
    assert envs.transcripts[0].stop_reason is StopReason.RETRIEVER_UNAVAILABLE
    watched_retriever.broken = False
    envs.reset(options={"reset_mask": truncations, "question": "munch"})
    _, rewards, *_ = envs.step([NORWAY, "", OSLO, ""])
    assert rewards.tolist() == [0.0, 0.0, 0.5, 0.0]


def test_an_error_that_is_no_outage_changes_nothing(settings, watched_retriever, monkeypatch):
    envs = SearchQAVectorEnv(2, **settings)
    envs.reset(seed=0)
    monkeypatch.setattr(watched_retriever, "search", lambda queries, top_k: [])
    with pytest.raises(ValueError, match="shorter"):
        envs.step([NORWAY, OSLO])
    monkeypatch.undo()
    assert all(transcript.turns == () for transcript in envs.transcripts)
    assert envs.step([NORWAY, OSLO])[2].tolist() == [False, True]


def test_a_reward_set_later_holds_from_the_next_reset(settings):
    envs = SearchQAVectorEnv(2, **settings, reward="stage1")
    envs.reset(options={"question": "munch"})
    envs.set_reward("stage2")
    envs.reset(options={"reset_mask": np.array([False, True]), "question": "munch"})
    assert envs.step([OSLO, OSLO])[1].tolist() == [0.5, 1.0]


def test_another_split_is_asked_from_the_next_reset_on():
    envs = SearchQAVectorEnv(2, dataset="fictional-wiki", data="people=20,questions=9")
    prompts, _ = envs.reset(seed=0)
    envs.set_split("test")
    assert envs.step(["<begin_of_query> x <end_of_query>"] * 2)[0] != prompts
    _, infos = envs.reset(seed=0)
    assert all(key.startswith("test-") for key in infos["question_id"])
    envs.set_split("train")
    _, infos = envs.reset(options={"question": "train-00003"})
    assert infos["question_id"][0] == "train-00003"
    with pytest.raises(ConfigError, match="unknown split 'later'"):
        envs.set_split("later")


def test_a_split_with_another_corpus_or_of_a_ready_dataset_is_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"one split, '\w+', not 'other'"):
        SearchQAVectorEnv(1, **settings).set_split("other")
    row = {"answer": "Oslo", "supporting_facts": [], "question": "Capital?"}
    for name, title in (("hotpot_train_v1.1.json", "Norway"), ("hotpot_dev_distractor_v1.json", "Peru")):
        rows = [row | {"_id": "q", "context": [[title, ["A country."]]]}]
        (tmp_path / name).write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match=r"different corpora.*search-env data pull"):
        SearchQAVectorEnv(1, dataset="hotpotqa", data=tmp_path).set_split("dev")


def test_its_spaces_and_metadata_are_those_gymnasium_asks_for(settings):
    envs = SearchQAVectorEnv(3, **settings)
    prompts, _ = envs.reset(seed=0)
    assert prompts in envs.observation_space and envs.action_space.sample() in envs.action_space
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    observations, rewards, terminations, truncations, _ = envs.step(np.array([NORWAY, OSLO, PERU]))
    assert observations in envs.observation_space
    assert rewards.dtype == np.float64 and terminations.dtype == truncations.dtype == np.bool_
    assert type(envs.transcripts[0].segments[0]) is str
    envs.close()


def test_ansi_mode_shows_every_slot(settings):
    envs = SearchQAVectorEnv(2, **settings, render_mode="ansi")
    envs.reset(options={"question": ["munch", "peru"]})
    envs.step([OSLO, PERU])
    first, second = envs.render()
    assert first.endswith("[answered] reward 1 (f1 1, format 0)\n") and "(1) Peru" in second
    assert SearchQAVectorEnv(1, **settings).render() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"questions": [0, 1]}, r"unknown reset option 'questions'. Did you mean 'question'"),
        ({"question": [0]}, "question must have one entry for each of the 2 slots, got 1"),
        ({"question": [0, 3]}, "no question with index 3"),
        ({"reset_mask": np.array([1, 0])}, "reset_mask must be an array of 2 booleans, got int64"),
        ({"reset_mask": np.array([True])}, r"reset_mask must be an array of 2 booleans, got bool of shape \(1,\)"),
    ],
)
def test_wrong_options_are_named(settings, options, message):
    with pytest.raises(ConfigError, match=message):
        SearchQAVectorEnv(2, **settings).reset(options=options)


def test_wrong_seeds_and_actions_are_named(settings):
    envs = SearchQAVectorEnv(2, **settings)
    with pytest.raises(ConfigError, match="seed must have one entry for each of the 2 slots, got 3"):
        envs.reset(seed=[1, 2, 3])
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        envs.step([OSLO, OSLO])
    envs.reset(seed=0)
    for actions in ([OSLO], "ab"):
        with pytest.raises(ConfigError, match="one action for each of the 2 slots"):
            envs.step(actions)
    with pytest.raises(ConfigError, match="one segment of the model's text"):
        envs.step([OSLO, 3])


def test_wrong_settings_are_named(settings):
    with pytest.raises(ConfigError, match="num_envs must be a whole number of at least 1, got 0"):
        SearchQAVectorEnv(0, **settings)
    with pytest.raises(ConfigError, match="no render mode 'human'"):
        SearchQAVectorEnv(1, **settings, render_mode="human")
    with pytest.raises(TypeError, match="dialekt"):
        SearchQAVectorEnv(1, **settings, dialekt="r1-searcher")


def test_it_is_a_gymnasium_vector_env_that_wrappers_take(settings):
    envs = gym.wrappers.vector.RecordEpisodeStatistics(SearchQAVectorEnv(2, **settings))
    envs.reset(seed=0, options={"question": "munch"})
    *_, infos = envs.step([OSLO, NORWAY])
    assert infos["episode"]["r"].tolist() == [1.0, 0.0]
