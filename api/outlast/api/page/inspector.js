// The run in detail, beside the conversation or, on a narrow screen, over it.

import { byId } from "./dom.js";
import { EventsView } from "./events_view.js";
import { update } from "./frames.js";
import { Timeline } from "./timeline.js";

const TABS = ["timeline", "events"];
const REDRAW_MS = 500; // of a run that goes on without events: its bars grow

export class Inspector {
  constructor() {
    this.element = byId("inspector");
    this.views = { timeline: new Timeline(byId("panel-timeline")), events: new EventsView(byId("panel-events")) };
    this.run = null;
    this.back = null; // where the focus was before it was opened
    for (const name of TABS) byId(`tab-${name}`).addEventListener("click", () => this.select(name));
    this.element.querySelector("[role=tablist]").addEventListener("keydown", (event) => this.move(event));
    byId("close-inspector").addEventListener("click", () => this.close());
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    this.select("timeline");
    setInterval(() => this.run && !this.run.ended && this.refresh(), REDRAW_MS);
  }

  get open() {
    return !this.element.hidden;
  }

  show(run, back) {
    this.run = run;
    this.back = back ?? this.back;
    this.element.hidden = false;
    this.refresh();
  }

  close() {
    this.element.hidden = true;
    this.back?.focus();
  }

  select(name) {
    this.tab = name;
    for (const other of TABS) {
      const chosen = other === name;
      byId(`tab-${other}`).setAttribute("aria-selected", String(chosen));
      byId(`tab-${other}`).tabIndex = chosen ? 0 : -1;
      byId(`panel-${other}`).hidden = !chosen;
    }
    this.refresh();
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    this.select(TABS[(TABS.indexOf(this.tab) + step + TABS.length) % TABS.length]);
    byId(`tab-${this.tab}`).focus();
  }

  refresh() {
    if (this.open && this.run && !document.hidden) update(this.draw);
  }

  draw = () => this.views[this.tab].show(this.run);
}
