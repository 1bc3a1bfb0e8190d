"""Tokens: which ones are good, whose they are, and that no other one ever counts."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey

from duly.clock import ManualClock
from duly.declare.auth import providers_of
from duly.server.auth.identity import ClientIdentity, IdentityError
from duly.server.auth.tokens import TokenChecker
from tests.server.signing import APPLICATION, ISSUER, NOW, Signer, base64url, custom, jwks, oidc, unsigned

ES, RS, ED = Signer("ES256"), Signer("RS256"), Signer("EdDSA")
ADA = {"tokenIdentifier": f"{ISSUER}|ada", "subject": "ada", "issuer": ISSUER}


def check(token: str, *entries: Any, at: float = NOW, development: bool = False) -> ClientIdentity:
    """Whose token it is, for an application with these providers, at a time in seconds."""
    providers = providers_of({"auth": SimpleNamespace(providers=list(entries))})
    return now(TokenChecker(ManualClock(at * 1000), development).check(token, providers))


def now(work: Coroutine[Any, Any, ClientIdentity]) -> ClientIdentity:
    """What a coroutine returns that waits for nothing, as no check does that needs no network."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def problem(token: str, *entries: Any, at: float = NOW, development: bool = False) -> tuple[str, str]:
    with pytest.raises(IdentityError) as refused:
        check(token, *entries, at=at, development=development)
    return refused.value.code, str(refused.value)


# Good tokens.


@pytest.mark.parametrize("signer", [ES, RS, ED], ids=lambda signer: signer.algorithm)
@pytest.mark.parametrize("entry", [oidc, custom], ids=["oidc", "custom"])
def test_a_token_that_a_provider_has_signed_is_its_users(entry: Any, signer: Signer) -> None:
    assert check(signer.token(), entry(signer)) == ClientIdentity(ADA, False, (NOW + 3_605) * 1000.0)


def test_the_claims_of_openid_connect_have_the_names_of_the_documentation() -> None:
    token = ES.token(
        name="Ada",
        given_name="Ada",
        family_name="King",
        nickname="a",
        preferred_username="countess",
        profile="https://ada.example/p",
        picture="https://ada.example/i.png",
        website="https://ada.example",
        email="ada@shop.example",
        email_verified=True,
        gender="female",
        birthdate="1815-12-10",
        zoneinfo="Europe/London",
        locale="en-GB",
        phone_number="+44 1",
        phone_number_verified=False,
        address={"formatted": "St James's Square", "country": "GB"},
        updated_at=1_700_000_000,
        org_id="org_1",
        role={"admin": [1, 2.5, None]},
        jti="x",
        nbf=NOW,
        fva=[1, 2],
        nonce="n",
    )
    assert check(token, oidc(ES)).identity == {
        **ADA,
        "name": "Ada",
        "givenName": "Ada",
        "familyName": "King",
        "nickname": "a",
        "preferredUsername": "countess",
        "profileUrl": "https://ada.example/p",
        "pictureUrl": "https://ada.example/i.png",
        "websiteUrl": "https://ada.example",
        "email": "ada@shop.example",
        "emailVerified": True,
        "gender": "female",
        "birthday": "1815-12-10",
        "timezone": "Europe/London",
        "language": "en-GB",
        "phoneNumber": "+44 1",
        "phoneNumberVerified": False,
        "address": "St James's Square",
        "updatedAt": "2023-11-14T22:13:20+00:00",
        "org_id": "org_1",
        "role": {"admin": [1, 2.5, None]},
        "nonce": "n",
    }


@pytest.mark.parametrize(
    ("updated_at", "field"), [("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"), (1e300, None), (True, None), ([], None)]
)
def test_a_time_of_change_that_is_none_is_left_out(updated_at: object, field: str | None) -> None:
    identity = check(ES.token(updated_at=updated_at), oidc(ES)).identity
    assert identity is not None and identity.get("updatedAt") == field


def test_the_claims_of_a_provider_of_ones_own_keep_their_names() -> None:
    token = ES.token(email="ada@shop.example", given_name="Ada", org={"id": 7, "plan": {"name": "pro"}}, jti="x")
    assert check(token, custom(ES)).identity == {
        **ADA,
        "email": "ada@shop.example",
        "given_name": "Ada",
        "org": {"id": 7, "plan": {"name": "pro"}},
        "org.id": 7,
        "org.plan": {"name": "pro"},
        "org.plan.name": "pro",
    }


