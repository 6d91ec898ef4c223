"""ReARTeR's reward model from collection to use: labels of a scripted world, a tiny encoder, a method that loads it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.rearter import REWARD_MODEL, ReARTeR
from search_agents.methods.rearter.annotate import AnnotationOptions
from search_agents.methods.rearter.train import FitOptions, auc, fit, labelled, measure
from search_agents.methods.reward_model import RewardModel, RewardTraining

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Question

DOCUMENTS = (Document(id="1", title="Norway", text="The capital of Norway is Oslo."),)
QUESTIONS = tuple(Question(id=f"q{n}", text=f"The capital {n}?", answers=("Oslo",)) for n in range(16))


@pytest.fixture(scope="module")
def encoder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random BERT."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def world() -> Callable[[str], str]:
    """Asks for the capital or for the weather; only capitals lead to the answer, and not always."""
    asks, coin = itertools.cycle(["capital", "capital", "weather"]), itertools.cycle([True, True, True, True, False])

    def reply(prompt: str) -> str:
        sofar = prompt.rpartition("Question: The capital")[2]
        if prompt.endswith("\nAnswer:"):
            return "Oslo" if "Follow up: the weather" not in prompt and next(coin) else "rain"
        if prompt.endswith("Intermediate answer:"):
            return " so\n"
        if prompt.endswith("Critique:"):
            return "The weather does not matter."
        if prompt.endswith('{"action": "'):
            return 'new query", "query": "the capital of Norway?", "search": "no"}'
        asked = (
            "So the final answer is: so" if "Follow up:" in sofar else f"Follow up: the {next(asks)}?\nSearch: No.\n"
        )
        return asked

    return reply


def setting(reply: Callable[[str], str]) -> Setting:
    env = SearchQAVectorEnv(
        8,
        dataset=Dataset(name="tiny", split="train", questions=QUESTIONS, documents=DOCUMENTS),
        retriever=InMemoryRetriever(DOCUMENTS),
        top_k=1,
    )
    return Setting(
        engine=ScriptedEngine(reply), env=env, sampling=SamplingParams(max_tokens=200), max_tokens=20_000, chat=False
    )


def options(encoder: str, **more: Any) -> FitOptions:
    return FitOptions(
        encoder=encoder,
        annotation=AnnotationOptions(iterations=6, max_steps=2),
        training=RewardTraining(epochs=8, learning_rate=1e-3, head_learning_rate=1e-2, batch_size=8),
        **more,
    )


def test_a_trained_reward_model_beats_its_untrained_self_on_questions_it_never_saw(
    encoder: str, tmp_path: Path
) -> None:
    figures = ReARTeR.fit(setting(world()), QUESTIONS, tmp_path, options(encoder, held_out=0.4, critiques=4))
    assert figures["trained"]["auc"] > max(0.9, figures["untrained"]["auc"])
    assert figures["trained"]["accuracy"] > 0.8
    assert figures["questions"] == 16
    for part in ("training", "held_out"):
        assert 0 < figures[part]["right"] < figures[part]["prefixes"]
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert figures["fingerprint"] == RewardModel.load(tmp_path / REWARD_MODEL).fingerprint
    critiques = figures["critiques"]
    rows = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    assert critiques["questions"] == 4 and critiques["kept"] == len(rows) <= critiques["written"]
    assert sum(row["label"] for row in rows) == critiques["desirable"]
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.pkl"))

    method = make_method({"name": "rearter", "part": str(tmp_path)}, setting(world()))
    (transcript,) = method.run(QUESTIONS[:1])
    assert transcript.answer == "Oslo"
    assert method.fingerprint == f"{figures['fingerprint']}, explained by the model itself, untrained"
    assert method.note == "reward model: trained by search-env fit; critiques: the model itself, untrained"

    asked: list[str] = []
    again = fit(setting(lambda prompt: asked.append(prompt) or ""), QUESTIONS, tmp_path, options(encoder, held_out=0.4))
    assert not asked and again["trained"] == figures["trained"]


def test_labels_of_one_kind_are_too_few_to_train_on(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 of the 0 prefixes to train on lead to the answer"):
        fit(setting(lambda prompt: "Oslo"), QUESTIONS, tmp_path, options(encoder))


def test_a_stronger_model_annotates_what_was_never_answered_right(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def stronger(name: str, **_: str) -> ScriptedEngine:
        loaded.append(name)
        return ScriptedEngine(world())

    monkeypatch.setattr("search_agents.engines.transformers.TransformersEngine.from_pretrained", stronger)
    weak = setting(lambda prompt: "rain" if "capital 1" in prompt else world()(prompt))
    with pytest.raises(ConfigError, match="lead to the answer"):
        fit(setting(lambda prompt: "rain"), QUESTIONS, tmp_path, options(encoder))
    figures = fit(weak, QUESTIONS, tmp_path, options(encoder, stronger="large", held_out=0.4))
    assert loaded == ["large"]
    kept = [json.loads(line) for line in (tmp_path / "prefixes-stronger.jsonl").read_text().splitlines()]
    assert {row["id"] for row in kept} == {question.id for question in QUESTIONS} and figures["questions"] == 16
    assert figures["questions_with_prefixes"] == sum(bool(row["prefixes"]) for row in kept) > 0


def test_the_explanation_model_may_be_another_one(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant:
        def score(self, texts: Any) -> Any:
            return np.full(len(texts), -1.0)

    monkeypatch.setattr(
        "search_agents.engines.transformers.TransformersEngine.from_pretrained",
        lambda name, **_: ScriptedEngine(lambda prompt: f"{name} <answer> finds it weak."),
    )
    given = ReARTeR.Options(explainer="critic", chains=1, lookahead=1, max_steps=1)
    method = ReARTeR(setting(world()), given, scorer=Constant())
    (transcript,) = method.run(QUESTIONS[:1])
    critiques = [call.text for turn in transcript.turns for call in turn.calls if call.purpose == "critique, critic"]
    assert critiques == ["critic ‹answer› finds it weak."]
    assert method.fingerprint == "Constant, explained by critic"
    folder, told = tmp_path / "critic", set()
    folder.mkdir()
    for content in ("{}", '{"trained": "anew"}'):
        (folder / "config.json").write_text(content)
        told.add(ReARTeR(setting(world()), ReARTeR.Options(explainer=str(folder)), scorer=Constant()).fingerprint)
    assert len(told) == 2 and not any(str(tmp_path) in each for each in told)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What is loaded, in which format and where to; whatever is meant for a GPU is loaded on the CPU."""
    found: list[tuple[str, str, str]] = []
    new, saved = RewardModel.from_pretrained, RewardModel.load

    def note(name: str | Path, dtype: str, device: str) -> None:
        found.append((Path(name).name, dtype, device))

    def from_pretrained(name: str, *, dtype: str, device: str, **more: Any) -> RewardModel:
        note(name, dtype, device)
        return new(name, dtype=dtype, **more)

    def load(folder: Path, *, dtype: str, device: str) -> RewardModel:
        note(folder, dtype, device)
        return saved(folder, dtype=dtype)

    def engine(name: str, *, dtype: str, device: str) -> ScriptedEngine:
        note(name, dtype, device)
        return ScriptedEngine(world())

    monkeypatch.setattr(RewardModel, "from_pretrained", from_pretrained)
    monkeypatch.setattr(RewardModel, "load", load)
    monkeypatch.setattr("search_agents.engines.transformers.TransformersEngine.from_pretrained", engine)
    return found


