// Following a run: every event once, in order, whatever happens to the connection or to the replica behind it.

import { Refusal, stream } from "./api.js";
import { dataOf } from "./sse.js";

const SILENCE_MS = 45_000; // the server sends a comment every 15 s
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;
const TERMINAL = new Set(["response.completed", "response.failed", "response.incomplete"]);

class Cut extends Error {}

// Calls onEvent for each event after run.last, until the last one. `begin` makes the first connection (a submission,
// which may be repeated); later ones continue after the last event that has been seen. Throws a Refusal that waiting
// cannot mend; returns when the run has ended or the signal says so.
export async function follow(run, { begin, signal, onEvent, onConnection }) {
  let failures = 0;
  while (!signal.aborted) {
    const connection = new Connection(signal);
    try {
      const response = await (run.id === null ? begin(connection.signal) : stream(run.id, run.last, connection.signal));
      onConnection("live");
      for await (const data of dataOf(response.body, () => connection.heard())) {
        if (data === "[DONE]") break;
        if (take(JSON.parse(data), run, onEvent)) return;
        failures = 0;
      }
      if (run.ended) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal && !error.passing) throw error;
      if (error instanceof Refusal && error.status === 429 && run.id === null) throw error;
    } finally {
      connection.close();
    }
    onConnection("reconnecting");
    await pause(failures++, signal);
  }
}

// Whether this was the last event.
function take(event, run, onEvent) {
  if (event.sequence_number <= run.last) return false; // seen before: nothing is shown twice
  if (event.sequence_number !== run.last + 1) throw new Cut("an event is missing: ask for it again");
  onEvent(event);
  return TERMINAL.has(event.type);
}

// One connection, given up when nothing at all has been heard for too long (a laptop that slept, a dead proxy).
class Connection {
  constructor(outer) {
    this.controller = new AbortController();
    this.signal = AbortSignal.any([outer, this.controller.signal]);
    this.heard();
  }

  heard() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.close(), SILENCE_MS);
  }

  close() {
    clearTimeout(this.timer);
    this.controller.abort();
  }
}

// Longer each time and never the same for everybody; over at once when the network comes back.
export function pause(failures, signal) {
  const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
  return new Promise((resolve) => {
    const timer = setTimeout(end, longest * (0.5 + Math.random() / 2));
    function end() {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal?.removeEventListener("abort", end);
      resolve();
    }
    addEventListener("online", end);
    signal?.addEventListener("abort", end);
  });
}
