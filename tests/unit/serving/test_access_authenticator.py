"""The header decides: key, token, or nobody; open is a service on loopback only."""

from pathlib import Path

import pytest

from rag_core.access_key_file import append_key
from rag_core.access_keys import KeyEntry, hash_of, new_key
from rag_core.config_serving import AccessConfig, OidcConfig
from rag_core.errors import ConfigError
from serving.access.authenticator import Authenticator
from serving.caller import LOCAL
from serving.errors import ApiError
from serving.observability.metrics import Metrics
from tests.unit.serving.access_helpers import AUDIENCE, claims, running_provider, token

KEY = new_key()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    append_key(tmp_path / "keys.yaml", KeyEntry(id="ci", hash=hash_of(KEY), principals=("eng",)))
    return tmp_path / "keys.yaml"


def rejected(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("http_requests_rejected_total", {"reason": "auth"}) or 0.0


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
async def test_without_keys_loopback_is_open(host: str) -> None:
    authenticator = Authenticator(AccessConfig(), host, Metrics())
    assert authenticator.is_open
    assert await authenticator.authenticate(None) is LOCAL
    assert await authenticator.authenticate("Bearer whatever") is LOCAL


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "rag.example.com", "localhost.example.com"])
def test_without_keys_nothing_else_is(host: str) -> None:
    with pytest.raises(ConfigError, match=r"serving\.access\.keys_file.*oidc\.issuer.*127\.0\.0\.1"):
        Authenticator(AccessConfig(), host, Metrics())


@pytest.mark.anyio
async def test_an_empty_list_of_keys_lets_nobody_in() -> None:
    authenticator = Authenticator(AccessConfig.model_validate({"keys": "[]"}), "127.0.0.1", Metrics())
    assert not authenticator.is_open
    with pytest.raises(ApiError) as caught:
        await authenticator.authenticate(None)
    assert caught.value.status == 401


@pytest.mark.anyio
@pytest.mark.parametrize("form", [None, "", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {0} {0}", "Bearer{}"])
async def test_a_header_without_a_key_is_refused(keys_file: Path, form: str | None) -> None:
    metrics = Metrics()
    header = None if form is None else form.format(KEY)
    with pytest.raises(ApiError) as caught:
        await Authenticator(AccessConfig(keys_file=keys_file), "0.0.0.0", metrics).authenticate(header)
    assert (caught.value.status, caught.value.headers) == (401, {"WWW-Authenticate": "Bearer"})
    assert KEY not in str(caught.value)
    assert rejected(metrics) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
async def test_a_key_opens(keys_file: Path, form: str) -> None:
    metrics = Metrics()
    authenticator = Authenticator(AccessConfig(keys_file=keys_file), "0.0.0.0", metrics)
    caller = await authenticator.authenticate(form.format(KEY))
    assert caller.id == "key:ci"
    assert rejected(metrics) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("credentials", ["x" * 8_193, "a." * 4_100 + "b", "a.b.c", "wrong"])
async def test_without_a_provider_everything_is_taken_for_a_key(keys_file: Path, credentials: str) -> None:
    with pytest.raises(ApiError) as caught:
        await Authenticator(AccessConfig(keys_file=keys_file), "0.0.0.0", Metrics()).authenticate(
            f"Bearer {credentials}"
        )
    assert caught.value.status == 401
    assert credentials not in str(caught.value)


@pytest.mark.anyio
async def test_keys_and_tokens_open_the_same_service(keys_file: Path) -> None:
    with running_provider() as provider:
        oidc = OidcConfig(issuer=provider.issuer, audience=AUDIENCE)
        authenticator = Authenticator(AccessConfig(keys_file=keys_file, oidc=oidc), "0.0.0.0", Metrics())
        by_key = await authenticator.authenticate(f"Bearer {KEY}")
        assert provider.asked == []  # a key is no token, and no business of the provider
        by_token = await authenticator.authenticate(f"Bearer {token(claims(provider.issuer))}")
        await authenticator.close()
    assert by_key.id == "key:ci"
    assert by_token.id == f"user:7f3a@{provider.issuer}"
    assert by_token.principals == {"user:7f3a", "eng", "sales"}


@pytest.mark.anyio
async def test_a_provider_that_cannot_be_reached_is_no_refusal() -> None:
    with running_provider() as provider:
        pass  # its port is closed now
    metrics = Metrics()
    oidc = OidcConfig(issuer=provider.issuer, audience=AUDIENCE)
    authenticator = Authenticator(AccessConfig(oidc=oidc), "0.0.0.0", metrics)
    with pytest.raises(ApiError) as caught:
        await authenticator.authenticate(f"Bearer {token(claims(provider.issuer))}")
    await authenticator.close()
    assert caught.value.status == 503
    assert rejected(metrics) == 0