def test_every_model_is_loaded_in_the_format_and_on_the_device_that_its_options_name(
    encoder: str, tmp_path: Path, loaded: list[tuple[str, str, str]]
) -> None:
    given = {
        "encoder_dtype": "bfloat16", "encoder_device": "cuda:1",
        "stronger": "large", "stronger_dtype": "float16", "stronger_device": "cuda:2",
    }  # fmt: skip
    weak = setting(lambda prompt: "rain" if "capital 1" in prompt else world()(prompt))
    fit(weak, QUESTIONS, tmp_path, options(encoder, held_out=0.4, critiques=1, **given))
    at_fit = [("large", "float16", "cuda:2"), (Path(encoder).name, "bfloat16", "cuda:1")]
    assert loaded == [*at_fit, (REWARD_MODEL, "bfloat16", "cuda:1")]
    loaded.clear()
    given = {
        "reward_model_dtype": "bfloat16", "reward_model_device": "cuda:3",
        "explainer": "critic", "explainer_dtype": "float32", "explainer_device": "cuda:4",
    }  # fmt: skip
    method = make_method({"name": "rearter", "part": str(tmp_path), **given}, setting(world()))
    assert loaded == [(REWARD_MODEL, "bfloat16", "cuda:3"), ("critic", "float32", "cuda:4")]
    assert method._scorer._encoder.dtype is torch.bfloat16
    (transcript,) = method.run(QUESTIONS[:1])
    assert transcript.answer == "Oslo"


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    labels = np.array([True, False, True, False])
    assert auc(np.array([3.0, 1.0, 2.0, 0.0]), labels) == 1.0
    assert auc(np.array([0.0, 1.0, 2.0, 3.0]), labels) == 0.25
    assert auc(np.zeros(4), labels) == 0.5
    assert measure(np.array([3.0, -1.0, -2.0, 0.0]), labels) == {"auc": 0.5, "accuracy": 0.75}


def test_a_prefix_is_right_if_more_than_half_of_its_rollouts_are() -> None:
    prefixes = [{"text": f"t{mc}", "mc": mc, "steps": 1} for mc in (0.0, 0.4, 0.5, 0.6, 0.8)]
    part = labelled([{"id": "a", "prefixes": prefixes}, {"id": "b"}])
    assert part.labels.tolist() == [False, False, False, True, True]
    assert labelled([]).texts == []
