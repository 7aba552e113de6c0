"""What a frozen vision tower makes of pictures, computed once.

While the tower does not learn, a picture has the same features in every epoch and under every question about it. They are
computed before the first step, of each distinct picture once (by its SHA-256), and kept where the processes that load data read
them: in main memory that they share with the trainer, or in a file of the run folder. DeepStack levels are kept too, so a
picture of 512 x 512 pixels takes 8 MiB at Qwen3-VL-8B: 256 tokens x 4 levels x 4096 values x 2 bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils import data

from medtune.errors import MedtuneError, TrainingError
from medtune.imaging.read import open_picture
from medtune.language import msg
from medtune.models.packed_forward import causal_model, picture_features, vision_tower
from medtune.models.packing import can_pack
from medtune.models.vision_layout import vision_layout
from medtune.runs import Run, atomic_write
from medtune.training.agreement import Agreement
from medtune.training.data import EncodedRows
from medtune.training.recovery import allocator_words, is_out_of_memory
from medtune.types import Event, ImageRef, Sample

__all__ = ["FEATURES_FILE", "VisionCache", "can_keep", "distinct_pictures", "keep_features", "remove_features"]

FEATURES_FILE = ".vision_features"
"""In the run folder, with ``.json`` beside it: gone when the run has ended."""

PATCHES_AT_ONCE = 16384
"""Patches that go through the tower in one pass: sixteen pictures of 512 x 512 pixels with patches of 16."""


INDEX_EVERY = 64
"""Passes of the tower between two notes of what is done."""


class Patches(Protocol):
    """What the cache needs of :class:`medtune.models.pictures.PatchPictures`."""

    merge: int

    def num_tokens(self, width: int, height: int, *, sample_id: str = "") -> int: ...

    def tensors(self, images: Any, *, sample_id: str = "") -> dict[str, Tensor]: ...


def distinct_pictures(rows: Sequence[Sample]) -> dict[str, tuple[ImageRef, str]]:
    """SHA-256 -> a picture of the rows and the row it was first seen in, in their order."""
    found: dict[str, tuple[ImageRef, str]] = {}
    for row in rows:
        for image in row.images:
            found.setdefault(image.sha256, (image, row.id))
    return found


class VisionCache:
    """Features by picture. Make it with :meth:`filled`.

    Args:
        pictures: As of :func:`distinct_pictures`.
        patches: Counts a picture's tokens from its size, and cuts it into patches.
        num_levels: Merged patches and DeepStack levels.
        hidden_size: Of the language model.
        dtype: Of the tower.
        file: Where the features lie; None = in memory that child processes share.
        memory: Instead of a file: a file descriptor of memory that several processes share (:func:`shared_memory`).
        key: What the features depend on besides the pictures: those in a file that was begun under another key are not used.
    """

    def __init__(
        self,
        pictures: dict[str, tuple[ImageRef, str]],
        patches: Patches,
        *,
        num_levels: int,
        hidden_size: int,
        dtype: torch.dtype,
        file: Path | None = None,
        memory: Callable[[int], int] | None = None,
        key: str = "",
    ) -> None:
        self.pictures = pictures
        self._patches = patches
        self._numbers = {digest: number for number, digest in enumerate(pictures)}
        counts = [patches.num_tokens(image.width, image.height, sample_id=row) for image, row in pictures.values()]
        self._starts = torch.tensor([0, *counts]).cumsum(0).tolist()
        self._file = file
        self._key = hashlib.sha256(repr((key, list(pictures), counts, num_levels, hidden_size, str(dtype))).encode()).hexdigest()
        shape = (self._starts[-1], num_levels, hidden_size)
        descriptor = None if memory is None else memory(max(1, shape[0] * shape[1] * shape[2] * dtype.itemsize))
        self._features = _storage(file, shape, dtype, descriptor)
        self._grids = torch.zeros((len(pictures), 3), dtype=torch.int64)
        self._done: set[str] = set()
        self._mine: set[str] = set()
        self.gather()

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def num_bytes(self) -> int:
        """Of the features."""
        return self._features.numel() * self._features.element_size()

    def grids(self, images: Sequence[ImageRef]) -> list[Tensor]:
        """(3,) int64 of each picture: time, height and width in patches."""
        return [self._grids[self._numbers[image.sha256]] for image in images]

    def features(self, images: Sequence[ImageRef]) -> Tensor:
        """(num_tokens, levels, hidden) of all pictures, one behind the other."""
        spans = [(self._starts[number], self._starts[number + 1]) for number in (self._numbers[image.sha256] for image in images)]
        return torch.cat([self._features[start:end] for start, end in spans])

    def fill(
        self,
        encode: Callable[[Tensor, Tensor], Tensor],
        picture: Callable[[ImageRef], Path | bytes],
        *,
        num_workers: int = 0,
        share: tuple[int, int] = (0, 1),
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Compute what is missing.

        Args:
            encode: (num_patches, patch_dim), (num_images, 3) -> (num_tokens, levels, hidden).
            picture: The file or the bytes of a picture.
            num_workers: Processes that read pictures.
            share: (rank, number of devices): this device computes every so many-th batch.
            progress: Told how many pictures are done.

        Raises:
            MedtuneError: A picture cannot be read.
        """
        rank, num_devices = share
        missing = [(digest, *self.pictures[digest]) for digest in self.pictures if digest not in self._done]
        batches = list(_batches(missing, self._starts, self._numbers, self._patches.merge))[rank::num_devices]
        loader: data.DataLoader[Any] = data.DataLoader(
            _Pictures(batches, picture, self._patches),
            batch_size=None,
            num_workers=num_workers if len(batches) > 1 else 0,
            pin_memory=torch.cuda.is_available(),
            # A loader draws a seed, and what the training draws later must not depend on whether features are kept.
            generator=torch.Generator(),
        )
        digests_of = ([digest for digest, _, _ in batch] for batch in batches)
        for number, (digests, result) in enumerate(zip(digests_of, loader, strict=True)):
            if isinstance(result, MedtuneError):
                raise result
            pixels, grids = result
            features = encode(pixels, grids)
            self._put(digests, grids, features)
            if (number + 1) % INDEX_EVERY == 0 or number + 1 == len(batches):
                self._save_index()
            if progress is not None:
                progress(len(self._done))

    def _put(self, digests: Sequence[str], grids: Tensor, features: Tensor) -> None:
        place = 0
        for digest, grid in zip(digests, grids, strict=True):
            number = self._numbers[digest]
            start, end = self._starts[number], self._starts[number + 1]
            found = int(grid.prod()) // self._patches.merge
            if found != end - start:
                raise self._other_size(digest, found, end - start)
            self._features[start:end].copy_(features[place : place + end - start])
            self._grids[number] = grid
            place += end - start
        self._done.update(digests)
        self._mine.update(digests)

    def _other_size(self, digest: str, found: int, wanted: int) -> TrainingError:
        image, row = self.pictures[digest]
        return TrainingError(
            msg(
                "The picture has {found} tokens; with the {width} x {height} pixels that the data set says it would have {wanted}.",
                found=found,
                wanted=wanted,
                width=image.width,
                height=image.height,
            ),
            file=image.path,
            sample=row,
            remedy=msg("Prepare the data set again: the picture was changed after that."),
        )

    def _save_index(self) -> None:
        """Note in the file's index which features are there, so that a resumed run does not compute them again."""
        if self._file is None or not self._mine:
            return
        with self._file.open("rb") as file:
            os.fsync(file.fileno())
        done = {digest: self._grids[self._numbers[digest]].tolist() for digest in self._numbers if digest in self._mine}
        # Named after the first picture in it: every device and every life of a run has a file of its own.
        atomic_write(_index(self._file, next(iter(done))), json.dumps({"key": self._key, "done": done}) + "\n")

    def done(self) -> dict[str, list[int]]:
        """SHA-256 -> grid of the pictures that this process has computed."""
        return {digest: self._grids[self._numbers[digest]].tolist() for digest in self._mine}

    def learn(self, done: Mapping[str, Sequence[int]]) -> None:
        """Of pictures whose features other processes have put into the common memory."""
        for digest, grid in done.items():
            self._grids[self._numbers[digest]] = torch.tensor(grid)
        self._done.update(done)

    def gather(self) -> None:
        """Learn what other devices, or an earlier life of the run, have put into the file."""
        for path in _indexes(self._file) if self._file is not None else ():
            try:
                index = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if index.get("key") == self._key:
                self.learn(index["done"])


