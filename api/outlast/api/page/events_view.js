// The raw events, by number. Deltas that follow each other share a line; a line's JSON is made when it is opened.

import { el, setText } from "./dom.js";
import { count, duration, oneLine } from "./format.js";

export class EventsView {
  constructor(element) {
    this.note = el("p", { class: "hint" });
    this.list = el("ol", { class: "events" });
    element.append(this.note, this.list);
    this.run = null;
  }

  show(run) {
    if (run !== this.run) {
      this.run = run;
      this.next = 0;
      this.group = null;
      this.list.replaceChildren();
    }
    const events = run.events;
    while (this.next < events.length) this.add(events[this.next++], events[0]);
    this.group?.update();
    const gapless = events.every((event, place) => event.sequence_number === place);
    const words = gapless ? `numbered 0 to ${count(run.last)}, none missing` : "numbers are missing";
    setText(this.note, events.length === 0 ? "No events yet." : `${count(events.length)} events, ${words}`);
  }

  add(event, first) {
    if (this.group?.continues(event)) return this.group.take(event);
    this.group?.update();
    this.group = new Group(event, first);
    this.list.append(this.group.element);
  }
}

class Group {
  constructor(event, first) {
    this.events = [event];
    this.numbers = el("span", { class: "numbers" });
    this.hint = el("span", { class: "event-hint" });
    this.text = el("pre", { tabindex: 0 });
    const at = event.created_at === undefined || first.created_at === undefined ? "" : `+${duration(event.created_at - first.created_at)}`;
    const summary = el("summary", {}, this.numbers, el("span", { class: "event-type" }, event.type.replace(/^response\./, "")), this.hint, el("span", { class: "event-at" }, at));
    this.details = el("details", { ontoggle: () => this.update() }, summary, this.text);
    this.element = el("li", {}, this.details);
  }

  continues(event) {
    const [first] = this.events;
    return event.delta !== undefined && first.delta !== undefined && event.type === first.type && event.item_id === first.item_id && !event.outlast;
  }

  take(event) {
    this.events.push(event);
  }

  update() {
    const first = this.events[0];
    const last = this.events.at(-1).sequence_number;
    const one = this.events.length === 1;
    setText(this.numbers, one ? `${last}` : `${first.sequence_number}–${last}`);
    setText(this.hint, one ? hintOf(first) : `${count(this.events.length)} deltas`);
    if (!this.details.open) return this.text.replaceChildren();
    setText(this.text, one ? JSON.stringify(first, null, 2) : this.events.map((event) => JSON.stringify(event)).join("\n"));
  }
}

function hintOf(event) {
  if (event.outlast) return `attempt ${event.outlast.attempt}`;
  if (event.item) return oneLine(event.item.name ?? event.item.type ?? "", 40);
  if (event.delta !== undefined) return oneLine(JSON.stringify(event.delta), 40);
  if (event.response) return event.response.status;
  return "";
}
