"""API keys: only they open anything; lists are checked in whole; a running service follows its file."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

from rag_assets.cli.app import app
from rag_core.access_key_file import append_key, entry_yaml, read_key_file
from rag_core.access_keys import KeyEntry, KeyRing, hash_of, new_key, parse_keys
from rag_core.config_serving import AccessConfig
from rag_core.errors import ConfigError
from serving.access.keys import ApiKeys
from serving.errors import ApiError

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def entry_of(key: str, name: str = "bot", **more: object) -> KeyEntry:
    return KeyEntry.model_validate({"id": name, "hash": hash_of(key), "principals": ["group:eng"], **more})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- keys and rings


def test_a_key_is_256_random_bits_and_only_its_hash_is_kept() -> None:
    first, second = new_key(), new_key()
    assert first != second
    assert first.startswith("rag_")
    assert len(first) == len("rag_") + 43
    assert hash_of(first) == hashlib.sha256(first.encode()).hexdigest()


KEYS = [new_key() for _ in range(4)]
RING = KeyRing(tuple(entry_of(key, f"bot-{number}") for number, key in enumerate(KEYS)))


NEAR = [guess for key in KEYS for guess in (key[:-1], key + "A", key[4:], key.upper(), f" {key}", hash_of(key))]


@given(st.text() | st.sampled_from(NEAR))
def test_nothing_but_a_key_is_found(guess: str) -> None:
    assert guess not in KEYS
    assert RING.find(guess, NOW) is None


@given(st.sampled_from(range(len(KEYS))), st.integers(0, 42), st.characters(codec="ascii"))
def test_a_key_with_one_other_character_is_not_found(number: int, at: int, other: str) -> None:
    key = KEYS[number]
    place = len("rag_") + at
    mutated = key[:place] + other + key[place + 1 :]
    found = RING.find(mutated, NOW)
    assert (found is not None) == (mutated == key)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(-3, 3)), max_size=6))
def test_each_key_of_a_rotated_id_opens_until_it_expires(made: list[tuple[str, int]]) -> None:
    keys = [new_key() for _ in made]
    ring = KeyRing(
        tuple(
            entry_of(key, name, expires_at=NOW + timedelta(days=days))
            for key, (name, days) in zip(keys, made, strict=True)
        )
    )
    for key, (name, days) in zip(keys, made, strict=True):
        found = ring.find(key, NOW)
        assert (found.id if found else None) == (name if days > 0 else None)


# --- the list


def test_all_problems_are_named_and_no_value_is_said_back() -> None:
    secret = new_key()
    text = f"- {{id: a, hash: {secret}, principals: []}}\n- {{id: b c, principals: x, until: 1}}\n- 3\n"
    with pytest.raises(ConfigError) as caught:
        parse_keys(text, where="keys.yaml")
    said = str(caught.value)
    assert secret not in said
    for expected in (
        "keys.yaml",
        "entry 1 (a): hash: expected the SHA-256",
        "entry 2 (b c): id: expected",
        "entry 2 (b c): hash: missing",
        "entry 2 (b c): principals: expected a list",
        "entry 2 (b c): until: unknown key",
        "entry 3: expected keys and values",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a list of keys"),
        ("a: b", "expected a list of keys"),
        ("- {id: [", "not valid YAML"),
        ("- id: a\n  id: b\n", "key id is there twice"),
        (f"- {{id: a, hash: {'a' * 64}, principals: [], expires_at: 2027-01-01}}", "a time with its zone"),
        (f"- {{id: a, hash: {'a' * 64}, principals: [], expires_at: 2027-13-01}}", "2027-01-01T00:00:00Z"),
        (f"- {{id: a, hash: {'a' * 64}, principals: ['']}}", "principals: expected"),
        (f"- &x {{id: a, hash: {'a' * 64}, principals: []}}\n- *x", "the same key as entry 1"),
        ("- !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_broken_list_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys(text, where="f")
    assert expected in str(caught.value)


@settings(max_examples=30)
@given(
    st.builds(
        KeyEntry,
        id=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
        hash=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        principals=st.lists(st.from_regex(r"[^\s\x00-\x1f\x7f-\x9f]{1,20}", fullmatch=True)).map(tuple),
        expires_at=st.none() | st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive
        note=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    )
)
def test_what_is_written_is_read_as_it_was(entry: KeyEntry) -> None:
    assert parse_keys(entry_yaml(entry), where="f") == (entry,)


def test_a_file_is_added_to_and_keeps_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("# our keys\n[]\n")
    append_key(path, entry_of("one", "a"))
    append_key(path, entry_of("two", "b"))
    assert [entry.id for entry in read_key_file(path)] == ["a", "b"]
    assert path.read_text().startswith("# our keys\n- id: a")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_added_to_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    for text in (f"[{{id: a, hash: {hash_of('one')}, principals: []}}]\n", "who: knows\n"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            append_key(path, entry_of("two", "b"))
        assert path.read_text() == text


def test_writers_at_once_all_get_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_key(path, entry_of(str(number), f"k{number}")), range(24)))
    assert sorted(entry.id for entry in read_key_file(path)) == sorted(f"k{number}" for number in range(24))


# --- the command


def test_a_key_that_the_command_makes_opens_the_service(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    command = ["keys", "new", "--id", "ci-bot", "--principal", "group:eng", "--expires-days", "3", "--file", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    key = result.stdout.strip()
    (entry,) = read_key_file(path)
    found = KeyRing((entry,)).find(key, datetime.now(UTC))
    assert found == entry
    assert entry.principals == ("group:eng",)
    assert key not in path.read_text()
    listed = CliRunner().invoke(app, ["keys", "check", "--file", str(path), "--json"])
    assert '"id":"ci-bot"' in listed.stdout
    assert '"state":"valid"' in listed.stdout


def test_the_command_says_what_an_id_looks_like() -> None:
    result = CliRunner().invoke(app, ["keys", "new", "--id", "a b"])
    assert isinstance(result.exception, ConfigError)
    assert "--id: expected 1 to 64 letters" in str(result.exception)


# --- the running service


def write(path: Path, *entries: KeyEntry) -> None:
    path.write_text("".join(entry_yaml(entry) for entry in entries) or "[]\n")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))  # clocks of file systems are coarse


async def opens(keys: ApiKeys, key: str) -> bool:
    try:
        await keys.authenticate(key)
    except ApiError as error:
        assert (error.status, error.message) == (401, "unknown or expired API key")
        assert error.headers["WWW-Authenticate"].startswith("Bearer")
        return False
    return True


@pytest.mark.anyio
async def test_the_caller_has_the_principals_of_the_key(tmp_path: Path) -> None:
    write(tmp_path / "keys.yaml", entry_of("one", "ci", principals=["group:eng", "user:ci"]))
    caller = await ApiKeys(AccessConfig(keys_file=tmp_path / "keys.yaml")).authenticate("one")
    assert (caller.id, caller.principals, caller.sees_all) == ("key:ci", {"group:eng", "user:ci"}, False)


@pytest.mark.anyio
async def test_a_changed_file_holds_within_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.yaml", Clock()
    write(path, entry_of("one"))
    keys = ApiKeys(AccessConfig(keys_file=path), clock=clock)
    write(path, entry_of("one"), entry_of("two"))
    assert not await opens(keys, "two")  # not looked at again yet
    clock.now += 1
    assert await opens(keys, "two")
    assert await opens(keys, "one")
    write(path, entry_of("two"))
    clock.now += 1
    assert not await opens(keys, "one")


@pytest.mark.anyio
@pytest.mark.parametrize("breaks", ["", "- {id: a}", None])
async def test_a_broken_file_keeps_the_keys_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, breaks: str | None
) -> None:
    path, clock = tmp_path / "keys.yaml", Clock()
    write(path, entry_of("one"))
    keys = ApiKeys(AccessConfig(keys_file=path), clock=clock)
    path.unlink() if breaks is None else path.write_text(breaks)
    for _ in range(3):
        clock.now += 1
        assert await opens(keys, "one")
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert str(path) in errors[0].getMessage()
    write(path, entry_of("two"))
    clock.now += 1
    assert await opens(keys, "two")
    assert not await opens(keys, "one")


@pytest.mark.anyio
async def test_keys_of_the_variable_hold_beside_those_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "keys.yaml", entry_of("one"))
    config = AccessConfig(keys_file=tmp_path / "keys.yaml", keys=SecretStr(entry_yaml(entry_of("two"))))
    keys = ApiKeys(config)
    assert await opens(keys, "one")
    assert await opens(keys, "two")


def test_a_service_does_not_start_with_broken_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ApiKeys(AccessConfig(keys_file=tmp_path / "keys.yaml"))
    with pytest.raises(ConfigError, match="RAG_SERVING__ACCESS__KEYS"):
        ApiKeys(AccessConfig(keys=SecretStr("nonsense")))
