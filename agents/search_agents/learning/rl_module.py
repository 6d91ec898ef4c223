"""The policy as an RLlib module: any Hugging Face causal language model.

In training it gives log-probs and entropies of the *sampled* tokens and nothing else.
Logits are computed at the positions that predict them, in chunks, and never kept: no
tensor of [tokens, vocabulary] is larger than a chunk. Rows come padded on the right; they
are packed before they are computed, see `search_agents.learning.packing`.

Weights keep their number format in every state, and tied weights are in it once. With
LoRA a state holds the adapters alone: the rest never changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from search_agents.engines.pretrained import load_pretrained
from search_agents.learning.lora import add_lora, load_adapter, merged_weights, without_adapter
from search_agents.learning.packing import (
    pack_rows,
    packed_states,
    padded_states,
    shared_beginning,
    takes_packed_rows,
)
from search_agents.learning.sharding import is_first, part_like, shard, whole
from search_env.errors import ModelError

__all__ = [
    "ACTION_MASK",
    "ENTROPIES",
    "INPUT_IDS",
    "LOGPROBS",
    "LLMModule",
    "PackedTensor",
    "named_tensors",
    "pack",
    "unpack",
]

INPUT_IDS = "input_ids"
"""Column of token ids, [rows, tokens], padded on the right."""
ACTION_MASK = "action_mask"
"""Column that is True where the policy sampled the token, [rows, tokens]."""
LOGPROBS = "logprobs"
"""Output: log-prob of each sampled token, in the order of the mask's True entries, [sampled], float32."""
ENTROPIES = "entropies"
"""Output: entropy of the distribution that each was drawn from, without gradient, [sampled], float32."""

LOGITS_PER_CHUNK = 1 << 24  # 64 MiB in float32


