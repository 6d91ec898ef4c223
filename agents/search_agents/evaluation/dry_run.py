"""What an evaluation would do: everything is made but the weights, the index and the searches.

The config has been checked already when this begins. Here the questions are opened, the
prompt of the first one is worded and, where the tokenizer lies on this machine, counted;
the dialect reads a sample of its own; nothing is fetched, written or asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_agents.config import EvalConfig
from search_agents.config.recipes import find_prompt
from search_agents.evaluation.evaluate import spread
from search_agents.methods import method_name
from search_agents.models import find_model
from search_env import Dataset
from search_env.datasets import PUBLISHED
from search_env.dialects import Dialect, PromptStyle, get_dialect, read_prompt_file, with_prompt
from search_env.env import find_dataset
from search_env.errors import ConfigError, DatasetError
from search_env.registration import ENVIRONMENTS
from search_env.render import visible
from search_env.retrieval.base import require_documents
from search_env.types import Prompt, Question

__all__ = ["dry_run"]

_SAMPLE = Question(id="sample", text="Which city is the capital of Norway?", answers=("Oslo",))
_CHARS_A_TOKEN = 4


def dry_run(config: EvalConfig) -> str:
    """Check what can be checked without the weights, and say what would run.

    Args:
        config: The evaluation, its names already checked.

    Returns:
        One fact a line, then the prompt of the first question. A set that is not on this machine, because nobody said
        where, is named as missing with the command that fetches it.

    Raises:
        ConfigError: If there is no such split, or a budget cannot hold the prompt.
        DatasetError: If the data is not where it was said to be, or is malformed, or lacks a corpus.
    """
    env, rollout, evaluation = config.env, config.rollout, config.evaluation
    server = config.model.server
    model = config.model.path if server else find_model(config.model.path)
    dataset = _dataset(config)
    question = spread(dataset.questions, evaluation.questions)[0] if dataset else _SAMPLE
    dialect, style = _dialect(config)
    prompt = dialect.prompt(question.text, style)
    through = "the model's chat template" if config.chat else "plain text"
    facts = {
        "method": method_name(config.method),
        "model": f"{model} (at {server.url}; not asked)"
        if server
        else f"{model} ({'a folder here' if Path(model).is_dir() else 'from the hub'}; weights not loaded)",
        "questions": _questions(config, dataset),
        "retriever": f"{env.retriever} (settings checked; not asked), top {env.top_k}",
        "dialect": f"{env.dialect}, stops at {' and '.join(dialect.stop)}",
        **_samples(dialect),
        "budget": f"{env.max_searches} searches, {env.max_turns} turns, {env.max_chars} characters; "
        f"{rollout.max_segment_tokens} tokens a segment, {rollout.max_episode_tokens} an episode",
        "prompt": f"{env.prompt}, as {through}: {_tokens(config, model, prompt)}",
        "temperatures": ", ".join(f"{temperature:g}" for temperature in evaluation.temperatures),
        "seed": config.run.seed,
    }
    lines = [f"{name + ':':14}{visible(str(value))}" for name, value in facts.items()]
    return "\n".join([*lines, "", f"prompt of question {visible(question.id)}:", visible(prompt.text)])


def _dataset(config: EvalConfig) -> Dataset | None:
    """The questions; None where the set needs data and nobody said where it is."""
    name = ENVIRONMENTS[config.env.id]
    try:
        dataset = find_dataset(name, config.env.data, config.evaluation.split)
    except DatasetError:
        if config.env.data is None:
            return None
        raise
    if config.env.retriever in ("bm25", "bm25-memory"):
        require_documents(dataset.documents)
    return dataset


def _questions(config: EvalConfig, dataset: Dataset | None) -> str:
    name, split, asked = ENVIRONMENTS[config.env.id], config.evaluation.split, config.evaluation.questions
    if dataset is None:
        pinned = name in {published.name for published in PUBLISHED if published.hub.revision}
        fetch = f"fetch it with `search-env data pull {name} --out FOLDER`, then " if pinned else ""
        return f"missing: {name}/{split} is not shipped; {fetch}give --data FOLDER"
    return (
        f"{min(asked, len(dataset.questions))} of {len(dataset.questions)} of {name}/{split}, "
        f"{len(dataset.documents)} documents beside them ({dataset.fingerprint})"
    )


def _dialect(config: EvalConfig) -> tuple[Dialect, PromptStyle]:
    dialect, given = get_dialect(config.env.dialect), config.env.prompt
    if given in tuple(PromptStyle):
        return dialect, PromptStyle(given)
    return with_prompt(dialect, read_prompt_file(find_prompt(given))), PromptStyle.BASE


def _samples(dialect: Dialect) -> dict[str, str]:
    """How the dialect reads a search and an answer."""
    samples = {"search": (dialect.query, "capital Norway"), "answer": (dialect.answer, "Oslo")}
    written = {name: f"{tags.open} {words} {tags.close}" for name, (tags, words) in samples.items()}
    read = {name: dialect.parse(segment) for name, segment in written.items()}
    return {name: f"{written[name]} is read as {read[name].kind}: {read[name].text!r}" for name in samples}


def _tokens(config: EvalConfig, model: str, prompt: Prompt) -> str:
    room = config.rollout.max_episode_tokens
    tokenizer = _tokenizer(model)
    if tokenizer is None:
        return f"about {len(prompt.text) // _CHARS_A_TOKEN} of {room} tokens (estimated: the tokenizer is not here)"
    from search_agents.engines.codec import TextCodec

    count = len(TextCodec(tokenizer, ()).encode_prompt(prompt, chat=config.chat))
    if count >= room:
        raise ConfigError(
            f"rollout.max_episode_tokens is {room} and the prompt alone has {count} tokens. Give at least "
            f"{count + config.rollout.max_segment_tokens}."
        )
    return f"{count} of {room} tokens"


def _tokenizer(model: str) -> Any:
    """The tokenizer if it lies on this machine, else None."""
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return None
