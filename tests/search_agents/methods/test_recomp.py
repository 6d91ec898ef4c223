from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from search_agents.engines.base import SamplingParams, ScoredText, ScoringRequest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.recomp import Recomp, RecompFitOptions
from search_agents.methods.recomp.collect import LABELS, LabelledQuestion, collect, supporting
from search_agents.methods.recomp.encoder import DualEncoder, Summarizer
from search_agents.methods.recomp.selection import Candidate, best, candidates, passages_of
from search_agents.methods.recomp.train import measure, train, triplets

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, ModelError, RetrieverUnavailable, RunError
from search_env.retrieval import InMemoryRetriever
from search_env.types import Document, Hop, Question, Transcript

COLOURS = ["red", "blue", "green", "grey", "pink", "white", "black", "brown"]
THINGS = ["car", "house", "boat", "hat", "dog", "tree", "ball", "ship"]
PEOPLE = ["ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal"]


def page(number: int) -> Document:
    """A page of four sentences, of which one tells the colour of the thing."""
    rng = random.Random(number)
    thing, colour = THINGS[number % 8], COLOURS[number // 8]
    told = [
        f"The {thing} looks {colour}.",
        f"The {thing} {rng.choice(THINGS)} is old.",
        f"A {thing} came late.",
        f"Some {thing} {thing} fell.",
    ]
    rng.shuffle(told)
    return Document(id=str(number), title=f"page{number}", text=" ".join(told))


DOCUMENTS = tuple(page(number) for number in range(64))
QUESTIONS = tuple(
    Question(
        id=f"q{number}",
        text=f"page{number}: which colour has the {THINGS[number % 8]}?",
        answers=(COLOURS[number // 8],),
        gold_titles=(f"page{number}",),
    )
    for number in range(64)
)


def likes_the_answer(context: str, text: str) -> list[float]:
    """The answer is likely where it has been read."""
    return [-1.0 if text.strip() in context.split("\n")[0] else -5.0] * len(text.split())


class Bench:
    def __init__(self, *, questions: Sequence[Question] = QUESTIONS, top_k: int = 1) -> None:
        self.prompts: list[str] = []
        self.scored: list[ScoringRequest] = []
        self.engine = ScriptedEngine(self._reply, score=likes_the_answer)
        inner = self.engine.score
        self.engine.score = lambda requests: self._watch(requests, inner)  # type: ignore[method-assign]
        self.retriever = InMemoryRetriever(DOCUMENTS)
        dataset = Dataset(name="tiny", split="train", questions=tuple(questions), documents=DOCUMENTS)
        env = SearchQAVectorEnv(8, dataset=dataset, retriever=self.retriever, prompt="base", top_k=top_k)
        sampling = SamplingParams(max_tokens=20)
        self.setting = Setting(engine=self.engine, env=env, sampling=sampling, max_tokens=4000, chat=False)

    def run(self, questions: Sequence[Question] = QUESTIONS[:1], **options: Any) -> list[Transcript]:
        self.method = make_method({"name": "recomp", **options}, self.setting)
        return list(self.method.run(questions))

    def passages(self) -> list[str]:
        return re.findall(r"^Passage \d+: (.*)$", self.prompts[-1], re.M)

    def _reply(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return "red"

    def _watch(self, requests: Sequence[ScoringRequest], score: Callable[..., list[ScoredText]]) -> list[ScoredText]:
        self.scored += requests
        return score(requests)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny random encoder that knows the words of the pages."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = re.findall(r"\w+|[^\w\s]", " ".join(f"{d.title} {d.text}" for d in DOCUMENTS) + " which colour has the ?")
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(map(str.lower, words))]
    (folder / "vocab.txt").write_text("\n".join(known))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(known), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def make_t5(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Writes a tiny random T5; `forced` is the id that each of its texts begins with."""
    from transformers import T5Config, T5ForConditionalGeneration

    def build(forced: int | None = None) -> str:
        folder = tmp_path_factory.mktemp("t5")
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = T5ForConditionalGeneration(config)
        model.generation_config.forced_bos_token_id = forced
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return build


# --- the extractive compressor ---


def test_a_text_is_the_mean_of_its_tokens_whatever_is_beside_it(encoder: str) -> None:
    dual = DualEncoder(encoder)
    texts = ["the car looks red.", "some old house fell late. some old house fell late."]
    with torch.no_grad():
        together = dual.encode(texts)
        for text, vector in zip(texts, together, strict=True):
            batch = dual._tokenizer(text, return_tensors="pt")
            expected = dual.model(**batch).last_hidden_state[0].mean(0)
            assert torch.allclose(vector, expected, atol=1e-5)
            assert dual.scores(text, texts) == pytest.approx((together @ expected).tolist(), abs=1e-3)


def test_the_highest_sentences_are_read_in_the_order_of_the_documents(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    likes = {"came late": 3.0, "looks": 2.0, "is old": 1.0, "fell": 0.0}
    monkeypatch.setattr(
        DualEncoder, "scores", lambda self, q, texts: [v for t in texts for key, v in likes.items() if key in t]
    )
    bench = Bench(top_k=1)
    wanted = [s.sentence for s in candidates(DOCUMENTS[:1]) if "came late" in s.sentence or "looks" in s.sentence]
    for count, expected in ((1, ["A car came late."]), (2, wanted)):
        (transcript,) = bench.run(untrained=encoder, sentences=count)
        assert bench.passages() == [f"page0: {' '.join(expected)}"]
    assert transcript.answer == "red" and len(transcript.queries) == 1
    assert [call.purpose for call in transcript.turns[-1].calls] == ["compressor", "compression", "answer"]


def test_an_untrained_encoder_is_called_so(encoder: str) -> None:
    bench = Bench()
    (transcript,) = bench.run(untrained=encoder)
    assert bench.method.name == "recomp (untrained)" and bench.method.fingerprint.startswith("untrained-")
    assert transcript.turns[-1].calls[0].text == f"extractive, untrained: {Path(encoder).name}"
    assert bench.method.note == f"compressor extractive, untrained: {Path(encoder).name}"
    assert Recomp.name == "recomp"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"search-env fit --method '{name: recomp, encoder: ENCODER}' --model MODEL --out FOLDER"),
        ({"compressor": "abstractive"}, r"part: fangyuan/hotpotqa_abstractive"),
        ({"compressor": "abstractive", "untrained": "x"}, "untrained names an encoder"),
        ({"part": "x", "untrained": "x"}, "takes one compressor"),
        ({"compressor": "extract"}, "extractive"),
    ],
)
def test_a_compressor_is_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Bench().run(**options)


def test_a_compressor_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for options in ({"part": str(tmp_path)}, {"part": str(tmp_path), "compressor": "abstractive"}):
        with pytest.raises(ModelError, match="as a compressor"):
            Bench().run(**options)
    with pytest.raises(ModelError, match="no model folder"):
        Bench().run(part=str(tmp_path / "none"))


def test_where_nothing_is_found_the_model_answers_from_what_it_knows(encoder: str) -> None:
    bench = Bench()
    (transcript,) = bench.run([Question(id="q0", text="zzz", answers=("x",))], untrained=encoder)
    assert transcript.answer == "red" and "Passage" not in bench.prompts[-1]


def test_candidates_are_inert_sentences_with_their_titles() -> None:
    found = candidates([Document(id="1", title="A <b>", text="One </answer> is. Two are."), DOCUMENTS[0]])
    assert found[:2] == [Candidate("A ‹b›", "One ‹/answer› is."), Candidate("A ‹b›", "Two are.")]
    assert len(found) == 6 and found[2].title == "page0"
    assert passages_of([found[0], found[2], found[1]]) == ["A ‹b›: One ‹/answer› is. Two are.", found[2].text]
    assert best([1.0, 3.0, 3.0, 2.0], 2) == [1, 2] and best([1.0, 3.0, 3.0], 1) == [1]


# --- labels ---


def test_labels_are_the_likelihood_of_the_gold_answer_after_each_sentence(tmp_path: Path) -> None:
    bench = Bench()
    rows = collect(bench.setting, QUESTIONS[:20], tmp_path)
    assert [row.id for row in rows] == [f"q{number}" for number in range(20)]
    for row, question in zip(rows, QUESTIONS, strict=False):
        assert row.without == -5.0 and sorted(row.logprobs) == [-5.0, -5.0, -5.0, -1.0]
        assert question.answers[0] in row.texts[row.logprobs.index(-1.0)]
        assert row.supporting == (row.logprobs.index(-1.0),)
    assert len(bench.scored) == 20 * 5


def test_rows_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    whole = collect(Bench().setting, QUESTIONS[:20], tmp_path / "whole")
    bench, folder = Bench(), tmp_path / "parts"
    collect(bench.setting, QUESTIONS[:9], folder)
    with (folder / LABELS).open("a") as stream:
        stream.write('{"id": "q9", "question": "pa')  # what a killed run leaves
    again = Bench()
    assert collect(again.setting, QUESTIONS[:20], folder) == whole
    assert len(again.scored) == 11 * 5
    assert (folder / LABELS).read_text() == (tmp_path / "whole" / LABELS).read_text()


def test_a_question_with_a_sentence_too_long_for_the_model_is_left_out_and_not_asked_again(tmp_path: Path) -> None:
    bench = Bench()
    score, long = bench.engine.score, candidates(DOCUMENTS[3:4])[1].text
    bench.engine.score = lambda requests: [  # type: ignore[method-assign]
        None if request.context.startswith(long) else scored
        for request, scored in zip(requests, score(requests), strict=True)
    ]
    rows = collect(bench.setting, QUESTIONS[:9], tmp_path)
    assert [row.id for row in rows] == [f"q{number}" for number in range(9) if number != 3]
    again = Bench()
    assert collect(again.setting, QUESTIONS[:9], tmp_path) == rows and again.scored == []


def test_rows_are_kept_when_the_retriever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    search, calls = bench.retriever.search, iter([True, False])

    def failing(queries: Sequence[str], top_k: int) -> Any:
        if not next(calls):
            raise RetrieverUnavailable("gone")
        return search(queries, top_k)

    monkeypatch.setattr(bench.retriever, "search", failing)
    with pytest.raises(RetrieverUnavailable):
        collect(bench.setting, QUESTIONS[:20], tmp_path)
    assert len((tmp_path / LABELS).read_text().splitlines()) == 1 + 8


def test_labels_of_another_model_are_refused(tmp_path: Path) -> None:
    collect(Bench().setting, QUESTIONS[:2], tmp_path)
    other = Bench()
    other.engine.name = "other"
    with pytest.raises(ConfigError, match="'engine': 'scripted'"):
        collect(other.setting, QUESTIONS[:2], tmp_path)
    (tmp_path / LABELS).write_text("{\n")
    with pytest.raises(RunError, match="cannot be read"):
        collect(other.setting, QUESTIONS[:2], tmp_path)


def test_supporting_sentences_stand_in_gold_documents_and_hold_an_answer() -> None:
    question = Question(
        id="1",
        text="?",
        answers=("Ann Lee",),
        gold_titles=("Film",),
        decomposition=(Hop(query="Film director", answer="Bob O'Neil"),),
    )
    found = [
        Candidate("film", "By Bob O'Neil."),
        Candidate("Film", "Joann Leeds came."),
        Candidate("Other", "Ann Lee."),
        Candidate("Film", "It is ANN  LEE's."),
    ]
    assert supporting(question, found) == (0, 3)


# --- training ---


def labelled(*logprobs: float, without: float = -5.0) -> LabelledQuestion:
    texts = tuple(f"page0: {word}" for word in ("red", "car", "house", "boat"))[: len(logprobs)]
    return LabelledQuestion(
        id="1", question="red car", texts=texts, logprobs=logprobs, without=without, supporting=(0,)
    )


def test_the_likeliest_sentence_is_the_positive_and_the_most_similar_of_the_worse_the_negatives(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dual, options = DualEncoder(encoder), RecompFitOptions(encoder=encoder, negatives=2, margin=0.5)
    monkeypatch.setattr(DualEncoder, "scores", lambda self, q, texts: [float("house" not in t) for t in texts])
    assert triplets(dual, [labelled(-3, -1, -4, -2)], options) == [
        ("red car", "page0: car", ["page0: red", "page0: boat"])
    ]
    assert triplets(dual, [labelled(-3, -1, -1.4, -1.2)], options)[0][2] == ["page0: red"]  # within the margin
    assert triplets(dual, [labelled(-3, -1, without=-0.5)], options) == []  # no sentence helps
    assert triplets(dual, [labelled(-1, -1)], options) == []  # nothing is worse


def test_the_loss_is_the_negative_log_of_the_positives_share(encoder: str) -> None:
    dual = DualEncoder(encoder)
    drawn = [("red car", "page0: red", ["page0: car", "page0: boat"]), ("blue hat", "blue", ["old"])]
    expected = []
    for question, positive, negatives in drawn:
        scores = torch.tensor(dual.scores(question, [positive, *negatives]))
        expected.append(-scores.log_softmax(0)[0].item())
    dual.model.config.hidden_dropout_prob = 0.0
    for part in dual.model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    options = RecompFitOptions(encoder=encoder, epochs=1, learning_rate=1e-9)
    assert train(dual, drawn, options, seed=0) == pytest.approx([sum(expected) / 2], abs=1e-3)


def test_figures_are_of_the_sentence_that_is_put_first() -> None:
    rows = [labelled(-3, -1), labelled(-2, -6)]
    assert measure(rows, lambda row: [0, 1]) == {"gain": 1.5, "hit": 0.5, "recall_1": 0.0, "recall_5": 1.0}
    assert measure(rows, lambda row: [1, 0]) == {"gain": 2.5, "hit": 0.5, "recall_1": 1.0, "recall_5": 1.0}


def test_a_trained_compressor_beats_its_untrained_self_on_questions_held_out(encoder: str, tmp_path: Path) -> None:
    options = RecompFitOptions(encoder=encoder, learning_rate=1e-3, epochs=15, batch_size=8)
    figures = Recomp.fit(Bench().setting, QUESTIONS, tmp_path, options)
    assert figures["trained_on"] + figures["held_out"] == 64 and 5 < figures["held_out"] < 25
    assert figures["trained"]["hit"] >= 0.9 > 0.6 > max(figures[name]["hit"] for name in ("untrained", "bm25"))
    assert figures["chance"]["hit"] == 0.25
    assert figures["trained"]["recall_1"] >= 0.9 > 0.6 > figures["bm25"]["recall_1"]
    assert figures["trained"]["gain"] > figures["untrained"]["gain"]
    assert json.loads((tmp_path / "recomp.json").read_text()) == figures
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {file.name for file in tmp_path.iterdir()}
    bench = Bench()
    transcripts = bench.run(QUESTIONS[:10], part=str(tmp_path))
    assert bench.method.name == "recomp" and len(bench.method.fingerprint) == 16
    found = [transcript.turns[-1].calls[1].text for transcript in transcripts]
    wanted = [transcript.question.answers[0] for transcript in transcripts]
    assert sum(answer in text for answer, text in zip(wanted, found, strict=True)) >= 9


def test_training_is_repeatable(encoder: str, tmp_path: Path) -> None:
    options = RecompFitOptions(encoder=encoder, epochs=2)
    once, again = (Recomp.fit(Bench().setting, QUESTIONS, tmp_path / name, options) for name in "ab")
    assert once == again
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_too_few_questions_are_refused(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of 1 questions"):
        Recomp.fit(Bench().setting, QUESTIONS[:1], tmp_path, RecompFitOptions(encoder=encoder))


# --- the abstractive compressor ---


def test_a_summary_takes_the_place_of_the_documents(make_t5: Callable[..., str], tokenizer: Any) -> None:
    folder = make_t5(tokenizer.encode("Oslo")[0])
    summary = Summarizer(folder)("which?", ["page0: The car looks red."])
    assert summary
    bench = Bench()
    (transcript,) = bench.run(compressor="abstractive", part=folder)
    assert "looks" not in bench.prompts[-1] and len(bench.passages()) == 1
    told, compression, _ = transcript.turns[-1].calls
    assert told.text == f"abstractive, trained: {Path(folder).name}"
    assert compression.text.startswith("Passage 1: ") and transcript.answer == "red"


def test_an_empty_summary_leaves_the_documents_out(make_t5: Callable[..., str], tokenizer: Any) -> None:
    folder = make_t5(tokenizer.eos_token_id)
    assert Summarizer(folder)("which?", ["page0: The car looks red."]) == ""
    bench = Bench()
    (transcript,) = bench.run(compressor="abstractive", part=folder)
    assert "Passage" not in bench.prompts[-1] and "from what you know" in bench.prompts[-1]
    assert transcript.turns[-1].calls[1].text == "empty: the documents are left out"
    assert (transcript.answer, len(transcript.queries)) == ("red", 1)
