// Keeps the end of the conversation in view, but only while the reader is there.

import { byId } from "./dom.js";

const NEAR = 48;

export class Scroll {
  constructor() {
    this.element = byId("scroller");
    this.button = byId("to-end");
    this.following = true;
    this.element.addEventListener("scroll", () => {
      this.following = this.atEnd;
      this.button.hidden = this.following;
    }, { passive: true });
    this.button.addEventListener("click", () => this.toEnd());
  }

  get atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < NEAR;
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
