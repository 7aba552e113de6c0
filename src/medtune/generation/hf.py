"""Generation with a transformers model in this process."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from medtune.errors import GenerationError, MedtuneError
from medtune.generation.check import check_adapter, check_requests, checked_length, named_error
from medtune.generation.draw import FirstScores, logits_processors
from medtune.generation.fast import FastPath, Planned, Refused
from medtune.generation.first_token import score_token_ids
from medtune.generation.incremental import IncrementalText
from medtune.imaging.read import open_picture
from medtune.language import msg
from medtune.models.decoder import can_decode
from medtune.types import Event, Features, FinishReason, Generation, Listener, Request, Sampling, StoredPicture

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

    from medtune.generation.ahead import EncodedRequest
    from medtune.models.encoder import Encoder

__all__ = ["HfGenerator"]

_log = logging.getLogger(__name__)

# A model keeps state while it generates (Qwen-VL its rope deltas, PEFT whether the adapter is on), and two generators may
# share one model: base and tuned do.
_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.Lock] = weakref.WeakKeyDictionary()


_Queue = queue.SimpleQueue[list[int] | BaseException | None]
"""Tokens from the thread that generates to the reader; None at the end."""

PLAIN_ROWS = 8
"""Rows that transformers' own ``generate`` decodes together where nothing is said."""


