// The page: what is asked, one question at a time, and the address that says it.

import { Turn } from "./answer.js";
import { chat, key } from "./api.js";
import * as filters from "./filters.js";
import * as reader from "./reader.js";
import * as standing from "./standing.js";

const REMEMBERED = 6; // turns of the conversation that go with a question

const question = document.getElementById("question");
const sendButton = document.getElementById("send");
const stopButton = document.getElementById("stop");
const thread = document.getElementById("thread");
const empty = document.getElementById("empty");
const keyForm = document.getElementById("key-form");
const keyInput = document.getElementById("key");
const keyProblem = document.getElementById("key-problem");
const forgetButton = document.getElementById("forget");

const turns = [];
let running = null;
let afterKey = null; // what to do again once there is a key

async function ask(text) {
  running?.abort();
  const controller = (running = new AbortController());
  const history = turns.filter((turn) => turn.finished).slice(-REMEMBERED);
  const messages = history.flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.text },
  ]);
  messages.push({ role: "user", content: text });
  const turn = new Turn(text);
  turns.push(turn);
  thread.append(turn.element);
  empty.hidden = true;
  busy(true);
  turn.element.scrollIntoView({ block: "start" });
  try {
    for await (const chunk of chat(messages, filters.request(), controller.signal)) turn.take(chunk);
  } catch (error) {
    if (error.name === "AbortError") turn.stopped();
    else if (error.status === 401) needKey(error, () => again(turn));
    else if (error.status !== undefined) turn.fail(error, () => again(turn));
    else throw error;
    if (error.status === 401) remove(turn);
  } finally {
    if (running === controller) {
      running = null;
      busy(false);
    }
  }
}

function again(turn) {
  remove(turn);
  ask(turn.question);
}

function remove(turn) {
  turn.element.remove();
  if (turns.includes(turn)) turns.splice(turns.indexOf(turn), 1);
  empty.hidden = turns.length > 0;
}

function busy(isBusy) {
  stopButton.hidden = !isBusy;
  sendButton.hidden = isBusy;
  thread.setAttribute("aria-busy", String(isBusy));
}

function submit() {
  const text = question.value.trim();
  if (!text) return;
  history.pushState(null, "", `?${filters.parameters(text)}`);
  question.value = "";
  grow();
  ask(text);
}

function needKey(refusal, next) {
  afterKey = next;
  keyForm.hidden = false;
  keyProblem.textContent = key.get() ? refusal.message : "";
  keyInput.focus();
}

keyForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!keyInput.value.trim()) return;
  key.set(keyInput.value.trim());
  const refusal = await standing.look();
  if (refusal?.status === 401) {
    needKey(refusal, afterKey);
    return;
  }
  keyInput.value = "";
  keyForm.hidden = true;
  forgetButton.hidden = false;
  question.focus();
  afterKey?.();
  afterKey = null;
});

forgetButton.addEventListener("click", () => {
  key.forget();
  location.assign("/"); // nothing that was read with the key stays on the page
});

document.getElementById("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
stopButton.addEventListener("click", () => running?.abort());

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});

function grow() {
  question.rows = Math.min(8, question.value.split("\n").length);
}
question.addEventListener("input", grow);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (running) running.abort();
    else if (reader.isOpen()) reader.close();
  } else if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    question.focus();
  }
});

// The address says what is asked: a link asks it again, and so do back and forward.
function fromAddress() {
  const parameters = new URLSearchParams(location.search);
  filters.restore(parameters);
  const asked = parameters.get("q")?.trim();
  if (!asked) return;
  const known = turns.findLast((turn) => turn.question === asked);
  if (known) known.element.scrollIntoView({ block: "start" });
  else ask(asked);
}

window.addEventListener("popstate", fromAddress);
forgetButton.hidden = !key.get();
question.focus();
standing.watch();
const refusal = await standing.look();
if (refusal?.status === 401) needKey(refusal, fromAddress);
else fromAddress();
