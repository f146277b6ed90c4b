// A run as spans of time, from its events' `created_at` (seconds). Pure: no element, no clock.
//
// Deltas carry no time, so a text's span goes from its first event to its last one that does. What was open when its
// attempt was lost has no end of its own (`endless`): it is drawn up to the takeover.

export function spansOf(run, now) {
  const timed = run.events.filter((event) => event.created_at !== undefined);
  if (timed.length === 0) return null;
  const from = timed[0].created_at;
  const to = Math.max(run.ended ? timed.at(-1).created_at : now, timed.at(-1).created_at, from + 0.001);
  const attempts = attemptSpans(run, to);
  const work = workSpans(run, attempts, to);
  return { from, to, rows: [...queueSpan(run, from, to), ...inOrder(run, attempts, work)] };
}

// Each attempt, what was done in it, and the gap before the next one.
function inOrder(run, attempts, work) {
  return run.attempts.flatMap(({ number }) => [
    ...attempts.filter((row) => row.attempt === number && row.kind === "attempt"),
    ...work.filter((row) => row.attempt === number),
    ...attempts.filter((row) => row.attempt === number && row.kind === "gap"),
  ]);
}

function queueSpan(run, from, to) {
  const first = run.attempts.find((attempt) => attempt.startedAt !== null);
  const until = first?.startedAt ?? to;
  return [span("queue", "queued", from, until, { open: !first && !run.ended })];
}

function attemptSpans(run, to) {
  const spans = [];
  for (const [place, attempt] of run.attempts.entries()) {
    if (attempt.startedAt === null) continue;
    const next = run.attempts.slice(place + 1).find((later) => later.startedAt !== null);
    const last = next === undefined;
    const until = last ? to : attempt.lastAt;
    spans.push(span("attempt", `attempt ${attempt.number}`, attempt.startedAt, until, {
      attempt: attempt.number, lost: !last, open: last && !run.ended, failed: last && run.status === "failed",
    }));
    if (next) {
      spans.push(span("gap", "gap", attempt.lastAt, next.startedAt, { attempt: attempt.number }));
    }
  }
  return spans;
}

function workSpans(run, attempts, to) {
  const rows = [];
  const steps = new Map();
  for (const item of run.items.values()) {
    if (item.startedAt === null || item.type === "function_call_output") continue;
    const step = stepOf(item, steps, rows);
    const work = itemSpan(item, run, attempts, to);
    work.depth = item.path.length + 1;
    rows.push(work);
    for (let around = step; around; around = around.around) widen(around, work);
  }
  return rows;
}

// The innermost step around an item; a row is made for each step that has none yet.
function stepOf(item, steps, rows) {
  let around = null;
  let name = String(item.attempt);
  for (const [depth, part] of item.path.entries()) {
    name += `/${part.task ?? part.node}`;
    if (!steps.has(name)) {
      const step = span("step", part.node, item.startedAt, item.startedAt, { attempt: item.attempt, depth: depth + 1, step: part.step, lost: true });
      step.around = around;
      steps.set(name, step);
      rows.push(step);
    }
    around = steps.get(name);
  }
  return around;
}

// A step lasts as long as what it says; it is lost when all of that is.
function widen(step, work) {
  step.to = Math.max(step.to, work.to);
  step.open ||= work.open;
  step.lost &&= work.lost;
}

function itemSpan(item, run, attempts, to) {
  const lost = item.supersededBy !== null;
  const taken = attempts.find((attempt) => attempt.kind === "attempt" && attempt.attempt === item.supersededBy);
  const until = item.endedAt ?? (lost ? taken?.from : null) ?? to;
  const kind = item.isCall ? "tool" : item.type === "message" ? "text" : item.type === "reasoning" ? "thought" : "other";
  const label = item.isCall ? item.data.name : { text: "answer", thought: "reasoning" }[kind] ?? item.type;
  return span(kind, label, item.startedAt, until, {
    attempt: item.attempt,
    lost,
    endless: lost && taken !== undefined && until >= taken.from,
    open: item.open && !run.ended,
    failed: item.error !== null,
    characters: item.isText ? item.text.length : null,
    deltas: item.isText ? item.deltas : null,
    numbers: [item.firstNumber, item.lastNumber],
  });
}

function span(kind, label, from, to, more) {
  return { kind, label, from, to: Math.max(from, to), depth: 0, open: false, lost: false, endless: false, failed: false, attempt: null, ...more };
}

// Round times for an axis of so many seconds: at most `most` of them.
export function ticksOf(seconds, most) {
  const rough = seconds / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let n = 0; n * step <= seconds; n += 1) ticks.push(n * step);
  return ticks;
}
