"""Messages that are mutated at random: a session answers or closes, and never raises."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from duly.sync.effects import CatchUp, Close, Send
from duly.sync.protocol import FatalError
from duly.sync.session import Session

SESSION = "bc2fa8f9-2018-4546-8c86-e32d204cb6fd"
CONNECT = json.dumps({"type": "Connect", "sessionId": SESSION, "connectionCount": 0, "lastCloseReason": None})
ADD = {"type": "Add", "queryId": 0, "udfPath": "a:b", "args": [{"n": {"$integer": "AQAAAAAAAAA="}}], "journal": None}
MESSAGES: list[dict[str, Any]] = [
    {**json.loads(CONNECT), "maxObservedTimestamp": "CQAAAAAAAAA="},
    {
        "type": "ModifyQuerySet",
        "baseVersion": 0,
        "newVersion": 1,
        "modifications": [ADD, {"type": "Remove", "queryId": 4}],
    },
    {"type": "Mutation", "requestId": 0, "udfPath": "a:b", "args": [{}]},
    {"type": "Action", "requestId": 1, "udfPath": "a:b", "args": [{}], "componentPath": ""},
    {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": "eyJ"},
    {"type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": "key", "impersonating": {"subject": "a"}},
    {"type": "Event", "eventType": "x", "event": None},
]
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    10**400,
    "",
    "x",
    "\x00",
    [],
    [[]],
    {},
    {"$x": 1},
    [None],
    float("inf"),
]


def mutated(rng: random.Random) -> bytes:
    """A message with one thing wrong, in its fields or in its bytes."""
    message = json.loads(json.dumps(rng.choice(MESSAGES)))
    if rng.random() < 0.6:
        place: Any = message
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            if rng.random() < 0.2 and isinstance(place, dict):
                del place[key]
            else:
                place[key] = rng.choice(ODD)
            return json.dumps(message).encode()
    text = bytearray(json.dumps(message).encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text))
        text[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 3))
    return bytes(text)


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_no_message_makes_a_session_raise(count: int) -> None:
    rng, closed = random.Random(20), 0
    for _ in range(count):
        session = Session()
        if rng.random() < 0.9:
            session.receive(CONNECT)
            session.take()
            session.caught_up()
        session.receive(mutated(rng))
        session.flush(1)
        effects = session.take()
        if session.is_closed:
            closed += 1
            assert isinstance(effects[-1], Close)
            assert effects[-1].code == 1011 or isinstance(effects[-2], Send)
    assert count / 4 < closed < count  # some are still messages


def test_what_is_no_message_is_told_to_the_client_in_words() -> None:
    session = Session()
    session.receive(CONNECT)
    assert session.take() == [CatchUp(0)]
    session.receive('{"type":"Mutation","requestId":1e400}')
    [told, close] = session.take()
    assert isinstance(told, Send) and isinstance(told.message, FatalError)
    assert close == Close(1000, "FatalError")
