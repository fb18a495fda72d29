// The document beside an answer, with the cited span marked.

import { get } from "./api.js";
import { cut, make, nameOf, when } from "./text.js";

const reader = document.getElementById("reader");
const title = document.getElementById("reader-title");
const about = document.getElementById("reader-about");
const body = document.getElementById("reader-text");

let opener = null;
let turn = 0;

export const isOpen = () => !reader.hidden;

export async function open(citation, from) {
  opener = from;
  const mine = ++turn;
  reader.hidden = false;
  document.body.classList.add("reading");
  title.textContent = nameOf(citation);
  about.textContent = "";
  body.replaceChildren(make("p", { className: "wait" }, "Opening the document…"));
  title.focus();
  try {
    const found = await get(`/v1/documents/${citation.doc_id}`);
    if (mine === turn) show(found, citation);
  } catch (refusal) {
    if (mine === turn) fail(refusal, citation);
  }
}

function show(found, citation) {
  title.textContent = nameOf(found);
  const parts = [found.source, citation.page && `page ${citation.page}`, found.modified_at && when(found.modified_at)];
  about.textContent = [...parts.filter(Boolean), found.uri].join(" · ");
  const [head, marked, tail] = cut(found.text, citation.span);
  if (marked !== citation.quote) {
    // The document has changed since the answer: its old words are shown, and not some others in their place.
    body.replaceChildren(
      make("p", { className: "notice warn" }, "The document has changed since this answer. The passage was:"),
      make("mark", {}, citation.quote),
      make("p", { className: "notice" }, "The document as it is now:"),
      found.text,
    );
    return;
  }
  const mark = make("mark", {}, marked);
  body.replaceChildren(head, mark, tail);
  // Only the text scrolls: the answer stays where it is.
  body.scrollTop = mark.offsetTop - body.clientHeight / 3;
}

function fail(refusal, citation) {
  const gone = refusal.status === 404;
  const said = gone ? "The document is gone, or not yours to see any more. The passage was:" : refusal.message;
  body.replaceChildren(
    make("p", { className: "notice warn", role: "alert" }, said),
    gone ? make("blockquote", {}, citation.quote) : again(citation),
  );
}

function again(citation) {
  const button = make("button", { type: "button" }, "Try again");
  button.addEventListener("click", () => open(citation, opener));
  return button;
}

export function close() {
  turn += 1;
  reader.hidden = true;
  document.body.classList.remove("reading");
  if (opener?.isConnected) opener.focus();
  opener = null;
}

document.getElementById("reader-close").addEventListener("click", close);
