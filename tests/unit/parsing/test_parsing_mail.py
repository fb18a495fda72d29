"""Mails: subject, headers and body; attachments as documents of their own."""

from datetime import UTC, datetime
from email.message import EmailMessage

from tests.unit.parsing.parsing_helpers import parse, parse_one


def a_mail(subject: str | None = "Release plan") -> EmailMessage:
    mail = EmailMessage()
    if subject is not None:
        mail["Subject"] = subject
    mail["From"], mail["To"] = "Ann <ann@example.org>", "Bob <bob@example.org>"
    mail["Date"] = "Fri, 16 Dec 2022 17:04:16 -0500"
    mail["MIME-Version"] = "1.0"
    return mail


def test_subject_headers_and_body() -> None:
    mail = a_mail("Grüße ☸")
    mail.set_content("Violets are blue.\n# not a heading\n")
    document = parse_one(mail.as_bytes(), "x.eml")
    assert document.text == (
        "# Grüße ☸\n\nFrom: Ann <ann@example.org>\nTo: Bob <bob@example.org>\n"
        "Date: Fri, 16 Dec 2022 17:04:16 -0500\n\nViolets are blue.\n\\# not a heading"
    )
    assert (document.title, document.mime) == ("Grüße ☸", "message/rfc822")
    assert document.modified_at == datetime(2022, 12, 16, 22, 4, 16, tzinfo=UTC)


def test_html_wins_where_it_says_the_same_and_plain_text_where_not() -> None:
    mail = a_mail()
    mail.set_content("Heading\nPlain words here")
    mail.add_alternative("<h2>Heading</h2><p>Plain <b>words</b> here", subtype="html")
    text = parse_one(mail.as_bytes(), "x.eml").text
    assert text.endswith("## Heading\n\nPlain words here")
    assert text.count("words") == 1
    other = a_mail()
    other.set_content("The complete message stands only in this version.")
    other.add_alternative("<p>Please open in a browser", subtype="html")
    assert parse_one(other.as_bytes(), "x.eml").text.endswith("The complete message stands only in this version.")


def test_attachments_are_documents_with_unique_members() -> None:
    inner = a_mail("Inner mail")
    inner.set_content("inner body")
    inner.add_attachment(b"deepest", maintype="text", subtype="plain", filename="deep.txt")
    mail = a_mail()
    mail.set_content("See attached.")
    for content in (b"a,b\n1,2\n", b"c,d\n3,4\n"):
        mail.add_attachment(content, maintype="text", subtype="csv", filename="my table.csv")
    mail.add_attachment(b"%PDF-1.4 cut", maintype="application", subtype="pdf", filename="../../x.pdf")
    mail.add_attachment(inner)
    documents = parse(mail.as_bytes(), "mail.eml")
    assert [(d.member, d.status) for d in documents] == [
        ("", "ok"),
        ("my table.csv", "ok"),
        ("my table-2.csv", "ok"),
        (".._.._x.pdf", "rejected"),
        ("attachment-5.eml", "ok"),
        ("attachment-5.eml/deep.txt", "ok"),
    ]
    assert documents[1].uri == "file:///docs/mail.eml#my%20table.csv"
    assert documents[5].uri == "file:///docs/mail.eml#attachment-5.eml/deep.txt"
    assert documents[1].modified_at == documents[0].modified_at
    assert documents[4].title == "Inner mail"
    limited = parse(mail.as_bytes(), "mail.eml", archive={"max_depth": 1})
    assert (limited[5].status, "nested more than 1 deep" in (limited[5].reason or "")) == ("rejected", True)


def test_an_encrypted_body_is_not_indexed() -> None:
    mail = a_mail()
    mail.set_content("-----BEGIN PGP MESSAGE-----\n\nhQEMA1x\n=abcd\n-----END PGP MESSAGE-----\n")
    document = parse_one(mail.as_bytes(), "x.eml")
    assert (document.status, document.text) == ("empty", "")
    assert "encrypted" in (document.reason or "")


def test_a_subject_alone_counts_as_text_and_nothing_at_all_is_empty() -> None:
    assert parse_one(a_mail("Only this").as_bytes() + b"\n", "x.eml").text.startswith("# Only this")
    assert parse_one(a_mail(None).as_bytes() + b"\n", "x.eml").status == "empty"


def test_broken_headers_do_no_harm() -> None:
    headers = b"From: =?utf-8?b?/////?= <\nTo: @@\nSubject: =?x-unknown?q?a=FFb?=\nDate: yesterday\nMIME-Version: 1.0\n"
    raw = headers + b"\nbody\n"
    document = parse_one(raw, "x.eml")
    assert document.status == "ok"
    assert document.text.endswith("body")
    assert document.modified_at is None
