"""The algorithm in one process, without Ray."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from search_agents.learning import ReinforcePP, ReinforcePPConfig
from search_agents.learning.build import evaluation_engine
from search_agents.learning.checkpoint import load_checkpoint, save_checkpoint

from search_env.errors import ConfigError, ModelError, RetrieverUnavailable, RunError
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import StopReason

STAGES = [
    {"name": "stage1", "reward": "stage1", "max_steps": 2},
    {"name": "stage2", "reward": {"f1": 1.0, "search_cost": 0.5}, "max_steps": 2},
]
STEPS = "num_env_steps_sampled_lifetime"
Build = Callable[..., ReinforcePP]


@pytest.fixture
def build(make_config: Callable[..., Any], start: Callable[[Any], Any]) -> Build:
    return lambda **training: start(make_config(**training))


def weights(algo: ReinforcePP) -> dict[str, torch.Tensor]:
    model = algo.learner_group._learner.module[DEFAULT_MODULE_ID].model
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_training_reports_what_it_did_and_needs_no_ray(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: pytest.fail("Ray was started"))
    algo = build(stages=STAGES, kl_coef=0.05)
    before = weights(algo)
    result = algo.train()
    assert result["stage"] == "stage1" and result["done"] is False and result["training_iteration"] == 1
    episodes, learners = result["env_runners"], result["learners"][DEFAULT_MODULE_ID]
    assert episodes["num_episodes"] == len(algo.episodes) == 12 and episodes["invalid"] == 0.0
    for name in ("f1", "em", "cem", "search_rate", "format_rate", "truncated"):
        assert 0.0 <= episodes[name] <= 1.0, name
    assert episodes["searches_per_question"] >= episodes["search_rate"] > 0
    rewards = [episode.reward for episode in algo.episodes]
    assert len(set(rewards)) > 1, "else there is nothing to learn from"
    assert episodes["episode_return_mean"] == pytest.approx(np.mean(rewards))
    assert episodes["episode_return_mean"] == pytest.approx(sum(episodes["reward_parts"].values()))
    assert episodes["response_tokens"] == np.mean([episode.action_mask.sum() for episode in algo.episodes])
    assert learners["grad_norm"] > 0 and learners["entropy"] > 0 and learners["skipped_steps"] == 0.0
    assert learners["reference_kl"] == pytest.approx(0.0, abs=1e-4), "the policy is the reference as yet"
    assert all(np.isfinite(learners[name]) for name in ("loss", "kl", "clip_fraction"))
    assert all(result["timers"][name] >= 0 for name in ("sample", "learn", "sync"))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(algo).items())
    assert abs(algo.train()["learners"][DEFAULT_MODULE_ID]["reference_kl"]) > 1e-3, "and then no longer"


def test_what_the_engine_sampled_is_what_the_learner_evaluates(build: Build) -> None:
    algo = build(lr=0.0, minibatch_size=12, temperature=0.8)
    learners = algo.train()["learners"][DEFAULT_MODULE_ID]
    assert abs(learners["kl"]) < 1e-6 and learners["clip_fraction"] == 0.0
    assert abs(learners["mismatch_kl"]) < 1e-5


@pytest.mark.parametrize("autocast", [True, False])
def test_episodes_are_sampled_and_models_measured_in_the_format_that_is_trained(
    build: Build, tmp_path: Path, autocast: bool
) -> None:
    algo = build(autocast=autocast)
    assert algo.env_runner.engine.autocast is autocast
    assert evaluation_engine(algo, tmp_path).autocast is autocast


def test_without_the_mask_documents_are_trained_on_from_an_importance_ratio_of_one(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    algo = build(lr=0.0, minibatch_size=12, mask_documents=False)
    trained: list[Any] = []
    update = algo.learner_group.update_on
    monkeypatch.setattr(
        algo.learner_group, "update_on", lambda rows, **more: (trained.extend(rows), update(rows, **more))[1]
    )
    learners = algo.train()["learners"][DEFAULT_MODULE_ID]
    for row, episode in zip(trained, algo.episodes, strict=True):
        assert (row.action_mask == episode.action_mask | episode.observation_mask).all()
    assert any(episode.observation_mask.any() for episode in algo.episodes)
    assert abs(learners["kl"]) < 1e-6 and learners["clip_fraction"] == 0.0


def test_the_mask_decides_what_is_learnt_and_is_there_by_default(build: Build) -> None:
    by_default, masked, unmasked = (
        build(**given) for given in ({}, {"mask_documents": True}, {"mask_documents": False})
    )
    for algo in (by_default, masked, unmasked):
        algo.train()
    assert_equal(weights(by_default), weights(masked))
    assert any(not torch.equal(tensor, weights(masked)[name]) for name, tensor in weights(unmasked).items())


def test_engine_and_learner_are_compared_in_every_step(build: Build) -> None:
    algo = build(minibatch_size=4, lr=1e-2)
    for _ in range(2):
        learners = algo.train()["learners"][DEFAULT_MODULE_ID]
        assert abs(learners["mismatch_kl"]) < 1e-5 < learners["kl"], "later minibatches are not those of the engine"
    model = algo.env_runner.engine.model
    algo.env_runner.engine.model = copy.deepcopy(model)
    with torch.no_grad():
        algo.env_runner.engine.model.lm_head.weight += 0.05 * torch.randn_like(model.lm_head.weight)
    assert algo.train()["learners"][DEFAULT_MODULE_ID]["mismatch_kl"] > 1e-3, "an engine with weights of its own"


def test_runner_and_learner_share_one_module(build: Build) -> None:
    algo = build()
    assert algo.env_runner.module is algo.learner_group._learner.module[DEFAULT_MODULE_ID]
    assert algo.env_runner.engine.model is algo.env_runner.module.model
    assert algo.get_module() is algo.env_runner.module


def test_the_same_seed_gives_the_same_run_and_another_another(
    make_config: Callable[..., Any], start: Callable[[Any], Any]
) -> None:
    """Risk 13: training is a function of its seed."""
    runs = []
    for seed in (3, 3, 4):
        algo = start(make_config().debugging(seed=seed))
        algo.train()
        algo.train()
        runs.append((weights(algo), [episode.to_json() for episode in algo.episodes]))
    assert_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1] != runs[2][1]


def test_the_reward_changes_with_the_stage(build: Build) -> None:
    algo = build(stages=STAGES)
    results = [algo.train() for _ in range(4)]
    assert [result["stage"] for result in results] == ["stage1", "stage1", "stage2", "stage2"]
    assert [result["done"] for result in results] == [False, False, False, True] and algo.finished
    parts = [set(result["env_runners"]["reward_parts"]) for result in results]
    assert parts == [{"retrieval", "format"}] * 2 + [{"f1", "search_cost"}] * 2


def test_each_stage_asks_the_questions_of_its_split(make_config: Callable[..., Any]) -> None:
    stages = [
        {"name": "one", "reward": "stage1", "max_steps": 1, "split": "test"},
        {"name": "two", "reward": "stage2"},
    ]
    config = make_config(stages=stages)
    config.environment(
        "SearchQA-FictionalWiki-v0",
        env_config={"dataset": "fictional-wiki", "data": "people=20,questions=9", "retriever": "bm25"},
    )
    algorithm = config.build_algo()
    asked = []
    for _ in range(2):
        algorithm.train()
        asked.append({episode.question_id.partition("-")[0] for episode in algorithm.episodes})
    assert asked == [{"test"}, {"train"}]


def test_a_stage_whose_split_is_not_there_is_refused_before_the_first_step(make_config: Callable[..., Any]) -> None:
    config = make_config(stages=[{"name": "one", "reward": "stage1", "split": "later"}])
    config.environment("SearchQA-FictionalWiki-v0", env_config={"dataset": "fictional-wiki"})
    with pytest.raises(ConfigError, match="unknown split 'later'"):
        config.build_algo()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_resumed_from_our_checkpoint_is_the_run_without_the_stop(
    build: Build, tmp_path: Path, steps: int
) -> None:
    check_resume(build, steps, lambda algo: save_checkpoint(algo, tmp_path / "c"), load_checkpoint)


def test_a_run_resumed_from_rllibs_checkpoint_is_the_run_without_the_stop(build: Build, tmp_path: Path) -> None:
    check_resume(build, 3, lambda algo: algo.save_to_path(tmp_path), lambda algo, path: algo.restore_from_path(path))


def check_resume(build: Build, steps: int, save: Callable[..., Any], load: Callable[..., Any]) -> None:
    """Four steps straight are as many steps, a stop, and the rest in an algorithm that did other steps before."""
    settings: dict[str, Any] = {"stages": STAGES, "kl_coef": 0.01, "lr": [[0, 1e-3], [60, 1e-4]]}
    straight = build(**settings)
    for _ in range(4):
        straight.train()
    first = build(**settings)
    for _ in range(steps):
        first.train()
    folder = save(first)
    resumed = build(**settings)
    resumed.train()
    load(resumed, folder)
    assert (resumed.steps_done, resumed.training_iteration, resumed.stage) == (steps, steps, first.stage)
    for _ in range(4 - steps):
        result = resumed.train()
    assert_equal(weights(resumed), weights(straight))
    assert [e.to_json() for e in resumed.episodes] == [e.to_json() for e in straight.episodes]
    assert result["done"] and result["training_iteration"] == 4
    assert resumed.get_progress() == straight.get_progress()
    assert result[STEPS] == resumed.get_progress()["env_steps"]


def test_rllib_builds_an_algorithm_from_its_checkpoint(build: Build, tmp_path: Path) -> None:
    algo = build(stages=STAGES)
    algo.train()
    again = ReinforcePP.from_checkpoint(algo.save_to_path(tmp_path))
    assert_equal(weights(again), weights(algo))
    assert again.steps_done == 1 and again.config.stages == STAGES
    again.stop()


def test_a_checkpoint_is_a_model_folder_without_pickles(build: Build, tmp_path: Path) -> None:
    """Risk 9: what a checkpoint holds."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    algo = build(stages=STAGES)
    algo.train()
    folder = save_checkpoint(algo, tmp_path / "deep" / "step_000001")
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "optimizer.safetensors", "state.json"} < names
    assert "COMPLETE" in names and not [name for name in names if name.endswith((".pkl", ".pt", ".bin"))]
    assert [path.name for path in folder.parent.iterdir()] == ["step_000001"], "nothing is left beside it"
    assert json.loads((folder / "state.json").read_text())["schedule"] == {"stage": "stage1", "steps": 1, "streak": 0}
    assert_equal(AutoModelForCausalLM.from_pretrained(folder).state_dict(), weights(algo))
    assert len(AutoTokenizer.from_pretrained(folder)) == len(algo.env_runner.engine.tokenizer)