class HfGenerator:
    """Greedy by default and deterministic: in float32 neither batch size nor the order of the requests changes a text, nor whether
    the fast path or the plain one writes it. In 16 bits the rounding of a matrix product depends on its shape, so another batch
    size may decide a near-tie otherwise.

    The fast path (:mod:`medtune.generation.fast`) is for the Qwen families; all others run transformers' ``generate``.

    Args:
        model: A transformers model, or a PEFT model around one. It stays the caller's: :meth:`close` does not unload it.
        encoder: Its encoder, from :func:`medtune.models.encoder.load_encoder`.
        batch_size: Answers written at a time. None = as many as fit into memory (:func:`medtune.generation.room.rows_that_fit`),
            on the plain path 8. Halved for the rest of this generator's life when the accelerator runs out of memory.
        use_adapter: False switches a PEFT adapter off while this generator works, so that base and tuned share the weights.
        listener: Hears a ``note`` when the batch size is halved.
        fast: ``auto`` = where the model's family is served.
        memory_share: Of the memory that the weights leave free, what the fast path may fill.
        max_batch_rows: Answers at a time that the fast path chooses, at most.

    Raises:
        GenerationError: ``fast`` is true and the model is not one that the fast path serves; or the adapter is one that
            :func:`medtune.generation.check.check_adapter` refuses.

    Only the request's :class:`~medtune.types.Sampling` decides how tokens are drawn. What ``generation_config.json`` of the
    model says is ignored (Qwen3-VL ships temperature 0.7, top-p 0.8, top-k 20), and only the encoder's end tokens stop a text.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        *,
        batch_size: int | None = None,
        use_adapter: bool = True,
        listener: Listener | None = None,
        fast: bool | Literal["auto"] = "auto",
        memory_share: float = 0.9,
        max_batch_rows: int = 256,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        self._rows = batch_size or PLAIN_ROWS
        self._peft = model if hasattr(model, "get_base_model") else None
        if self._peft is not None:
            check_adapter(self._peft.active_peft_config, use_adapter=use_adapter)
        # Adapters sit inside the transformers model; PEFT's own generate() would put the model's sampling defaults back.
        self._model = model.get_base_model() if self._peft is not None else model
        self._encoder = encoder
        self._use_adapter = use_adapter
        self._listener = listener
        self._end_token_ids = frozenset(encoder.end_token_ids)
        self.fast: FastPath | None = None
        """Where the model is served by it."""
        if fast is True and not can_decode(self._model):
            raise GenerationError(
                msg("The fast path serves the Qwen families on one device only, with no adapter around a whole block."),
                key="generation.generator.fast",
                remedy=msg("Leave generation.generator.fast at auto."),
            )
        if fast is not False and can_decode(self._model):
            self.fast = FastPath(
                self._model,
                encoder,
                end_token_ids=self._end_token_ids,
                use_adapter=use_adapter,
                ready=self._ready,
                rows=batch_size,
                max_rows=max_batch_rows,
                share=memory_share,
                on_scarce=self._tell_of_memory,
            )

    @property
    def batch_size(self) -> int:
        """Answers written at a time: as chosen, or as they were in the last call."""
        return self._rows if self.fast is None or self.fast.rows is None else self.fast.rows

    # ------------------------------------------------------------------------------------------------------------- many

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        """Generations as they end (on the plain path, as each batch ends), the longest requests first, so that a lack of memory
        shows at once.

        Pictures are opened shortly before they are shown. A picture that turns out to be damaged then, or a row that does not fit
        into memory alone, gives a generation with ``finish_reason`` ``error`` and the reason; the others go on.
        ``num_generated_tokens`` counts the end token.

        Raises:
            GenerationError: Before any work: a conversation does not end with a question, its marks and pictures differ in
                number, a picture is missing or is none, or prompt and answer together exceed the model's context.
        """
        check_requests(requests)
        by_sampling: dict[Sampling, list[Planned]] = {}
        for request in requests:
            by_sampling.setdefault(request.sampling, []).append(Planned(request, self._checked_length(request)))
        return self._run(by_sampling) if self.fast is None else self._run_fast(self.fast, by_sampling)

    def _run_fast(self, fast: FastPath, by_sampling: dict[Sampling, list[Planned]]) -> Iterator[Generation]:
        for sampling, planned in by_sampling.items():
            for answer in fast.answers(planned, sampling):
                if isinstance(answer, Refused):
                    error = answer.error or _out_of_memory()
                    _log.warning("request %s: %s", answer.request.id, error.render("en"))
                    yield _failed(answer.request.id, error)
                    continue
                yield Generation(
                    id=answer.encoded.request.id,
                    text=self._encoder.decode(answer.ids),
                    finish_reason="stop" if answer.ended else "length",
                    num_prompt_tokens=answer.num_prompt_tokens,
                    num_generated_tokens=len(answer.ids) + answer.ended,
                    seconds=answer.seconds,
                    first_token_logprobs=answer.first_token_logprobs,
                )

    def _run(self, by_sampling: dict[Sampling, list[Planned]]) -> Iterator[Generation]:
        for sampling, planned in by_sampling.items():
            waiting = sorted(planned, key=lambda row: row.num_prompt_tokens, reverse=True)
            while waiting:
                batch, waiting = waiting[: self._rows], waiting[self._rows :]
                started = time.perf_counter()
                features: list[Features] = []
                done: list[Generation] = []
                for row in batch:
                    try:
                        features.append(self._encode(row.request))
                    except MedtuneError as error:
                        _log.warning("request %s: %s", row.request.id, error.render("en"))
                        done.append(_failed(row.request.id, error))
                asked = {row.request.id: row.request.score_tokens for row in batch if row.request.score_tokens}
                words = {name: score_token_ids(self._encoder, tokens) for name, tokens in asked.items()}
                done += self._answers(features, sampling, words)
                seconds = (time.perf_counter() - started) / len(batch)
                yield from (generation.model_copy(update={"seconds": seconds}) for generation in done)

    def _answers(self, features: list[Features], sampling: Sampling, words: dict[str, dict[str, int]]) -> list[Generation]:
        """Decode one batch; out of memory, decode its halves. ``words``: see :class:`medtune.generation.draw.FirstScores`."""
        if not features:
            return []
        first = FirstScores([words.get(row.sample_id) for row in features]) if words else None
        rows = self._decode_or_run_out(features, sampling, first)
        if rows is not None:
            found = [None] * len(rows) if first is None else first.logprobs
            return [self._generation(*row) for row in zip(features, rows, found, strict=True)]
        # Here, and not inside an except block: the exception's frames would keep the tensors alive.
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(features) == 1:
            return [_failed(features[0].sample_id, _out_of_memory())]
        half = (len(features) + 1) // 2
        self._rows = min(self._rows, half)
        _log.warning("out of memory with %d rows; going on with %d", len(features), self._rows)
        self._tell_of_memory(len(features), self._rows)
        return self._answers(features[:half], sampling, words) + self._answers(features[half:], sampling, words)

    def _tell_of_memory(self, rows: int, half: int) -> None:
        if self._listener is not None:
            text = msg("Memory does not hold {rows} answers at a time; going on with {half}.", rows=rows, half=half)
            self._listener(Event("note", text=text, values={"batch_size": half}))

    def _decode_or_run_out(self, features: list[Features], sampling: Sampling, first: FirstScores | None) -> list[list[int]] | None:
        try:
            return self._decode(features, sampling, first)
        except torch.OutOfMemoryError:
            return None

    def _generation(self, features: Features, ids: list[int], logprobs: dict[str, float] | None) -> Generation:
        words, finish_reason = self._until_end(ids)
        return Generation(
            id=features.sample_id,
            text=self._encoder.decode(words),
            finish_reason=finish_reason,
            num_prompt_tokens=features.input_ids.numel(),
            num_generated_tokens=len(words) + (finish_reason == "stop"),
            first_token_logprobs=logprobs,
        )

    def _until_end(self, ids: list[int]) -> tuple[list[int], FinishReason]:
        """The ids before the first end token; behind it there is only padding."""
        for index, token in enumerate(ids):
            if token in self._end_token_ids:
                return ids[:index], "stop"
        return ids, "length"

    # -------------------------------------------------------------------------------------------------------------- one

    def stream(self, request: Request) -> Generator[str, None, FinishReason]:
        """Pieces of the text as they come, whole characters only; joined they are the text :meth:`generate` gives.

        The iterator's ``StopIteration`` carries the finish reason. Closing it stops the model after the token under way.

        Raises:
            GenerationError: At once, for the same reasons as :meth:`generate` and for a damaged picture; while streaming, when
                memory runs out.
        """
        check_requests([request])
        self._checked_length(request)
        # Encoded here: a damaged picture shows before anything is streamed.
        if self.fast is not None:
            return self._pieces(functools.partial(self._stream_fast, self.fast, self.fast.encode(request)))
        return self._pieces(functools.partial(self._stream_plain, self._encode(request), request.sampling))

    def _stream_fast(self, fast: FastPath, encoded: EncodedRequest, tokens: _Queue, stop: threading.Event) -> None:
        end = sorted(self._end_token_ids)[:1]
        fast.stream(encoded, lambda ids, ended: tokens.put(ids + end * ended), stop.is_set)

    def _stream_plain(self, features: Features, sampling: Sampling, tokens: _Queue, stop: threading.Event) -> None:
        self._decode([features], sampling, None, _Stream(tokens), _StopOn(stop))

    def _pieces(self, write: Callable[[_Queue, threading.Event], None]) -> Generator[str, None, FinishReason]:
        tokens: _Queue = queue.SimpleQueue()
        stop = threading.Event()

        def work() -> None:
            try:
                write(tokens, stop)
                tokens.put(None)
            except BaseException as error:
                tokens.put(error)

        thread = threading.Thread(target=work, name="medtune-generation", daemon=True)
        text = IncrementalText(self._encoder.decode)
        try:
            thread.start()
            finish_reason: FinishReason = "length"
            while (item := tokens.get()) is not None:
                if isinstance(item, torch.OutOfMemoryError):
                    raise _out_of_memory()
                if isinstance(item, BaseException):
                    raise item
                words, reason = self._until_end(item)
                if reason == "stop":
                    finish_reason = "stop"
                if piece := text.add(words):
                    yield piece
            if rest := text.end():
                yield rest
        finally:
            stop.set()
            thread.join()
        return finish_reason

    def close(self) -> None:
        """Give cached accelerator memory back; the model stays the caller's."""
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    # ------------------------------------------------------------------------------------------------------------- both

    def _checked_length(self, request: Request) -> int:
        """See :func:`medtune.generation.check.checked_length`."""
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return checked_length(request, self._encoder, context)

    def _encode(self, request: Request) -> Features:
        pictures: list[Image] = []
        try:
            for image in request.images:
                pictures.append(open_picture(image) if isinstance(image, StoredPicture) else image)
            return self._encoder.encode(request.messages, pictures, sample_id=request.id)
        except MedtuneError as error:
            raise named_error(error, request.id) from error

    def _decode(
        self,
        features: list[Features],
        sampling: Sampling,
        first: FirstScores | None = None,
        streamer: BaseStreamer | None = None,
        stop: StoppingCriteria | None = None,
    ) -> list[list[int]]:
        """Generated ids of each row, with whatever follows the end token."""
        batch = self._encoder.collate(features, padding="left")
        device, dtype = self._model.device, self._model.dtype
        inputs = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.inputs.items()
            if name != "labels"
        }
        config = _generation_config(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,  # a draw is the last of the logits processors
            eos_token_id=sorted(self._end_token_ids),
            pad_token_id=self._encoder.pad_token_id,
        )
        processors = logits_processors(sampling, batch.sample_ids, inputs["attention_mask"])
        if first is not None:
            processors.insert(0, first)
        with self._ready():
            output = self._model.generate(
                **inputs,
                generation_config=config,
                logits_processor=processors,
                stopping_criteria=None if stop is None else StoppingCriteriaList([stop]),
                streamer=streamer,
            )
        ids: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
        return ids

    @contextlib.contextmanager
    def _ready(self, *, adapters: bool = True) -> Iterator[None]:
        """The model alone, in eval mode, with the adapter as wanted; everything as before at the end.

        Args:
            adapters: False where no module is called that the adapter is in: to switch it off and on again takes PEFT some 80 ms in
                a model of 36 layers.
        """
        model = self._model
        with contextlib.ExitStack() as stack:
            stack.enter_context(_LOCKS.setdefault(model, threading.Lock()))
            stack.enter_context(torch.inference_mode())
            if model.device.type == "cuda" and model.device.index is not None:
                # Each thread begins at the first GPU, and what is captured or written in Triton runs on the current one.
                stack.enter_context(torch.cuda.device(model.device))
            if adapters and self._peft is not None and not self._use_adapter:
                stack.enter_context(self._peft.disable_adapter())
            if model.device.type == "cuda" and torch.backends.cuda.cudnn_sdp_enabled():  # type: ignore[no-untyped-call]
                # cuDNN attention plans a kernel for every new key length, and a growing cache has one each token: measured 2.3
                # times slower than without on an H100 the first time a length is met (109.5 against 46.9 ms a step, 8B, 16 rows).
                torch.backends.cuda.enable_cudnn_sdp(False)
                stack.callback(torch.backends.cuda.enable_cudnn_sdp, True)
            # transformers fills what a GenerationConfig leaves open from the model's own.
            stack.callback(setattr, model, "generation_config", model.generation_config)
            model.generation_config = _generation_config()
            if model.training:
                stack.callback(model.train)
                model.eval()
            yield


class _Stream(BaseStreamer):
    """Hands the ids of one row to a queue; ``generate`` shows the prompt first."""

    def __init__(self, tokens: _Queue) -> None:
        self._tokens = tokens
        self._seen_prompt = False

    def put(self, value: Tensor) -> None:
        if self._seen_prompt:
            self._tokens.put(value.flatten().tolist())
        self._seen_prompt = True

    def end(self) -> None:
        """The worker says so itself, also when ``generate`` fails."""


class _StopOn(StoppingCriteria):
    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:  # noqa: ARG002
        return torch.full((input_ids.shape[0],), self._stop.is_set(), dtype=torch.bool, device=input_ids.device)


def _generation_config(**settings: Any) -> GenerationConfig:
    return GenerationConfig(**settings)  # type: ignore[no-untyped-call]


def _failed(name: str, error: MedtuneError) -> Generation:
    return Generation(id=name, text="", finish_reason="error", error=error.render("en"), seconds=0.0)


def _out_of_memory() -> GenerationError:
    return GenerationError(
        msg("The accelerator's memory does not hold this one answer."),
        remedy=msg("Lower model.max_pixels or generation.sampling.max_new_tokens, or load the model in fewer bits."),
    )
