// The public API, as any client calls it.

import { anotherKey, currentKey } from "./key.js";

const BASE = new URL("v1/", document.baseURI);

// What the server answered instead of what was asked for.
export class Refusal extends Error {
  constructor(status, error, retryAfter) {
    super(error?.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = error?.code ?? error?.type ?? String(status);
    this.retryAfter = retryAfter;
  }

  // Asked again a little later it may succeed.
  get passing() {
    return this.status >= 500 || this.status === 429 || this.status === 408;
  }
}

// How far this machine's clock is ahead of the server's, in seconds; less than the header can tell counts as none.
let clockAhead = 0;
export const serverNow = () => Date.now() / 1000 - clockAhead;

async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const key = currentKey();
    const response = await fetch(new URL(path, BASE), {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(key === null ? {} : { authorization: `Bearer ${key}` }),
        ...headers,
      },
      signal,
      cache: "no-store",
      credentials: "same-origin",
    });
    noteClock(response.headers.get("date"));
    if (response.ok || response.status === 304) return response;
    const error = await response.json().then((answer) => answer.error, () => null);
    const refusal = new Refusal(response.status, error, Number(response.headers.get("retry-after")) || null);
    if (refusal.code !== "invalid_api_key") throw refusal;
    await anotherKey(key, refusal.message);
  }
}

function noteClock(date) {
  const ahead = Date.now() / 1000 - Date.parse(date) / 1000;
  if (!Number.isNaN(ahead)) clockAhead = Math.abs(ahead) < 2 ? 0 : ahead;
}

const pathOf = (id, rest = "") => `responses/${encodeURIComponent(id)}${rest}`;

export const json = async (path, options) => (await call(path, options)).json();

export const models = async () => (await json("models")).data.map((model) => model.id);

export const retrieve = (id) => json(pathOf(id));

export const cancel = (id) => json(pathOf(id, "/cancel"), { method: "POST" });

// The answer's body is the run's events, from the first one; the key makes it safe to send again.
export const submit = (body, idempotencyKey, signal) =>
  call("responses", {
    method: "POST",
    body: { ...body, background: true, stream: true },
    headers: { "idempotency-key": idempotencyKey },
    signal,
  });

export const stream = (id, last, signal) =>
  call(pathOf(id, `?stream=true${last < 0 ? "" : `&starting_after=${last}`}`), { signal });

// A page of the list of runs and its tag; null when it is still the one of this tag.
export async function list({ limit, after, status, tag }) {
  const query = new URLSearchParams({ limit });
  if (after) query.set("after", after);
  if (status) query.set("status", status);
  const response = await call(`responses?${query}`, { headers: tag ? { "if-none-match": tag } : {} });
  if (response.status === 304) return null;
  return { ...(await response.json()), tag: response.headers.get("etag") };
}

// The text of the last user message that a run was given.
export async function questionOf(id) {
  const { data } = await json(pathOf(id, "/input_items?limit=100"));
  const message = data.find((item) => item.type === "message" && item.role === "user");
  return (message?.content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
}

export function curlOf(id) {
  const key = currentKey() === null ? "" : ' -H "Authorization: Bearer $OUTLAST_API_KEY"';
  return `curl -N${key} "${new URL(pathOf(id, "?stream=true"), BASE)}"`;
}
