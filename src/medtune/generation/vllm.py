"""Generation with vLLM in this process (https://docs.vllm.ai), for more answers than transformers gives in a time.

The prompts are ours: tokens from the encoder of the training, with one placeholder for each picture, and pictures that went
through the encoder's resizing already, which vLLM's then leaves as they are. So chat template, pixel limits and resampling are
those of the training, and vLLM's own settings for them are never asked.
"""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from medtune.errors import MedtuneError, MissingDependencyError, ModelError
from medtune.generation.check import check_requests, checked_length, named_error
from medtune.generation.first_token import score_token_ids
from medtune.generation.incremental import IncrementalText
from medtune.generation.vllm_adapter import AdapterFacts
from medtune.imaging.read import open_picture
from medtune.language import msg
from medtune.types import FinishReason, Generation, Request, StoredPicture

if TYPE_CHECKING:
    from medtune.generation.config import VllmSettings
    from medtune.models.encoder import Encoder

__all__ = ["Engine", "VllmGenerator"]

_ENVIRONMENT = {
    # No telemetry, and no question to a hub about a folder that is here.
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    # In this process: an engine in another one outlives a killed evaluation.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_MOST_LOGPROBS = 64


class Engine:
    """A running vLLM engine, which base and tuned model share: an adapter is a matter of the request.

    Args:
        folder: Of the model, on this machine.
        encoder: Its encoder.
        settings: How vLLM runs it.
        dtype: ``auto`` or a name of torch, for the base weights.
        adapter: What is known of the adapter, where one will be used.

    Raises:
        MissingDependencyError: vLLM is not installed.
        ModelError: vLLM cannot load the model, or the encoder is one whose pictures cannot be handed over.
    """

    def __init__(
        self, folder: Path, encoder: Encoder, settings: VllmSettings, *, dtype: str = "auto", adapter: AdapterFacts | None = None
    ) -> None:
        if encoder.family.pictures == "processor":
            raise ModelError(
                msg(
                    "The generator vllm reads the Qwen families; this model is of the family {family}.", family=encoder.family.name
                ),
                file=folder,
                key="generation.generator.kind",
                remedy=msg("Use generator kind hf, or serve the model and use kind openai."),
            )
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise MissingDependencyError("vllm", needed_for=msg("The generator vllm")) from error
        options: dict[str, Any] = {
            "model": str(folder),
            "dtype": dtype,
            "generation_config": "vllm",  # else the model's own temperature and penalties are the defaults
            "seed": 0,
            "tensor_parallel_size": settings.tensor_parallel_size,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "max_model_len": _context(encoder, settings),
            "max_num_seqs": settings.max_num_seqs,
            "enforce_eager": settings.enforce_eager,
            "trust_remote_code": encoder.settings.trust_remote_code,
            "max_logprobs": _MOST_LOGPROBS,
            "use_tqdm_on_load": False,
        }
        if encoder.pixel_limits is not None:
            low, high = encoder.pixel_limits
            options["mm_processor_kwargs"] = {"size": {"shortest_edge": low, "longest_edge": high}}
            options["limit_mm_per_prompt"] = {"video": 0}
        if adapter is not None:
            options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": settings.max_lora_rank or adapter.vllm_rank}
            if "vision" in adapter.scopes or "projector" in adapter.scopes:
                options["enable_tower_connector_lora"] = True
        try:
            self.model: Any = vllm.LLM(**options)
        except Exception as error:  # whatever its parts raise: missing fields of a config, kernels, memory
            raise ModelError(
                msg("vLLM {version} cannot load the model: {error}", version=vllm.__version__, error=_reason(error)),
                file=folder,
                key="generation.generator",
                remedy=msg("Lower gpu_memory_utilization or max_model_len where memory is short; otherwise use generator kind hf."),
            ) from error
        self.version: str = vllm.__version__
        self.max_num_seqs = settings.max_num_seqs
        self.max_tokens: int = options["max_model_len"]
        self._numbers = itertools.count()
        self._inbox: dict[str, deque[Any]] = {}
        self._lock = threading.Lock()

    def add(self, prompt: Mapping[str, Any], params: Any, lora: Any) -> str:
        """Put a request into the queue; its number."""
        with self._lock:
            number = str(next(self._numbers))
            self._inbox[number] = deque()
            self.model.llm_engine.add_request(number, dict(prompt), params, lora_request=lora)
            return number

    def outputs(self, numbers: Sequence[str]) -> list[tuple[str, Any]]:
        """One step of the engine; what has come for these requests since the last look."""
        with self._lock:
            # Two generators may share the engine, and a step answers the requests of both.
            if not any(self._inbox[number] for number in numbers):
                for output in self.model.llm_engine.step():
                    if output.request_id in self._inbox:
                        self._inbox[output.request_id].append(output)
            return [(number, self._inbox[number].popleft()) for number in numbers for _ in range(len(self._inbox[number]))]

    def close(self) -> None:
        """Give the memory back."""
        model = self.model
        if model is None:
            return
        self.model = None
        model.llm_engine.engine_core.shutdown()
        del model
        gc.collect()
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()

    def forget(self, numbers: Sequence[str], *, abort: bool = False) -> None:
        """These are answered, or nobody wants the answers any more."""
        with self._lock:
            if abort and numbers:
                self.model.llm_engine.abort_request(list(numbers))
            for number in numbers:
                self._inbox.pop(number, None)


class VllmGenerator:
    """Answers as each is finished; vLLM puts the requests together itself.

    Greedy in float32 the text is that of :class:`medtune.generation.hf.HfGenerator`. In 16 bits vLLM's own kernels round
    otherwise, and a near-tie may be decided otherwise. With a temperature the draws are vLLM's and differ from those of ``hf``.

    Args:
        engine: May be shared with another generator.
        encoder: Its encoder.
        adapter: Folder of a PEFT adapter; None = the base model, or a full fine-tune.
        owns_engine: Nobody else uses the engine: it ends with this generator.
    """

    def __init__(self, engine: Engine, encoder: Encoder, *, adapter: Path | None = None, owns_engine: bool = False) -> None:
        self._engine = engine
        self._owns_engine = owns_engine
        self._encoder = encoder
        self._lora: Any = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest(adapter.name, 1, str(adapter))

    @property
    def batch_size(self) -> int:
        """Requests decoded together at most."""
        return self._engine.max_num_seqs

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Generations as they finish. Pictures are opened when vLLM is about to need them; a damaged one gives a generation with
        ``finish_reason`` ``error``, and the others go on.

        Raises:
            GenerationError: Before any work, as :meth:`medtune.generation.hf.HfGenerator.generate`.
        """
        check_requests(requests)
        for request in requests:
            checked_length(request, self._encoder, self._engine.max_tokens)
        return self._run(deque(requests))

    def _run(self, waiting: deque[Request]) -> Iterator[Generation]:
        asked: dict[str, Request] = {}
        last = time.perf_counter()
        try:
            while waiting or asked:
                # Not all at once: a waiting request holds its decoded pictures.
                while waiting and len(asked) < 2 * self._engine.max_num_seqs:
                    request = waiting.popleft()
                    try:
                        asked[self._add(request)] = request
                    except MedtuneError as error:
                        yield Generation(id=request.id, text="", finish_reason="error", error=error.render("en"), seconds=0.0)
                if not asked:
                    continue
                done = [(number, output) for number, output in self._engine.outputs(list(asked)) if output.finished]
                now = time.perf_counter()
                finished = [self._generation(asked.pop(number), output, (now - last) / len(done)) for number, output in done]
                if done:
                    last = now
                    self._engine.forget([number for number, _ in done])
                yield from finished
        finally:
            self._engine.forget(list(asked), abort=True)

    def stream(self, request: Request) -> Generator[str, None, FinishReason]:
        """Pieces of the text as they come, whole characters only; joined they are the text :meth:`generate` gives.

        Raises:
            GenerationError: At once, for the same reasons as :meth:`generate` and for a damaged picture.
        """
        check_requests([request])
        checked_length(request, self._encoder, self._engine.max_tokens)
        return self._pieces(self._add(request))

    def _pieces(self, number: str) -> Generator[str, None, FinishReason]:
        text, shown = IncrementalText(self._encoder.decode), 0
        finish_reason: FinishReason | None = None
        try:
            while finish_reason is None:
                for _, output in self._engine.outputs([number]):
                    words, reason = self._words(output)
                    if piece := text.add(words[shown:]):
                        yield piece
                    shown = len(words)
                    if output.finished:
                        finish_reason = reason
            if rest := text.end():
                yield rest
        finally:
            self._engine.forget([number], abort=finish_reason is None)
        return finish_reason

    def first_logprobs(self, request: Request, ids: Sequence[int]) -> list[float]:
        """Logarithms of the probabilities of tokens as the answer's first, at most 64 of them."""
        number = self._add(request, max_tokens=1, logprob_token_ids=list(ids))
        try:
            while True:
                for _, output in self._engine.outputs([number]):
                    if output.finished:
                        told = output.outputs[0].logprobs[0]
                        return [float(told[token].logprob) for token in ids]
        finally:
            self._engine.forget([number])

    def close(self) -> None:
        """End the engine, where it is this generator's own."""
        if self._owns_engine:
            self._engine.close()

    # -------------------------------------------------------------------------------------------------------------- one

    def _add(self, request: Request, **changes: Any) -> str:
        from vllm import SamplingParams

        prompt: dict[str, Any] = {}
        try:
            pictures = [open_picture(image) if isinstance(image, StoredPicture) else image for image in request.images]
            prompt["prompt_token_ids"] = self._encoder.placeholder_ids(request.messages, len(pictures), sample_id=request.id)
            if pictures:
                assert self._encoder.pictures is not None
                prompt["multi_modal_data"] = {"image": [self._encoder.pictures.resized(picture) for picture in pictures]}
        except MedtuneError as error:
            raise named_error(error, request.id) from error
        sampling = request.sampling
        params: dict[str, Any] = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": sampling.seed,
            # Only the encoder's end tokens stop a text; the tokenizer's own may be another.
            "ignore_eos": True,
            "stop_token_ids": list(self._encoder.end_token_ids),
            "detokenize": False,
        }
        if ids := self._score_ids(request):
            params["logprob_token_ids"] = sorted(set(ids.values()))
        return self._engine.add(prompt, SamplingParams(**params | changes), self._lora)

    def _score_ids(self, request: Request) -> dict[str, int]:
        return dict(itertools.islice(score_token_ids(self._encoder, request.score_tokens).items(), _MOST_LOGPROBS))

    def _words(self, output: Any) -> tuple[list[int], FinishReason]:
        """The ids so far, without the end token."""
        completion = output.outputs[0]
        ids, ends = list(completion.token_ids), set(self._encoder.end_token_ids)
        if ids and ids[-1] in ends:
            return ids[:-1], "stop"
        return ids, "length" if completion.finish_reason in (None, "length") else "error"

    def _generation(self, request: Request, output: Any, seconds: float) -> Generation:
        words, finish_reason = self._words(output)
        completion = output.outputs[0]
        told = None
        if request.score_tokens:
            first = completion.logprobs[0] if completion.logprobs else {}
            told = {word: float(first[token].logprob) for word, token in self._score_ids(request).items() if token in first}
        return Generation(
            id=request.id,
            text=self._encoder.decode(words),
            finish_reason=finish_reason,
            num_prompt_tokens=len(output.prompt_token_ids),
            num_generated_tokens=len(completion.token_ids),
            seconds=seconds,
            error=f"finish reason {completion.finish_reason}" if finish_reason == "error" else None,
            first_token_logprobs=told,
        )


def _context(encoder: Encoder, settings: VllmSettings) -> int:
    longest = encoder.max_tokens or settings.max_model_len
    return min(settings.max_model_len, longest)


def _reason(error: BaseException) -> str:
    """The telling line: of a pydantic error, whose first line only counts its faults, the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[1] if isinstance(error, ValidationError) and len(lines) > 1 else lines[0]
