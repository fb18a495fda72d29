// Requests to the service. Whatever is refused is thrown as a Refusal, with the service's own words.

const NAME = "rag-key";

export const key = {
  get: () => sessionStorage.getItem(NAME),
  set: (value) => sessionStorage.setItem(NAME, value),
  forget: () => sessionStorage.removeItem(NAME),
};

export class Refusal extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status; // 0: the service was not reached
    this.retryAfter = retryAfter; // seconds, or null
  }
}

async function send(path, { body, signal } = {}) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The service cannot be reached.", null);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  const seconds = Number.parseInt(answer.headers.get("Retry-After") ?? "", 10);
  throw new Refusal(
    answer.status,
    said?.error?.message ?? `The service answered with status ${answer.status}.`,
    Number.isNaN(seconds) ? null : seconds,
  );
}

export const get = async (path) => (await send(path)).json();
export const post = async (path, body) => (await send(path, { body })).json();

// Yields the data of server-sent events, however the bytes are cut.
export async function* events(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      const whole = rest.split(/\r?\n\r?\n/);
      rest = whole.pop();
      for (const event of whole) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Yields the chunks of an answer. Ends normally only behind [DONE]: an answer that breaks off is an error.
export async function* chat(messages, filters, signal) {
  const answer = await send("/v1/chat/completions", {
    body: { model: "rag", stream: true, messages, filters },
    signal,
  });
  try {
    for await (const data of events(answer.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refusal(200, chunk.error.message, null);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof Refusal || error.name === "AbortError") throw error;
    throw new Refusal(0, "The connection broke off.", null);
  }
  throw new Refusal(0, "The answer broke off.", null);
}
