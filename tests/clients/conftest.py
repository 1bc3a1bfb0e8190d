"""What tests with the official JavaScript clients get: each version that is tried, one after the other."""

from __future__ import annotations

import pytest

from tests.clients.node import NEWEST, USUAL, Client


@pytest.fixture(params=[pytest.param(each, id=each.version, marks=each.is_needed) for each in (USUAL, NEWEST)])
def client(request: pytest.FixtureRequest) -> Client:
    return request.param
