"""Damaged pictures cost one finding each: no other exception than the typed one, no end of this process, no hang, no gigabytes."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter

import pytest

import fuzz_pictures
from medtune.errors import UnreadableImageError
from medtune.imaging.child import Child, ChildDiedError
from medtune.imaging.read import open_picture
from medtune.imaging.untrusted import DecoderDiedError, open_untrusted

MAX_MEMORY = 2 * 1024**3
SECONDS = 120.0
"""Of silence: no mutation takes one of them on an idle machine."""
PER_FILE = {"ordinary": 60, "nifti": 100, "dicom": 24}
"""Mutations of each file. With 300 of each, 27,300 in all, three exceptions got out and gdcm aborted once; the three are in
``ONCE_A_DEFECT``."""

ONCE_A_DEFECT = (("second.nii", 152), ("JPEG-lossy.dcm", 65), ("JPGExtended.dcm", 65))

Outcome = tuple[int, str, str]


def kind_of(name: str) -> str:
    return "dicom" if name.endswith(".dcm") else "nifti" if ".nii" in name else "ordinary"


def outcomes(child: Child, name: str, data: bytes, start: int, stop: int) -> list[Outcome]:
    """What became of each mutation. One at which the child dies is a finding, and the work goes on behind it."""
    found: list[Outcome] = []
    while start < stop:
        try:
            for outcome in child.run("fuzz_pictures:read_damaged", data, kind_of(name) == "dicom", start, stop):
                found.append(tuple(outcome))
                start += outcome[1] != "kibibytes"
        except ChildDiedError as error:
            found.append((start, error.death, str(error)))
            start += 1
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux only")
@pytest.mark.parametrize("kind", PER_FILE)
def test_mutations(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: data for name, data in fuzz_pictures.seeds().items() if kind_of(name) == kind}
    counts: Counter[str] = Counter()
    wrong, largest, started = [], 0, time.monotonic()
    with Child(max_memory=MAX_MEMORY, seconds=SECONDS) as child:
        for name, data in files.items():
            for seed, outcome, detail in outcomes(child, name, data, 0, PER_FILE[kind]):
                if outcome == "kibibytes":
                    largest = max(largest, int(detail) * 1024)
                    continue
                counts[outcome] += 1
                if outcome in ("defect", "timeout"):
                    wrong.append(f"{name}, seed {seed}: {outcome}: {detail}")
    with capsys.disabled():
        print(
            f"\n{kind}: {len(files)} files, {sum(counts.values())} mutations: {dict(sorted(counts.items()))}; "
            f"{time.monotonic() - started:.0f} s, child at most {largest // 1024**2} MiB"
        )
    assert wrong == []
    assert sum(counts.values()) == len(files) * PER_FILE[kind]
    assert counts["refused"] > 0
    assert counts["picture"] > 0
    assert counts["crash"] + counts["memory"] <= 0.01 * sum(counts.values())
    assert 0 < largest < MAX_MEMORY


def test_there_are_enough_of_them() -> None:
    """And those of each kind that the test above counts as sound pictures."""
    kinds = Counter(kind_of(name) for name in fuzz_pictures.seeds())
    assert sum(kinds[kind] * count for kind, count in PER_FILE.items()) >= 2_000
    assert all(kinds.values())


@pytest.mark.parametrize(("name", "seed"), ONCE_A_DEFECT)
def test_what_once_got_out(name: str, seed: int) -> None:
    data = fuzz_pictures.mutate(fuzz_pictures.seeds()[name], seed, dicom=kind_of(name) == "dicom")
    with pytest.raises(UnreadableImageError):
        open_picture(data)


@pytest.mark.skipif(importlib.util.find_spec("gdcm") is None, reason="needs python-gdcm: medtune[dicom-lossless]")
@pytest.mark.parametrize(("offset", "value"), [(65, 90), (45, 223), (30, 135)])
def test_a_file_at_which_gdcm_aborts_costs_one_finding(offset: int, value: int) -> None:
    """One wrong byte in a JPEG-Lossless stream of pydicom's own: python-gdcm 3.2.6 ends its process with SIGABRT."""
    sound = fuzz_pictures.seeds()["SC_rgb_jpeg_gdcm.dcm"]
    damaged = bytearray(sound)
    damaged[sound.find(b"\xe0\x7f\x10\x00") + offset] = value
    with Child(max_memory=MAX_MEMORY) as child, pytest.raises(ChildDiedError, match="SIGABRT") as died:
        child.call("fuzz_pictures:decode_with_gdcm", bytes(damaged))
    assert died.value.death == "crash"
    for read in (open_untrusted, open_picture):
        with pytest.raises(DecoderDiedError) as caught:
            read(bytes(damaged), name="upload 1")
        assert (caught.value.reason, caught.value.file) == ("decoder-crash", "upload 1")
        assert read(sound).size == (100, 100)