@pytest.mark.parametrize("entry", [oidc, custom])
def test_no_claim_takes_the_place_of_what_functions_rely_on(entry: Any) -> None:
    token = ES.token(tokenIdentifier="x|root", subject="root", issuer="x", sub="ada")
    identity = check(token, entry(ES)).identity
    assert identity is not None and identity.items() >= ADA.items()


def test_a_claim_of_a_users_own_is_not_taken_for_a_standard_one() -> None:
    assert check(ES.token(emailVerified=True), oidc(ES)).identity == ADA


@pytest.mark.parametrize("claim", [{"$a": 1}, {"big": 1 << 63}], ids=str)
def test_a_claim_that_no_document_could_hold_is_left_out(claim: dict[str, Any]) -> None:
    assert check(ES.token(x=claim, y=1), oidc(ES)).identity == {**ADA, "y": 1}
    assert check(ES.token(**{"$int": 1}), custom(ES)).identity == ADA


def test_claims_that_nest_without_end_are_left_out() -> None:
    claims = ES.token(x="X").split(".")[1]
    deep = base64.urlsafe_b64decode(claims + "==").replace(b'"X"', b'{"a":' * 900 + b"1" + b"}" * 900)
    assert check(ES.sign({"alg": "ES256", "kid": "one"}, deep), custom(ES)).identity == ADA


def test_an_identity_is_the_same_after_the_token_was_refreshed() -> None:
    first, second = ES.token(jti="1"), ES.token(jti="2", iat=NOW + 60, exp=NOW + 9_000, nbf=NOW)
    assert check(first, oidc(ES)).identity == check(second, oidc(ES)).identity


def test_other_headers_do_not_matter() -> None:
    stranger = Signer("ES256", "stranger")
    header = {"cat": "cl_B7d4PD111AAA", "jwk": stranger.jwk, "jku": "https://evil.example/keys", "typ": "at+jwt"}
    assert check(ES.token(header), oidc(ES)).identity == ADA


# Which provider.


def test_the_issuer_and_the_audience_choose_the_provider() -> None:
    other = Signer("ES256", "other")
    entries = [
        oidc(other, application_id="admin"),
        custom(ED, application_id="shop"),
        custom(other, issuer="https://elsewhere.example"),
    ]
    assert check(ED.token(), *entries).identity == ADA
    assert check(other.token(aud=["x", "admin"]), *entries).identity == ADA
    elsewhere = check(other.token(iss="https://elsewhere.example", aud=None), *entries).identity
    assert elsewhere is not None and elsewhere["issuer"] == "https://elsewhere.example"


def test_the_first_provider_that_matches_is_the_one() -> None:
    assert problem(RS.token(), custom(ES), custom(RS))[0] == "Unauthenticated"


@pytest.mark.parametrize(
    "issuer", ["https://login.example/", "login.example", "login.example/", "https://login.example"]
)
@pytest.mark.parametrize("domain", ["https://login.example/", "login.example"])
def test_slashes_at_the_end_and_a_missing_scheme_do_not_matter(domain: str, issuer: str) -> None:
    identity = check(ES.token(iss=issuer), oidc(ES, domain=domain)).identity
    assert identity is not None and identity["tokenIdentifier"] == f"{issuer}|ada"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": "http://login.example"},
        {"iss": "https://login.example.evil.example"},
        {"iss": ["https://login.example"]},
        {"iss": None},
        {"aud": "shop2"},
        {"aud": ["sho", "p"]},
        {"aud": []},
        {"aud": {"shop": 1}},
        {"aud": [["shop"]]},
        {"aud": None},
    ],
    ids=str,
)
def test_a_token_of_no_provider_is_refused(claims: dict[str, Any]) -> None:
    code, message = problem(ES.token(**claims), oidc(ES))
    assert (code, message) == ("NoAuthProvider", "No auth provider found matching the given token")


def test_in_development_the_error_names_the_providers() -> None:
    _, message = problem(
        ES.token(aud="other"), oidc(ES), custom(ES, issuer="mine", algorithm="ES256"), development=True
    )
    assert message == (
        "No auth provider found matching the given token, with the issuer 'https://login.example' and the audience"
        " 'other'; auth.py has https://login.example (application_id shop), mine"
    )


