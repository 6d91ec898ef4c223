"""The page of the allocators tells the last step of each, against memory that is given back."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from benchmarks.allocator import GIVEN_BACK, KEPT, markdown


def steps(*seconds: float) -> list[dict[str, float]]:
    return [{"cpu_seconds": each, "faults": 1000 * each, "peak_kib": 2048 * 1024} for each in seconds]


def test_speed_is_that_of_the_last_step_in_the_middle_of_the_rounds() -> None:
    report: dict[str, Any] = {
        "command": "python benchmarks/allocator.py", "date": "today", "machine": "a desk", "tokens": 3600,
        "rounds": [{GIVEN_BACK: steps(9, 4), KEPT: steps(9, 2)}, {GIVEN_BACK: steps(1, 8), KEPT: steps(1, 4)}],
    }  # fmt: skip
    page = markdown(report)
    assert "| given back | 6.0 | 4.0 to 8.0 | 1.00 | 6,000 | 2,048 |" in page
    assert "| kept | 3.0 | 2.0 to 4.0 | 2.00 | 3,000 | 2,048 |" in page
    assert "The last of 2 steps over 3,600 tokens" in page and "* machine: a desk" in page
