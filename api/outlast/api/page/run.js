// What is known of a run: its events, and what they amount to. No element is touched here.

const TERMINAL = new Set(["completed", "failed", "cancelled", "incomplete"]);

export class Item {
  constructor(data, { index, attempt, at, path, number }) {
    this.data = { ...data };
    this.index = index;
    this.attempt = attempt;
    this.path = path ?? [];
    this.firstNumber = number;
    this.lastNumber = number;
    this.startedAt = at ?? null;
    this.endedAt = null;
    this.text = "";
    this.deltas = 0;
    this.supersededBy = null;
    this.open = true;
  }

  get id() {
    return this.data.id;
  }

  get type() {
    return this.data.type;
  }

  get isText() {
    return this.type === "message" || this.type === "reasoning";
  }

  get isCall() {
    return this.type === "mcp_call" || this.type === "function_call";
  }

  // Why a tool gave no output, as text; null when it did not fail.
  get error() {
    const error = this.data.error;
    if (!error) return null;
    if (typeof error === "string") return error;
    const parts = Array.isArray(error.content) ? error.content.map((part) => part.text ?? "") : [];
    return parts.join("\n") || error.message || JSON.stringify(error);
  }

  close(data, at, number) {
    this.data = data;
    this.open = false;
    this.endedAt = at ?? null;
    this.lastNumber = number;
    this.text = textOf(data) ?? this.text;
  }
}

function textOf(data) {
  const parts = data.type === "message" ? data.content : data.type === "reasoning" ? data.summary : null;
  return Array.isArray(parts) ? parts.map((part) => part.text ?? part.refusal ?? "").join("") : null;
}

export class Run {
  constructor(id = null) {
    this.id = id;
    this.status = "queued";
    this.model = null;
    this.conversation = null;
    this.events = [];
    this.items = new Map();
    this.attempts = []; // { number, startedAt, lastAt, superseded: [ids] }
    this.createdAt = null;
    this.endedAt = null;
    this.usage = null;
    this.error = null;
    this.response = null;
  }

  // A run as its final object shows it, without its events.
  static from(response) {
    const run = new Run(response.id);
    run.describe(response);
    for (const [index, data] of response.output.entries()) {
      const item = new Item(data, { index, attempt: response.attempt_number, number: null });
      item.close(data, null, null);
      run.items.set(data.id ?? `${index}`, item);
    }
    return run;
  }

  // The number of the last event; -1 before the first.
  get last() {
    return this.events.length - 1;
  }

  get ended() {
    return TERMINAL.has(this.status);
  }

  get attempt() {
    return this.attempts.at(-1) ?? null;
  }

  // The answer as the API gives it: the texts of the items that count.
  get answer() {
    const texts = [...this.items.values()].filter((item) => item.type === "message" && item.supersededBy === null);
    return texts.map((item) => item.text).join("");
  }

  // Events come in order and without gaps: see follow.js.
  apply(event) {
    this.events.push(event);
    const at = event.created_at ?? null;
    if (event.outlast) this.beginAttempt(event.outlast.attempt, at, event.outlast.superseded ?? []);
    if (this.attempt && at !== null) this.attempt.lastAt = at;
    if (event.response) this.describe(event.response, at);
    if (event.type === "response.in_progress" && this.attempt === null) this.beginAttempt(1, at, []);
    else if (event.type === "response.output_item.added") this.addItem(event, at);
    else if (event.type === "response.output_item.done") this.items.get(event.item.id)?.close(event.item, at, event.sequence_number);
    else if (event.item_id !== undefined) this.progress(this.items.get(event.item_id), event);
  }

  describe(response, at = null) {
    this.id = response.id;
    this.model = response.model;
    this.conversation = response.conversation?.id ?? null;
    this.status = response.status;
    this.createdAt ??= at ?? response.created_at;
    if (!this.ended) return;
    this.endedAt = at ?? response.completed_at;
    this.usage = response.usage;
    this.error = response.error;
    this.response = response;
    if (this.attempts.length === 0 && response.attempt_number > 0) this.beginAttempt(response.attempt_number, null, []);
  }

  beginAttempt(number, at, superseded) {
    for (const id of superseded) {
      const item = this.items.get(id);
      if (item) item.supersededBy = number;
    }
    if (this.attempt?.number === number) return; // it only took something back, to say it again
    // An attempt that was lost before it said anything has left no event.
    for (let lost = (this.attempt?.number ?? 0) + 1; lost < number; lost++) {
      this.attempts.push({ number: lost, startedAt: null, lastAt: null, superseded: [] });
    }
    this.attempts.push({ number, startedAt: at, lastAt: at, superseded });
  }

  addItem(event, at) {
    const place = { index: event.output_index, attempt: this.attempt?.number ?? 1, at, path: event.path, number: event.sequence_number };
    this.items.set(event.item.id, new Item(event.item, place));
  }

  progress(item, event) {
    if (!item) return;
    item.lastNumber = event.sequence_number;
    if (/^response\.(output_text|refusal|reasoning_summary_text)\.delta$/.test(event.type)) {
      item.text += event.delta;
      item.deltas += 1;
    } else if (event.arguments !== undefined) item.data.arguments = event.arguments;
  }
}
