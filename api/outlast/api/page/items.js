// One view for each kind of item: what the run said, thought and called.

import { el, setText } from "./dom.js";
import { argumentsLine, duration, plural, pretty } from "./format.js";
import { Prose } from "./prose.js";

export function viewOf(item) {
  if (item.type === "message") return new Message(item);
  if (item.type === "reasoning") return new Reasoning(item);
  if (item.isCall) return new Call(item);
  return new Other(item);
}

class Message {
  constructor() {
    this.prose = new Prose();
    this.element = el("div", { class: "item message" }, this.prose.element);
  }

  update(item) {
    this.prose.update(item.text, !item.open);
    this.element.classList.toggle("writing", item.open && item.supersededBy === null);
  }
}

class Reasoning {
  constructor() {
    this.prose = new Prose();
    this.label = el("span");
    this.element = el("details", { class: "item reasoning" }, el("summary", {}, this.label), this.prose.element);
  }

  update(item) {
    setText(this.label, item.open ? "Thinking…" : `Thought${took(item)}`);
    this.prose.update(item.text, !item.open);
  }
}

class Call {
  constructor() {
    this.name = el("span", { class: "tool-name" });
    this.given = el("span", { class: "tool-given" });
    this.state = el("span", { class: "tool-state" });
    this.body = el("div", { class: "tool-body" });
    const summary = el("summary", {}, el("span", { class: "dot" }), this.name, this.given, this.state);
    this.element = el("details", { class: "item tool" }, summary, this.body);
    this.shown = null;
  }

  update(item, answer, runEnded) {
    const output = item.data.output ?? answer?.data.output ?? null;
    const state = stateOf(item, output, runEnded);
    setText(this.name, item.data.name ?? item.type);
    setText(this.given, argumentsLine(item.data.arguments));
    setText(this.state, state.words);
    this.element.dataset.state = state.name;
    const shown = `${item.data.arguments}\n${output}\n${item.error}`;
    if (shown === this.shown) return;
    this.shown = shown;
    this.body.replaceChildren(
      part("arguments", pretty(item.data.arguments || "{}")),
      ...(output === null ? [] : [part("output", pretty(output))]),
      ...(item.error === null ? [] : [part("error", item.error)]),
    );
  }
}

function stateOf(item, output, runEnded) {
  if (item.error !== null || item.data.status === "failed") return { name: "failed", words: `failed${took(item, " after ")}` };
  if (item.supersededBy !== null) return { name: "lost", words: output === null ? "lost" : `done${took(item, " in ")}` };
  if (item.type === "function_call" && output === null && runEnded) return { name: "waiting", words: "for the client to answer" };
  if (item.open || (output === null && !runEnded)) return { name: "running", words: "running…" };
  return output === null ? { name: "lost", words: "no output" } : { name: "done", words: took(item, "") || "done" };
}

function took(item, before = " for ") {
  return item.startedAt === null || item.endedAt === null ? "" : `${before}${duration(item.endedAt - item.startedAt)}`;
}

function part(name, text) {
  return el("div", { class: `part ${name}` }, el("h4", {}, name), el("pre", { tabindex: 0 }, text));
}

// An approval that is asked for, and whatever a later release may add.
class Other {
  constructor(item) {
    this.label = el("span");
    this.text = el("pre", { tabindex: 0 });
    this.element = el("details", { class: "item other" }, el("summary", {}, this.label), this.text);
    this.element.hidden = item.type === "function_call_output"; // shown with its call
  }

  update(item) {
    const asked = item.type === "mcp_approval_request";
    setText(this.label, asked ? `Asks for approval: ${item.data.name}` : item.type);
    setText(this.text, pretty(asked ? item.data.arguments : item.data));
  }
}

// The place where an attempt took over from a lost one: what that had said is folded away, not shown twice.
export class Takeover {
  constructor(attempt) {
    this.count = el("span", { class: "hint" });
    this.lost = el("div", { class: "lost-items" });
    const words = `Attempt ${attempt.number - 1} was lost with its worker; attempt ${attempt.number} goes on`;
    const summary = el("summary", {}, el("span", {}, words), this.count);
    this.element = el("details", { class: "takeover" }, summary, this.lost);
    this.element.dataset.attempt = attempt.number;
  }

  take(elements) {
    const shown = elements.filter((element) => !element.hidden);
    this.lost.append(...elements);
    setText(this.count, ` · ${plural(shown.length, "item")} set aside`);
    this.element.classList.toggle("empty", shown.length === 0);
  }
}
