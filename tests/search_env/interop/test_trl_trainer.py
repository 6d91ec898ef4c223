"""One step of TRL's own `GRPOTrainer` over our environment.

A tiny random model would never write a call, so the calls are scripted; everything else is the trainer's: the loop
that runs them, the mask, rewards, advantages, loss and optimizer step.
"""

from __future__ import annotations

import json

import pytest

from search_env.errors import RetrieverUnavailable

trl = pytest.importorskip("trl", reason="pip install 'search-env[trl]'")
torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("silent")]

ANSWERS = ["Oslo", "Lima", "unreachable", "Oslo"]
"""What each of the four rollouts of a group answers; the third never gets there, for its search fails."""


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def call(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call><|im_end|>"


def tiny_model(vocabulary):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=vocabulary, num_key_value_heads=1, max_position_embeddings=8192, **sizes)
    return Qwen2ForCausalLM(config)


def byte_tokenizer():
    """Every byte a token, with the chat template of Qwen 2.5, whose calls TRL can read."""
    from pathlib import Path

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    return made


@pytest.fixture
def scripted_trainer(settings, watched_retriever, tmp_path, monkeypatch):
    from datasets import Dataset

    from search_env.interop.trl import environment_factory

    search = watched_retriever.search

    def failing(queries, top_k):
        if "unreachable" in queries:
            raise RetrieverUnavailable("the index is gone")
        return search(queries, top_k)

    monkeypatch.setattr(watched_retriever, "search", failing)

    class Scripted(trl.GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            self.read = [*getattr(self, "read", []), [self.processing_class.decode(ids) for ids in prompt_ids]]
            script = [
                [
                    call("search", query="unreachable" if text == "unreachable" else "Poison: capital of Norway")
                    for text in ANSWERS
                ],
                [call("answer", text=text) for text in ANSWERS],
                ["Done.<|im_end|>"] * len(ANSWERS),
            ]
            said = script[len(self.read) - 1]
            return [self.processing_class(text)["input_ids"] for text in said], None

        def _generate_and_score_completions(self, inputs):
            self.batch = super()._generate_and_score_completions(inputs)
            return self.batch

    tokenizer = byte_tokenizer()
    return Scripted(
        model=tiny_model(len(tokenizer)),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=4096,
            max_tool_calling_iterations=4,
            max_steps=1,
            learning_rate=0.1,
            report_to=[],
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": ""}], "question": "munch"}]),
        processing_class=tokenizer,
        environment_factory=environment_factory(**settings, reward="stage2"),
    )


def test_a_step_of_grpo_with_a_rollout_whose_search_failed(scripted_trainer):
    trainer = scripted_trainer
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    advantages = trainer.batch["advantages"].tolist()
    # Rewards 1, 0, none, 1: the group's mean and deviation are those of the three that have one.
    assert advantages[2] == 0.0
    assert advantages[0] == advantages[3] > 0 > advantages[1]
    assert sum(advantages) == pytest.approx(0.0, abs=1e-4)
    logged = trainer.state.log_history[0]
    assert logged["reward"] == pytest.approx(2 / 3)
    assert any(not torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


def test_the_model_reads_documents_it_is_not_trained_on(scripted_trainer):
    trainer = scripted_trainer
    trainer.train()
    tokenizer, ids, mask = trainer.processing_class, trainer.batch["completion_ids"], trainer.batch["tool_mask"]
    kept = trainer.batch["completion_mask"].bool()
    read = tokenizer.decode(ids[0][kept[0]])
    trained = tokenizer.decode(ids[0][kept[0] & mask[0].bool()])
    assert "<information>Doc 1(Title:" in read
    assert "‹answer›Lima‹/answer›" in read
    assert "information" not in trained
    assert trained.count("<tool_call>") == 2
    assert "the index is gone" not in tokenizer.batch_decode(ids)[2]
    assert "What is the capital of the country where Edvard Munch was born?" in trainer.read[0][0]