class LLMModule(TorchRLModule):  # type: ignore[misc]  # ray is untyped
    """A causal language model as policy.

    The model config holds ``model`` (folder or hub id), ``dtype`` (of the weights), ``autocast`` (compute in
    bfloat16), ``packing``, ``gradient_checkpointing``, ``temperature`` (that of the sampling), ``reference`` (keep a
    frozen copy of the initial weights, in learners only), ``lora`` (settings of `add_lora`, or None to train every
    weight) and ``seed``.

    Generating is the work of an engine, which shares `model`; so there is no inference forward.
    """

    def setup(self) -> None:
        """Load the model.

        Raises:
            ModelError: If it cannot be loaded, or its logits are computed in a way that is not known here.
        """
        self.model, self.tokenizer = load_pretrained(self.model_config["model"], dtype=self.model_config["dtype"])
        self._check_logits()
        reference = None
        if self.model_config["lora"]:
            add_lora(self.model, self.model_config["lora"], seed=self.model_config["seed"])
        elif self.model_config["reference"] and not self.inference_only:
            reference = copy.deepcopy(self.model).requires_grad_(False)
        # Not a submodule: a reference is neither trained nor synchronised nor saved.
        object.__setattr__(self, "_reference", reference and _Reference(reference, self._evaluate))

    def train(self, mode: bool = True) -> LLMModule:
        """Stay in evaluation mode: with dropout the trained policy would not be the one that sampled."""
        super().train(False)
        return self

    def shard(self, device: torch.device) -> None:
        """Spread the model over all learners; see `search_agents.learning.sharding`."""
        autocast = self.model_config["autocast"]
        shard(self, self.model, device, autocast=autocast)
        if self._reference is not None:
            shard(self._reference, self._reference.model, device, autocast=autocast)

    def forward(self, batch: Mapping[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        """What synchronisation and sharding hook into; see `_forward_train`."""
        return self._evaluate(self.model, batch)

    def _forward_train(self, batch: Mapping[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        output: dict[str, torch.Tensor] = self(batch)
        return output

    @torch.no_grad()
    def compute_logprobs(self, batch: Mapping[str, torch.Tensor], *, reference: bool) -> torch.Tensor:
        """Log-probs of the sampled tokens, as `LOGPROBS` of the training forward, now or under the reference."""
        if reference and self.model_config["lora"]:
            with without_adapter(self.model):
                return self._forward_train(batch)[LOGPROBS]
        module = self._reference.to(batch[INPUT_IDS].device) if reference else self
        logprobs: torch.Tensor = module(batch)[LOGPROBS]
        if isinstance(module, FSDPModule):
            module.reshard()  # else what is gathered outlives the next change of the weights
        return logprobs

    def shared_beginning(self, batch: Mapping[str, torch.Tensor]) -> int:
        """How many tokens all rows of a batch begin with that one forward computes once, however many rows it has."""
        input_ids = batch[INPUT_IDS]
        return shared_beginning(input_ids, batch[ACTION_MASK]) if self._packs(self.model, input_ids) else 0

    def _packs(self, model: Any, input_ids: torch.Tensor) -> bool:
        return self.model_config["packing"] and takes_packed_rows(model, input_ids.shape[1])

    def _evaluate(self, model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with self._precision(batch[INPUT_IDS].device):
            hidden, targets = self._predictions(model, batch[INPUT_IDS], batch[ACTION_MASK])
            logprobs, entropies = self._token_statistics(model, hidden, targets)
        return {LOGPROBS: logprobs, ENTROPIES: entropies}

    def _predictions(
        self, model: Any, input_ids: torch.Tensor, action_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden state that predicts each sampled token, and the token."""
        settings = {"gradient_checkpointing": self.model_config["gradient_checkpointing"]}
        if self._packs(model, input_ids):
            rows = pack_rows(input_ids, action_mask)
            return packed_states(model, rows, **settings)[rows.predicts], rows.targets
        predicted = action_mask[:, 1:]
        hidden = padded_states(model, input_ids, **settings)
        return hidden[:, :-1][predicted], input_ids[:, 1:][predicted]

    def _token_statistics(
        self, model: Any, hidden: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = max(1, LOGITS_PER_CHUNK // model.config.get_text_config().vocab_size)
        if len(targets) <= size:
            return self._chunk_statistics(model, hidden, targets)
        # Each chunk's logits are computed again in the backward pass, so that no two live at once.
        parts = [
            checkpoint(self._chunk_statistics, model, *chunk, use_reentrant=False)
            for chunk in zip(hidden.split(size), targets.split(size), strict=True)
        ]
        logprobs, entropies = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropies)

    def _chunk_statistics(
        self, model: Any, hidden: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = _logits(model, hidden) / self.model_config["temperature"]
        logprobs = -functional.cross_entropy(logits, targets, reduction="none")
        with torch.no_grad():
            distribution = functional.log_softmax(logits, dim=-1)
            entropies = -(distribution.exp() * distribution).sum(dim=-1)
        return logprobs, entropies

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.model_config["autocast"])

    @torch.no_grad()
    def _check_logits(self) -> None:
        input_ids = torch.tensor([[0, 1, 2]])
        hidden = self.model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        expected = self.model(input_ids=input_ids, use_cache=False).logits.float()
        if not torch.allclose(_logits(self.model, hidden), expected, rtol=1e-2, atol=1e-2):
            raise ModelError(
                f"{type(self.model).__name__} computes its logits in a way that the learner does not know, so its "
                "log-probs would be wrong. Choose a model whose logits are its output embedding of the last hidden "
                "state, such as Llama, Qwen, Mistral, Gemma or SmolLM."
            )

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        inference_only: bool = False,
        **kwargs: Any,
    ) -> dict[str, PackedTensor]:
        """The weights by name, each once and in its own number format.

        Learners that share the weights call it together; the first has them all, one by one, and the others none, for
        a machine with eight learners would hold eight models.
        """
        gathered = ((name, whole(tensor.detach())) for name, tensor in self._own_tensors())
        wanted = is_first() or not isinstance(self, FSDPModule)
        return {name: pack(tensor) for name, tensor in gathered if wanted}

    def set_state(self, state: Mapping[str, PackedTensor]) -> None:
        """Take over weights, in place.

        Raises:
            ModelError: If they are those of another model.
        """
        own = dict(self._own_tensors())
        if own.keys() != state.keys():
            raise ModelError(
                f"the weights are those of another model than {self.model_config['model']!r}: they differ in "
                f"{', '.join(sorted(own.keys() ^ state.keys())[:3])}."
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(part_like(unpack(state[name]), tensor))

    def _own_tensors(self) -> list[tuple[str, torch.Tensor]]:
        """What training changes: all weights, or the adapters."""
        if not self.model_config["lora"]:
            return named_tensors(self.model)
        return [(name, param) for name, param in self.model.named_parameters() if param.requires_grad]

    def plain_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All weights by their names in the model of transformers, each once, adapters merged into them one by one.

        What an engine with weights of its own takes over.
        """
        return merged_weights(self.model) if self.model_config["lora"] else self.model.named_parameters()

    def save_pretrained(self, folder: str) -> None:
        """Write model and tokenizer as Transformers reads them; of a model with adapters, the adapters.

        All learners call it together where they share the weights; the first writes.
        """
        weights = None
        if isinstance(self, FSDPModule):
            gathered = ((name, whole(tensor)) for name, tensor in named_tensors(self.model))
            weights = {name: tensor.cpu() for name, tensor in gathered if is_first()}
        if is_first() or weights is None:
            self.model.save_pretrained(folder, state_dict=weights)
            self.tokenizer.save_pretrained(folder)

    def load_pretrained(self, folder: str) -> None:
        """Take over what `save_pretrained` wrote, in place.

        Raises:
            ModelError: If the folder holds no model, or another one.
        """
        if self.model_config["lora"]:
            load_adapter(self.model, folder)
            return
        saved, _ = load_pretrained(folder)
        self.set_state({name: pack(tensor) for name, tensor in named_tensors(saved)})


class _Reference(torch.nn.Module):
    """The frozen initial policy."""

    def __init__(self, model: Any, evaluate: Callable[..., dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.model, self._evaluate = model, evaluate

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._evaluate(self.model, batch)


class PackedTensor(NamedTuple):
    """A tensor that travels and is stored as plain NumPy, which has no bfloat16."""

    dtype: str
    """Name of the torch dtype."""
    data: npt.NDArray[Any]
    """The values; the bits of a bfloat16 as int16."""


def pack(tensor: torch.Tensor) -> PackedTensor:
    """Copy a tensor to NumPy without a change of value; of one that is spread over the learners, the whole."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    tensor = whole(tensor.detach()).cpu().contiguous()
    viewed = tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor
    return PackedTensor(dtype, np.array(viewed.numpy()))


def unpack(packed: PackedTensor) -> torch.Tensor:
    """The tensor that `pack` was given, on the CPU."""
    dtype = getattr(torch, packed.dtype)
    tensor = torch.from_numpy(np.array(packed.data))
    return tensor.view(dtype) if tensor.dtype is not dtype else tensor


def named_tensors(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Parameters and saved buffers of a model; weights that are tied come under their first name only."""
    saved = model.state_dict(keep_vars=True)
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in saved]
    return [*model.named_parameters(), *buffers]


def _logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Next-token logits at some positions, [positions, vocabulary], as the model itself computes them, in float32."""
    config = model.config.get_text_config()
    logits: torch.Tensor = model.get_output_embeddings()(hidden).float()
    if getattr(config, "logit_scale", None):  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None):  # Granite
        logits = logits / config.logits_scaling
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits
