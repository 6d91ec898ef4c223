"""What ``search-env eval`` does: measure, and leave a folder that says what was measured.

Each transcript is on the disk as soon as its episode has ended, so that an evaluation
that was stopped, or whose model or searches failed, goes on with the questions that are left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from search_agents.config import EvalConfig
from search_agents.engines.base import Engine, NoEngine
from search_agents.engines.build import make_engine, model_identity
from search_agents.evaluation.evaluate import HeldOut, evaluate
from search_agents.evaluation.evaluation_folder import EvaluationFolder
from search_agents.evaluation.figures import figures
from search_agents.evaluation.report import scores_table
from search_agents.evaluation.running_scores import RunningScores
from search_agents.learning.progress import make_progress
from search_agents.learning.provenance import describe_origin
from search_agents.learning.start import quiet_libraries
from search_agents.methods import Method, make_method, method_key, method_name, needs_model
from search_env.errors import RunError, SearchEnvError

__all__ = ["EvaluationRun", "is_whole", "require_scores", "resume_evaluation", "run_evaluation"]


def run_evaluation(config: EvalConfig, *, out: Path, display: str = "auto") -> str:
    """Evaluate a method at each temperature of the config.

    Args:
        config: Everything about the evaluation.
        out: The folder for its results, new or empty.
        display: See `search_agents.learning.progress.DISPLAYS`.

    Returns:
        The scores as a table, and what is left to do if episodes were invalid.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
        ModelError: If the model cannot be used.
        RetrieverUnavailable: If the retriever cannot tell what it searches.
        EngineUnavailable: If the server of the model failed for good.
        KeyboardInterrupt: If the user stopped it; its text says how to go on.

    Whatever failed once a question was answered has a note that says how to go on.
    """
    run = EvaluationRun(config, display=display)
    return _report(*run.start(out))


def resume_evaluation(folder: EvaluationFolder, *, display: str = "auto") -> str:
    """Ask the questions that have no valid transcript yet; an evaluation without any is left as it is.

    Args:
        folder: The evaluation.
        display: See `run_evaluation`.

    Returns:
        See `run_evaluation`.

    Raises:
        ConfigError: If questions, retriever, model or the method's trained part are not those that the evaluation was
            started with.
        RunError: If a file is damaged.
        SearchEnvError: See `run_evaluation`.
    """
    result = folder.result()
    if result is not None and is_whole(result):
        return f"The evaluation is finished; there is nothing to go on with.\n\n{_report(result, folder)}"
    return _report(EvaluationRun(folder.config(), display=display).go_on(folder), folder)


class EvaluationRun:
    """One start of an evaluation.

    Args:
        config: Everything about it.
        held_out: Its questions in their environment, if they have been read already.
        engine: Its model, if it is loaded already.
        display: See `run_evaluation`.
        go_on: How to go on once it was stopped, where that is not by `search-env resume`.

    Raises:
        SearchEnvError: See `run_evaluation`.
    """

    def __init__(
        self,
        config: EvalConfig,
        *,
        held_out: HeldOut | None = None,
        engine: Engine | None = None,
        display: str = "auto",
        go_on: str = "",
    ) -> None:
        torch.set_num_threads(config.run.threads)
        quiet_libraries()
        self._config, self._go_on = config, go_on
        # A person's terminal is taken, and running scores would tell which answers were right.
        self._display = "none" if method_name(config.method) == "human" else display
        asks = needs_model(config.method)
        self._held_out = held_out or HeldOut(config)
        self.description = {
            "config": config.model_dump(mode="json"),
            "environment": self._held_out.describe(),
            "model_fingerprint": model_identity(config.model) if asks else None,
        }
        self._engine = (engine or make_engine(config.model)) if asks else NoEngine()
        first = config.evaluation.temperatures[0]
        self._made = {first: self._make(first)}
        self.description["method_fingerprint"] = getattr(self._made[first], "fingerprint", None)

    def start(self, out: Path) -> tuple[dict[str, Any], EvaluationFolder]:
        """Evaluate into a new folder.

        Returns:
            What is in the folder's result.json, and the folder.
        """
        origin = {**describe_origin(), "prompt_hash": self._held_out.prompt_hash}
        folder = EvaluationFolder.create(out, self.description, origin)
        return self._go(folder, new=True), folder

    def go_on(self, folder: EvaluationFolder) -> dict[str, Any]:
        """Do what is left to do in a folder.

        Raises:
            ConfigError: If it is the folder of another evaluation.
        """
        told = folder.description()  # by an older version perhaps, which did not tell the method's part
        folder.require_same({key: self.description[key] for key in self.description if key in told}, "what is measured")
        return self._go(folder)

    def _go(self, folder: EvaluationFolder, *, new: bool = False) -> dict[str, Any]:
        go_on = self._go_on or f"go on with: search-env resume {folder.path}"
        try:
            rows = [self._measure(folder, temperature) for temperature in self._config.evaluation.temperatures]
        except KeyboardInterrupt:
            raise KeyboardInterrupt(go_on) from None
        except Exception as error:
            if new and isinstance(error, SearchEnvError) and not folder.has_answers:
                folder.remove()  # so that the same command works once the mistake is mended
            else:
                error.add_note(f"what was answered is kept; {go_on}")
            raise
        result = {
            "method": self._config.method,
            "model": None if isinstance(self._engine, NoEngine) else self._config.model.path,
            "results": rows,
            **folder.description(),
        }
        folder.write_result(result)
        return result

    def _measure(self, folder: EvaluationFolder, temperature: float) -> dict[str, Any]:
        method = self._made.pop(temperature, None) or self._make(temperature)
        questions, name = self._held_out.questions, method_name(self._config.method)
        progress = make_progress(self._display, len(questions))
        try:
            progress.phase(f"{name}, temperature {temperature:g}: {len(questions)} questions")
            tell = RunningScores(progress, len(questions)).add
            found = evaluate(method, questions, folder.log(temperature), tell)
        finally:
            progress.close()
        return {"temperature": temperature, **found.to_dict()}

    def _make(self, temperature: float) -> Method:
        return make_method(self._config.method, self._held_out.setting(self._engine, temperature=temperature))


def is_whole(result: dict[str, Any]) -> bool:
    """Whether every question has a valid episode."""
    return not any(row["invalid"] for row in result["results"])


def require_scores(folder: EvaluationFolder) -> None:
    """Refuse to call an evaluation done whose searches all failed.

    Raises:
        RunError: If no episode at one of its temperatures is valid; says how many are not, and how to go on.
    """
    rows = (folder.result() or {"results": []})["results"]
    if empty := [row for row in rows if not row["n"]]:
        invalid, asked = sum(row["invalid"] for row in rows), sum(row["n"] + row["invalid"] for row in rows)
        temperatures = ", ".join(f"{row['temperature']:g}" for row in empty)
        raise RunError(
            f"there is no score at temperature {temperatures}: {invalid} of {asked} episodes are invalid, for "
            f"their search failed for good. Mend the retriever, then ask again: search-env resume {folder.path}"
        )


def _report(result: dict[str, Any], folder: EvaluationFolder) -> str:
    rows = result["results"]
    lines = [
        scores_table([(f"{method_key(result['method'])}, temperature {row['temperature']:g}", row) for row in rows])
    ]
    told = [f"temperature {row['temperature']:g}\n" if len(rows) > 1 else "" for row in rows]
    lines += [heading + figures(row) for heading, row in zip(told, rows, strict=True)]
    lines += dict.fromkeys(f"Note: {row['note']}." for row in rows if "note" in row)
    invalid, asked = sum(row["invalid"] for row in rows), sum(row["n"] + row["invalid"] for row in rows)
    if invalid:
        lines.append(
            f"{invalid} of {asked} episodes are invalid, for their search failed for good; they are not in the scores. "
            f"Ask their questions again: search-env resume {folder.path}"
        )
    return "\n\n".join(lines)
