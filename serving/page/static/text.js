// Texts and times as people read them.

// Makes an element. Texts become text nodes: nothing from a document is ever read as HTML.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Cuts a text at a span of code points, which is how the service counts; JavaScript counts UTF-16 units.
export function cut(text, [start, end]) {
  const from = unitOf(text, start, 0, 0);
  const to = unitOf(text, end, from, start);
  return [text.slice(0, from), text.slice(from, to), text.slice(to)];
}

function unitOf(text, point, unit, points) {
  while (points < point && unit < text.length) {
    unit += text.codePointAt(unit) > 0xffff ? 2 : 1;
    points += 1;
  }
  return unit;
}

export function age(seconds) {
  const steps = [["second", 60], ["minute", 60], ["hour", 24], ["day", Infinity]];
  let value = Math.max(0, seconds);
  for (const [name, next] of steps) {
    const rounded = Math.round(value);
    if (rounded < next) return `${rounded} ${name}${rounded === 1 ? "" : "s"}`;
    value /= next;
  }
  return "";
}

const NUMBER = new Intl.NumberFormat("en");
export const count = (number, name) => `${NUMBER.format(number)} ${name}${number === 1 ? "" : "s"}`;

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
export const when = (iso) => WHEN.format(new Date(iso));

// What a document is called: its title, else the end of its address.
export const nameOf = ({ title, uri }) => title || uri.split("/").filter(Boolean).pop() || uri;