def test_a_checkpoint_that_cannot_be_used_is_refused(build: Build, tmp_path: Path) -> None:
    algo = build(stages=STAGES)
    folder = save_checkpoint(algo, tmp_path / "c")
    with pytest.raises(RunError, match="exists; a checkpoint is never written over"):
        save_checkpoint(algo, folder)
    with pytest.raises(RunError, match="nowhere does not exist"):
        load_checkpoint(algo, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="another schedule"):
        load_checkpoint(build(), folder)
    state = folder / "state.json"
    state.write_text(state.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(RunError, match="has format 9, and this version reads 1"):
        load_checkpoint(algo, folder)
    state.write_text("{")
    with pytest.raises(RunError, match=r"state\.json cannot be read"):
        load_checkpoint(algo, folder)
    (folder / "COMPLETE").unlink()
    with pytest.raises(RunError, match="no complete checkpoint"):
        load_checkpoint(algo, folder)


def test_a_write_that_was_cut_short_leaves_no_checkpoint(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algo = build()
    monkeypatch.setattr(algo, "get_progress", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(algo, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    monkeypatch.undo()
    assert (save_checkpoint(algo, tmp_path / "c") / "COMPLETE").exists()


class Broken(InMemoryRetriever):
    """Fails for good, always."""

    def search(self, queries: Any, top_k: int) -> Any:
        raise RetrieverUnavailable("no connection")


def with_broken_retriever(config: Any) -> Any:
    retriever = Broken(config.env_config["dataset"].documents)
    return config.environment(config.env, env_config={**config.env_config, "retriever": retriever})


def test_invalid_episodes_are_counted_and_not_trained_on(
    make_config: Callable[..., Any], start: Callable[[Any], Any]
) -> None:
    """Risk 10: invalid episodes are no part of the batch, and the metrics count them."""
    algo = start(with_broken_retriever(make_config(max_invalid_rate=0.9)))
    seen: list[int] = []
    update_on = algo.learner_group.update_on
    algo.learner_group.update_on = lambda rows, **kwargs: (seen.append(len(rows)), update_on(rows, **kwargs))[1]
    result = algo.train()
    valid = [episode for episode in algo.episodes if episode.valid]
    assert 0 < len(valid) < 12 and seen == [len(valid)]
    assert result["env_runners"]["invalid"] == pytest.approx(1 - len(valid) / 12)
    assert result["env_runners"]["episode_return_mean"] == pytest.approx(np.mean([e.reward for e in valid]))


def test_training_stops_when_the_retriever_is_gone(
    make_config: Callable[..., Any], start: Callable[[Any], Any]
) -> None:
    """Risk 10: training stops above its share of invalid episodes."""
    algo = start(with_broken_retriever(make_config(max_invalid_rate=0.1)))
    before = weights(algo)
    with pytest.raises(RetrieverUnavailable, match=r"of the 12 episodes of step 1, more than max_invalid_rate = 0\.1"):
        algo.train()
    assert_equal(weights(algo), before)
    assert algo.steps_done == 0


@pytest.mark.parametrize(
    "training", [{}, {"kl_coef": 0.01, "mismatch": "truncated"}, {"mask_documents": False}], ids=str
)
def test_a_question_beyond_the_budget_is_truncated_and_not_trained_on(
    make_config: Callable[..., Any], start: Callable[[Any], Any], training: dict[str, Any]
) -> None:
    """Risk 21: one huge question in a step of training."""
    config = make_config(prompts_per_batch=5, **training)
    given = config.env_config["dataset"]
    huge = replace(given.questions[0], text="Capital? " * 10_000)
    dataset = replace(given, questions=(huge, *given.questions[1:]))
    algo = start(config.environment(config.env, env_config={**config.env_config, "dataset": dataset}))
    seen: list[int] = []
    update_on = algo.learner_group.update_on
    algo.learner_group.update_on = lambda rows, **kwargs: (seen.append(len(rows)), update_on(rows, **kwargs))[1]
    result = algo.train()
    cut = [episode for episode in algo.episodes if episode.question_id == huge.id]
    assert len(cut) == 3 and {episode.stop_reason for episode in cut} == {StopReason.MAX_TOKENS}
    assert all(episode.valid and len(episode.token_ids) == config.max_episode_tokens for episode in cut)
    assert seen == [12], "the other four questions"
    assert result["learners"][DEFAULT_MODULE_ID]["skipped_steps"] == 0.0


@pytest.mark.parametrize(
    "training",
    [
        {"advantage": "grpo", "aggregation": "sequence", "kl_coef": 0.01, "kl_in": "loss", "kl_estimator": "k3"},
        {"advantage": "dr-grpo", "aggregation": "constant", "mask_overlong": True},
        {"advantage": "rloo", "kl_coef": 0.01, "clip_high": 0.28},
        {"advantage": "grpo", "objective": "gspo", "aggregation": "sequence", "clip": 3e-4, "clip_high": 4e-4},
        {"advantage": "grpo", "objective": "cispo", "clip_high": 4.0, "mismatch": "truncated"},
    ],
    ids=["grpo", "dr-grpo", "rloo", "gspo", "cispo"],
)
def test_every_algorithm_takes_a_step(build: Build, training: dict[str, Any]) -> None:
    algo = build(**training)
    before = weights(algo)
    learners = algo.train()["learners"][DEFAULT_MODULE_ID]
    assert learners["grad_norm"] > 0 and learners["skipped_steps"] == 0.0 and np.isfinite(learners["loss"])
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(algo).items())
    if "mismatch" in training:
        assert abs(learners["mismatch_kl"]) < 1e-5 and learners["mismatch_fraction"] == 0.0


def test_dynamic_sampling_asks_other_questions_for_groups_without_signal(build: Build) -> None:
    settings: dict[str, Any] = {"group_size": 2}  # in pairs, some earn the same
    plain, dynamic = build(**settings), build(**settings, dynamic_sampling=3)
    trained: list[int] = []
    update_on = dynamic.learner_group.update_on
    dynamic.learner_group.update_on = lambda rows, **kwargs: (trained.append(len(rows)), update_on(rows, **kwargs))[1]
    plain.train()
    result = dynamic.train()
    first = [episode.to_json() for episode in plain.episodes]
    assert [episode.to_json() for episode in dynamic.episodes[:8]] == first, "the first attempt is the usual one"
    groups: dict[int, list[float]] = {}
    for episode in dynamic.episodes:
        groups.setdefault(episode.group, []).append(episode.reward)
    informative = [rewards for rewards in groups.values() if len(set(rewards)) > 1]
    assert len(groups) > 4 and all(len(rewards) == 2 for rewards in groups.values())
    assert 0 < len(informative) <= 4 and trained == [2 * len(informative)]
    assert result["env_runners"]["signal_rate"] == pytest.approx(len(informative) / len(groups))
    seeds = {tuple(episode.token_ids.tolist()) for episode in dynamic.episodes}
    assert len(seeds) > 8, "a question that is asked again is sampled anew"


def test_a_step_without_any_signal_changes_nothing(build: Build) -> None:
    stages = [{"name": "one", "reward": {"search_cost": 0.0}}]
    algo = build(stages=stages, dynamic_sampling=1)
    before = weights(algo)
    result = algo.train()
    assert len(algo.episodes) == 24 and result["env_runners"]["signal_rate"] == 0.0
    assert result["learners"][DEFAULT_MODULE_ID]["skipped_steps"] == 1.0 and algo.steps_done == 1
    assert_equal(weights(algo), before)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"advantage": "gae"}, "unknown advantage 'gae'"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; give 'float32'.*autocast=True.*lora="),
        ({"dtype": "auto"}, "dtype is 'auto'; give 'float32'"),
        ({"dtype": "float16", "lora": {"rank": 4, "alpha": 8.0}}, "give 'auto' or 'float32' or 'bfloat16'"),
        ({"engine": "sglang"}, "unknown engine 'sglang'"),
        ({"advantage": "reinforce++-baseline", "group_size": 1}, "needs group_size >= 2"),
        ({"advantage": "rloo", "group_size": 1}, "'rloo' needs group_size >= 2"),
        ({"objective": "trpo"}, "unknown objective 'trpo'"),
        ({"aggregation": "tokens"}, "unknown aggregation 'tokens'. Did you mean 'token'"),
        ({"kl_coef": 0.1, "kl_in": "loss"}, "needs kl_estimator 'k2' or 'k3'"),
        ({"mismatch_cap": 1.0}, "mismatch_cap is 1.0; give a number above 1"),
        ({"clip_high": 0.0}, "clip_high is 0.0; give a positive number"),
        ({"dynamic_sampling": -1}, "dynamic_sampling is -1; give a whole number"),
        ({"minibatch_size": 0}, "minibatch_size is 0"),
        ({"clip": 1.5}, "clip is 1.5; give a number between 0 and 1"),
        ({"temperature": 0.0}, "temperature is 0.0; give a positive number"),
        ({"max_episode_tokens": 12}, "max_episode_tokens is 12; give more than max_segment_tokens"),
        ({"stages": [{"name": "a", "reward": "b"}]}, "unknown reward 'b'"),
    ],
)
def test_wrong_settings_are_refused(make_config: Callable[..., Any], training: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**training).validate()


def test_what_is_missing_or_not_ours_is_said(make_config: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model to train"):
        ReinforcePPConfig().environment("SearchQA-FictionalWiki-v0").validate()
    with pytest.raises(ConfigError, match="evaluation_interval is set"):
        make_config().evaluation(evaluation_interval=1).validate()
    with pytest.raises(ModelError, match="no model folder"):
        make_config(model=tmp_path / "nothing").build_algo()
