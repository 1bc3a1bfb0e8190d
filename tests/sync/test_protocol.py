"""The JSON of messages and values, byte for byte."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duly.sync import convex_json
from duly.sync.convex_json import EncodingError, decode, decode_ts, encode_ts
from duly.sync.protocol import (
    ActionResponse,
    Add,
    Authenticate,
    AuthError,
    Connect,
    Event,
    Failure,
    FatalError,
    ModifyQuerySet,
    Mutation,
    MutationResponse,
    Ping,
    ProtocolError,
    QueryFailed,
    QueryRemoved,
    QueryUpdated,
    Remove,
    StateVersion,
    Transition,
    dumps,
    parse,
)

SESSION = "bc2fa8f9-2018-4546-8c86-e32d204cb6fd"


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (None, b"null"),
        (True, b"true"),
        (1, b"1.0"),
        (-(2**53), b"-9007199254740992.0"),
        (2**53 + 1, b'{"$integer":"AQAAAAAAIAA="}'),
        (-(2**63), b'{"$integer":"AAAAAAAAAIA="}'),
        (1.5, b"1.5"),
        (math.nan, b'{"$float":"AAAAAAAA+H8="}'),
        (-0.0, b'{"$float":"AAAAAAAAAIA="}'),
        (math.inf, b'{"$float":"AAAAAAAA8H8="}'),
        (b"hi", b'{"$bytes":"aGk="}'),
        ({"a": {}, "b": [1, "x"]}, b'{"a":{},"b":[1.0,"x"]}'),
    ],
)
def test_a_value_has_one_encoding_and_comes_back(value: object, json: bytes) -> None:
    assert convex_json.dumps(value) == json
    assert repr(decode(orjson.loads(json))) == repr(value)


@pytest.mark.parametrize(
    ("json", "value"),
    [
        ("3", 3),
        ("3.0", 3),
        ("-0.0", -0.0),
        ("3.25", 3.25),
        ("9007199254740993", 9007199254740992),
        ("1e300", 1e300),
        ('{"$integer":"AQAAAAAAAAA="}', 1),
        ('{"$integer":"//////////8="}', -1),
    ],
)
def test_a_number_arrives_as_an_int_if_it_is_one_for_certain(json: str, value: float) -> None:
    assert repr(decode(orjson.loads(json))) == repr(value)


@pytest.mark.parametrize(
    "json",
    [
        '{"$float":"AAAAAAAA8D8="}',
        '{"$integer":"AQAA"}',
        '{"$integer":1}',
        '{"$bytes":"a"}',
        '{"$set":[]}',
        '{"$commitTs":null}',
        '{"a":1,"$b":2}',
        "[" * 70 + "]" * 70,
    ],
)
def test_what_is_no_value_is_refused(json: str) -> None:
    with pytest.raises(EncodingError):
        decode(orjson.loads(json))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=4),
)


@given(values)
def test_every_value_survives_the_way_to_a_client_and_back(value: object) -> None:
    assert decode(orjson.loads(convex_json.dumps(value))) == value


def test_people_get_json_without_special_objects() -> None:
    value = [1, 2**60, 1.0, math.nan, -math.inf, b"hi"]
    assert convex_json.dumps_clean(value) == b'[1,"1152921504606846976",1.0,"NaN","-Infinity","aGk="]'
    assert convex_json.dumps_export(value) == b'[1,1152921504606846976,1.0,"NaN","-Infinity","aGk="]'


def test_a_timestamp_is_eight_bytes_in_base64() -> None:
    assert encode_ts(0) == "AAAAAAAAAAA="
    assert decode_ts("SqUv//jt6Rg=") == 1795227580172838218
    assert encode_ts(decode_ts("5G+RV/nt6Rg=")) == "5G+RV/nt6Rg="


@pytest.mark.parametrize("text", ["", "AAAA", "//////////8=", None, 7, "§"])
def test_what_is_no_timestamp_is_refused(text: object) -> None:
    with pytest.raises(EncodingError):
        decode_ts(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"connectionCount":1,"lastCloseReason":"InactiveServer","clientTs":1795227581971,"type":"Connect",'
            f'"sessionId":"{SESSION}","maxObservedTimestamp":"CQAAAAAAAAA="}}',
            Connect(SESSION, 1, "InactiveServer", 9),
        ),
        (
            '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":['
            '{"type":"Add","queryId":0,"udfPath":"messages:list","args":[{"n":1}],"journal":null},'
            '{"type":"Remove","queryId":4}]}',
            ModifyQuerySet(0, 1, (Add(0, "messages:list", {"n": 1}), Remove(4))),
        ),
        ('{"args":[{}],"type":"Mutation","requestId":0,"udfPath":"a:b"}', Mutation(0, "a:b", {})),
        ('{"type":"Authenticate","baseVersion":2,"tokenType":"None"}', Authenticate(2, "None")),
        (
            '{"type":"Authenticate","baseVersion":0,"tokenType":"Admin","value":"key","acting_as":{"subject":"a"}}',
            Authenticate(0, "Admin", "key", {"subject": "a"}),
        ),
        ('{"type":"Event","eventType":"ClientConnect","event":{},"more":1}', Event()),
    ],
)
def test_messages_of_clients_are_read(text: str, message: object) -> None:
    assert parse(text) == message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "got a message that is no JSON"),
        ('"hi"', "got 'hi' as a message, expected an object"),
        ('{"type":"Sing"}', "got a message of the type 'Sing', expected one of Connect"),
        (
            '{"type":"Connect","sessionId":"me","connectionCount":0}',
            "'Connect': got 'me' for 'sessionId', expected a UUID",
        ),
        ('{"type":"Mutation","requestId":-1,"udfPath":"a:b","args":[{}]}', "got -1 for 'requestId'"),
        ('{"type":"Mutation","requestId":true,"udfPath":"a:b","args":[{}]}', "got True for 'requestId'"),
        ('{"type":"Mutation","requestId":1,"udfPath":"a:b","args":[{},{}]}', "expected a list of one object"),
        ('{"type":"Mutation","requestId":1,"udfPath":"a:b","args":[{}],"componentPath":"x"}', "has no components"),
        ('{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[1]}', "expected a list of objects"),
    ],
)
def test_other_messages_are_refused_with_what_was_expected(text: str, problem: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse(text)
    assert problem in str(raised.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ProtocolError):
        parse(b'{"type":"\xff"}')


@pytest.mark.parametrize(
    ("message", "json"),
    [
        (
            Transition(
                StateVersion(),
                StateVersion(2, 1, 9),
                (
                    QueryUpdated(0, b"[1]", ("[LOG] 'hi'",), "j"),
                    QueryFailed(1, Failure("no", b"null")),
                    QueryFailed(2, Failure("no")),
                    QueryRemoved(3),
                ),
            ),
            '{"type":"Transition","startVersion":{"querySet":0,"identity":0,"ts":"AAAAAAAAAAA="},'
            '"endVersion":{"querySet":2,"identity":1,"ts":"CQAAAAAAAAA="},"modifications":['
            '{"type":"QueryUpdated","queryId":0,"value":[1],"logLines":["[LOG] \'hi\'"],"journal":"j"},'
            '{"type":"QueryFailed","queryId":1,"errorMessage":"no","logLines":[],"journal":null,"errorData":null},'
            '{"type":"QueryFailed","queryId":2,"errorMessage":"no","logLines":[],"journal":null},'
            '{"type":"QueryRemoved","queryId":3}]}',
        ),
        (
            MutationResponse(3, b"1", 9),
            '{"type":"MutationResponse","requestId":3,"logLines":[],"success":true,"result":1,"ts":"CQAAAAAAAAA="}',
        ),
        (
            MutationResponse(3, Failure("no", b'{"code":1}'), None),
            '{"type":"MutationResponse","requestId":3,"logLines":[],"success":false,"result":"no",'
            '"errorData":{"code":1},"ts":null}',
        ),
        (
            ActionResponse(4, Failure("no")),
            '{"type":"ActionResponse","requestId":4,"logLines":[],"success":false,"result":"no"}',
        ),
        (AuthError("no", 1, True), '{"type":"AuthError","error":"no","baseVersion":1,"authUpdateAttempted":true}'),
        (FatalError("no"), '{"type":"FatalError","error":"no"}'),
        (Ping(), '{"type":"Ping"}'),
    ],
)
def test_messages_to_clients_are_written(message: object, json: str) -> None:
    assert dumps(message) == json  # type: ignore[arg-type]


def test_equal_values_have_equal_bytes_whatever_the_order_of_their_fields() -> None:
    assert convex_json.dumps({"b": 1, "a": 2}) == convex_json.dumps({"a": 2, "b": 1}) == b'{"a":2.0,"b":1.0}'
