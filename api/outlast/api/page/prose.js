// An answer that grows: whole blocks are made once and stay; only the last one, still open, is made again.

import { el } from "./dom.js";
import { blocks, settledLength } from "./markdown.js";

const LONGEST_OPEN = 4_000; // a block beyond this grows by plain text until it is whole
const LONGEST_BLOCK = 40_000; // and beyond this it stays so: laying it out at once would stop the page
const PIECE = 3_000;

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
    if (settled > this.settled && !this.staysPlain(settled)) this.settle(text, settled);
    if (this.settled === text.length) return;
    if (text.length - this.settled > LONGEST_OPEN) this.appendPlain(text);
    else this.open.replaceChildren(...blocks(text.slice(this.settled)));
  }

  staysPlain(settled) {
    return this.plain !== null && settled - this.settled > LONGEST_BLOCK;
  }

  settle(text, settled) {
    this.open.before(...blocks(text.slice(this.settled, settled)));
    this.settled = settled;
    this.plain = null;
    this.open.replaceChildren();
  }

  // In boxes that end at a space: the browser lays out only the one that changes, and those in sight.
  appendPlain(text) {
    if (this.plain === null) {
      this.open.replaceChildren();
      this.plain = this.settled;
    }
    while (this.plain < text.length) {
      const last = this.open.lastElementChild;
      const room = last ? PIECE - last.firstChild.length : 0;
      if (last && (room > 0 || !/\s$/.test(last.firstChild.data))) {
        const space = room > 0 ? -1 : text.slice(this.plain, this.plain + PIECE).search(/\s/);
        const more = room > 0 ? room : space >= 0 ? space + 1 : PIECE;
        last.firstChild.appendData(text.slice(this.plain, this.plain + more));
        this.plain = Math.min(text.length, this.plain + more);
      } else {
        this.open.append(el("div", { class: "plain" }, document.createTextNode("")));
      }
    }
  }
}
