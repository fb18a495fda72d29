"""A channel's day: authors, times, threads, mentions."""

import json
from datetime import UTC, datetime

from tests.unit.parsing.parsing_helpers import parse_one


def ts(hour: int, minute: int = 0, day: int = 13) -> str:
    return f"{datetime(2023, 4, day, hour, minute, tzinfo=UTC).timestamp():.6f}"


def a_day(messages: list[dict[str, object]]) -> str:
    return json.dumps(
        {
            "channel": {"id": "C1", "name": "general"},
            "users": {"U1": "Ann", "U2": "Bob"},
            "date": "2023-04-13",
            "messages": messages,
        }
    )


def test_threads_authors_and_mentions() -> None:
    messages: list[dict[str, object]] = [
        {"user": "U1", "ts": ts(9), "thread_ts": ts(9), "text": "Ship <https://x.org/a|the plan> today, <@U2>? &lt;3"},
        {"user": "U9", "user_profile": {"real_name": "Eve"}, "ts": ts(9, 30), "text": "<!here> lunch in <#C2|food>"},
        {"user": "U2", "ts": ts(10), "thread_ts": ts(9), "text": "Yes.\nAt noon."},
        {"subtype": "channel_join", "user": "U2", "ts": ts(8), "text": "<@U2> has joined"},
        {
            "subtype": "bot_message",
            "username": "ci",
            "ts": ts(11),
            "text": "",
            "attachments": [{"title": "Build", "text": "ok"}],
        },
    ]
    document = parse_one(a_day(messages), "general/2023-04-13", format_="slack_day")
    assert document.text == (
        "# #general, 2023-04-13\n\n"
        "- **Ann** 09:00: Ship the plan (https://x.org/a) today, @Bob? <3\n"
        "  - **Bob** 10:00: Yes.\n    At noon.\n\n"
        "- **Eve** 09:30: @here lunch in #food\n\n"
        "- **ci** 11:00: Build\n  ok"
    )
    assert document.title == "#general, 2023-04-13"
    assert document.modified_at == datetime(2023, 4, 13, 11, tzinfo=UTC)


def test_replies_to_another_days_message_stay_together() -> None:
    messages: list[dict[str, object]] = [
        {"user": "U1", "ts": ts(9), "thread_ts": ts(9, day=12), "text": "late answer"},
        {"user": "U2", "ts": ts(10), "text": "unrelated"},
        {"user": "U2", "ts": ts(11), "thread_ts": ts(9, day=12), "text": "later answer"},
    ]
    text = parse_one(a_day(messages), "general/2023-04-13", format_="slack_day").text
    assert text.index("late answer") < text.index("later answer") < text.index("unrelated")


def test_a_day_without_words_is_empty_and_a_damaged_one_is_rejected() -> None:
    joined: dict[str, object] = {"subtype": "channel_join", "user": "U1", "ts": ts(8), "text": "joined"}
    assert parse_one(a_day([joined]), "general/x", format_="slack_day").status == "empty"
    assert parse_one('{"channel": {}}', "general/x", format_="slack_day").status == "rejected"
