"""The learner: exact minibatches, micro-batches by token budget, one optimizer step each.

RLlib's own learner takes one backward pass a step and may train some rows twice. Here
a minibatch is cut into packed micro-batches whose gradients add up, and
every loss is divided by the number of sampled tokens of the whole minibatch, over all
learners. How the minibatch was cut therefore changes nothing but rounding.

With several learners, gradients travel once a step: all backward passes but the last
run without synchronisation. Sharded learners share what they have after every pass,
for none has room for all gradients. A step whose gradient is not finite is skipped by all.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from safetensors.torch import load_file, save_file

from search_agents.engines.pretrained import load_pretrained
from search_agents.learning.advantages import KLEstimator
from search_agents.learning.losses import Objective, kl_loss, policy_loss
from search_agents.learning.mismatch import Mismatch
from search_agents.learning.rl_module import (
    ACTION_MASK,
    ENTROPIES,
    INPUT_IDS,
    LOGPROBS,
    PackedTensor,
    pack,
    unpack,
)
from search_agents.learning.sharding import is_first, most, part_like, whole
from search_agents.learning.torch_settings import keep_memory, use_torch

__all__ = [
    "LENGTHS",
    "MINIBATCH",
    "NUM_TOKENS",
    "OPTIMIZER_FILE",
    "REFERENCE_LOGPROBS",
    "WEIGHT",
    "ReinforcePPTorchLearner",
    "micro_batches",
]

LENGTHS = "lengths"
"""Column with the number of tokens of each row, padding left out."""
MINIBATCH = "minibatch"
"""Column with the number of the minibatch that each row belongs to."""
NUM_TOKENS = "num_tokens"
"""Column with the number of sampled tokens of each row's minibatch, over all learners."""
WEIGHT = "weight"
"""Column with the weight of each row's tokens relative to the mean over all tokens."""
REFERENCE_LOGPROBS = "reference_logprobs"
"""Column with the log-probs of the sampled tokens under the reference, where the loss has need of them."""

ADAM_BETAS = (0.9, 0.95)
OPTIMIZER_FILE = "optimizer.safetensors"
"""The optimizer's moments in a checkpoint."""
_PADDED = (INPUT_IDS, ACTION_MASK, Columns.ACTION_LOGP, Columns.ADVANTAGES, REFERENCE_LOGPROBS)
_MOST_READ = 4  # times the tokens that are computed; see `micro_batches`


