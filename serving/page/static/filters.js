// The filters: on the page, in requests, and in the address, where they can be kept and shared.

import { count, make } from "./text.js";

const sources = document.getElementById("sources");
const after = document.getElementById("after");
const before = document.getElementById("before");
const summary = document.getElementById("filters-set");

let names = [];
let chosen = new Set();

export function offer(found) {
  const sorted = [...found].sort();
  if (sorted.join("\n") === names.join("\n")) return;
  names = sorted;
  show();
}

function show() {
  // A source of the address stays, even if it is not offered: a link must not silently mean something else.
  const all = [...new Set([...names, ...chosen])];
  sources.replaceChildren(
    ...all.map((name) => {
      const box = make("input", { type: "checkbox", value: name, checked: chosen.has(name) });
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(name);
        else chosen.delete(name);
        tell();
      });
      return make("label", {}, box, name);
    }),
  );
  tell();
}

function tell() {
  const set = chosen.size + Boolean(after.value) + Boolean(before.value);
  summary.textContent = set ? `(${count(set, "filter")})` : "";
}

for (const input of [after, before]) input.addEventListener("change", tell);
document.getElementById("clear-filters").addEventListener("click", () => restore(new URLSearchParams()));

export function restore(parameters) {
  chosen = new Set(parameters.getAll("source"));
  after.value = parameters.get("after") ?? "";
  before.value = parameters.get("before") ?? "";
  show();
  if (summary.textContent) document.getElementById("filters").open = true;
}

export function parameters(question) {
  const found = new URLSearchParams();
  if (question) found.set("q", question);
  for (const name of [...chosen].sort()) found.append("source", name);
  if (after.value) found.set("after", after.value);
  if (before.value) found.set("before", before.value);
  return found;
}

export function request() {
  const filters = {};
  if (chosen.size) filters.sources = [...chosen].sort();
  if (after.value) filters.modified_after = `${after.value}T00:00:00Z`;
  if (before.value) filters.modified_before = `${before.value}T00:00:00Z`;
  return filters;
}
