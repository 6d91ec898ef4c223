"""The paper's ablations: trainings that differ in one thing, and whether what the paper found holds for them."""

from __future__ import annotations

from search_agents.ablations.run import run_ablation

__all__ = ["run_ablation"]