# Attacks on the algorithm.


def hs256(secret: bytes, header: dict[str, Any] | None = None) -> str:
    text = unsigned(
        {"alg": "HS256", "kid": "one", **(header or {})},
        {"iss": ISSUER, "aud": APPLICATION, "sub": "root", "exp": NOW + 3_600},
    )
    return f"{text}.{base64url(hmac.digest(secret, text.encode(), 'sha256'))}"


@pytest.mark.parametrize("signer", [ES, RS, ED], ids=lambda signer: signer.algorithm)
@pytest.mark.parametrize("entry", [oidc, custom])
def test_a_token_whose_secret_is_the_public_key_is_refused(entry: Any, signer: Signer) -> None:
    assert isinstance(signer.key, RSAKey | ECKey | OKPKey)
    for secret in (signer.pem, signer.pem.strip(), signer.key.as_der(private=False), json.dumps(signer.jwk).encode()):
        code, message = problem(hs256(secret), entry(signer))
        assert (code, message.partition(",")[0]) == ("Unauthenticated", "got a token signed with 'HS256'")
    for algorithm in ("RS256", "ES256", "EdDSA"):  # or that says it is another kind of signature
        assert problem(hs256(signer.pem, {"alg": algorithm}), entry(signer))[0] == "Unauthenticated"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, 7, ["ES256"], "HS256", "RS1", "ES256K"]
)
@pytest.mark.parametrize("entry", [oidc, custom])
def test_an_unsigned_token_and_one_of_another_algorithm_are_refused(entry: Any, algorithm: object) -> None:
    claims = {"iss": ISSUER, "aud": APPLICATION, "sub": "root", "exp": NOW + 3_600}
    text = unsigned({"alg": algorithm, "kid": "one"}, claims)
    assert problem(f"{text}.", entry(ES)) == ("InvalidAuthHeader", "got a token with a part that is no base64url")
    assert problem(f"{text}.AAAA", entry(ES))[0] == "Unauthenticated"
    assert problem(ES.token({"alg": algorithm}), entry(ES))[0] == "Unauthenticated"


def test_the_algorithm_is_that_of_the_provider_and_its_key() -> None:
    assert problem(RS.token(), custom(ES)) == (
        "Unauthenticated",
        "got a token signed with 'RS256', expected ES256",
    )
    # An OpenID Connect provider may use several, but each only with a key for it.
    assert problem(RS.token(), oidc(ES)) == (
        "Unauthenticated",
        "got a token whose signature is not the one of its provider (RS256)",
    )
    for signer, algorithm in ((ES, "RS256"), (RS, "ES256"), (ED, "ES256"), (RS, "EdDSA"), (RS, "PS256")):
        assert problem(signer.token({"alg": algorithm}), oidc(signer))[0] == "Unauthenticated"


def test_a_key_that_is_only_for_another_algorithm_is_refused() -> None:
    for more in ({"alg": "RS512"}, {"key_ops": ["sign"]}):
        entry = oidc(RS, jwks={"keys": [{**RS.jwk, **more}]})
        assert problem(RS.token(), entry)[0] == "Unauthenticated"


@pytest.mark.parametrize(
    "header", [{"crit": ["b64"], "b64": False}, {"b64": False}, {"b64": True}, {"crit": 5}], ids=str
)
def test_extensions_are_refused(header: dict[str, Any]) -> None:
    assert problem(ES.token(header), oidc(ES))[0] == "InvalidAuthHeader"


# Keys.


def test_a_token_of_a_key_that_the_provider_does_not_have_is_refused() -> None:
    assert problem(ES.token({"kid": "two"}), oidc(ES)) == (
        "Unauthenticated",
        "got a token signed by the key 'two', expected one that its provider has",
    )
    assert problem(Signer("ES256", "other").token({"kid": "one"}), oidc(ES))[0] == "Unauthenticated"
    assert problem(ES.token({"kid": 1}), oidc(ES))[0] == "Unauthenticated"


def test_a_token_without_the_id_of_its_key_is_good_if_there_is_only_one() -> None:
    assert check(ES.token({"kid": None}), oidc(ES)).identity == ADA
    assert problem(ES.token({"kid": None}), oidc(ES, Signer("ES256", "two"))) == (
        "Unauthenticated",
        "got a token without 'kid', expected the id of one of the 2 keys of its provider",
    )


