"""What messages look like, and that no text of theirs becomes something else."""

import json
from datetime import timedelta
from email import policy
from email.parser import BytesParser

from hypothesis import given
from hypothesis import strategies as st

from rag_core.alerts.formats import email_message, json_payload, slack_payload
from rag_core.alerts.model import Alert, Message, messages_of
from tests.alert_support import NOW, finding

LINK = "http://127.0.0.1:3000/runs/1?a=1&b=<x|y>"


def message(title: str = "a title", body: str = "a body", state: str = "firing") -> Message:
    alert = Alert(
        "failed_run/x", "failed_run", "critical", state, NOW + timedelta(minutes=5), NOW, title, body, LINK  # type: ignore[arg-type]
    )  # fmt: skip
    return messages_of([alert])[0]


def test_json_has_all_that_is_known() -> None:
    payload = json.loads(json.dumps(json_payload(message())))
    assert payload["headline"] == "CRITICAL: a title"
    assert (payload["at"], payload["since"]) == ("2026-11-25T12:05:00+00:00", "2026-11-25T12:00:00+00:00")
    assert payload["keys"] == ["failed_run/x"]
    assert (payload["kind"], payload["severity"], payload["state"]) == ("failed_run", "critical", "firing")
    assert (payload["title"], payload["body"], payload["link"]) == ("a title", "a body", LINK)
    assert payload["message_id"] != json_payload(message(state="resolved"))["message_id"]
    assert payload["thread_id"] == json_payload(message(state="resolved"))["thread_id"]


def test_slack_cannot_be_told_to_mention_or_link() -> None:
    payload = slack_payload(message("<!channel> & <@U1>", "see <https://evil.example|here>"))
    title, body, context = payload["blocks"]
    assert title["text"]["text"] == "*CRITICAL: &lt;!channel&gt; &amp; &lt;@U1&gt;*"
    assert body["text"]["text"] == "see &lt;https://evil.example|here&gt;"
    link = context["elements"][0]["text"]
    assert link.endswith("<http://127.0.0.1:3000/runs/1?a=1&amp;b=%3Cx%7Cy%3E|open>")
    assert "<!" not in payload["text"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=4_000) | st.text("&<>", max_size=4_000))
def test_slack_takes_texts_of_any_length(body: str) -> None:
    payload = slack_payload(message(body, body))
    for block in payload["blocks"]:
        texts = [block["text"]] if "text" in block else block["elements"]
        for text in texts:
            assert 0 < len(text["text"]) <= 3_000
    if len(body) < 500:
        sections = [block["text"]["text"] for block in payload["blocks"] if "text" in block]
        assert not body or any(body == one.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
                               for one in sections)  # fmt: skip


def test_a_title_puts_no_header_into_a_mail() -> None:
    mail = email_message(message("lost\r\nBcc: all@example.org\n\nHi"), "Alerts <a@example.org>", ["b@example.org"])
    read = BytesParser(policy=policy.default).parsebytes(mail.as_bytes())
    assert read["Subject"] == "CRITICAL: lost Bcc: all@example.org Hi"
    assert read["Bcc"] is None
    assert read["Message-ID"].endswith("@example.org>")


def test_mails_about_one_alert_are_a_thread() -> None:
    begun, ended = (
        email_message(message(state=state), "a@b.example", ["c@d.example"]) for state in ("firing", "resolved")
    )
    assert begun["References"] == ended["References"]
    assert begun["Message-ID"] != ended["Message-ID"]
    assert begun["Auto-Submitted"] == "auto-generated"
    assert LINK in begun.get_content()


def test_a_finding_without_a_body_is_a_message() -> None:
    assert len(slack_payload(message(body=""))["blocks"]) == 2
    assert finding().title