class ReinforcePPTorchLearner(TorchLearner):  # type: ignore[misc]  # ray is untyped
    """Trains an `LLMModule` by a loss of `search_agents.learning.losses`.

    To try another loss, override `compute_loss_for_module`. Its result must be a sum over tokens divided by the
    column `NUM_TOKENS`.
    """

    def build(self) -> None:
        """Build module and optimizer."""
        use_torch(self.config.torch_threads)
        keep_memory()
        super().build()

    def _make_module(self) -> Any:
        if not self.config.sharded:
            return super()._make_module()
        whole_model = Learner._make_module(self)  # not on the device yet, where it might not fit
        for module_id in whole_model.keys():  # noqa: SIM118  (a module, not a mapping)
            whole_model[module_id].shard(self._device)
        return whole_model

    def _make_modules_ddp_if_necessary(self) -> None:
        if not self.config.sharded:
            super()._make_modules_ddp_if_necessary()

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Make AdamW over every parameter that is trained."""
        params = [param for param in self.module[module_id].parameters() if param.requires_grad]
        optimizer = torch.optim.AdamW(params, lr=0.0, betas=ADAM_BETAS, weight_decay=0.0, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=self.config.lr
        )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, torch.Tensor], fwd_out: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The loss that one micro-batch contributes to its minibatch.

        Args:
            module_id: The module that is trained.
            config: Its configuration.
            batch: Columns of the micro-batch.
            fwd_out: Output of the module's training forward.

        Returns:
            A scalar.
        """
        predicted = batch[ACTION_MASK][:, 1:]
        num_tokens, counts = batch[NUM_TOKENS][0], predicted.sum(dim=1)
        weights = batch[WEIGHT].repeat_interleave(counts)
        part = policy_loss(
            fwd_out[LOGPROBS],
            batch[Columns.ACTION_LOGP][:, 1:][predicted],
            batch[Columns.ADVANTAGES][:, 1:][predicted],
            clip=config.clip,
            clip_high=config.clip_high,
            objective=Objective(config.objective),
            counts=counts,
            weights=weights,
            num_tokens=num_tokens,
        )
        parts: dict[str, torch.Tensor] = {**part._asdict(), "entropy": fwd_out[ENTROPIES].sum() / num_tokens}
        if config.kl_coef > 0 and config.kl_in == "loss":
            penalty = kl_loss(
                fwd_out[LOGPROBS],
                batch[REFERENCE_LOGPROBS][:, 1:][predicted],
                estimator=KLEstimator(config.kl_estimator),
                weights=weights,
                num_tokens=num_tokens,
            )
            parts["loss"] = part.loss + config.kl_coef * penalty
        self._log_parts(module_id, parts)
        if self._weights_are_old and config.mismatch == Mismatch.IGNORED:  # so only what sampled differs
            apart = (batch[Columns.ACTION_LOGP][:, 1:][predicted] - fwd_out[LOGPROBS].detach()).sum() / num_tokens
            self.metrics.log_value((module_id, "mismatch_kl"), apart.item(), reduce="sum")
        return parts["loss"]

    def compute_logprobs(
        self, batch: Mapping[str, npt.NDArray[Any]], *, reference: bool
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probs of the sampled tokens of each row under the present policy or the frozen reference.

        Args:
            batch: Columns of the rows, as for an update.
            reference: Whether under the reference.

        Returns:
            One array [sampled tokens of the row] for each row.
        """
        columns = _tensors(batch, self._device)
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        found: dict[int, torch.Tensor] = {}
        for rows, micro in self._micro_batches(columns):
            logprobs = module.compute_logprobs(micro, reference=reference).cpu()
            counts = micro[ACTION_MASK][:, 1:].sum(dim=1).tolist()
            found.update(zip(rows.tolist(), logprobs.split(counts)[: len(rows)], strict=True))
        return [found[row].numpy() for row in range(len(columns[LENGTHS]))]

    def save_pretrained(self, folder: str) -> None:
        """Write model and tokenizer as Transformers reads them, adapters merged into the weights."""
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        if not module.model_config["lora"]:
            module.save_pretrained(folder)
            return
        with tempfile.TemporaryDirectory() as adapters:
            module.save_pretrained(adapters)
            merged, tokenizer = load_pretrained(adapters, dtype=module.model_config["dtype"])
        merged.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def save_to_folder(self, folder: str) -> None:
        """Write model (or adapters), tokenizer and optimizer; see `search_agents.learning.checkpoint`."""
        self.module[DEFAULT_MODULE_ID].unwrapped().save_pretrained(folder)
        gathered = (
            (f"{name}.{key}", whole(value))
            for name, optimizer, param in self._trained()
            for key, value in optimizer.state[param].items()
        )
        moments = {name: value.cpu().contiguous() for name, value in gathered if is_first() or not self.config.sharded}
        if is_first() or not self.config.sharded:
            save_file(moments, f"{folder}/{OPTIMIZER_FILE}")

    def bytes_of_weights(self) -> tuple[int, int]:
        """The size of what is trained, and of the whole model."""
        parameters = list(self.module[DEFAULT_MODULE_ID].unwrapped().model.parameters())
        sizes = [parameter.numel() * parameter.element_size() for parameter in parameters]
        trained = (size for size, each in zip(sizes, parameters, strict=True) if each.requires_grad)
        return sum(trained), sum(sizes)

    def load_from_folder(self, folder: str, *, env_steps: int) -> None:
        """Take over what `save_to_folder` wrote.

        Args:
            folder: Where it lies.
            env_steps: Environment steps so far, for a schedule of the learning rate.

        Raises:
            ModelError: If the folder holds no model, or another one.
        """
        self.module[DEFAULT_MODULE_ID].unwrapped().load_pretrained(folder)
        moments = load_file(f"{folder}/{OPTIMIZER_FILE}", device=str(self._device))
        for name, optimizer, param in self._trained():
            keys = [key for key in moments if key.rpartition(".")[0] == name]
            optimizer.state[param] = {key.rpartition(".")[2]: part_like(moments[key], param) for key in keys}
        for optimizer, schedule in self._optimizer_lr_schedules.items():
            self._set_optimizer_lr(optimizer, schedule.update(timestep=env_steps))

    def _trained(self) -> Iterator[tuple[str, torch.optim.Optimizer, torch.nn.Parameter]]:
        """The parameters that are trained, by name, each with its optimizer."""
        names = {param: name for name, param in self.module[DEFAULT_MODULE_ID].unwrapped().model.named_parameters()}
        for optimizer, params in self._optimizer_parameters.items():
            for param in params:
                yield names[param], optimizer, param

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a state, be it older or newer than the present one."""
        if WEIGHTS_SEQ_NO in state:
            self._weights_seq_no = -1  # RLlib ignores weights that are older than its own
        super().set_state(state)
        self._weights_seq_no = state.get(WEIGHTS_SEQ_NO, self._weights_seq_no)

    def _create_iterator_if_necessary(
        self, *, training_data: TrainingData, num_epochs: int = 1, **kwargs: Any
    ) -> Iterator[MultiAgentBatch]:
        columns = _tensors(training_data.batch.policy_batches[DEFAULT_MODULE_ID], self._device)
        minibatches = [torch.nonzero(columns[MINIBATCH] == number)[:, 0] for number in columns[MINIBATCH].unique()]
        self._steps_of_update = num_epochs * len(minibatches)
        for number, rows in enumerate(minibatches * num_epochs):
            self._weights_are_old = number == 0
            batch = SampleBatch({name: column[rows] for name, column in columns.items()})
            yield MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(rows))

    def _uncompiled_update(
        self, batch: Mapping[str, SampleBatch], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
        columns = batch[DEFAULT_MODULE_ID]
        parts = self._micro_batches(columns)
        total = torch.zeros((), device=self._device)
        for number, (_, part) in enumerate(parts, start=1):
            micro = {DEFAULT_MODULE_ID: part}
            with contextlib.nullcontext() if number == len(parts) else self._without_sync():
                losses = self.compute_losses(fwd_out=self.module.forward_train(micro), batch=micro)
                loss = sum(losses.values())
                # The mean over learners that synchronisation takes becomes the sum.
                (loss * max(1, self.config.num_learners)).backward()
            total += loss.detach()
        self.apply_gradients({ref: param.grad for ref, param in self._params.items()})
        return {}, {DEFAULT_MODULE_ID: total}, {}

    def _micro_batches(self, columns: Mapping[str, torch.Tensor]) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Indices of the rows of each micro-batch, and its columns.

        Sharded learners take equally many passes: those with fewer micro-batches get some of no rows, whose columns
        hold a row without sampled tokens.
        """
        shared = self.module[DEFAULT_MODULE_ID].unwrapped().shared_beginning(columns)
        size, padded = self.config.micro_batch_tokens, not self.config.packing
        parts = micro_batches(columns[LENGTHS], size, padded=padded, shared=shared)
        found = [(rows, _select(columns, rows)) for rows in parts]
        if self.config.sharded:
            nothing = {name: column.new_zeros((1, 2) if name in _PADDED else 1) for name, column in columns.items()}
            nothing |= {name: column.new_ones(1) for name, column in columns.items() if name == NUM_TOKENS}
            passes = most(len(found), self._device)
            found += [(torch.empty(0, dtype=torch.long), nothing)] * (passes - len(found))
        return found

    def apply_gradients(self, gradients_dict: Mapping[Any, torch.Tensor | None]) -> None:
        """Clip the gradient and take the step, or skip it if its norm is not finite."""
        params = list(self._params.values())
        norm = whole(torch.nn.utils.clip_grad_norm_(params, self.config.grad_clip or float("inf")))
        finite = bool(torch.isfinite(norm))
        for optimizer in self._named_optimizers.values():
            if finite:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if finite:
            self.metrics.log_value((DEFAULT_MODULE_ID, "grad_norm"), float(norm), reduce="mean")
        self.metrics.log_value((DEFAULT_MODULE_ID, "skipped_steps"), float(not finite), reduce="mean")

    def _without_sync(self) -> contextlib.AbstractContextManager[None]:
        module = self.module[DEFAULT_MODULE_ID]
        return module.no_sync() if self.distributed and not self.config.sharded else contextlib.nullcontext()

    def _log_parts(self, module_id: str, parts: Mapping[str, torch.Tensor]) -> None:
        """Log what adds up over micro-batches and learners; the sum is the mean over the steps of an update."""
        for name, value in parts.items():
            self.metrics.log_value((module_id, name), value.item() / self._steps_of_update, reduce="sum")

    def _get_optimizer_state(self) -> dict[str, Any]:
        return {
            name: {"module_id": self._optimizer_name_to_module[name], "state": _map(optimizer.state_dict(), pack)}
            for name, optimizer in self._named_optimizers.items()
        }

    def _set_optimizer_state(self, state: Mapping[str, Any]) -> None:
        for name, entry in state.items():
            optimizer, loaded = self._named_optimizers[name], _map(entry["state"], unpack)
            for index, param in enumerate(self._optimizer_parameters[optimizer]):
                moments = loaded["state"].get(index, {})
                loaded["state"][index] = {key: part_like(value, param) for key, value in moments.items()}
            optimizer.load_state_dict(loaded)

    @staticmethod
    def _set_optimizer_lr(optimizer: torch.optim.Optimizer, lr: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = float(lr)


def micro_batches(
    lengths: torch.Tensor, max_tokens: int, *, padded: bool = False, shared: int = 0
) -> list[torch.Tensor]:
    """Cut rows into micro-batches of similar lengths.

    What rows begin with is computed once, but each keeps its keys and values for the backward pass, as it reads them:
    a small part of what a computed token keeps, so four times as many tokens may be read as are computed.

    Args:
        lengths: Tokens of each row, [rows].
        max_tokens: The most tokens of a micro-batch that are computed; a longer row is one by itself.
        padded: Whether padding to the longest row counts.
        shared: Tokens that all rows begin with and that count once.

    Returns:
        Indices of rows, one tensor a micro-batch.
    """
    order = torch.argsort(lengths, stable=True)
    parts: list[list[int]] = []
    tokens = read = 0
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        tokens = (len(parts[-1]) + 1) * length if padded and parts else tokens + length - shared
        read += length
        if not parts or tokens > max_tokens or read > _MOST_READ * max_tokens:
            parts.append([])
            tokens = read = length
        parts[-1].append(row)
    return [torch.tensor(part, device=lengths.device) for part in parts]


def _select(columns: Mapping[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Some rows, cut to the longest of them."""
    longest = int(columns[LENGTHS][rows].max())
    return {name: column[rows][:, :longest] if name in _PADDED else column[rows] for name, column in columns.items()}


def _tensors(batch: Mapping[str, npt.NDArray[Any]], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(column)).to(device) for name, column in batch.items()}


def _map(value: Any, function: Any) -> Any:
    """Apply `pack` or `unpack` to every tensor of an optimizer's state, leaving numbers as they are."""
    if isinstance(value, torch.Tensor | PackedTensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map(entry, function) for key, entry in value.items()}
    return value