def test_keys_that_are_for_nothing_here_are_left_out() -> None:
    short = {"kty": "RSA", "n": base64url(b"\xff" * 128), "e": "AQAB"}  # 1,024 bits
    keys = [
        {"kty": "EC", "crv": "secp999", "x": "AA", "y": "AA", "kid": "one"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "one"},
        {**Signer("ES256", "two").jwk, "use": "enc", "kid": "one"},
        {"kty": "RSA", "kid": "one"},
        {"kid": "one"},
        {"kty": ["RSA"], "kid": "one"},
        {**short, "kid": "one"},
        ES.jwk,
    ]
    assert check(ES.token(), oidc(jwks={"keys": keys})).identity == ADA
    assert problem(RS.token({"kid": "short"}), oidc(jwks={"keys": [{**short, "kid": "short"}]}))[0] == "Unauthenticated"


# Times and the subject.


@pytest.mark.parametrize(
    ("claims", "at", "is_good"),
    [
        ({"exp": NOW}, NOW + 4.9, True),  # the clocks may differ by five seconds
        ({"exp": NOW}, NOW + 5, False),
        ({"exp": NOW + 0.5}, NOW + 5.25, True),
        ({"nbf": NOW + 5}, NOW, True),
        ({"nbf": NOW + 5.1}, NOW, False),
        ({"nbf": NOW + 100}, NOW + 100, True),
    ],
)
def test_a_token_counts_between_its_times(claims: dict[str, Any], at: float, is_good: bool) -> None:
    if is_good:
        assert check(ES.token(**claims), oidc(ES), at=at).identity == ADA
    else:
        assert problem(ES.token(**claims), oidc(ES), at=at)[0] in ("TokenExpired", "Unauthenticated")


@pytest.mark.parametrize(
    ("claims", "code", "message"),
    [
        ({"exp": NOW - 60}, "TokenExpired", "got a token that expired 60 s ago"),
        ({"exp": None}, "Unauthenticated", "got a token without 'exp', expected the time when it expires"),
        ({"exp": "2030"}, "Unauthenticated", "got a token with '2030' for 'exp', expected seconds since 1970"),
        ({"exp": True}, "Unauthenticated", "got a token with True for 'exp', expected seconds since 1970"),
        ({"exp": -1}, "TokenExpired", "got a token that expired 1,893,456,001 s ago"),
        ({"nbf": NOW + 60}, "Unauthenticated", "got a token that is valid in 60 s, and not before ('nbf')"),
        ({"nbf": []}, "Unauthenticated", "got a token with [] for 'nbf', expected seconds since 1970"),
        ({"sub": None}, "Unauthenticated", "got a token with None for 'sub', expected the subject whom it stands for"),
        ({"sub": ""}, "Unauthenticated", "got a token with '' for 'sub', expected the subject whom it stands for"),
        ({"sub": 7}, "Unauthenticated", "got a token with 7 for 'sub', expected the subject whom it stands for"),
    ],
    ids=str,
)
@pytest.mark.parametrize("entry", [oidc, custom])
def test_a_token_with_a_wrong_time_or_subject_is_refused(
    entry: Any, claims: dict[str, Any], code: str, message: str
) -> None:
    assert problem(ES.token(**claims), entry(ES)) == (code, message)


def test_a_token_may_be_good_for_ever() -> None:
    assert check(ES.token(exp=1e308), oidc(ES)).expires_at == float("inf")


# What is no token.


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "nonsense",
        "é.é.é",
        "\ud800.a.b",
        "\x00",
        " ".join("abc"),
        "e30.e30",
        "e30.e30.e30.e30.e30",
        "e30=.e30.AAAA",
        "W10.W10.AAAA",
        "e30.bnVsbA.AAAA",
        "e31.e30.AAAA",  # the same content as e30, in another text
        f"{base64url(b'[' * 4_000)}.e30.AAAA",
        f"{base64url('{}'.encode('utf-16'))}.e30.AAAA",
        "x" * 100_000,
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert problem(text, oidc(ES))[0] == "InvalidAuthHeader"


