"""The child process: what it gives back, and how it may die."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medtune.errors import DataError
from medtune.imaging.child import Child, ChildDiedError, borrow
from medtune.language import msg

HERE = "child_work"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This file under a name that the child can import."""
    (tmp_path / f"{HERE}.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def plain(value: Any) -> Any:
    print("what a decoder prints must not get between the replies")
    os.write(1, b"nor what its C code prints")
    return {"value": value, "pid": os.getpid(), "bytes": [b"\x00\xff", b""]}


def several(count: int) -> Iterator[int]:
    yield from range(count)


def fault() -> None:
    raise DataError(
        msg("The data file is damaged: {error}", error="it"), file="a.dcm", sample="7", remedy=msg("Correct the record.")
    )


def defect() -> None:
    raise BaseException("panicked")


def abort() -> Iterator[int]:
    yield 1
    os.abort()


def sleep() -> None:
    time.sleep(60)


def greedy() -> int:
    return len(bytearray(3 * 1024**3))


def greedy_in_c() -> int:
    return int(ctypes.CDLL(None).malloc(3 * 1024**3) or 0)


def test_values_come_back_and_the_process_is_kept() -> None:
    with Child() as child:
        first = child.call(f"{HERE}:plain", ["a", 1, None, 2.5, True])
        assert first["value"] == ["a", 1, None, 2.5, True]
        assert first["bytes"] == [b"\x00\xff", b""]
        assert first["pid"] != os.getpid()
        assert list(child.run(f"{HERE}:several", 3)) == [0, 1, 2]
        assert child.call(f"{HERE}:plain", 0)["pid"] == first["pid"]


def test_a_users_fault_keeps_its_fields() -> None:
    with Child() as child:
        with pytest.raises(DataError) as caught:
            child.call(f"{HERE}:fault")
        assert (caught.value.file, caught.value.sample) == ("a.dcm", "7")
        assert caught.value.what == msg("The data file is damaged: {error}", error="it")
        assert caught.value.remedy == msg("Correct the record.")


def test_a_defect_keeps_its_traceback() -> None:
    with Child() as child, pytest.raises(RuntimeError, match="panicked"):
        child.call(f"{HERE}:defect")


def test_it_may_abort_and_the_next_call_has_a_new_process() -> None:
    with Child() as child:
        values = child.run(f"{HERE}:abort")
        assert next(values) == 1
        with pytest.raises(ChildDiedError, match="SIGABRT") as caught:
            next(values)
        assert caught.value.death == "crash"
        assert list(child.run(f"{HERE}:several", 1)) == [0]


def test_silence_has_an_end() -> None:
    with Child(seconds=60) as child:
        child.call(f"{HERE}:plain", 0)
        child.seconds = 0.5
        with pytest.raises(ChildDiedError) as caught:
            child.call(f"{HERE}:sleep")
        assert caught.value.death == "timeout"


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux only")
def test_memory_has_a_cap() -> None:
    with Child(max_memory=2 * 1024**3) as child:
        with pytest.raises(ChildDiedError) as caught:
            child.call(f"{HERE}:greedy")
        assert caught.value.death == "memory"
        assert child.call(f"{HERE}:greedy_in_c") == 0
    with Child(max_memory=8 * 1024**3) as child:
        assert child.call(f"{HERE}:greedy") == 3 * 1024**3


def test_who_stops_listening_ends_the_work() -> None:
    with Child() as child:
        values = child.run(f"{HERE}:several", 10**9)
        assert next(values) == 0
        values.close()
        assert child.call(f"{HERE}:plain", 5)["value"] == 5


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks the process up in /proc")
def test_it_dies_with_its_parent() -> None:
    script = (
        "import os, signal\nfrom medtune.imaging.child import Child\nchild = Child()\n"
        f"print(child.call('{HERE}:plain', 0)['pid'], flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=False).stdout
    pid = int(output)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_a_borrowed_process_is_lent_again_and_never_twice_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with borrow() as first, borrow() as second:
        pids = [child.call(f"{HERE}:plain", 0)["pid"] for child in (first, second)]
    assert len(set(pids)) == 2
    with borrow() as third:
        assert third.call(f"{HERE}:plain", 0)["pid"] in pids
    monkeypatch.chdir(tmp_path)
    with borrow() as elsewhere:
        assert elsewhere.call(f"{HERE}:plain", 0)["pid"] not in pids, "relative paths would lead elsewhere"


def forged(reply: bytes) -> None:
    """What a child could send that a file has taken over: past the code that packs replies."""
    pipe = sys._getframe(1).f_locals["pipe"]
    pipe.write(reply)
    pipe.flush()
    time.sleep(30)


def frame(kind: bytes, text: bytes, *blobs: int, length: int | None = None) -> bytes:
    head = struct.pack("<cQI", kind, len(text) if length is None else length, len(blobs))
    return head + text + b"".join(struct.pack("<Q", size) for size in blobs)


def error_reply(template: str, fields: object, **more: object) -> bytes:
    what = {"template": template, "fields": fields}
    values = {"kind": "DataError", "faults": [], "what": what, "file": None, "sample": None, "key": None, "remedy": None, **more}
    return frame(b"E", json.dumps(values).encode())


@pytest.mark.parametrize(
    "reply",
    [
        frame(b"V", b"[" * 200_000),
        frame(b"V", b"{"),
        frame(b"V", b"\xff"),
        frame(b"V", b"", length=2**63),
        frame(b"V", b"1", 2**62),
        frame(b"V", b'{"\\u0000blob":7}', 0),
        frame(b"V", b'{"\\u0000blob":"x"}', 0),
        frame(b"E", b"[]"),
        frame(b"E", b'{"kind":"DataError"}'),
        error_reply("{x.__class__}", {"x": 1}),
        error_reply("{x:>99999999999}", {"x": 1}),
        error_reply("{x:{y}}", {"x": 1, "y": ">99999999999"}),
        error_reply("{missing}", {}),
        error_reply("{x}", {"x": [1]}),
        error_reply("{", {}),
    ],
)
def test_a_forged_reply_is_a_crash(reply: bytes) -> None:
    with Child(seconds=120) as child, pytest.raises(ChildDiedError) as caught:
        child.call(f"{HERE}:forged", reply)
    assert caught.value.death == "crash"


def test_another_thread_can_end_it() -> None:
    with Child(seconds=60) as child:
        child.call(f"{HERE}:plain", 0)
        started = time.monotonic()
        threading.Timer(0.3, child.kill).start()
        with pytest.raises(ChildDiedError) as caught:
            child.call(f"{HERE}:sleep")
        assert caught.value.death == "crash"
        assert time.monotonic() - started < 20
