"""How much memory the processes of a training run need, from the shape of the model alone.

Counted is what grows with the model or the batch: weights, gradients, moments, the
reference, what a backward pass must remember, one chunk of logits, and of an engine
its weights and its cache, be it one that samples or the one that evaluates. What a GPU's
driver and the allocator take comes on top; `RESERVE` stands for it.

Measured beside it (SmolLM2-135M in float32, a row of 2,000 tokens, 2 CPU cores, 2026-11-21,
`benchmarks/learner.py --rows 2`): 4.0 GiB grow in a step where 3.8 are planned, 1.5 with
gradient checkpointing where 1.4 are. What is counted of logits and of passing gradients was
settled by these two. No GPU was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from search_agents.config import TrainConfig
from search_agents.config.sections import ModelSection, OptimizerSection, RolloutSection
from search_agents.engines.pretrained import load_config
from search_agents.engines.transformers import CACHE_TOKENS, PREFIX_BYTES
from search_agents.learning.rl_module import LOGITS_PER_CHUNK

__all__ = ["RESERVE", "ModelShape", "cache_bytes_per_token", "engine_memory", "evaluation_memory", "learner_memory"]

RESERVE = 0.1
"""Share of a GPU's memory that a plan leaves free."""

_BYTES = {"float32": 4, "bfloat16": 2}
# Logits and the same by temperature, log-softmax, softmax, log-softmax again and its product for the entropy, gradient.
_LOGIT_COPIES = 7


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a causal language model."""

    parameters: int
    """All weights; tied ones once."""
    layer_parameters: int
    """Weights of one layer."""
    layers: int
    hidden: int
    intermediate: int
    query: int
    """Width of all queries of a token: heads times their size."""
    key_value: int
    """Width of its keys; that of its values is the same."""
    heads: int
    """Attention heads, that is of queries."""
    key_value_heads: int

    @property
    def outside(self) -> int:
        """Weights outside the layers: embedding, output and the last norm."""
        return self.parameters - self.layers * self.layer_parameters

    @classmethod
    def of(cls, name_or_path: str) -> ModelShape:
        """Read the shape of a model; its weights are neither read nor needed.

        Args:
            name_or_path: A folder with a config.json, or a hub id.

        Raises:
            ModelError: If there is no such model.
        """
        whole = load_config(name_or_path)
        config = whole.get_text_config()
        with torch.device("meta"):
            model: Any = transformers.AutoModelForCausalLM.from_config(whole)
        kinds = set(model._no_split_modules or ())
        layers = [module for module in model.modules() if type(module).__name__ in kinds]
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        key_value_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return cls(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            layer_parameters=sum(parameter.numel() for parameter in layers[0].parameters()),
            layers=len(layers),
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            query=config.num_attention_heads * head,
            key_value=key_value_heads * head,
            heads=config.num_attention_heads,
            key_value_heads=key_value_heads,
        )


def learner_memory(
    shape: ModelShape, model: ModelSection, learner: OptimizerSection, *, reference: bool, longest: int
) -> dict[str, int]:
    """Memory of one learner in bytes, by what it is for.

    Args:
        shape: Of the model that is trained.
        model: Its number format.
        learner: How it is trained.
        reference: Whether a frozen copy of the model is kept for a KL.
        longest: Tokens of the longest episode.
    """
    size, computed = _BYTES[model.dtype], 2 if learner.autocast else _BYTES[model.dtype]
    parts = max(1, learner.num_learners) if learner.sharded else 1
    weights = shape.parameters * size // parts
    trained = _adapters(shape, learner.lora.rank) * _BYTES["float32"] if learner.lora else weights
    found = {
        "weights": weights,
        "gradients": trained,
        "moments": 2 * trained,
        "reference": weights if reference and learner.lora is None else 0,
    }
    if learner.sharded:
        # One layer in use, the next on its way, all that lies outside the layers, and the gradients of these.
        found["gathered"] = 2 * (2 * shape.layer_parameters + shape.outside) * computed
    else:
        found["casts"] = shape.parameters * computed if computed < size else 0  # kept for the backward pass
        found["buckets"] = trained if learner.num_learners > 1 else 0
        if not learner.lora:  # embedding and output: a gradient of each micro-batch before it is added up
            found["passing gradients"] = 2 * shape.outside * size
    tokens = max(learner.micro_batch_tokens, longest)
    of_layer, between = _activations(shape, size, computed)
    if learner.lora and model.dtype != "float32":
        of_layer += _inputs_of_adapters(shape) * (2 if learner.autocast else _BYTES["float32"])
    kept = between * shape.layers + of_layer if learner.gradient_checkpointing else of_layer * shape.layers
    found["activations"] = tokens * kept
    found["logits"] = _LOGIT_COPIES * 4 * LOGITS_PER_CHUNK
    return {name: value for name, value in found.items() if value}


def engine_memory(shape: ModelShape, model: ModelSection, rollout: RolloutSection) -> dict[str, int]:
    """Memory of one engine in bytes, by what it is for: its own weights, and a cache for the episodes in play.

    vLLM takes the cache that it is given (`model.vllm.kv_cache_gb`) and lets episodes wait that do not fit; the engine
    of transformers lets it grow to that of all episodes at their longest. Of an engine on several GPUs, it is that of
    each: layers, embedding and output are divided, only the norms are everywhere.
    """
    if model.engine == "vllm":
        cache = int(model.vllm.kv_cache_gb * (1 << 30))
    else:
        cache = cache_bytes_per_token(shape, model) * rollout.num_envs * rollout.max_episode_tokens
    return {"weights": shape.parameters * _BYTES[_engine_dtype(model)] // _spread(model), "key-value cache": cache}


def evaluation_memory(shape: ModelShape, config: TrainConfig) -> dict[str, int]:
    """Memory in bytes of the copy of the model that the driver evaluates, where it does not share the learner's.

    The cache is that of all its episodes at their longest; the baselines, which are no episodes, have one of their own
    size, and keep what their prompts have in common.
    """
    evaluated = config.evaluation
    size = _BYTES["bfloat16" if config.learner.autocast else _engine_dtype(config.model)]
    per_token = 2 * shape.layers * shape.key_value * size
    cache = per_token * evaluated.batch_size * config.rollout.max_episode_tokens
    if evaluated.baselines:
        cache = max(cache, per_token * CACHE_TOKENS + PREFIX_BYTES)
    return {"weights to evaluate": shape.parameters * size, "key-value cache": cache}


def cache_bytes_per_token(shape: ModelShape, model: ModelSection) -> int:
    """Memory of a token's keys and values in all layers on one GPU, bytes; a GPU has whole heads, at least one."""
    heads = -(-shape.key_value_heads // _spread(model))
    return 2 * shape.layers * shape.key_value // shape.key_value_heads * heads * _BYTES[_engine_dtype(model)]


def _spread(model: ModelSection) -> int:
    """GPUs of one engine."""
    return model.vllm.tensor_parallel_size if model.engine == "vllm" else 1


def _engine_dtype(model: ModelSection) -> str:
    return (model.vllm.dtype if model.engine == "vllm" else None) or model.dtype


def _activations(shape: ModelShape, size: int, computed: int) -> tuple[int, int]:
    """Bytes a token that a layer keeps for its backward pass, and those of its input.

    For a layer of Llama's kind. Its norms compute in float32 and keep the input in it and the normalised input; matrix
    products and attention keep what they multiply: two normalised inputs, queries, keys and values (repeated for each
    query head), the attention's output, and the gate, its activation, the other half and their product.
    """
    norms = 2 * (4 + size) * shape.hidden
    products = computed * (2 * shape.hidden + 4 * shape.query + 4 * shape.intermediate)
    return norms + products, size * shape.hidden


def _inputs_of_adapters(shape: ModelShape) -> int:
    """Width of the inputs of a layer's adapters; of a model in another format each keeps a copy of its own."""
    return 5 * shape.hidden + shape.query + shape.intermediate  # queries, keys, values, gate, up; output; down


def _adapters(shape: ModelShape, rank: int) -> int:
    """Weights of low-rank adapters on all linear layers: `rank` for each input and each output."""
    widths = (
        (shape.hidden + shape.query)  # queries
        + 2 * (shape.hidden + shape.key_value)  # keys, values
        + (shape.query + shape.hidden)  # output
        + 3 * (shape.hidden + shape.intermediate)  # gate, up, down
    )
    return rank * shape.layers * widths