def test_a_long_token_is_refused() -> None:
    assert check(ES.token(x="x" * 11_000), oidc(ES)).identity == {**ADA, "x": "x" * 11_000}
    code, message = problem(ES.token(x="x" * 13_000), oidc(ES))
    assert (code, message.partition(", ")[2]) == ("InvalidAuthHeader", "expected at most 16,384 (TOKEN_LENGTH_MAX)")


def test_a_token_whose_content_was_changed_is_refused() -> None:
    header, _, signature = ES.token().split(".")
    root = base64url(json.dumps({"iss": ISSUER, "aud": APPLICATION, "sub": "root", "exp": NOW + 3_600}).encode())
    assert problem(f"{header}.{root}.{signature}", oidc(ES)) == (
        "Unauthenticated",
        "got a token whose signature is not the one of its provider (ES256)",
    )


GOOD = {signer.algorithm: signer.token() for signer in (ES, RS, ED)}
ENTRIES = {signer.algorithm: (oidc(signer), custom(signer)) for signer in (ES, RS, ED)}


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, str]:
    """A good token in which something was changed, and its algorithm."""
    algorithm = draw(st.sampled_from(sorted(GOOD)))
    text = GOOD[algorithm]
    for _ in range(draw(st.integers(1, 2))):
        at, to = draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["insert", "replace", "cut", "order", "header", "claims"])):
            case "insert":
                text = text[:at] + draw(some) + text[at:]
            case "replace":
                text = text[:at] + draw(some) + text[at + 1 :]
            case "cut":
                text = text[:at] + text[to:]
            case "order":
                text = ".".join(draw(st.permutations(text.split("."))))
            case "header":
                text = replaced(text, 0, draw(headers))
            case _:
                text = replaced(text, 1, draw(claims))
    return algorithm, text + "A" * (text == GOOD[algorithm])


some = st.text("abcXYZ019-_.=+/ é\n\x00", max_size=4)
numbers = (0, -1, 1.5, 1 << 63, 1 << 70, -(1 << 64), float("nan"), float("inf"), 1e308, NOW + 60)
texts = ("", "x", "é", "\ud800", "\0", str(NOW + 60))
json_values: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, *numbers, *texts, [], ["ES256"], [[]], {}, {"": 1}, {"$a": 1}, {"a": {"b": {"c": [None]}}}]
)
headers = st.fixed_dictionaries(
    {"alg": st.sampled_from(["ES256", "RS256", "EdDSA", "HS256", "none", "Ed25519"]) | json_values},
    optional=dict.fromkeys(("kid", "crit", "b64", "jwk", "typ", "x5c"), json_values) | {"kid": st.just("one")},
)
claims = st.fixed_dictionaries(
    {"iss": st.just(ISSUER), "aud": st.just(APPLICATION), "sub": st.just("root") | json_values, "exp": json_values},
    optional={"nbf": json_values, "x": json_values},
)


def replaced(text: str, part: int, content: object) -> str:
    parts = text.split(".")
    return ".".join([*parts[:part], base64url(json.dumps(content).encode()), *parts[part + 1 :]])


@given(spoiled())
def test_no_token_that_was_changed_counts(changed: tuple[str, str]) -> None:
    algorithm, text = changed
    for entry in ENTRIES[algorithm]:
        with pytest.raises(IdentityError):
            check(text, entry)


@given(headers, claims)
def test_whatever_a_provider_signs_is_an_identity_or_refused(header: Any, content: Any) -> None:
    token = ES.sign({"kid": "one", **header}, content)
    for entry in ENTRIES["ES256"]:
        try:
            identity = check(token, entry).identity
        except IdentityError:
            continue
        assert identity is not None and identity["subject"] == content["sub"]
        assert identity["tokenIdentifier"] == f"{ISSUER}|{content['sub']}"


def test_a_signature_has_one_text_only() -> None:
    """The last character of a signature of 64 bytes has four bits that mean nothing."""
    token = GOOD["ES256"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = [token[:-1] + one for one in alphabet if one != token[-1]]
    assert {problem(other, oidc(ES))[0] for other in others} == {"InvalidAuthHeader", "Unauthenticated"}


def test_the_same_keys_serve_several_providers() -> None:
    two = Signer("ES256", "two")
    entry = custom(ES, jwks=jwks(ES, two))
    assert check(two.token(), entry).identity == check(ES.token(), entry).identity == ADA
