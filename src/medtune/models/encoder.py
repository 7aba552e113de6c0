"""Conversations and pictures become tokens, labels and tensors: the same way in training, evaluation and chat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune.errors import DataError, ModelError
from medtune.language import msg
from medtune.models.config import ModelSettings
from medtune.models.contract import build_contract, check_contract, read_contract, with_contract
from medtune.models.family import BoxConvention, Family, find_family
from medtune.models.hub import base_folder, read_config
from medtune.models.layout import Content, Layouts, PictureSlot, Shape, Special, Words, split_parts
from medtune.models.pictures import PatchPictures
from medtune.models.positions import picture_positions
from medtune.types import IGNORE_INDEX, IMAGE_MARK, AdapterContract, Batch, Features, Message, TransformRecord

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_TOKEN_ALIGNED = ("mm_token_type_ids", "token_type_ids")
"""Tensors with one entry a token: they are padded like ``input_ids``; all others are joined along their first dimension."""

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tiktoken.model", "tekken.json")


def load_encoder(settings: ModelSettings, *, adapter: Path | None = None) -> Encoder:
    """The encoder of a base model; no weights are read.

    Args:
        settings: What they leave open (pixel limits, resize backend, system prompt) comes from the adapter's contract, then
            from the model.
        adapter: A folder with ``contract.json``.

    Raises:
        ModelError: There is no such model, its tokenizer or chat template is missing, or the adapter's contract is broken.
    """
    contract = read_contract(adapter) if adapter is not None else None
    settings = with_contract(settings, contract, adapter)
    folder = base_folder(settings, weights=False)
    config = read_config(folder)
    family = find_family(config, settings.family)
    if family.pictures == "processor":
        from medtune.models.auto import AutoEncoder

        encoder: Encoder = AutoEncoder(settings, folder, config, family)
    else:
        encoder = Encoder(settings, folder, config, family)
    if contract is not None and adapter is not None:
        encoder.transforms = contract.transforms
        encoder.displays = contract.displays
        check_contract(contract, encoder.contract(), adapter)
    return encoder


class Encoder:
    """Encodes for one base model. Make it with :func:`load_encoder`.

    Attributes:
        family: The model family.
        tokenizer: The Hugging Face tokenizer.
        end_token_ids: Tokens that end an answer; the chat template's own comes first.
        max_tokens: A row with more is refused.
        transforms: What the adapter's training pictures went through; a picture in a chat must go through the same.
        displays: How measured values became the adapter's training pictures.
    """

    def __init__(self, settings: ModelSettings, folder: Path, config: dict[str, Any], family: Family) -> None:
        self.settings = settings
        self.folder = folder
        self.family = family
        self.transforms: tuple[TransformRecord, ...] = ()
        self.displays: tuple[str, ...] = ()
        self.tokenizer: Any = self._load_tokenizer()
        self.template = _chat_template(folder, self.tokenizer)
        self.pictures: PatchPictures | None = None
        if family.pictures == "patches":
            self.pictures = PatchPictures(
                folder, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels, backend=settings.resize_backend or "pil"
            )
        self.image_token_id = self._find_image_token(config)
        self.layouts = Layouts(self.tokenizer, self.template, image_token=self.image_token, options=dict(family.template_options))
        self.end_token_ids = self._find_end_tokens()
        text_config = config.get("text_config", config)
        self.max_tokens: int | None = settings.max_tokens or text_config.get("max_position_embeddings")

    def encode(self, messages: Sequence[Message], images: Sequence[Image] = (), *, sample_id: str = "") -> Features:
        """One conversation. Ending with the assistant's turn it is supervised; ending with the user's it is a prompt.

        Labels are the answer's tokens and its end token; everything else, the line break after the end token among it, is
        :data:`~medtune.types.IGNORE_INDEX`. Contents are taken literally: a text that spells a special token stays text.

        Args:
            images: RGB, upright, in the order of the image marks.
            sample_id: For error messages.

        Raises:
            DataError: Marks and pictures differ in number, a picture is too thin, or the row is longer than ``max_tokens``.
                Nothing is ever cut.
            ModelError: The chat template cannot carry this conversation.
        """
        shape, texts = self._parts(messages, len(images), sample_id)
        tensors: dict[str, Tensor] = {}
        if images and self.pictures is not None:
            tensors = self.pictures.tensors(images, sample_id=sample_id)
        return self._encode(shape, texts, tensors, sample_id)

    def encode_seen(self, messages: Sequence[Message], grids: Sequence[Tensor], *, sample_id: str = "") -> Features:
        """As :meth:`encode`, for pictures of which only the grids are known: what the vision tower makes of them is kept
        elsewhere, so no ``pixel_values`` are made.

        Args:
            grids: (3,) int64 of each picture: time, height and width in patches.

        Raises:
            DataError: As :meth:`encode`.
        """
        import torch

        shape, texts = self._parts(messages, len(grids), sample_id)
        tensors = {"image_grid_thw": torch.stack(list(grids))} if grids else {}
        return self._encode(shape, texts, tensors, sample_id)

    def _encode(self, shape: Shape, texts: Sequence[str], tensors: dict[str, Tensor], sample_id: str) -> Features:
        import torch

        counts: list[int] = []
        if self.pictures is not None and "image_grid_thw" in tensors:
            counts = [int(grid.prod()) // self.pictures.merge for grid in tensors["image_grid_thw"]]
        ids, labels = self._tokens(shape, texts, counts, sample_id)
        self._check_length(len(ids), sum(counts), sample_id)
        input_ids = torch.tensor(ids, dtype=torch.int64)
        if self.pictures is not None:
            # Tells M-RoPE (arXiv:2409.12191) which tokens are a picture's; transformers 5 wants it beside the grid.
            assert self.image_token_id is not None
            tensors["mm_token_type_ids"] = torch.eq(input_ids, self.image_token_id).to(torch.int64)
        return Features(sample_id, input_ids, torch.tensor(labels, dtype=torch.int64), tensors)

    def count_tokens(self, messages: Sequence[Message], sizes: Sequence[tuple[int, int]] = (), *, sample_id: str = "") -> int:
        """How many tokens :meth:`encode` makes of pictures of these (width, height), without their pixels.

        Not limited by ``max_tokens``.

        Raises:
            DataError: As :meth:`encode`.
        """
        shape, texts = self._parts(messages, len(sizes), sample_id)
        counts = [] if self.pictures is None else [self.pictures.num_tokens(*size, sample_id=sample_id) for size in sizes]
        return len(self._tokens(shape, texts, counts, sample_id)[0])

    def placeholder_ids(self, messages: Sequence[Message], num_images: int, *, sample_id: str = "") -> list[int]:
        """The prompt's tokens with one placeholder for each picture, which an engine of another make widens itself.

        Raises:
            DataError: Marks and pictures differ in number.
            ModelError: The chat template cannot carry this conversation.
        """
        shape, texts = self._parts(messages, num_images, sample_id)
        return self._tokens(shape, texts, [1] * num_images, sample_id)[0]

    def collate(self, features: Sequence[Features], *, padding: Literal["left", "right"] = "right") -> Batch:
        """Pad to the longest row. ``right`` for training, ``left`` for generation.

        Raises:
            ValueError: ``features`` is empty.
        """
        import torch

        if not features:
            raise ValueError("a batch needs at least one row")
        length = max(len(row.input_ids) for row in features)

        def padded(rows: list[Tensor], value: int) -> Tensor:
            joined = torch.full((len(rows), length), value, dtype=torch.int64)
            for index, row in enumerate(rows):
                if padding == "left":
                    joined[index, length - len(row) :] = row
                else:
                    joined[index, : len(row)] = row
            return joined

        labels = padded([row.labels for row in features], IGNORE_INDEX)
        inputs = {
            "input_ids": padded([row.input_ids for row in features], self.pad_token_id),
            "attention_mask": padded([torch.ones_like(row.input_ids) for row in features], 0),
            "labels": labels,
        }
        for name in dict.fromkeys(name for row in features for name in row.tensors):
            rows = [row.tensors[name] for row in features if name in row.tensors]
            inputs[name] = padded(rows, 0) if name in _TOKEN_ALIGNED else self._join(rows)
        if padding == "right" and self.pictures is not None and "image_grid_thw" in inputs:
            # Not for generation, where the positions of the tokens to come have to follow: the model keeps count there.
            inputs["position_ids"] = picture_positions(
                inputs["mm_token_type_ids"], inputs["attention_mask"], inputs["image_grid_thw"], merge_size=self.pictures.merge_size
            )
        num_target_tokens = int((labels[:, 1:] != IGNORE_INDEX).sum())
        return Batch(tuple(row.sample_id for row in features), inputs, num_target_tokens)

    def pack(self, features: Sequence[Features], *, multiple: int = 1) -> Batch:
        """Put rows one behind the other, for training with :func:`medtune.models.packed_forward.packed_forward`.

        ``inputs``: ``input_ids`` and ``labels`` (1, T); ``position_ids`` (1, T), or (3, 1, T) where the model reads pictures,
        beginning anew with each row; ``cu_seq_lens_q`` (rows + 1,) int32; ``picture_places`` (N,), where picture tokens stand;
        ``pixel_values`` and ``image_grid_thw`` as in :meth:`collate`.

        Args:
            multiple: T is filled up to a multiple of this with a row of padding that carries no loss.

        Raises:
            ValueError: ``features`` is empty.
        """
        import torch

        if not features:
            raise ValueError("a batch needs at least one row")
        ids = [row.input_ids for row in features]
        # Position t predicts the label at t + 1, and a row's last position must not predict the next row's first token.
        labels = [torch.cat([torch.full_like(row.labels[:1], IGNORE_INDEX), row.labels[1:]]) for row in features]
        positions = [self._positions(row) for row in features]
        fill = -sum(map(len, ids)) % multiple
        if fill:
            ids.append(torch.full((fill,), self.pad_token_id))
            labels.append(torch.full((fill,), IGNORE_INDEX))
            positions.append(torch.arange(fill).expand_as(positions[0][..., :1].expand(*positions[0].shape[:-1], fill)))
        joined = torch.cat(ids)
        borders = torch.tensor([0, *map(len, ids)]).cumsum(0).to(torch.int32)
        inputs = {
            "input_ids": joined.unsqueeze(0),
            "labels": torch.cat(labels).unsqueeze(0),
            "position_ids": torch.cat(positions, dim=-1).unsqueeze(-2),
            "cu_seq_lens_q": borders,
        }
        for name in dict.fromkeys(name for row in features for name in row.tensors if name not in _TOKEN_ALIGNED):
            inputs[name] = self._join([row.tensors[name] for row in features if name in row.tensors])
        if self.image_token_id is not None:
            types = torch.cat([row.tensors.get("mm_token_type_ids", torch.zeros_like(row.input_ids)) for row in features])
            inputs["picture_places"] = types.nonzero()[:, 0]
        num_target_tokens = int((inputs["labels"] != IGNORE_INDEX).sum())
        return Batch(tuple(row.sample_id for row in features), inputs, num_target_tokens)

    def _positions(self, row: Features) -> Tensor:
        """(T,), or (3, T) where the model reads pictures."""
        import torch

        length = len(row.input_ids)
        if self.pictures is None:
            return torch.arange(length)
        if "image_grid_thw" not in row.tensors:
            return torch.arange(length).expand(3, length)
        types, mask = row.tensors["mm_token_type_ids"][None], torch.ones(1, length, dtype=torch.int64)
        return picture_positions(types, mask, row.tensors["image_grid_thw"], merge_size=self.pictures.merge_size)[:, 0]

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The text of generated tokens, without special tokens, otherwise untouched."""
        # Not cleaned up: the tokenizer would take away the blank of "5 ." and make scores depend on it.
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def contract(
        self,
        *,
        transforms: Sequence[TransformRecord] | None = None,
        displays: Sequence[str] | None = None,
        box_convention: BoxConvention | None = None,
    ) -> AdapterContract:
        """What an adapter trained with this encoder must be used with.

        Args:
            transforms: The data set's; the ones of the adapter at hand when not given.
            displays: The same.
            box_convention: How the training data write boxes, where that is not as the base model does.
        """
        return build_contract(
            self.settings,
            self.folder,
            family=self.family,
            template=self.template,
            limits=self.pixel_limits,
            resize_backend=self.resize_backend,
            transforms=self.transforms if transforms is None else tuple(transforms),
            displays=self.displays if displays is None else tuple(displays),
            box_convention=box_convention,
        )

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.end_token_ids[0])

    @property
    def image_token(self) -> str | None:
        """Stands once in the rendered template for each picture."""
        return self.family.image_token

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        """(min_pixels, max_pixels) as they are used; None where the model has no such limits."""
        return None if self.pictures is None else (self.pictures.min_pixels, self.pictures.max_pixels)

    @property
    def resize_backend(self) -> str | None:
        """``pil`` or ``torchvision``; None for a text model."""
        return None if self.pictures is None else self.pictures.backend

    def _parts(self, messages: Sequence[Message], num_images: int, sample_id: str) -> tuple[Shape, list[str]]:
        if self.settings.system_prompt and messages[0].role != "system":
            messages = [Message(role="system", content=self.settings.system_prompt), *messages]
        shape, texts = split_parts(messages, sample_id=sample_id)
        num_marks = sum(kinds.count("image") for _, kinds in shape)
        if num_marks != num_images:
            raise DataError(
                msg("{marks} {mark} marks, but {images} pictures.", marks=num_marks, mark=IMAGE_MARK, images=num_images),
                sample=sample_id or None,
                remedy=msg("Put one {mark} into the user's text for each picture, in their order.", mark=IMAGE_MARK),
            )
        if num_images and self.family.pictures == "none":
            raise DataError(
                msg(
                    "The row has {images} pictures, but the model family {family} reads text only.",
                    images=num_images,
                    family=self.family.name,
                ),
                sample=sample_id or None,
                remedy=msg("Choose a vision-language model, or a data set without pictures."),
            )
        return shape, texts

    def _tokens(self, shape: Shape, texts: Sequence[str], counts: Sequence[int], sample_id: str) -> tuple[list[int], list[int]]:
        """Token ids and labels. Text is tokenised in runs between special tokens and answers, so that merges never cross into
        an answer and a prompt's tokens are what the tokenizer makes of the whole rendered prompt."""
        layout = self.layouts.of(shape)
        answers = [piece.index for piece in layout if isinstance(piece, Content) and piece.answer]
        if shape[-1][0] != "assistant":
            supervised: list[int] = []
        else:
            supervised = answers if self.settings.supervise == "all" else answers[-1:]
        ids: list[int] = []
        labels: list[int] = []
        run = ""
        in_answer = False
        remaining = iter(counts)

        def add(tokens: list[int], *, loss: bool = False) -> None:
            ids.extend(tokens)
            labels.extend(tokens if loss else [IGNORE_INDEX] * len(tokens))

        for piece in layout:
            if isinstance(piece, Words):
                run += piece.text
                continue
            if isinstance(piece, Content) and not piece.answer:
                run += texts[piece.index]
                continue
            if isinstance(piece, Content):
                _check_thought(run, texts[piece.index], sample_id)
            add(self._text_ids(run))
            run = ""
            if isinstance(piece, Content):
                in_answer = piece.index in supervised
                add(self._text_ids(texts[piece.index]), loss=in_answer)
            elif isinstance(piece, Special):
                add([piece.id], loss=piece.ends_answer and in_answer)
            elif isinstance(piece, PictureSlot):
                assert self.image_token_id is not None
                add([self.image_token_id] * next(remaining))
        add(self._text_ids(run))
        return ids, labels

    def _text_ids(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return ids

    def _check_length(self, num_tokens: int, num_image_tokens: int, sample_id: str) -> None:
        if self.max_tokens is None or num_tokens <= self.max_tokens:
            return
        raise DataError(
            msg(
                "The row has {tokens} tokens ({image_tokens} of them pictures); at most {limit} fit.",
                tokens=num_tokens,
                image_tokens=num_image_tokens,
                limit=self.max_tokens,
            ),
            sample=sample_id or None,
            key="model.max_tokens",
            remedy=msg("Lower model.max_pixels, raise model.max_tokens, or leave the row out. Rows are never cut."),
        )

    def _load_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        if not any((self.folder / name).is_file() for name in _VOCABULARIES):
            # transformers would make an empty tokenizer of a known class, without a word.
            raise ModelError(
                msg("The model folder has no tokenizer."),
                file=self.folder,
                key="model.base",
                remedy=msg("Copy tokenizer.json and tokenizer_config.json from the base model."),
            )
        try:
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=self.settings.trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                msg("The model's tokenizer cannot be loaded: {error}", error=str(error).splitlines()[0]),
                file=self.folder,
                key="model.base",
                remedy=msg("Copy tokenizer.json and tokenizer_config.json from the base model."),
            ) from error

    def _find_image_token(self, config: dict[str, Any]) -> int | None:
        if self.image_token is None:
            return None
        token = self.tokenizer.convert_tokens_to_ids(self.image_token)
        wanted = config.get("image_token_id", config.get("image_token_index"))
        if token is None or (wanted is not None and token != wanted):
            raise ModelError(
                msg(
                    "The tokenizer's {token} has id {found}, but the model's config says {wanted}.",
                    token=self.image_token,
                    found=str(token),
                    wanted=str(wanted),
                ),
                file=self.folder,
                remedy=msg("The tokenizer and config.json are of different models; take both from one."),
            )
        return int(token)

    def _join(self, rows: list[Tensor]) -> Tensor:
        """One tensor of all pictures of a batch: (sum of the rows' first dimensions, ...)."""
        import torch

        return torch.cat(rows)

    def _find_end_tokens(self) -> tuple[int, ...]:
        layout = self.layouts.of((("user", ("text",)), ("assistant", ("text",))))
        found = [piece.id for piece in layout if isinstance(piece, Special) and piece.ends_answer]
        if self.tokenizer.eos_token_id is not None:
            found.append(int(self.tokenizer.eos_token_id))
        path = self.folder / "generation_config.json"
        if path.is_file():
            own = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            found += own if isinstance(own, list) else [own] if own is not None else []
        return tuple(dict.fromkeys(found))


def _check_thought(before: str, answer: str, sample_id: str) -> None:
    if "</think>" in answer and before.rstrip().endswith("</think>"):
        raise DataError(
            msg("The answer holds a thought, but the chat template has already put an empty one before it."),
            sample=sample_id or None,
            remedy=msg("Take <think>...</think> out of the answers; this model is trained with thinking off."),
        )


def _chat_template(folder: Path, tokenizer: Any) -> str:
    """The template's source. A processor's own (``chat_template.jinja``, older ``chat_template.json``) goes before the
    tokenizer's, which for some vision-language models knows no pictures."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        path = folder / name
        if path.is_file():
            template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
            if isinstance(template, str):
                return template
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise ModelError(
            msg("The model has no chat template."),
            file=folder,
            key="model.base",
            remedy=msg("Use the instruction-tuned model, or copy its chat_template.jinja into the folder."),
        )
    return template