def keep_features(
    run: Run,
    model: nn.Module,
    rows: Sequence[EncodedRows],
    kind: Literal["memory", "disk"],
    *,
    num_workers: int,
    journal: Callable[[Event], None],
    agreement: Agreement,
) -> VisionCache | None:
    """Compute the features of all pictures of ``rows`` and let the rows use them. None where they have no picture.

    Args:
        model: In the engine, with a vision tower that does not learn.
        kind: Where they are kept. Every device computes a share: of a file all of them, of memory those of one machine.
        num_workers: Processes that read pictures.
        agreement: With the other processes.

    Raises:
        MedtuneError: A picture cannot be read, or is not the one that the data set was made with; or memory runs out.
    """
    inner: Any = causal_model(model).model
    tower = inner.visual
    pictures = distinct_pictures([row for part in rows for row in part.rows])
    if not pictures:
        return None
    encoder: Any = rows[0].encoder
    shared = kind == "memory" and _can_share(agreement.exchange)
    cache = VisionCache(
        pictures,
        encoder.pictures,
        num_levels=1 + len(getattr(tower, "deepstack_merger_list", ())),
        hidden_size=int(inner.config.get_text_config().hidden_size),
        dtype=tower.dtype,
        file=run.folder / FEATURES_FILE if kind == "disk" else None,
        memory=functools.partial(shared_memory, exchange=agreement.exchange) if shared else None,
        key=encoder.contract().model_dump_json(),
    )
    journal(
        Event(
            "phase",
            msg(
                "Computing the vision features of {pictures} pictures ({size} GB) once.",
                pictures=len(cache),
                size=f"{cache.num_bytes / 1e9:.1f}",
            ),
            total=len(cache),
            values={"num_pictures": len(cache), "num_bytes": cache.num_bytes},
        )
    )
    layout, device = vision_layout(tower), next(tower.parameters()).device

    def encode(pixels: Tensor, grids: Tensor) -> Tensor:
        placed = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in layout(grids).items()}
        with torch.no_grad():
            return picture_features(inner, pixels.to(device, non_blocking=True), placed, grids.to(device))

    fault: MedtuneError | None = None
    try:
        cache.fill(
            encode,
            rows[0].picture,
            num_workers=num_workers,
            share=_share(of_all=kind == "disk") if shared or kind == "disk" else (0, 1),
            progress=lambda done: journal(Event("progress", done=done, total=len(cache))),
        )
    except MedtuneError as error:
        fault = error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fault = TrainingError(
            msg("Memory ran out while the vision features were computed: {error}", error=allocator_words(error)),
            key="train.vision_cache",
            remedy=msg("Write train.vision_cache=none, or make the pictures smaller with model.max_pixels."),
        )
    agreement.check(fault)
    cache.gather()
    if shared:
        for machine, done in agreement.exchange((_machine(), cache.done())):
            if machine == _machine():
                cache.learn(done)
    for part in rows:
        part.vision = cache
    return cache


