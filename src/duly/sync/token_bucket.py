"""A token bucket: how fast messages of a client are taken."""

from __future__ import annotations


class TokenBucket:
    """Full at first, with `size` tokens; `rate` of them come back each second. Times are in seconds."""

    def __init__(self, rate: float, size: int, now: float) -> None:
        self._rate = rate
        self._size = size
        self._tokens = float(size)
        self._at = now

    def take(self, now: float) -> float:
        """Take a token. Return how long to wait until it is there, in seconds: 0.0 if it is there already."""
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._size) - 1.0
        self._at = now
        return max(-self._tokens / self._rate, 0.0)
