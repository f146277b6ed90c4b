// An answer that grows: whole blocks are made once and stay; only the last one, still open, is made again.

import { el } from "./dom.js";
import { blocks, settledLength } from "./markdown.js";

const LONGEST_OPEN = 4_000; // an open block beyond this only grows by plain text until it is whole
const PIECE = 4_000;

export class Prose {
  constructor() {
    this.element = el("div", { class: "prose" });
    this.open = el("div", { class: "open" });
    this.element.append(this.open);
    this.settled = 0; // characters of the text that are shown as whole blocks
    this.plain = null; // the end of the text that is shown as plain text, if it is
  }

  update(text, whole) {
    const settled = whole ? text.length : settledLength(text, this.settled);
    if (settled > this.settled) {
      this.open.before(...blocks(text.slice(this.settled, settled)));
      this.settled = settled;
      this.plain = null;
      this.open.replaceChildren();
    }
    if (text.length - settled > LONGEST_OPEN) this.appendPlain(text);
    else if (settled < text.length) this.open.replaceChildren(...blocks(text.slice(settled)));
  }

  // In pieces of their own boxes: the browser lays out only those that change.
  appendPlain(text) {
    if (this.plain === null) {
      this.open.replaceChildren();
      this.plain = this.settled;
    }
    while (this.plain < text.length) {
      let last = this.open.lastElementChild;
      if (last === null || last.firstChild.length >= PIECE) {
        last = el("span", { class: "plain" }, document.createTextNode(""));
        this.open.append(last);
      }
      const more = text.slice(this.plain, this.plain + PIECE);
      last.firstChild.appendData(more);
      this.plain += more.length;
    }
  }
}
