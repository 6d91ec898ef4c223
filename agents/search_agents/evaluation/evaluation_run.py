"""What ``search-env eval`` does: measure, and leave a folder that says what was measured."""

from __future__ import annotations

from pathlib import Path

import torch

from search_agents.config import EvalConfig
from search_agents.engines.transformers import TransformersEngine
from search_agents.evaluation.evaluate import HeldOut
from search_agents.evaluation.report import scores_table
from search_agents.learning.provenance import describe_origin
from search_agents.learning.run_folder import write_json, write_jsonl
from search_agents.learning.start import quiet_libraries

__all__ = ["run_evaluation"]


def run_evaluation(config: EvalConfig, *, model: str, out: Path) -> str:
    """Evaluate a method at each temperature of the config.

    Args:
        config: Everything about the evaluation.
        model: Folder or hub id of the model.
        out: Where ``result.json`` and the transcripts go.

    Returns:
        The scores as a table.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
        ModelError: If the model cannot be used.
    """
    torch.set_num_threads(config.run.threads)
    quiet_libraries()
    held_out = HeldOut(config)
    engine = TransformersEngine.from_pretrained(model, dtype=config.model.dtype)
    results = []
    for temperature in config.evaluation.temperatures:
        found = held_out.measure(config.method, engine, temperature=temperature)
        write_jsonl(out / f"transcripts-{temperature:g}.jsonl", found.records())
        results.append({"temperature": temperature, **found.to_dict()})
    write_json(
        out / "result.json",
        {
            "method": config.method,
            "model": config.model.path,
            "results": results,
            "environment": held_out.describe(),
            "config": config.model_dump(mode="json"),
            "origin": describe_origin(),
        },
    )
    return scores_table([(f"{config.method}, temperature {result['temperature']:g}", result) for result in results])
