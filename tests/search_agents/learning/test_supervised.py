"""Supervised training: its loss and gradient against float64, what it learns from, and in which order."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from search_agents.learning import SupervisedConfig
from search_agents.learning.checkpoint import load_checkpoint, save_checkpoint
from search_agents.learning.learner_group import Row, build_batches
from search_agents.rollout import Episode, SegmentKind, TokenSegment

from search_env.errors import ConfigError, RunError
from search_env.types import FormatVerdict, Question, StopReason, Transcript

Gradients = dict[str, torch.Tensor]


def make_episode(number: int, *, documents: int = 9) -> Episode:
    """Prompt, query, documents, answer and a last observation, of random tokens."""
    rng = np.random.default_rng(number)

    def segment(kind: SegmentKind, length: int) -> TokenSegment:
        ids = tuple(rng.integers(3, 300, length).tolist())
        return TokenSegment(kind, ids, (-1.0,) * length if kind is SegmentKind.SAMPLED else (), "")

    kinds = [SegmentKind.PROMPT, SegmentKind.SAMPLED, SegmentKind.OBSERVATION, SegmentKind.SAMPLED]
    lengths = [5, int(rng.integers(2, 9)), documents, int(rng.integers(2, 9)), 4]
    question = Question(id=str(number), text="?", answers=("a",))
    return Episode(
        question_id=question.id,
        group=number,
        segments=tuple(map(segment, [*kinds, SegmentKind.OBSERVATION], lengths)),
        transcript=Transcript(question=question, turns=(), stop_reason=StopReason.ANSWERED, format=FormatVerdict()),
        reward=1.0,
        reward_parts={},
        metrics={"searches": 1.0},
        stop_reason=StopReason.ANSWERED,
        valid=True,
    )


def rows_of(episodes: list[Episode]) -> list[Row]:
    return [Row(input_ids=e.token_ids, action_mask=e.action_mask, logprobs=e.logprobs) for e in episodes]


@pytest.fixture
def make_config(policy_folder: Path) -> Callable[..., SupervisedConfig]:
    def build(**training: Any) -> SupervisedConfig:
        settings = {"model": policy_folder, "lr": 1e-3, "minibatch_size": 4, "autocast": False, "grad_clip": 1e9}
        return SupervisedConfig().training(**(settings | training))

    return build


@pytest.fixture
def learn(make_config: Callable[..., SupervisedConfig]) -> Callable[..., tuple[float, Gradients]]:
    """Loss and gradient of one minibatch of rows, from the learner as it is."""

    def step(rows: list[Row], **training: Any) -> tuple[float, Gradients]:
        learner = make_config(**training).build_learner()
        model, seen = learner.module[DEFAULT_MODULE_ID].model, {}
        learner.apply_gradients = lambda _: seen.update({n: p.grad.clone() for n, p in model.named_parameters()})
        (batch,) = build_batches(rows, minibatch_size=len(rows), num_shares=1)
        result = learner.update(batch=batch)[DEFAULT_MODULE_ID]
        return result["loss"].peek(), seen

    return step


def reference(model: Any, rows: list[Row], targets: list[np.ndarray[Any, Any]]) -> tuple[float, Gradients]:
    """The masked cross-entropy in float64, row by row, with targets that may differ from what is read."""
    model = copy.deepcopy(model).double()
    total, loss = sum(int(row.action_mask.sum()) for row in rows), torch.zeros((), dtype=torch.float64)
    for row, wanted in zip(rows, targets, strict=True):
        logits = model(input_ids=torch.from_numpy(row.input_ids)[None]).logits[0, :-1]
        logs = logits.log_softmax(-1).gather(-1, torch.from_numpy(wanted[1:])[:, None])[:, 0]
        loss = loss - (logs * torch.from_numpy(row.action_mask[1:])).sum() / total
    loss.backward()
    return loss.item(), {name: p.grad.float() for name, p in model.named_parameters()}


def assert_same(ours: Gradients, theirs: Gradients) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("micro_batch_tokens", [1, 70, 10_000])
def test_loss_and_gradient_are_those_of_float64_and_no_document_is_a_target(
    learn: Callable[..., Any], make_config: Callable[..., Any], micro_batch_tokens: int
) -> None:
    rows = rows_of([make_episode(number) for number in range(5)])
    loss, gradients = learn(rows, micro_batch_tokens=micro_batch_tokens)
    model = make_config().build_learner().module[DEFAULT_MODULE_ID].model
    rng = np.random.default_rng(7)
    # The reference wants other words wherever the model did not write: that must change nothing.
    targets = [np.where(row.action_mask, row.input_ids, rng.integers(3, 300, len(row.input_ids))) for row in rows]
    expected, slopes = reference(model, rows, targets)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert_same(gradients, slopes)
    assert max(float(slope.abs().max()) for slope in slopes.values()) > 1e-3, "the gradient must be there to compare"


def test_a_loss_over_the_documents_would_be_another_one(
    learn: Callable[..., Any], make_config: Callable[..., Any]
) -> None:
    rows = rows_of([make_episode(number) for number in range(3)])
    loss, _ = learn(rows)
    model = make_config().build_learner().module[DEFAULT_MODULE_ID].model
    unmasked = [dataclasses.replace(row, action_mask=np.ones_like(row.action_mask)) for row in rows]
    assert abs(reference(model, unmasked, [row.input_ids for row in rows])[0] - loss) > 1e-3


def test_documents_that_nothing_follows_have_no_effect_and_those_that_are_read_have(learn: Callable[..., Any]) -> None:
    rows = rows_of([make_episode(number) for number in range(3)])

    def with_other_words(place: slice) -> list[Row]:
        changed = []
        for row in rows:
            ids = row.input_ids.copy()
            assert not row.action_mask[place].any()
            ids[place] = 300 - ids[place]
            changed.append(dataclasses.replace(row, input_ids=ids))
        return changed

    loss, gradients = learn(rows)
    same_loss, same_gradients = learn(with_other_words(slice(-4, None)))
    assert same_loss == loss
    assert all(torch.equal(gradient, same_gradients[name]) for name, gradient in gradients.items())
    assert abs(learn(with_other_words(slice(0, 5)))[0] - loss) > 1e-4


def test_log_probs_of_the_sampling_and_whether_they_are_known_have_no_effect(learn: Callable[..., Any]) -> None:
    rows = rows_of([make_episode(number) for number in range(3)])
    unknown = [dataclasses.replace(row, logprobs=np.full_like(row.logprobs, np.nan)) for row in rows]
    (loss, gradients), (same_loss, same_gradients) = learn(rows), learn(unknown)
    assert same_loss == loss
    assert all(torch.equal(gradient, same_gradients[name]) for name, gradient in gradients.items())


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    algorithms: list[Any] = []

    def build(config: SupervisedConfig, episodes: list[Episode]) -> Any:
        algorithms.append(config.build_algo())
        algorithms[-1].imitate(episodes)
        return algorithms[-1]

    yield build
    for algorithm in algorithms:
        algorithm.stop()


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    model = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].model
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_every_episode_comes_once_an_epoch_in_another_order_each_time(
    make_config: Callable[..., Any], start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = [make_episode(number) for number in range(10)]
    algorithm = start(make_config(epochs=2), episodes)
    seen: list[list[int]] = []
    update = algorithm.learner_group.update_on
    first = {int(episode.token_ids[0]) * 1000 + int(episode.token_ids[1]): n for n, episode in enumerate(episodes)}

    def spy(rows: list[Row], **kwargs: Any) -> Any:
        seen.append([first[int(row.input_ids[0]) * 1000 + int(row.input_ids[1])] for row in rows])
        return update(rows, **kwargs)

    monkeypatch.setattr(algorithm.learner_group, "update_on", spy)
    stages, losses = [], []
    while not algorithm.finished:
        result = algorithm.train()
        stages.append(result["stage"])
        losses.append(result["learners"][DEFAULT_MODULE_ID]["loss"])
    assert stages == ["epoch1"] * 3 + ["epoch2"] * 3
    assert [len(batch) for batch in seen] == [4, 3, 3] * 2, "with no small rest"
    epochs = [list(chain.from_iterable(batches)) for batches in (seen[:3], seen[3:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert algorithm.max_steps == algorithm.steps_done == 6
    assert np.mean(losses[3:]) < np.mean(losses[:3]), "what is imitated must become likelier"


def test_a_run_restored_from_a_checkpoint_ends_as_one_that_was_not_stopped(
    make_config: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    episodes = [make_episode(number) for number in range(10)]
    whole, stopped, other = (start(make_config(epochs=2), episodes) for _ in range(3))
    for _ in range(4):
        stopped.train()
    save_checkpoint(stopped, tmp_path / "step")
    load_checkpoint(other, tmp_path / "step")
    for algorithm in (whole, other):
        while not algorithm.finished:
            algorithm.train()
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(whole).items())


def test_a_checkpoint_of_other_episodes_is_refused(
    make_config: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    one, other = (start(make_config(), [make_episode(number)]) for number in range(2))
    save_checkpoint(one, tmp_path / "step")
    with pytest.raises(RunError, match="not those that the run was started with"):
        load_checkpoint(other, tmp_path / "step")


def test_what_cannot_be_imitated_is_refused(make_config: Callable[..., Any], start: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        start(make_config(), [])
    silent = dataclasses.replace(make_episode(0), segments=make_episode(0).segments[:1])
    with pytest.raises(ConfigError, match="question '0' has no token to imitate"):
        start(make_config(), [silent])
    algorithm = make_config().build_algo()
    with pytest.raises(ConfigError, match="call imitate"):
        algorithm.train()
    algorithm.stop()


@pytest.mark.parametrize(("setting", "message"), [({"epochs": 0}, "epochs is 0"), ({"temperature": 0.5}, "leave it")])
def test_settings_without_a_meaning_are_refused(
    make_config: Callable[..., Any], setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**setting).build_algo()
