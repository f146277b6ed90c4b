// The list of the caller's runs, kept current while somebody can see it.

import { list } from "./api.js";
import { byId, el, setText } from "./dom.js";
import { ago, statusWords } from "./format.js";

const PAGE = 30;
const LIVELY_MS = 2_000; // while a run in the list goes on
const QUIET_MS = 8_000;

export class RunsList {
  constructor() {
    this.entries = [];
    this.more = []; // pages of older runs that were asked for: not looked at again
    this.hasMore = false;
    this.tag = null;
    this.current = null;
    this.timer = null;
    byId("runs-status").addEventListener("change", () => this.restart());
    byId("older").addEventListener("click", () => this.older());
    document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(this.timer) : this.refresh()));
  }

  get status() {
    return byId("runs-status").value;
  }

  restart() {
    this.tag = null;
    this.more = [];
    return this.refresh();
  }

  // Looks now, and again after a while. Two looks at the same time are one.
  refresh() {
    this.looking ??= this.look().finally(() => {
      this.looking = null;
      clearTimeout(this.timer);
      const active = this.entries.some((entry) => ["queued", "in_progress"].includes(entry.status));
      if (!document.hidden) this.timer = setTimeout(() => this.refresh(), active ? LIVELY_MS : QUIET_MS);
    });
    return this.looking;
  }

  async look() {
    const status = this.status;
    try {
      const page = await list({ limit: PAGE, status, tag: this.tag });
      if (status !== this.status) return;
      if (page) {
        this.entries = page.data;
        this.tag = page.tag;
        if (this.more.length === 0) this.hasMore = page.has_more;
      }
      this.draw();
    } catch (error) {
      this.hint(`The list cannot be read: ${error.message}`);
    }
  }

  async older() {
    const last = [...this.entries, ...this.more].at(-1);
    const page = await list({ limit: PAGE, status: this.status, after: last.id });
    this.more.push(...page.data);
    this.hasMore = page.has_more;
    this.draw();
  }

  select(id) {
    this.current = id;
    this.draw();
  }

  draw() {
    const shown = new Map([...this.entries, ...this.more].map((entry) => [entry.id, entry]));
    const rows = new Map([...byId("runs").children].map((row) => [row.dataset.run, row]));
    const wanted = [...shown.values()].map((entry) => filled(rows.get(entry.id) ?? newRow(entry.id), entry, this.current));
    // Rows that stay are not touched: the focus stays where it is.
    for (const row of rows.values()) if (!shown.has(row.dataset.run)) row.remove();
    for (const [place, row] of wanted.entries()) {
      if (byId("runs").children[place] !== row) byId("runs").insertBefore(row, byId("runs").children[place] ?? null);
    }
    byId("older").hidden = !this.hasMore;
    this.hint(wanted.length ? "" : this.status ? "None." : "No runs yet.");
  }

  hint(text) {
    byId("runs-hint").hidden = text === "";
    setText(byId("runs-hint"), text);
  }
}

function newRow(id) {
  const link = el("a", { href: `#${id}` }, el("span", { class: "run-title" }), el("span", { class: "run-facts" }, el("span", { class: "state" }), el("span")));
  return el("li", { "data-run": id }, link);
}

function filled(row, entry, current) {
  const [title, facts] = row.firstChild.children;
  setText(title, entry.title || "(no text)");
  setText(facts.firstChild, statusWords(entry.status));
  facts.firstChild.dataset.state = entry.status;
  const attempts = entry.attempt_number > 1 ? `attempt ${entry.attempt_number} · ` : "";
  setText(facts.lastChild, attempts + ago(entry.created_at));
  if (entry.id === current) row.firstChild.setAttribute("aria-current", "page");
  else row.firstChild.removeAttribute("aria-current");
  return row;
}
