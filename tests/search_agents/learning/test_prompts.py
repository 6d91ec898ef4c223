from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st
from search_agents.learning.prompts import questions_of_step, tasks_of_step


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 3))
def test_every_epoch_asks_every_question_once(num_questions: int, prompts_per_batch: int, seed: int) -> None:
    steps = -(-2 * num_questions // prompts_per_batch)
    asked = [
        question
        for step in range(steps)
        for question in questions_of_step(
            step, num_questions=num_questions, prompts_per_batch=prompts_per_batch, seed=seed
        )
    ]
    assert (
        sorted(asked[:num_questions]) == sorted(asked[num_questions : 2 * num_questions]) == list(range(num_questions))
    )


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [
        questions_of_step(step, num_questions=50, prompts_per_batch=50, seed=seed) for step in (0, 1) for seed in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_tasks_come_in_groups_with_a_seed_for_each_episode() -> None:
    tasks = tasks_of_step(3, num_questions=100, prompts_per_batch=8, group_size=4, seed=1)
    groups = [list(members) for _, members in groupby(tasks, key=lambda task: task.group)]
    assert [len(members) for members in groups] == [4] * 8
    assert all(len({task.question for task in members}) == 1 for members in groups)
    assert len({task.seed for task in tasks}) == 32
    assert tasks == tasks_of_step(3, num_questions=100, prompts_per_batch=8, group_size=4, seed=1)
    assert not {task.seed for task in tasks} & {
        task.seed
        for step in (0, 4)
        for task in tasks_of_step(step, num_questions=100, prompts_per_batch=8, group_size=4, seed=1)
    }


def test_a_question_asked_twice_in_a_step_is_sampled_anew() -> None:
    tasks = tasks_of_step(0, num_questions=1, prompts_per_batch=3, group_size=2, seed=0)
    assert {task.question for task in tasks} == {0} and len({task.seed for task in tasks}) == 6
    assert [task.group for task in tasks] == [0, 0, 1, 1, 2, 2]
