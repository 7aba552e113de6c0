"""How fast a server may be asked: so many requests and tokens a minute, and not while it has asked for quiet."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Booking", "RateLimit", "estimate_tokens", "pause_seconds"]

WINDOW_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0

_BYTES_A_TOKEN = 3
"""Of UTF-8 text: English has about four, Chinese three to a character and about one token to a character or a half."""
_PIXELS_A_TOKEN = 28 * 28
"""Of Qwen2-VL (arXiv:2409.12191, section 2.1); other models take fewer tokens for a picture."""


def estimate_tokens(text: str, num_pixels: int, max_new_tokens: int) -> int:
    """What a request will be charged for, before the server has said it: the answer at its full length, as servers reckon it."""
    return -(-len(text.encode("utf-8")) // _BYTES_A_TOKEN) + -(-num_pixels // _PIXELS_A_TOKEN) + max_new_tokens


@dataclass(slots=True)
class Booking:
    """One request within the last minute. ``tokens`` is an estimate until the answer says what they were."""

    at: float
    tokens: int


class RateLimit:
    """Admits requests so that no minute holds more than allowed. For use from several threads.

    The minute slides: a limit that starts anew with each clock minute would let twice as much through around its turn.

    Args:
        requests_per_minute: None = no limit.
        tokens_per_minute: Of prompts and answers together; None = no limit. A request that is larger alone is admitted alone.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_requests = requests_per_minute
        self._max_tokens = tokens_per_minute
        self._clock = clock
        self._booked: deque[Booking] = deque()
        self._quiet_until = float("-inf")
        self._lock = threading.Lock()

    def admit(self, tokens: int) -> Booking | float:
        """A booking, or how many seconds to wait before asking again."""
        with self._lock:
            now = self._clock()
            if now < self._quiet_until:
                return self._quiet_until - now
            while self._booked and self._booked[0].at <= now - WINDOW_SECONDS:
                self._booked.popleft()
            wait = self._seconds_too_early(now, tokens)
            if wait > 0:
                return wait
            booking = Booking(now, tokens)
            if self._max_requests is not None or self._max_tokens is not None:
                self._booked.append(booking)
            return booking

    def hold(self, seconds: float) -> None:
        """Nobody is admitted for so long: the server has said when it will answer again."""
        with self._lock:
            self._quiet_until = max(self._quiet_until, self._clock() + seconds)

    def _seconds_too_early(self, now: float, tokens: int) -> float:
        """Until enough of what is booked has left the minute."""
        num_requests, num_tokens = len(self._booked), sum(booking.tokens for booking in self._booked)
        free_at = now
        for booking in self._booked:
            fits = self._max_requests is None or num_requests < self._max_requests
            if fits and (self._max_tokens is None or num_tokens + tokens <= self._max_tokens):
                break
            num_requests -= 1
            num_tokens -= booking.tokens
            free_at = booking.at + WINDOW_SECONDS
        return free_at - now


def pause_seconds(attempt: int, headers: Mapping[str, str] | None = None) -> float:
    """Seconds before the next attempt: what the server asks for, else twice as long each time.

    ``Retry-After`` is a number of seconds or a date (RFC 9110, section 10.2.3). Half of a pause of our own is random, so that
    many clients do not come back together. Never longer than a minute.
    """
    asked = asked_pause(headers or {})
    if asked is not None:
        return asked
    longest: float = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds, at most a minute, that the ``Retry-After`` of a response asks for; None when it asks for nothing readable."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS) if seconds == seconds else None
