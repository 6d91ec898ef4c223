"""The figures of sampling ahead: blocks side by side, and where their time goes."""

from __future__ import annotations

import pytest

from benchmarks.pipelining import summary


def block(iteration: float, wait: float, learn: float, staleness: float) -> list[dict[str, float]]:
    usual = {"iteration": iteration, "wait": wait, "learn": learn, "staleness": staleness}
    return [usual, usual, {**usual, "iteration": 100.0}]  # a hiccup counts for nothing


def test_the_speedup_is_by_pairs_of_blocks_and_bounded_by_the_longer_part() -> None:
    found = summary(
        {
            "in turns": [block(3.0, 1.0, 2.0, 0.0), block(6.0, 2.0, 4.0, 0.0), block(3.3, 1.0, 2.0, 0.0)],
            "pipelined": [block(2.0, 0.1, 2.0, 1.0), block(4.0, 0.1, 4.0, 1.0), block(2.0, 0.1, 2.0, 1.0)],
        }
    )
    assert (found["pipelining_speedup"]["value"], found["pipelining_speedup"]["spread"]) == (1.5, [1.5, 1.65])
    assert found["pipelining_speedup"]["raw"]["pipelined"] == {"iteration": 2.0, "wait": 0.1, "learn": 2.0}
    assert found["bound"] == pytest.approx(1.5) and found["staleness"] == [1.0]
