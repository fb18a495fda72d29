// What is served, and how fresh it is: above and below the page, looked up again while somebody looks.

import { get } from "./api.js";
import * as filters from "./filters.js";
import { age, count, make, when } from "./text.js";

const EVERY_MS = 30_000;
const STATES = {
  ok: "fresh",
  slow_burn: "falling behind",
  fast_burn: "falling behind fast",
  exhausted: "late too often this month",
  hard_limit: "too old",
  unknown: "not measured yet",
};
const WORST = ["hard_limit", "exhausted", "fast_burn", "slow_burn"];

const standing = document.getElementById("standing");
const text = document.getElementById("standing-text");
const index = document.getElementById("index");
const freshness = document.getElementById("freshness");
const problem = document.getElementById("problem");

export async function look() {
  try {
    show(await get("/v1/index"));
  } catch (refusal) {
    say("bad", refusal.status === 401 ? "key needed" : "not ready");
    if (refusal.status !== 401) warn(refusal.message);
    return refusal;
  }
  return null;
}

function show(found) {
  filters.offer(found.sources.map((source) => source.name));
  const worst = WORST.find((state) => found.sources.some((source) => source.state === state));
  say(worst ? "late" : "good", worst ? `index ${STATES[worst]}` : "index up to date");
  warn(found.problem ? `${found.problem[0].toUpperCase()}${found.problem.slice(1)}; answers may be older than usual.` : "");
  const recall = found.recall_at_10 === null ? null : `recall@10 ${found.recall_at_10.toFixed(3)}`;
  const parts = [
    count(found.documents, "document"),
    count(found.chunks, "passage"),
    recall,
    `version ${found.version.slice(0, 8)}`,
    `published ${when(found.published_at)}`,
    found.llm ? null : "no language model: answers are quotations",
  ];
  index.textContent = parts.filter(Boolean).join(" · ");
  freshness.replaceChildren(
    ...found.sources.map((source) => {
      const pending = source.oldest_pending_age_s;
      const waits = pending === null ? "" : `, a change waits since ${age(pending)}`;
      return make("li", { className: source.state }, `${source.name}: ${STATES[source.state]}${waits}`);
    }),
  );
}

function say(state, words) {
  standing.dataset.state = state;
  text.textContent = words;
}

function warn(words) {
  problem.hidden = !words;
  problem.textContent = words;
}

export function watch() {
  const again = () => {
    if (!document.hidden) look();
  };
  setInterval(again, EVERY_MS);
  document.addEventListener("visibilitychange", again);
}
