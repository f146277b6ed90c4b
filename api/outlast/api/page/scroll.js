// Keeps the end of the conversation in view, but only while the reader is there.

import { byId } from "./dom.js";

const NEAR = 48;

export class Scroll {
  constructor() {
    this.element = byId("scroller");
    this.button = byId("to-end");
    this.following = true;
    this.top = 0;
    this.element.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.button.addEventListener("click", () => this.toEnd());
  }

  get atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  // Only the reader goes up; growth and its following go down. A scroll is told late, perhaps after more has grown.
  scrolled() {
    const { scrollTop } = this.element;
    if (scrollTop < this.top) this.following = this.atEnd;
    else this.following ||= this.atEnd;
    this.top = scrollTop;
    this.button.hidden = this.following || this.atEnd;
  }

  toEnd() {
    this.following = true;
    this.element.scrollTop = this.element.scrollHeight;
    this.button.hidden = true;
  }

  // After something has grown.
  settle() {
    if (this.following) this.element.scrollTop = this.element.scrollHeight;
    else this.button.hidden = this.atEnd;
  }
}
