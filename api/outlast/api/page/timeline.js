// The run's timeline as a picture, with the same in words: on hover and focus, and as a table.

import { serverNow } from "./api.js";
import { el, svg } from "./dom.js";
import { count, duration, oneLine, plural } from "./format.js";
import { spansOf, ticksOf } from "./spans.js";

const LABELS = 118; // pixels for the names at the left
const RIGHT = 14;
const ROW = 22;
const BAR = 10;
const AXIS = 26;
const MOST_ROWS = 300; // the table has them all

export class Timeline {
  constructor(element) {
    this.element = element;
    this.picture = el("div", { class: "picture" });
    this.reading = el("p", { class: "reading", "aria-hidden": "true" });
    this.tokens = el("dl", { class: "tokens" });
    this.body = el("tbody");
    const head = el("tr", {}, ...["what", "attempt", "from", "took", "events"].map((name) => el("th", { scope: "col" }, name)));
    this.table = el("details", { class: "as-table" }, el("summary", {}, "As a table"),
      el("div", { class: "wide", tabindex: 0 }, el("table", {}, el("caption", { class: "unseen" }, "The run's timeline"), el("thead", {}, head), this.body)));
    element.append(this.picture, this.reading, this.tokens, this.table);
    this.picture.addEventListener("keydown", (event) => this.move(event));
    new ResizeObserver(() => this.redraw()).observe(this.picture);
    this.run = null;
  }

  show(run) {
    this.run = run;
    this.redraw();
  }

  // One stop for Tab; the arrows go from row to row.
  move(event) {
    const row = document.activeElement.closest(".row");
    const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling }[event.key];
    if (!next?.classList.contains("row")) return;
    event.preventDefault();
    next.focus();
  }

  redraw() {
    const spans = this.run && spansOf(this.run, serverNow());
    const width = this.picture.clientWidth;
    if (!spans || width === 0) {
      const words = this.run?.last >= 0 ? "The events of this run carry no times." : "No events yet.";
      this.picture.replaceChildren(el("p", { class: "hint" }, words));
      this.tokens.replaceChildren();
      this.body.replaceChildren();
      return;
    }
    const focused = this.picture.contains(document.activeElement) ? document.activeElement.dataset.row : null;
    this.picture.replaceChildren(draw(spans, width, (text) => (this.reading.textContent = text)));
    if (focused) this.picture.querySelector(`[data-row="${focused}"]`)?.focus();
    else if (!this.picture.matches(":hover")) this.reading.textContent = summary(this.run, spans);
    this.tokens.replaceChildren(...tokensOf(this.run));
    this.body.replaceChildren(...spans.rows.map((row) => tableRow(row, spans)));
  }
}

function draw(spans, width, read) {
  const rows = spans.rows.slice(0, MOST_ROWS);
  const scale = (width - LABELS - RIGHT) / (spans.to - spans.from);
  const x = (time) => LABELS + (time - spans.from) * scale;
  const height = AXIS + rows.length * ROW + 6;
  const ticks = ticksOf(spans.to - spans.from, Math.max(2, Math.floor((width - LABELS) / 80)));
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Timeline of the run", class: "timeline" },
    ...ticks.map((seconds) => tick(x(spans.from + seconds), seconds, height, width)),
    ...rows.map((row, place) => bar(row, place, x, spans, read)));
}

function tick(x, seconds, height, width) {
  const anchor = seconds === 0 ? "start" : x > width - 30 ? "end" : "middle";
  return svg("g", { class: "tick", "aria-hidden": "true" },
    svg("line", { x1: x, x2: x, y1: AXIS - 6, y2: height }),
    svg("text", { x, y: AXIS - 12, "text-anchor": anchor }, seconds === 0 ? "0" : duration(seconds)));
}

function bar(row, place, x, spans, read) {
  const words = wordsOf(row, spans);
  const top = AXIS + place * ROW;
  const middle = top + ROW / 2;
  const left = x(row.from);
  const wide = Math.max(3, x(row.to) - left);
  const classes = ["row", row.kind, row.lost && "lost", row.endless && "endless", row.open && "open", row.failed && "failed"].filter(Boolean).join(" ");
  const shape = row.kind === "gap"
    ? svg("line", { class: "mark", x1: left, x2: left + wide, y1: middle, y2: middle })
    : svg("rect", { class: "mark", x: left, y: middle - BAR / 2, width: wide, height: BAR, rx: 2.5 });
  const tell = () => read(words);
  return svg("g", { class: classes, tabindex: place === 0 ? 0 : -1, role: "img", "aria-label": words, "data-row": `${place}-${row.kind}`, onfocus: tell, onmouseenter: tell },
    svg("rect", { class: "target", x: 0, y: top, width: x(spans.to) + RIGHT, height: ROW, rx: 4 }),
    svg("text", { class: "label", x: 6 + 9 * Math.min(row.depth, 5), y: middle + 4 }, oneLine(row.label, 18 - 2 * Math.min(row.depth, 5))),
    shape,
    ...(row.kind === "gap" ? [svg("text", { class: "gap-words", x: left + wide / 2, y: middle - 5, "text-anchor": "middle" }, wide > 60 ? duration(row.to - row.from) : "")] : []));
}

function kindOf(row) {
  if (row.kind === "gap") return `gap from the last timed event of attempt ${row.attempt} to the next attempt`;
  if (row.kind === "step") return `step ${row.step ?? ""} ${row.label}`;
  if (row.kind === "tool") return `tool ${row.label}`;
  return row.label;
}

function wordsOf(row, spans) {
  const parts = [kindOf(row), `${duration(row.to - row.from)}${row.open ? " so far" : ""}`, `from ${duration(row.from - spans.from)}`];
  if (row.deltas) parts.push(plural(row.deltas, "delta"), plural(row.characters, "character"));
  if (row.numbers) parts.push(eventsOf(row));
  if (row.failed) parts.push("failed");
  if (row.lost) parts.push("lost with its worker");
  return parts.join(" · ");
}

function eventsOf(row) {
  if (!row.numbers) return "";
  const [first, last] = row.numbers;
  return first === last ? `event ${first}` : `events ${count(first)}–${count(last)}`;
}

function summary(run, spans) {
  return [plural(run.attempts.length, "attempt"), duration(spans.to - spans.from), plural(run.events.length, "event")].join(" · ");
}

function tokensOf(run) {
  const usage = run.usage;
  if (!usage || usage.total_tokens === 0) return [];
  const cached = usage.input_tokens_details?.cached_tokens;
  const reasoning = usage.output_tokens_details?.reasoning_tokens;
  const shown = [["tokens in", usage.input_tokens], ["of them cached", cached], ["tokens out", usage.output_tokens], ["of them reasoning", reasoning]];
  return shown.filter(([, number]) => number).map(([name, number]) => el("div", {}, el("dt", {}, name), el("dd", {}, count(number))));
}

function tableRow(row, spans) {
  const name = `${kindOf(row)}${row.lost ? " (lost)" : ""}${row.failed ? " (failed)" : ""}`;
  const cells = [row.attempt ?? "", duration(row.from - spans.from), duration(row.to - row.from), eventsOf(row).replace(/^events? /, "")];
  return el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((text) => el("td", {}, String(text))));
}
