"""Limits on picture files, checked before a decoder sees them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medtune.types import Settings

__all__ = ["Limits"]


class Limits(Settings):
    """What a picture file may be at most. A file beyond a limit is refused by name, never shrunk in silence."""

    max_bytes: Annotated[int, Field(gt=0)] = 256 * 1024 * 1024
    """Bytes of the file."""
    max_pixels: Annotated[int, Field(gt=0)] = 89_478_485
    """Width times height, as the header states them. The default is the size above which Pillow suspects a decompression bomb
    (a quarter of a GiB at three bytes a pixel)."""
    max_ratio: Annotated[float, Field(ge=1.0)] = 200.0
    """Longer side over shorter side. Qwen's image processors refuse more than 200 (``smart_resize``)."""
    max_frames: Annotated[int, Field(gt=0)] = 100_000
    """Frames of a DICOM file (Number of Frames, 0028,0008), or slices times volumes of a NIfTI file, as the header states them.
    Generous: a functional MRI of 64 slices and 1,200 volumes has 76,800."""
    max_volume_bytes: Annotated[int, Field(gt=0)] = 2 * 1024**3
    """Bytes of a NIfTI volume without compression, as its header states them. A CT of 512 x 512 x 1,000 has 0.5 GiB. A .nii.gz is
    never decompressed beyond what its header promises."""
    max_depth: Annotated[int, Field(gt=0, le=150)] = 32
    """Sequences within sequences in a DICOM file. Enhanced multi-frame objects and structured reports need about ten; pydicom 3.0.2
    calls itself for each (of undefined length) and meets Python's recursion limit at 200."""
    max_memory: Annotated[int, Field(ge=512)] = 4096
    """MiB of address space of the process that decodes a picture from outside while the program runs (chat)."""
    seconds: Annotated[float, Field(gt=0.0)] = 60.0
    """How long that process may take for one picture."""

    def allow(self, num_bytes: int, width: int, height: int) -> bool:
        """Whether a picture of this size is within the limits."""
        within = num_bytes <= self.max_bytes and width * height <= self.max_pixels
        return within and max(width, height) <= self.max_ratio * min(width, height)
