"""The report in a real browser, opened from a file: curves, bands and samples are there, and nothing comes alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_agents.evaluation.training_report import make_report, read_run

from .conftest import HOSTILE, metrics_row, transcript, write_run


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the report of some runs, and sees to it that the page stayed silent and alone to the end."""
    said: list[str] = []
    requests: list[str] = []
    out = tmp_path / "report.html"
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(20_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))

    def report(*folders: Path) -> Any:
        out.write_text(make_report([read_run(folder) for folder in folders]))
        page.goto(out.as_uri())
        return page

    yield report
    assert said == []
    assert requests == [out.as_uri()]
    page.close()


def seeds(tmp_path: Path) -> list[Path]:
    played = {1: [(transcript("first"), 0.5)], 4: [(transcript("right"), 1.5), (transcript("wrong", "Lima"), -1.0)]}
    return [
        write_run(
            tmp_path / f"seed{seed}",
            [metrics_row(step, "stage1" if step < 3 else "stage2", reward=step / 4 + seed) for step in (1, 2, 3, 4)],
            seed=seed,
            samples=played if seed == 0 else None,
            evaluations={"after": 0.7 + seed / 10},
        )
        for seed in (0, 1)
    ]


def test_several_seeds_are_lines_with_bands_and_stage_bounds(tmp_path: Path, opened: Any) -> None:
    page = opened(*seeds(tmp_path))
    assert page.locator("figure h3").all_inner_texts() == [
        "Reward", "Answers", "Search and format", "Searches per question", "Response length (tokens)", "Entropy", "KL",
    ]  # fmt: skip
    assert "mean of the 2 runs; band: from the lowest to the highest" in page.inner_text("#band")
    reward = page.locator("figure").first
    assert reward.locator(".line").count() == 1 and reward.locator(".bound").count() == 2
    points = reward.locator(".area").get_attribute("points").split()
    assert len(points) == 8, "four steps, there along the lowest and back along the highest"
    heights = [float(point.split(",")[1]) for point in points]
    widths = [low - high for low, high in zip(heights[:4], reversed(heights[4:]), strict=True)]
    assert widths == pytest.approx([widths[0]] * 4, abs=0.2) and widths[0] > 20, "the seeds are as far apart everywhere"
    line = [float(point.split(",")[1]) for point in reward.locator(".line").get_attribute("points").split()]
    assert all(high < mean < low for low, mean, high in zip(heights[:4], line, reversed(heights[4:]), strict=True))
    assert reward.locator(".line").evaluate("line => getComputedStyle(line).fill") == "none", "the style applies"
    assert "0.750 (0.700 to 0.800)" in page.inner_text("#tables")


def test_a_curve_tells_its_figures_under_the_pointer_and_as_a_table(tmp_path: Path, opened: Any) -> None:
    page = opened(*seeds(tmp_path))
    reward = page.locator("figure").first
    reward.locator("svg").hover(position={"x": 300, "y": 80})
    assert reward.locator(".reading").inner_text() == "step 4: reward 1.5 (1 to 2, 2 of 2 runs)"
    reward.locator("summary").click()
    assert reward.locator("tbody tr").all_inner_texts()[0].split("\t") == ["1", "0.75 (0.25 to 1.25, 2 of 2 runs)"]


def test_one_run_has_no_band_and_without_kl_no_curve_of_it(tmp_path: Path, opened: Any) -> None:
    page = opened(write_run(tmp_path / "run", [metrics_row(step, kl=None) for step in (1, 2)]))
    assert page.locator(".area").count() == 0 and "band" not in page.inner_text("#band")
    assert "KL" not in page.locator("figure h3").all_inner_texts() and page.locator("figure").count() == 6
    assert "kept no episodes" in page.inner_text("#episodes")


def test_the_samples_of_a_step_stand_side_by_side_and_the_step_is_chosen(tmp_path: Path, opened: Any) -> None:
    page = opened(*seeds(tmp_path))
    assert page.inner_text("#step-name") == "4"
    best, worst = page.locator(".episode").all()
    assert best.locator("h3").inner_text().split() == ["Best", "right"] and "1.5 = f1 1.5" in best.inner_text()
    assert worst.locator("h3").inner_text().split() == ["Worst", "wrong"] and "Lima" in worst.inner_text()
    page.locator("#step").press("ArrowLeft")
    assert page.inner_text("#step-name") == "1" and page.locator(".episode").count() == 1
    page.locator("#run").select_option("1")
    assert "kept no episodes" in page.inner_text("#episodes")


def test_hostile_text_stays_text(tmp_path: Path, opened: Any) -> None:
    folder = write_run(
        tmp_path / "<img src=x onerror=window.broken=4>",
        [metrics_row(1), metrics_row(2, HOSTILE)],
        samples={1: [(transcript("hostile", HOSTILE, text=HOSTILE), 1.0)]},
        model={"path": HOSTILE},
    )
    page = opened(folder)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("window.broken") is None
    assert page.locator("script").count() == 2 and page.locator("img").count() == 0
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert shown in page.inner_text("#episodes") and shown in page.inner_text("#runs")
    assert page.locator("h1").inner_text() == "Training of <img src=x onerror=window.broken=4>"
