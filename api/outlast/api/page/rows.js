// A table whose rows stay what they are while their numbers change, so that focus and selection stay too.

import { el, setText } from "./dom.js";

export class Rows {
  // columns: [heading, entry => text or { text, state, title }]; act: entry => [label, function] or null.
  constructor(element, { title, columns, key, act, none }) {
    this.element = element;
    this.columns = columns;
    this.key = key;
    this.act = act;
    this.entries = new Map();
    const headings = [...columns.map(([heading]) => el("th", { scope: "col" }, heading)), act ? el("td") : null];
    this.body = el("tbody");
    this.none = el("p", { class: "hint" }, none);
    this.table = el("table", { "aria-labelledby": title }, el("thead", {}, el("tr", {}, ...headings)), this.body);
    element.append(this.table, this.none);
  }

  show(entries) {
    this.entries = new Map(entries.map((entry) => [this.key(entry), entry]));
    const rows = new Map([...this.body.children].map((row) => [row.dataset.key, row]));
    for (const [key, row] of rows) if (!this.entries.has(key)) row.remove();
    let place = 0;
    for (const [key, entry] of this.entries) {
      const row = this.filled(rows.get(key) ?? this.newRow(key), entry);
      if (this.body.children[place] !== row) this.body.insertBefore(row, this.body.children[place] ?? null);
      place += 1;
    }
    this.table.hidden = entries.length === 0;
    this.none.hidden = entries.length > 0;
  }

  newRow(key) {
    const [first, ...others] = this.columns.map(([heading]) => heading);
    const cells = others.map((heading) => el("td", { "data-label": heading }, el("span")));
    const action = this.act ? el("td", { class: "action" }, this.button(key)) : null;
    return el("tr", { "data-key": key }, el("th", { scope: "row", "data-label": first }, el("span")), ...cells, action);
  }

  button(key) {
    return el("button", { type: "button", class: "stop", onclick: () => this.act(this.entries.get(key))?.[1]() });
  }

  filled(row, entry) {
    for (const [place, [, told]] of this.columns.entries()) {
      const said = told(entry);
      const { text, state, title } = typeof said === "object" ? said : { text: said };
      const cell = row.children[place].firstChild;
      setText(cell, String(text));
      cell.title = title ?? "";
      cell.className = state ? "state" : "";
      if (state) cell.dataset.state = state;
    }
    if (this.act) {
      const action = this.act(entry);
      const button = row.lastChild.firstChild;
      button.hidden = action === null;
      setText(button, action?.[0] ?? "");
      button.setAttribute("aria-label", `${action?.[0] ?? ""} ${row.firstChild.textContent}`);
    }
    return row;
  }
}
