"""Any other model that ``AutoModelForImageTextToText`` loads, through its own processor.

Tried with small random LLaVA, LLaVA-Next and Gemma 3 models (tests/unit/models/test_other_families.py). Without torchvision
it works where the model's image processor has a PIL form and its processor asks for no video processor: LLaVA-OneVision and
Idefics 3 of transformers 5.17 need torchvision, and the error says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import DataError, ModelError, RecipeError
from medtune.language import msg
from medtune.models.config import ModelSettings
from medtune.models.encoder import Encoder
from medtune.models.family import Family
from medtune.models.layout import Content, PictureSlot, Shape, Special, Words
from medtune.types import IGNORE_INDEX, Features, Message

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

AUTO = Family(
    name="auto",
    model_types=(),
    auto_class="AutoModelForImageTextToText",
    # The names that transformers 5 gives to the parts of most of its vision-language models.
    scopes={
        "projector": r".*\b(multi_modal_projector|connector|mm_projector|projector|merger|aligner)\b",
        "experts": r".*\.experts\b",
        "vision": r".*\b(vision_tower|vision_model|visual|image_encoder|vision_encoder|vision_backbone)\b",
        "language": r".*\b(language_model|text_model|lm_head)\b",
    },
    box_convention="none",
    pictures="processor",
    image_token=None,
    notes=(
        "The picture's size is the processor's own affair: model.min_pixels and max_pixels are refused.",
        "Counting tokens runs the processor on a blank picture of the same size.",
    ),
)


class AutoEncoder(Encoder):
    """Lets the model's processor place the picture tokens.

    The processor gets the whole rendered text once. Where an answer belongs, and where a text spells a special token, the text
    holds the end token instead; the real tokens take its place afterwards. So an answer's tokens never merge with the prompt's.
    """

    def __init__(self, settings: ModelSettings, folder: Path, config: dict[str, Any], family: Family) -> None:
        for key in ("min_pixels", "max_pixels"):
            if getattr(settings, key) is not None:
                raise RecipeError(
                    msg("The model family {family} does not know {key}.", family=family.name, key=key),
                    key=f"model.{key}",
                    remedy=msg("Leave it out, or shrink pictures when the data are prepared (transform limit-pixels)."),
                )
        self.processor = _load_processor(folder, settings)
        super().__init__(settings, folder, config, family)

    @property
    def image_token(self) -> str | None:
        token: str | None = getattr(self.processor, "image_token", None)
        return token

    @property
    def resize_backend(self) -> str | None:
        return _backend(self.processor)

    def _find_image_token(self, config: dict[str, Any]) -> int | None:
        # The processor's mark for a picture need not be the token that its places are filled with (Gemma 3).
        own = getattr(self.processor, "image_token_id", None)
        token = own if own is not None else config.get("image_token_id", config.get("image_token_index"))
        return None if token is None else int(token)

    def encode(self, messages: Sequence[Message], images: Sequence[Image] = (), *, sample_id: str = "") -> Features:
        import torch

        ids, labels, tensors = self._process(messages, images, sample_id)
        num_image_tokens = sum(token == self.image_token_id for token in ids)
        self._check_length(len(ids), num_image_tokens, sample_id)
        return Features(sample_id, torch.tensor(ids, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64), tensors)

    def count_tokens(self, messages: Sequence[Message], sizes: Sequence[tuple[int, int]] = (), *, sample_id: str = "") -> int:
        from PIL import Image

        blanks = [Image.new("RGB", size) for size in sizes]
        return len(self._process(messages, blanks, sample_id)[0])

    def _join(self, rows: list[Tensor]) -> Tensor:
        # Rows may have other numbers of tiles. Processors fill up with zeros within one call (LLaVA-Next, Idefics 3), and
        # their models leave those tiles out; the same across rows.
        import torch

        largest = [max(sizes) for sizes in zip(*(row.shape[1:] for row in rows), strict=True)]
        filled = []
        for row in rows:
            whole = row.new_zeros((len(row), *largest))
            whole[tuple(slice(size) for size in row.shape)] = row
            filled.append(whole)
        return torch.cat(filled)

    def _process(
        self, messages: Sequence[Message], images: Sequence[Image], sample_id: str
    ) -> tuple[list[int], list[int], dict[str, Tensor]]:
        import torch

        shape, texts = self._parts(messages, len(images), sample_id)
        text, splices = self._text_with_gaps(shape, texts)
        bos = self.tokenizer.bos_token
        try:
            output = self.processor(
                text=[text],
                images=list(images) or None,
                return_tensors="pt",
                add_special_tokens=not (bos and text.startswith(bos)),
            )
        except ValueError as error:
            raise DataError(
                msg("The model's processor refuses the row: {error}", error=str(error)),
                sample=sample_id or None,
                remedy=msg("Look at the row's pictures: their size and shape are the likely cause."),
            ) from error
        raw: list[int] = output.pop("input_ids")[0].tolist()
        output.pop("attention_mask", None)
        gap = self.tokenizer.eos_token_id
        if raw.count(gap) != len(splices):
            raise ModelError(
                msg("The model's processor changes the rendered text, so answers cannot be found in it."),
                file=self.folder,
                remedy=msg("This model needs a family of its own."),
            )
        ids: list[int] = []
        labels: list[int] = []
        kept: list[int] = []
        remaining = iter(splices)
        for place, token in enumerate(raw):
            tokens, loss = next(remaining) if token == gap else ([token], False)
            ids += tokens
            labels += tokens if loss else [IGNORE_INDEX] * len(tokens)
            kept += [place if token != gap else -1] * len(tokens)
        tensors: dict[str, Tensor] = {}
        for name, value in output.items():
            if value.ndim == 2 and value.shape == (1, len(raw)):
                tensors[name] = torch.tensor([0 if place < 0 else int(value[0, place]) for place in kept], dtype=torch.int64)
            else:
                tensors[name] = value
        return ids, labels, tensors

    def _text_with_gaps(self, shape: Shape, texts: Sequence[str]) -> tuple[str, list[tuple[list[int], bool]]]:
        """The rendered text with the tokenizer's end token as a stand-in, and for each stand-in the tokens that it stands for
        and whether they carry loss."""
        gap = self.tokenizer.eos_token
        if gap is None:
            raise ModelError(msg("The tokenizer names no end token (eos_token)."), file=self.folder)
        layout = self.layouts.of(shape)
        answers = [piece.index for piece in layout if isinstance(piece, Content) and piece.answer]
        supervised: set[int] = set()
        if shape[-1][0] == "assistant":
            supervised = set(answers if self.settings.supervise == "all" else answers[-1:])
        text = ""
        splices: list[tuple[list[int], bool]] = []
        in_answer = False
        for piece in layout:
            if isinstance(piece, Words):
                text += piece.text
            elif isinstance(piece, PictureSlot):
                text += str(self.image_token)
            elif isinstance(piece, Special):
                # An end token is spliced in too: it carries loss, whether or not it is the stand-in.
                if piece.ends_answer or piece.id == self.tokenizer.eos_token_id:
                    text += gap
                    splices.append(([piece.id], piece.ends_answer and in_answer))
                else:
                    text += self.tokenizer.convert_ids_to_tokens(piece.id)
            elif isinstance(piece, Content):
                content = texts[piece.index]
                in_answer = piece.index in supervised
                if piece.answer or any(token in content for token in self.layouts.special_ids):
                    text += gap
                    splices.append((self._text_ids(content), in_answer))
                else:
                    text += content
        return text, splices


def _load_processor(folder: Path, settings: ModelSettings) -> Any:
    import transformers

    hf: Any = transformers
    backend = settings.resize_backend or "pil"
    try:
        processor = hf.AutoProcessor.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
        if hasattr(processor, "image_processor") and _backend(processor) != backend:
            processor.image_processor = hf.AutoImageProcessor.from_pretrained(
                folder, backend=backend, trust_remote_code=settings.trust_remote_code
            )
    except ImportError as error:
        raise ModelError(
            msg("The model's processor needs a package that is not installed: {error}", error=" ".join(str(error).split())),
            file=folder,
            key="model.base",
            remedy=msg("pip install {package}", package="torchvision"),
        ) from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            msg("The model's processor cannot be loaded: {error}", error=str(error).splitlines()[0]), file=folder, key="model.base"
        ) from error
    if not hasattr(processor, "image_processor") or not getattr(processor, "image_token", None):
        raise ModelError(
            msg("The model's processor has no picture token, so this is no vision-language model that family auto can use."),
            file=folder,
            key="model.base",
            remedy=msg("Use a model whose processor has an image_token, or write a family for it (CONTRIBUTING.md)."),
        )
    if settings.resize_backend is not None and _backend(processor) != settings.resize_backend:
        # transformers falls back to the other one with a log line.
        raise ModelError(
            msg("The model's processor cannot resize with {backend} here.", backend=settings.resize_backend),
            key="model.resize_backend",
            remedy=msg("Leave model.resize_backend out, or install torchvision."),
        )
    return processor


def _backend(processor: Any) -> str:
    return "pil" if type(processor.image_processor).__name__.endswith("Pil") else "torchvision"
