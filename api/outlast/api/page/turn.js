// A question and its answer: one run, as a conversation shows it.

import { curlOf } from "./api.js";
import { copyButton, el, setText } from "./dom.js";
import { count, duration, plural, statusWords } from "./format.js";
import { Takeover, viewOf } from "./items.js";

export class Turn {
  constructor(run, question, onInspect) {
    this.run = run;
    this.views = new Map();
    this.takeovers = 0;
    this.asked = el("div", { class: "question" }, question);
    this.answer = el("div", { class: "answer", "aria-live": "polite", "aria-busy": "false" });
    this.state = el("span", { class: "state" });
    this.facts = el("span", { class: "facts" });
    this.failure = el("div", { class: "failure", hidden: true }, el("strong"), el("code"));
    this.actions = this.makeActions(onInspect);
    const foot = el("footer", { class: "turn-foot" }, this.state, this.facts, this.actions);
    this.element = el("article", { class: "turn", "aria-label": "Question and answer" }, this.asked, this.answer, this.failure, foot);
    this.connection = "live";
  }

  makeActions(onInspect) {
    const inspect = el("button", { type: "button", class: "quiet inspect", onclick: () => onInspect(this) }, "Timeline");
    const text = copyButton("Copy", () => this.run.answer);
    const curl = copyButton("curl", () => curlOf(this.run.id));
    curl.title = "Copy a command that replays this run's events";
    return el("span", { class: "actions" }, inspect, text, curl);
  }

  // The same run, read anew from its events.
  restart(run) {
    this.run = run;
    this.views.clear();
    this.takeovers = 0;
    this.answer.replaceChildren();
  }

  update() {
    const { run } = this;
    this.element.dataset.run = run.id ?? "";
    this.element.dataset.status = run.status;
    this.element.dataset.last = run.last;
    for (const item of run.items.values()) this.updateItem(item);
    while (this.takeovers < run.attempts.length) this.takeOver(run.attempts[this.takeovers++]);
    this.answer.setAttribute("aria-busy", String(!run.ended));
    this.updateFailure();
    this.updateFoot();
  }

  updateItem(item) {
    let view = this.views.get(item.id);
    if (view?.settled) return;
    // An item of a later attempt stands below the words that say so.
    while (this.takeovers < this.run.attempts.length && this.run.attempts[this.takeovers].number <= item.attempt) {
      this.takeOver(this.run.attempts[this.takeovers++]);
    }
    if (!view) {
      view = viewOf(item);
      this.views.set(item.id, view);
      this.answer.append(view.element);
    }
    const output = item.type === "function_call" ? this.outputOf(item) : null;
    view.update(item, output, this.run.ended);
    if (item.supersededBy === item.attempt) view.element.hidden = true; // taken back, and said again
    // What has ended never changes again, and is not looked at in every frame.
    view.settled = !item.open && (this.run.ended || !item.isCall || item.data.output !== undefined);
  }

  outputOf(call) {
    for (const item of this.run.items.values()) {
      if (item.type === "function_call_output" && item.data.call_id === call.data.call_id) return item;
    }
    return null;
  }

  takeOver(attempt) {
    if (attempt.number === 1 || (attempt.startedAt === null && this.run.events.length === 0)) return;
    const takeover = new Takeover(attempt);
    const lost = attempt.superseded.map((id) => this.run.items.get(id)).filter(Boolean);
    for (const item of lost) {
      if (!this.views.has(item.id)) {
        const view = viewOf(item);
        this.views.set(item.id, view);
        this.answer.append(view.element);
      }
      const view = this.views.get(item.id);
      view.update(item, this.outputOf(item), this.run.ended);
      view.element.classList.remove("writing");
    }
    this.answer.append(takeover.element);
    takeover.take(lost.map((item) => this.views.get(item.id).element));
  }

  updateFailure() {
    const { error } = this.run;
    this.failure.hidden = !error;
    if (!error) return;
    setText(this.failure.firstChild, error.message ?? "The run failed.");
    setText(this.failure.lastChild, error.code ?? "");
  }

  updateFoot() {
    const { run } = this;
    const cut = this.connection === "reconnecting" && !run.ended;
    setText(this.state, cut ? "reconnecting…" : statusWords(run.status));
    this.state.dataset.state = cut ? "reconnecting" : run.status;
    setText(this.facts, factsOf(run).join(" · "));
    this.actions.hidden = run.id === null;
  }
}

function factsOf(run) {
  const facts = [];
  if (run.model) facts.push(run.model);
  if (run.attempts.length > 1 || run.attempt?.number > 1) facts.push(`attempt ${run.attempt.number}`);
  if (run.last >= 0) facts.push(run.last === 0 ? "event 0" : `events 0–${count(run.last)}`);
  if (run.ended && run.createdAt && run.endedAt) facts.push(duration(run.endedAt - run.createdAt));
  if (run.usage?.total_tokens > 0) facts.push(plural(run.usage.total_tokens, "token"));
  return facts;
}
