// One question and its answer.

import { post } from "./api.js";
import * as reader from "./reader.js";
import { count, make, nameOf } from "./text.js";

const WHY = {
  timeout: "it took too long",
  unavailable: "it does not answer",
  rate_limited: "it has too much to do",
  refused: "it refused the request",
  garbage: "what it said could not be read",
  broken_off: "it broke off",
  unsupported: "the passages did not support what it said",
  budget: "today's budget is used up",
};

export class Turn {
  constructor(question) {
    this.question = question;
    this.text = "";
    this.finished = false;
    this.heading = make("h2", {}, question);
    this.state = make("p", { className: "wait", role: "status" }, "Searching…");
    this.answer = make("div", { className: "answer", ariaLive: "polite" });
    this.rest = make("div");
    this.element = make("article", { className: "turn" }, this.heading, this.state, this.answer, this.rest);
  }

  // Takes a chunk of the stream.
  take(chunk) {
    const rag = chunk.rag;
    if (rag?.passages) this.state.textContent = `Reading ${count(rag.passages.length, "passage")}…`;
    const choice = chunk.choices[0];
    if (choice?.delta.content) {
      this.text += choice.delta.content;
      this.answer.append(...pieces(choice.delta.content, () => null));
    }
    if (choice?.finish_reason) this.finish(rag);
  }

  finish(rag) {
    this.finished = true;
    const cited = new Map(rag.citations.map((citation) => [citation.number, citation]));
    this.state.replaceChildren();
    this.state.hidden = true;
    if (rag.kind === "not_found") {
      this.answer.classList.add("not-found");
      this.answer.replaceChildren(this.text);
    } else {
      this.answer.replaceChildren(...rag.sentences.flatMap((sentence, at) => [at ? " " : "", told(sentence, cited)]));
    }
    this.rest.replaceChildren(...[...notices(rag), sources(rag), thumbs(rag.answer_id)].filter(Boolean));
  }

  // Says why there is no answer, or no more of it; what has come stays.
  fail(refusal, retry) {
    this.state.hidden = true;
    const broken = this.text ? "The answer broke off here. " : "";
    const said = make("p", { role: "alert" }, broken + words(refusal));
    const button = make("button", { type: "button" }, "Try again");
    button.addEventListener("click", retry);
    this.rest.replaceChildren(make("div", { className: "notice warn" }, said, button));
    if (refusal.retryAfter) countDown(button, refusal.retryAfter);
  }

  stopped() {
    this.state.hidden = true;
    this.rest.replaceChildren(make("p", { className: "notice" }, "Stopped."));
  }
}

function words(refusal) {
  switch (refusal.status) {
    case 403:
      return `No access: ${refusal.message}`;
    case 413:
      return "The question is too long.";
    case 429:
      return "Too many questions in a short time.";
    case 503:
      return `The index cannot be searched at the moment: ${refusal.message}.`;
    default:
      return refusal.message;
  }
}

// Retry-After: the button cannot be pressed before it makes sense.
function countDown(button, seconds) {
  const until = Date.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0 && button.isConnected) setTimeout(tick, 250);
  };
  button.disabled = true;
  button.textContent = `Try again in ${seconds} s`;
  setTimeout(tick, 250);
}

// Splits a text at its markers.
function pieces(text, citationOf) {
  return text.split(/(\[\d+\])/).map((piece) => {
    const number = /^\[(\d+)\]$/.exec(piece)?.[1];
    if (!number) return piece;
    const citation = citationOf(Number(number));
    return citation ? marker(citation) : make("span", { className: "marker" }, number);
  });
}

function marker(citation) {
  const button = make(
    "button",
    { type: "button", className: "marker", ariaLabel: `Source ${citation.number}: ${nameOf(citation)}` },
    String(citation.number),
  );
  button.addEventListener("click", () => reader.open(citation, button));
  return button;
}

function told(sentence, cited) {
  const spoken = pieces(sentence.text, (number) => cited.get(number));
  if (sentence.supported) return make("span", {}, ...spoken);
  const note = make("span", { className: "unsupported-note" }, "not supported by the passages");
  return make("span", { className: "unsupported" }, ...spoken, " ", note);
}

function notices(rag) {
  const found = [];
  if (rag.kind === "extractive") {
    const why = rag.degraded ? ` The language model was not used: ${WHY[rag.degraded] ?? rag.degraded}.` : "";
    found.push(`Quoted from the documents, not written by a language model.${why}`);
  } else if (rag.degraded) {
    found.push(`The language model was not used: ${WHY[rag.degraded] ?? rag.degraded}.`);
  }
  if (rag.index.stale) found.push("The index does not answer at the moment; this rests on an earlier search.");
  if (rag.sentences.some((sentence) => !sentence.supported)) {
    found.push("What is underlined with a wave could not be verified in the cited passages.");
  }
  if (rag.cached) found.push("Answered before from the same version of the documents.");
  return found.length ? [make("p", { className: "notice" }, found.join(" "))] : [];
}

function sources(rag) {
  if (!rag.citations.length) return null;
  const items = rag.citations.map((citation) => {
    const button = make("button", { type: "button", className: "source" });
    const path = [citation.source, ...citation.heading_path, citation.page && `page ${citation.page}`];
    button.append(
      make("span", { className: "marker" }, String(citation.number)),
      make("span", { className: "source-name" }, nameOf(citation)),
      make("span", { className: "path" }, path.filter(Boolean).join(" › ")),
      make("span", { className: "quote" }, citation.quote),
    );
    button.addEventListener("click", () => reader.open(citation, button));
    return make("li", {}, button);
  });
  return make("ol", { className: "sources", ariaLabel: "Sources" }, ...items);
}

function thumbs(answerId) {
  const said = make("span", { role: "status" });
  const buttons = [["up", "Helpful"], ["down", "Not helpful"]].map(([rating, name]) => {
    const button = make("button", { type: "button", className: "quiet", ariaPressed: "false" }, name);
    button.addEventListener("click", () => rate(rating));
    return button;
  });
  const comment = make("input", { type: "text", maxLength: 2000, placeholder: "What was missing or wrong?", ariaLabel: "Comment" });
  const form = make("form", { className: "comment", hidden: true }, comment, make("button", { type: "submit" }, "Send"));
  let rated = null;

  const give = async (body, thanks) => {
    said.textContent = "";
    try {
      await post("/v1/feedback", { answer_id: answerId, ...body });
      said.textContent = thanks;
      return true;
    } catch (refusal) {
      said.textContent = `Not kept: ${refusal.message}`;
      return false;
    }
  };

  async function rate(rating) {
    if (!(await give({ rating }, "Thank you."))) return;
    rated = rating;
    for (const [at, name] of ["up", "down"].entries()) buttons[at].setAttribute("aria-pressed", String(name === rating));
    form.hidden = false;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (comment.value.trim() && (await give({ rating: rated, comment: comment.value.trim() }, "Thank you."))) form.hidden = true;
  });
  return make("div", { className: "thumbs" }, ...buttons, form, said);
}
