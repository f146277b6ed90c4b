// Where questions are written.

import { byId } from "./dom.js";

export class Composer {
  constructor({ onAsk, onStop }) {
    this.form = byId("composer");
    this.text = byId("question");
    this.stop = byId("stop");
    this.text.addEventListener("input", () => this.grow());
    this.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // not the Enter that picks a character
      event.preventDefault();
      this.form.requestSubmit();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const question = this.text.value.trim();
      if (question === "") return this.text.focus();
      this.text.value = "";
      this.grow();
      this.refuse("");
      onAsk(question);
    });
    this.stop.addEventListener("click", onStop);
  }

  get agent() {
    return byId("agent").value || null;
  }

  offer(agents) {
    byId("agent").replaceChildren(...agents.map((name) => new Option(name, name)));
    byId("agent").disabled = agents.length < 2;
  }

  choose(agent) {
    if ([...byId("agent").options].some((option) => option.value === agent)) byId("agent").value = agent;
  }

  // A question that was not accepted comes back, unless another is being written.
  refuse(words, question = "") {
    byId("refusal").hidden = words === "";
    byId("refusal").textContent = words;
    if (question && this.text.value === "") {
      this.text.value = question;
      this.grow();
    }
  }

  // state: "none" active, "active", or "stopping".
  showStop(state) {
    const focused = document.activeElement === this.stop;
    this.stop.hidden = state === "none";
    this.stop.disabled = state === "stopping";
    this.stop.textContent = state === "stopping" ? "Stopping…" : "Stop";
    if (focused && state === "none") this.text.focus();
  }

  grow() {
    this.text.style.height = "auto";
    this.text.style.height = `${Math.min(this.text.scrollHeight + 2, innerHeight * 0.4)}px`;
  }

  focus() {
    this.text.focus();
  }
}
