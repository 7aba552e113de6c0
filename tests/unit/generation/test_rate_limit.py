from __future__ import annotations

import email.utils
import random
import time

import pytest

from medtune.generation.rate_limit import Booking, RateLimit, estimate_tokens, pause_seconds


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_no_limit_admits_everything_and_remembers_nothing() -> None:
    limit = RateLimit()
    assert all(isinstance(limit.admit(10**9), Booking) for _ in range(1000))
    assert not limit._booked


def test_requests_of_a_sliding_minute() -> None:
    clock = Clock()
    limit = RateLimit(requests_per_minute=2, clock=clock)
    assert isinstance(limit.admit(1), Booking)
    clock.now += 20
    assert isinstance(limit.admit(1), Booking)
    assert limit.admit(1) == pytest.approx(40)
    clock.now += 40
    assert isinstance(limit.admit(1), Booking)
    assert limit.admit(1) == pytest.approx(20)


def test_tokens_of_a_sliding_minute() -> None:
    clock = Clock()
    limit = RateLimit(tokens_per_minute=100, clock=clock)
    first = limit.admit(60)
    assert isinstance(first, Booking)
    clock.now += 10
    assert isinstance(limit.admit(40), Booking)
    assert limit.admit(50) == pytest.approx(50)  # the 60 have to go, the 40 may stay
    assert limit.admit(61) == pytest.approx(60)  # both have to go
    first.tokens = 5  # as the server counted
    assert isinstance(limit.admit(50), Booking)


def test_a_request_larger_than_the_limit_goes_alone() -> None:
    clock = Clock()
    limit = RateLimit(tokens_per_minute=100, clock=clock)
    assert isinstance(limit.admit(500), Booking)
    assert limit.admit(1) == pytest.approx(60)
    clock.now += 60
    assert isinstance(limit.admit(500), Booking)


def test_no_window_ever_holds_more_than_allowed() -> None:
    clock, draw = Clock(), random.Random(0)
    limit = RateLimit(requests_per_minute=7, tokens_per_minute=1000, clock=clock)
    admitted: list[tuple[float, int]] = []
    for _ in range(300):
        tokens = draw.randint(1, 400)
        while not isinstance(answer := limit.admit(tokens), Booking):
            assert answer > 0
            clock.now += answer
        admitted.append((clock.now, tokens))
        clock.now += draw.random() * 5
    for start, _ in admitted:
        inside = [tokens for at, tokens in admitted if start <= at < start + 60 - 1e-6]
        assert len(inside) <= 7
        assert sum(inside) <= 1000
    # And it is used: no more than a window and a half for what a window could hold.
    assert clock.now - 1000 < 1.5 * 60 * max(300 / 7, sum(tokens for _, tokens in admitted) / 1000)


def test_quiet_holds_for_everybody() -> None:
    clock = Clock()
    limit = RateLimit(clock=clock)
    limit.hold(5)
    limit.hold(2)
    assert limit.admit(1) == pytest.approx(5)
    clock.now += 5
    assert isinstance(limit.admit(1), Booking)


def test_pauses_double_and_end_at_a_minute() -> None:
    for attempt, longest in [(0, 0.5), (1, 1.0), (3, 4.0), (20, 60.0)]:
        assert longest / 2 <= pause_seconds(attempt) <= longest


def test_a_server_says_how_long() -> None:
    assert pause_seconds(0, {"Retry-After": "2.5"}) == 2.5
    assert pause_seconds(0, {"Retry-After": "86400"}) == 60.0
    assert pause_seconds(3, {"Retry-After": "-1"}) == 0.0
    soon = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert 18 <= pause_seconds(0, {"Retry-After": soon}) <= 20
    assert pause_seconds(0, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    for nonsense in ("soon", "nan", ""):
        assert 0.25 <= pause_seconds(0, {"Retry-After": nonsense}) <= 0.5


def test_the_estimate_is_not_too_low() -> None:
    assert estimate_tokens("", 0, 100) == 100
    assert estimate_tokens("右肺上叶可见结节", 0, 0) == 8
    assert estimate_tokens("", 512 * 512, 0) == 335
