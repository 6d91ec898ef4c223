from __future__ import annotations

from typing import Any

import pytest
from search_agents.learning.schedule import Schedule, Stage

from search_env.errors import ConfigError

TWO = [
    {
        "name": "one",
        "reward": "stage1",
        "max_steps": 5,
        "until": {"search_rate": 0.9, "format_rate": 0.8, "patience": 2},
    },
    {"name": "two", "reward": "stage2", "max_steps": 2},
]
GOOD = {"search_rate": 0.9, "format_rate": 0.8, "f1": 0.0}
BAD = {"search_rate": 1.0, "format_rate": 0.79, "f1": 1.0}


def run(schedule: Schedule, *steps: dict[str, float]) -> list[str]:
    names = []
    for metrics in steps:
        schedule.observe(metrics)
        names.append(schedule.stage.name)
    return names


def test_a_stage_ends_when_its_metrics_have_held_in_a_row() -> None:
    assert run(Schedule(TWO), GOOD, BAD, GOOD, GOOD, BAD) == ["one", "one", "one", "two", "two"]


def test_a_stage_ends_when_its_steps_are_spent() -> None:
    assert run(Schedule(TWO), *[BAD] * 5) == ["one"] * 4 + ["two"]


def test_the_run_is_done_when_the_last_stage_is_over_and_may_go_on_in_it() -> None:
    schedule = Schedule(TWO)
    run(schedule, GOOD, GOOD, BAD)
    assert not schedule.done
    assert run(schedule, BAD) == ["two"] and schedule.done
    assert run(schedule, BAD) == ["two"] and schedule.done


def test_the_last_stage_can_end_by_its_metrics_too() -> None:
    schedule = Schedule([{"name": "only", "reward": "stage2", "until": {"f1": 0.5}}])
    run(schedule, {"f1": 0.4})
    assert not schedule.done
    run(schedule, {"f1": 0.5})
    assert schedule.done


def test_the_steps_of_all_stages_are_known_if_each_has_an_end_of_steps() -> None:
    assert Schedule(TWO).max_steps == 7
    assert Schedule([*TWO[:1], {"name": "last", "reward": "stage2"}]).max_steps is None
    assert Schedule().max_steps is None


def test_nan_reaches_nothing() -> None:
    nan = float("nan")
    assert run(Schedule(TWO), *[{"search_rate": nan, "format_rate": nan}] * 4) == ["one"] * 4


def test_without_stages_one_goes_on_for_ever_with_the_environments_reward() -> None:
    schedule = Schedule(None)
    assert run(schedule, *[GOOD] * 3) == ["train"] * 3
    assert schedule.stage.reward is None and not schedule.done


@pytest.mark.parametrize("steps", range(6))
def test_a_state_goes_on_where_it_was_taken(steps: int) -> None:
    history = [GOOD, BAD, GOOD, GOOD, BAD, BAD]
    straight, first = Schedule(TWO), Schedule(TWO)
    run(first, *history[:steps])
    resumed = Schedule(TWO)
    resumed.set_state(first.get_state())
    expected = run(straight, *history)[steps:]
    assert run(resumed, *history[steps:]) == expected and resumed.done is straight.done
    assert resumed.get_state() == straight.get_state()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages is empty"),
        ([{"name": "a", "rewards": "stage1"}], "unknown key of a stage 'rewards'. Did you mean 'reward'"),
        ([{"name": "a"}], "needs a name and a reward"),
        ([{"name": "a", "reward": "stage3"}], "unknown reward 'stage3'"),
        ([{"name": "a", "reward": "stage1", "max_steps": 0}], "max_steps of stage 'a' must be a whole number"),
        ([{"name": "a", "reward": "stage1", "until": {"patience": 0.5}}], "patience of stage 'a' must be"),
        ([TWO[0], TWO[0]], "different names"),
        ([{"name": "a", "reward": "stage1"}, TWO[1]], "stage 'a' never ends"),
    ],
)
def test_wrong_stages_are_refused(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(stages)


def test_a_metric_that_does_not_exist_is_refused() -> None:
    schedule = Schedule([{"name": "a", "reward": "stage1", "until": {"serch_rate": 0.5}}])
    with pytest.raises(ConfigError, match=r"unknown metric 'serch_rate'\. Did you mean 'search_rate'"):
        schedule.observe(GOOD)


def test_a_state_of_another_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="another schedule: unknown stage 'one'"):
        Schedule(None).set_state(Schedule(TWO).get_state())


def test_a_stage_is_read_from_its_mapping() -> None:
    assert Stage.from_dict(TWO[0]) == Stage(
        name="one", reward="stage1", max_steps=5, until={"search_rate": 0.9, "format_rate": 0.8}, patience=2
    )