def remove_features(run_folder: Path) -> None:
    """Take the file away when the run has ended."""
    file = run_folder / FEATURES_FILE
    for path in (file, *_indexes(file)):
        path.unlink(missing_ok=True)


def can_keep(model: nn.Module) -> bool:
    """Whether the model has a vision tower that does not learn, and reads packed rows."""
    tower = vision_tower(model)
    return tower is not None and can_pack(model) and not any(parameter.requires_grad for parameter in tower.parameters())


def _index(file: Path, first: str) -> Path:
    return file.with_name(f"{file.name}.{first[:16]}.json")


def _indexes(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}.*.json"))


def shared_memory(size: int, *, exchange: Callable[[Any], list[Any]]) -> int:
    """A file descriptor of ``size`` bytes of memory that the processes of one machine share. All processes of a run must call it.

    The first of a machine makes it (memfd_create(2)) and the others open it through the file system of processes. It has no name,
    so nothing is left of it when the last of them has ended, whatever ends it; and it does not count against ``/dev/shm``, which
    in a container is often 64 MB.
    """
    own: tuple[int, int] | None = None
    if _local_rank() == 0:
        descriptor = os.memfd_create("medtune-vision", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        own = os.getpid(), descriptor
    makers = {machine: maker for machine, maker in exchange((_machine(), own)) if maker is not None}
    if own is None:
        pid, number = makers[_machine()]
        descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    exchange(None)  # nobody goes on before all have it open
    return descriptor


def _can_share(exchange: Callable[[Any], list[Any]]) -> bool:
    """Whether several processes of a machine train, and on every machine those that do see each other (each in a container of its
    own, they do not). All processes of a run must call it, and get the same answer."""
    able = hasattr(os, "memfd_create") and Path("/proc/self/ns/pid").exists()
    places = exchange((_machine(), Path("/proc/self/ns/pid").stat().st_ino if able else None))
    return None not in {space for _, space in places} and len(set(places)) == len({machine for machine, _ in places}) < len(places)


def _share(*, of_all: bool) -> tuple[int, int]:
    if of_all:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return _local_rank(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _machine() -> int:
    """Of several, as the launcher numbers them."""
    return int(os.environ.get("GROUP_RANK", "0"))


def _storage(file: Path | None, shape: tuple[int, int, int], dtype: torch.dtype, descriptor: int | None = None) -> Tensor:
    size = shape[0] * shape[1] * shape[2]
    if file is not None:
        return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)
    # Anonymous shared memory: children of a fork see it, and it is gone with the last of them, whatever ends them.
    # /dev/shm would not do: in a container it is often 64 MB, and writing beyond ends the process without a word.
    memory = mmap.mmap(-1 if descriptor is None else descriptor, max(1, size * dtype.itemsize))
    if descriptor is not None:
        os.close(descriptor)  # the mapping holds the memory
    return torch.frombuffer(memory, dtype=dtype, count=size).view(shape)


_Missing = tuple[str, ImageRef, str]


def _batches(missing: list[_Missing], starts: list[int], numbers: dict[str, int], merge: int) -> Iterator[list[_Missing]]:
    batch: list[_Missing] = []
    patches = 0
    for item in missing:
        number = numbers[item[0]]
        own = (starts[number + 1] - starts[number]) * merge
        if batch and patches + own > PATCHES_AT_ONCE:
            yield batch
            batch, patches = [], 0
        batch.append(item)
        patches += own
    if batch:
        yield batch


class _Pictures(data.Dataset[Any]):
    """Pixels and grids of a batch of pictures, or the error of the first that cannot be read."""

    def __init__(self, batches: list[list[_Missing]], picture: Callable[[ImageRef], Path | bytes], patches: Patches) -> None:
        self._batches = batches
        self._picture = picture
        self._patches = patches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | MedtuneError:
        images = []
        for _, ref, row in self._batches[index]:
            try:
                images.append(open_picture(self._picture(ref), name=ref.path))
            except MedtuneError as error:
                error.sample = error.sample or row
                return error
        tensors = self._patches.tensors(images, sample_id=self._batches[index][0][2])
        return tensors["pixel_values"], tensors["image_grid_thw"]
