"""Tokens: whatever is not exactly what the provider signed for this service is refused; its absence is survived."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.config_serving import OidcConfig
from serving.access.signing_keys import SigningKeys
from serving.access.tokens import Tokens
from serving.caller import Caller
from serving.errors import ApiError
from tests.unit.serving.access_helpers import AUDIENCE, EC_KEY, OTHER_RSA_KEY, RSA_KEY, Provider, claims, jwk, token

ISSUER = "https://id.example.com"
NOW = 1_700_000_000


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class World:
    """A provider, a clock, and tokens judged by them."""

    def __init__(self, **settings: Any) -> None:
        self.provider = Provider(ISSUER)
        self.now = 1_000.0
        self.held: asyncio.Event | None = None
        config = OidcConfig(issuer=ISSUER, audience=AUDIENCE, **settings)
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.keys = SigningKeys(config, clock=lambda: self.now, client=client)
        self.tokens = Tokens(config, self.keys)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.held is not None:
            await self.held.wait()
        status, body = self.provider.answer(request.url.path)
        return httpx.Response(status, content=body)

    async def judge(self, text: str) -> Caller | ApiError:
        try:
            return await self.tokens.authenticate(text)
        except ApiError as error:
            return error


def judged(text: str, **settings: Any) -> Caller | ApiError:
    return asyncio.run(World(**settings).judge(text))


def refusal(text: str, **settings: Any) -> str:
    error = judged(text, **settings)
    assert isinstance(error, ApiError), error
    assert error.status == 401
    assert error.headers["WWW-Authenticate"].startswith("Bearer")
    return error.message


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


# --- who is let in


def test_the_caller_has_user_and_groups_as_principals() -> None:
    caller = judged(token(claims(ISSUER)), group_prefix="group:")
    assert caller == Caller(f"user:7f3a@{ISSUER}", frozenset({"user:7f3a", "group:eng", "group:sales"}))
    assert isinstance(judged(token(claims(ISSUER), key=EC_KEY, key_id="ec-1", algorithm="ES256")), Caller)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("a b", {"a", "b"}),
        ("a, b,c", {"a", "b", "c"}),
        ([], set()),
        (None, set()),
        ("", set()),
        (["a b", " "], {"a b"}),
    ],
)
def test_groups_are_a_list_or_text(groups: Any, expected: set[str]) -> None:
    caller = judged(token(claims(ISSUER, groups=groups)))
    assert isinstance(caller, Caller)
    assert caller.principals == {"user:7f3a", *expected}


def test_a_group_cannot_pass_for_a_user() -> None:
    caller = judged(token(claims(ISSUER, groups=["user:ceo", "eng"])))
    assert isinstance(caller, Caller)
    assert caller.principals == {"user:7f3a", "eng"}


def test_the_user_is_read_from_the_configured_claim() -> None:
    caller = judged(token(claims(ISSUER, email="ann@example.com")), user_claim="email")
    assert isinstance(caller, Caller)
    assert caller.id == f"user:ann@example.com@{ISSUER}"
    assert "claim is missing" in refusal(token(claims(ISSUER)), user_claim="email")


# --- who is not


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": NOW}, "token refused: expired"),
        ({"nbf": 4_000_000_000}, "token refused: not valid yet"),
        ({"iat": 4_000_000_000}, "token refused: not valid yet"),
        ({"aud": "other"}, "token refused: it is for another audience"),
        ({"aud": ["other", "others"]}, "token refused: it is for another audience"),
        ({"iss": ISSUER + "/"}, "token refused: it is of another issuer"),
        ({"exp": None}, "token refused: a required claim is missing"),
        ({"aud": None}, "token refused: a required claim is missing"),
        ({"iss": None}, "token refused: a required claim is missing"),
        ({"sub": None}, "token refused: a required claim is missing"),
        ({"exp": "soon"}, "token refused: not valid"),
        ({"exp": 1e400}, "token refused: not valid"),
        ({"sub": 3}, "token refused: not valid"),
        ({"sub": " "}, "token refused: claim sub does not name a user"),
        ({"sub": "x" * 256}, "token refused: claim sub does not name a user"),
        ({"groups": {"eng": True}}, "token refused: claim groups is not a list of names"),
        ({"groups": ["eng", 3]}, "token refused: claim groups is not a list of names"),
    ],
)
def test_claims_that_do_not_hold_are_refused(changes: dict[str, Any], expected: str) -> None:
    assert refusal(token(claims(ISSUER, **changes))) == expected


def test_an_audience_among_others_is_enough() -> None:
    assert isinstance(judged(token(claims(ISSUER, aud=["other", AUDIENCE]))), Caller)


def test_unsigned_and_wrongly_signed_tokens_are_refused() -> None:
    payload = claims(ISSUER)
    public = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signer = jwt.get_algorithm_by_name("HS256")
    forged = f"{part({'alg': 'HS256', 'kid': 'rsa-1'})}.{part(payload)}"
    with_public_key = base64.urlsafe_b64encode(signer.sign(forged.encode(), public)).rstrip(b"=").decode()
    embedded = {"alg": "RS256", "kid": "mine", "jwk": jwk("mine", OTHER_RSA_KEY), "jku": "https://evil.example/jwks"}
    for text in (
        f"{part({'alg': 'none', 'kid': 'rsa-1'})}.{part(payload)}.",
        f"{part({'alg': 'None', 'kid': 'rsa-1'})}.{part(payload)}.",
        f"{part({'alg': 'RS256', 'kid': 'rsa-1'})}.{part(payload)}.",
        f"{part({'kid': 'rsa-1'})}.{part(payload)}.",
        f"{part({'alg': ['RS256'], 'kid': 'rsa-1'})}.{part(payload)}.",
        f"{forged}.{with_public_key}",
        jwt.encode(payload, OTHER_RSA_KEY, "RS256", headers=embedded),
        token(payload, key=OTHER_RSA_KEY),  # another's key under the provider's key ID
        token(payload, key=EC_KEY, key_id="rsa-1", algorithm="ES256"),  # a key of another kind
        token(payload, key_id="ec-1"),
        token(payload, key_id=None),
        token(payload, algorithm="RS512"),  # not among the configured ones
        token(payload, algorithm="PS256"),
        jwt.encode(payload, RSA_KEY, "RS256", headers={"kid": "rsa-1", "crit": ["x"], "x": 1}),
    ):
        assert refusal(text) == "token refused: not valid"


def test_a_key_that_is_published_for_one_algorithm_is_used_with_no_other() -> None:
    async def both() -> tuple[Caller | ApiError, Caller | ApiError]:
        world = World(algorithms=("RS256", "RS512"))
        world.provider.keys = [jwk("rsa-1", RSA_KEY, alg="RS256")]
        return await world.judge(token(claims(ISSUER))), await world.judge(token(claims(ISSUER), algorithm="RS512"))

    right, wrong = asyncio.run(both())
    assert isinstance(right, Caller)
    assert isinstance(wrong, ApiError)


def test_shared_secrets_and_keys_for_encryption_are_no_signing_keys() -> None:
    world = World()
    secret = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(b"k" * 32).decode()}
    world.provider.keys = [secret, {**jwk("e", RSA_KEY), "use": "enc"}, {"kty": "new"}, jwk("rsa-1", RSA_KEY)]
    outcome = asyncio.run(world.judge(token(claims(ISSUER), key_id="e")))
    assert isinstance(outcome, ApiError)
    assert outcome.status == 401


VALID = token(claims(ISSUER, exp=4_000_000_000))


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.integers(0, len(VALID) - 1),
    st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=\n é"),
    st.sampled_from(["replace", "insert", "drop"]),
)
def test_a_token_with_one_other_character_is_refused(at: int, other: str, how: str) -> None:
    changed = VALID[:at] + ("" if how == "drop" else other) + VALID[at + (how != "insert") :]
    outcome = judged(changed)
    if changed == VALID:
        assert isinstance(outcome, Caller)
    else:
        assert isinstance(outcome, ApiError)
        assert outcome.status == 401


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "groups", "admin"]), st.integers() | st.text()))
def test_other_claims_under_the_same_signature_are_refused(changes: dict[str, Any]) -> None:
    header, _, signature = VALID.split(".")
    payload = {**jwt.decode(VALID, options={"verify_signature": False}), **changes, "jti": "new"}
    assert refusal(f"{header}.{part(payload)}.{signature}") == "token refused: not valid"


@pytest.mark.slow
@given(st.text(max_size=200) | st.lists(st.text(max_size=40), min_size=3, max_size=3).map(".".join))
def test_nonsense_is_refused(text: str) -> None:
    assert refusal(text) == "token refused: not valid"


# --- the provider


@pytest.mark.anyio
async def test_guessed_key_ids_fetch_the_keys_at_most_each_30_seconds() -> None:
    world = World()
    assert isinstance(await world.judge(token(claims(ISSUER))), Caller)
    asked = len(world.provider.asked)
    for number in range(20):
        error = await world.judge(token(claims(ISSUER), key_id=f"guess-{number}"))
        assert isinstance(error, ApiError)
        assert error.status == 401
    assert len(world.provider.asked) == asked
    world.now += 31
    await asyncio.gather(*(world.judge(token(claims(ISSUER), key_id=f"guess-{number}")) for number in range(20)))
    assert len(world.provider.asked) == asked + 2  # discovery and keys, once for all


@pytest.mark.anyio
async def test_a_new_key_of_the_provider_is_taken_up() -> None:
    world = World()
    assert isinstance(await world.judge(token(claims(ISSUER))), Caller)
    world.provider.keys = [jwk("rsa-2", OTHER_RSA_KEY)]
    world.now += 31
    assert isinstance(await world.judge(token(claims(ISSUER), key=OTHER_RSA_KEY, key_id="rsa-2")), Caller)
    assert isinstance(await world.judge(token(claims(ISSUER))), ApiError)  # withdrawn


@pytest.mark.anyio
async def test_a_provider_that_is_gone_is_said_so_and_found_again() -> None:
    world = World()
    world.provider.is_up = False
    outcomes = [await world.judge(token(claims(ISSUER))) for _ in range(5)]
    for error in outcomes:
        assert isinstance(error, ApiError)
        assert (error.status, error.code) == (503, "identity_provider_unavailable")
        assert 1 <= int(error.all_headers()["Retry-After"]) <= 6
    assert len(world.provider.asked) == 1  # not once for each request
    world.provider.is_up = True
    world.now += 6
    assert isinstance(await world.judge(token(claims(ISSUER))), Caller)


@pytest.mark.anyio
async def test_keys_that_are_known_work_while_the_provider_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    assert isinstance(await world.judge(token(claims(ISSUER))), Caller)
    world.provider.is_up = False
    for _ in range(5):
        world.now += 2_000
        assert isinstance(await world.judge(token(claims(ISSUER))), Caller)
        while world.keys._fetching is not None:
            await asyncio.sleep(0)  # the renewal beside the request ends
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


@pytest.mark.anyio
async def test_a_renewal_does_not_hold_up_requests_until_keys_are_old() -> None:
    world = World()
    assert isinstance(await world.judge(token(claims(ISSUER))), Caller)
    world.held = asyncio.Event()
    world.now += 301
    assert isinstance(await world.judge(token(claims(ISSUER))), Caller)  # while the provider does not answer
    world.provider.keys = [jwk("rsa-2", OTHER_RSA_KEY)]
    world.now += 3_600
    waiting = asyncio.create_task(world.judge(token(claims(ISSUER))))
    await asyncio.sleep(0)
    assert not waiting.done()
    world.held.set()
    assert isinstance(await waiting, ApiError)  # the key was withdrawn meanwhile
    await world.keys.close()


def _no_issuer(provider: Provider) -> None:
    provider.discovery["issuer"] = "https://evil.example"


def _file_address(provider: Provider) -> None:
    provider.discovery["jwks_uri"] = "file:///etc/passwd"


def _no_keys(provider: Provider) -> None:
    provider.keys = []


@pytest.mark.anyio
@pytest.mark.parametrize("spoil", [_no_issuer, _file_address, _no_keys])
async def test_an_answer_that_makes_no_sense_counts_as_none(spoil: Callable[[Provider], None]) -> None:
    world = World()
    spoil(world.provider)
    error = await world.judge(token(claims(ISSUER)))
    assert isinstance(error, ApiError)
    assert error.status == 503


@pytest.mark.anyio
async def test_a_configured_address_of_keys_needs_no_discovery() -> None:
    world = World(jwks_url=f"{ISSUER}/jwks")
    assert isinstance(await world.judge(token(claims(ISSUER))), Caller)
    assert world.provider.asked == ["/jwks"]
