"""Requests become tokens and pixels in threads, ahead of the model that reads them."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtune.errors import MedtuneError
from medtune.generation.check import named_error
from medtune.imaging.read import open_picture
from medtune.types import Features, Request, StoredPicture

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from medtune.models.encoder import Encoder

__all__ = ["EncodedPicture", "EncodedRequest", "Encoding", "picture_key"]

_log = logging.getLogger(__name__)

_THREADS = max(2, min(8, os.cpu_count() or 2))
"""Decoding and resizing let go of Python's lock, so threads do."""

_KEPT_PICTURES = 32
"""Pictures whose pixels are kept for the next request that shows them: 3 MB each at 512 x 512 in 16 bits."""


def picture_key(picture: StoredPicture | Image) -> Hashable:
    """What tells pictures of one call apart: the path of a file (data sets store each picture once, under its hash), the place in
    a shard, the bytes, or the object in memory."""
    return picture if isinstance(picture, StoredPicture) else id(picture)


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """Attributes:
    key: See :func:`picture_key`.
    pixels: (num_patches, patch_dim).
    grid: (3,) int64, time, height and width in patches.
    """

    key: Hashable
    pixels: Tensor
    grid: Tensor


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """Attributes:
    features: Without ``pixel_values``.
    pictures: In the order of the marks.
    """

    request: Request
    features: Features
    pictures: tuple[EncodedPicture, ...]


class Encoding:
    """Encodes requests in their order, some ahead of :meth:`take`. Use it as a context manager.

    Args:
        encoder: The model's.
        requests: In the order in which they are wanted.
        ahead: How many may be encoded and not yet taken.
        dtype: Of the pixels.
        device: Of the model. A GPU reads page-locked memory by itself, so pixels for one are put there.
    """

    def __init__(
        self, encoder: Encoder, requests: Sequence[Request], *, ahead: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._encoder = encoder
        self._dtype = dtype
        self._locked = device.type == "cuda"
        self._waiting = deque(requests)
        self._ahead = max(1, ahead)
        self._under_way: deque[tuple[Request, Future[EncodedRequest]]] = deque()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="medtune-pictures")
        self._lock = threading.Lock()
        self._shown = Counter(picture_key(image) for request in requests for image in request.images)
        self._kept: OrderedDict[Hashable, Future[EncodedPicture]] = OrderedDict()

    def __enter__(self) -> Encoding:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __len__(self) -> int:
        """Requests that have not been taken."""
        return len(self._under_way) + len(self._waiting)

    @property
    def untaken(self) -> list[Request]:
        """Those."""
        return [request for request, _ in self._under_way] + list(self._waiting)

    def times_shown(self, key: Hashable) -> int:
        """In how many places of all requests a picture stands."""
        return self._shown[key]

    def take(self) -> EncodedRequest | tuple[Request, MedtuneError]:
        """The next request, or why it cannot be shown to the model: a damaged picture, for example."""
        self._go_ahead()
        request, future = self._under_way.popleft()
        self._go_ahead()
        try:
            return future.result()
        except MedtuneError as error:
            return request, named_error(error, request.id)

    def _go_ahead(self) -> None:
        while self._waiting and len(self._under_way) < self._ahead:
            request = self._waiting.popleft()
            self._under_way.append((request, self._pool.submit(self._encode, request)))

    def _encode(self, request: Request) -> EncodedRequest:
        shown = () if self._encoder.pictures is None else request.images
        pictures = tuple(self._picture(image, request.id) for image in shown)
        images = [_opened(image) for image in request.images] if self._encoder.pictures is None else []
        with self._lock:  # tokenizers are not written for several threads
            if self._encoder.pictures is None:
                features = self._encoder.encode(request.messages, images, sample_id=request.id)
            else:
                features = self._encoder.encode_seen(request.messages, [each.grid for each in pictures], sample_id=request.id)
        return EncodedRequest(request, features, pictures)

    def _picture(self, image: StoredPicture | Image, sample_id: str) -> EncodedPicture:
        key = picture_key(image)
        if self._shown[key] == 1:
            return self._encoded(key, image, sample_id)
        # Requests about one picture stand together, so several threads want it at the same time: the first makes it.
        with self._lock:
            made = self._kept.get(key)
            first = made is None
            if made is None:
                made = self._kept[key] = Future()
                while len(self._kept) > _KEPT_PICTURES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
        if first:
            try:
                made.set_result(self._encoded(key, image, sample_id))
            except BaseException as error:
                made.set_exception(error)
        return made.result()

    def _encoded(self, key: Hashable, image: StoredPicture | Image, sample_id: str) -> EncodedPicture:
        assert self._encoder.pictures is not None
        tensors = self._encoder.pictures.tensors([_opened(image)], sample_id=sample_id)
        pixels = tensors["pixel_values"].to(self._dtype)
        return EncodedPicture(key, _locked(pixels) if self._locked else pixels, tensors["image_grid_thw"][0])


def _locked(pixels: Tensor) -> Tensor:
    """In page-locked memory; as they are where the system lends no more of it, as WSL does early: then their copy is waited for."""
    try:
        return pixels.pin_memory()
    except RuntimeError as error:
        _log.debug("pixels stay in ordinary memory: %s", str(error).split("\n")[0])
        return pixels


def _opened(image: StoredPicture | Image) -> Image:
    return open_picture(image) if isinstance(image, StoredPicture) else image
