"""Tiny random models and a tokenizer that knows the protocol's tags, built once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from search_env.dialects import get_dialect

END = "<|endoftext|>"
SPECIAL = (END, "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, for pages that are opened as files; where there is none, the test is skipped."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright", exc_type=ImportError
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with playwright.sync_playwright() as started:  # of a module and no longer: while it lives, asyncio.run cannot
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE of a few merges; the tags of R1-Searcher are one token each, and not special."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["the capital of Norway is Oslo", "answer> the end of </answer>.", "query> and >."] * 9, trainer
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)
    fast.add_tokens(list(get_dialect("r1-searcher").tags))
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return fast


@pytest.fixture(scope="session")
def make_model(tokenizer: Any) -> Callable[..., Any]:
    """Builds a random model: `kind` llama or qwen2; `boosts` adds to the logits of tokens by id."""
    import torch
    import transformers

    class BoostedHead(torch.nn.Module):
        def __init__(self, head: torch.nn.Module, boost: torch.Tensor) -> None:
            super().__init__()
            self.head, self.boost = head, boost

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.head(hidden) + self.boost

    def build(kind: str = "llama", *, seed: int = 0, boosts: dict[int, float] | None = None, **config: Any) -> Any:
        torch.manual_seed(seed)
        settings = {
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.3,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            "pad_token_id": None,
        } | config
        classes = {
            "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
            "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        }
        make_config, make = classes[kind]
        model = make(make_config(**settings)).eval()
        if boosts:
            boost = torch.zeros(len(tokenizer))
            for token_id, value in boosts.items():
                boost[token_id] = value
            model.lm_head = BoostedHead(model.lm_head, boost)
        return model

    return build


@pytest.fixture
def talkative(tokenizer: Any, make_model: Callable[..., Any]) -> Any:
    """A random model that opens and closes queries often, and answers now and then."""
    ids = tokenizer.convert_tokens_to_ids
    boosts = {ids("<begin_of_query>"): 4.0, ids("<end_of_query>"): 4.0, ids("<answer>"): 2.0, ids("</answer>"): 2.0}
    return make_model(boosts=boosts, initializer_range=0.1)
