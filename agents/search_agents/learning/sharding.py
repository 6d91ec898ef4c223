"""Weights spread over the learners (FSDP2): each holds a part of every weight, its gradient and its moments.

A layer's weights are gathered when it is computed and let go afterwards, so a learner
needs memory for its part of the model and for one whole layer. The price is
agreement: whatever gathers weights is a step that all learners take together, so each
takes as many forward passes as the one with the most.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["is_first", "most", "part_like", "shard", "whole"]


def shard(module: torch.nn.Module, model: Any, device: torch.device, *, autocast: bool) -> None:
    """Spread a module over all learners, in place.

    Args:
        module: What is called: its forward runs the model.
        model: The transformers model in it; its layers are gathered one by one, all else at once.
        device: Where the learner computes.
        autocast: Whether it does so in bfloat16: weights are then gathered in it, and gradients added up in float32.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    policy = MixedPrecisionPolicy()
    if autocast:  # torch's own would keep a copy of all weights
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    kinds = set(model._no_split_modules or ())
    for layer in [each for each in model.modules() if type(each).__name__ in kinds]:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that is spread over the learners, who call it together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The part of a whole tensor that this learner holds of a tensor of that shape; all of it if none is spread."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    # Every learner has the whole, so nothing has to travel.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def is_first() -> bool:
    """Whether this learner is the first, the one that reports and writes; alone it is."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def most(number: int, device: torch.device) -> int:
    """The largest of the numbers that the learners call it with, together."""
    largest = torch.tensor(number, device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)
