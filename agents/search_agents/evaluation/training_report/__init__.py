"""Training runs as one HTML file: curves, final figures and sampled episodes; what ``search-env report`` writes."""

from __future__ import annotations

from collections.abc import Sequence

from search_agents.evaluation.standalone import fill_page
from search_agents.evaluation.training_report.payload import make_payload
from search_agents.evaluation.training_report.runs import TrainingRun, read_run

__all__ = ["TrainingRun", "make_payload", "make_report", "read_run"]


def make_report(runs: Sequence[TrainingRun]) -> str:
    """Write the page of one run, or of the seeds of one recipe.

    Args:
        runs: Of `read_run`; finished or not.

    Returns:
        A whole HTML document.

    Raises:
        ConfigError: If the runs cannot be drawn together.
        DatasetError: If a file of sampled episodes is damaged; names file and line.
    """
    payload = make_payload(runs)
    *others, last = (run["name"] for run in payload["runs"])
    title = f"Training of {', '.join(others)} and {last}" if others else f"Training of {last}"
    return fill_page(__name__, payload, title=title)
