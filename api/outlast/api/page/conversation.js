// The turns that are shown: of one conversation, each with the run that it is.

import * as api from "./api.js";
import { announce, byId } from "./dom.js";
import { follow, pause } from "./follow.js";
import { update } from "./frames.js";
import { statusWords } from "./format.js";
import { Run } from "./run.js";
import { Turn } from "./turn.js";

const MOST_TURNS = 20;

export class Conversation {
  // changed(turn) is called after a turn was drawn, once for all that happened since; named(turn) when its run has an id.
  // opened(turn) when a run that was asked for by its id is there.
  constructor({ changed, named, opened, inspect }) {
    this.element = byId("conversation");
    this.changed = changed;
    this.named = named;
    this.opened = opened;
    this.inspect = inspect;
    this.clear();
  }

  clear() {
    this.leaving?.abort();
    this.leaving = new AbortController();
    this.turns = [];
    this.element.replaceChildren();
    this.say("");
  }

  // What there is to say instead of a conversation.
  say(words) {
    byId("instead").hidden = words === "";
    byId("instead").textContent = words;
  }

  get id() {
    return this.turns.findLast((turn) => turn.run.conversation)?.run.conversation ?? null;
  }

  get active() {
    return this.turns.find((turn) => turn.run.id !== null && !turn.run.ended) ?? null;
  }

  turnOf(id) {
    return this.turns.find((turn) => turn.run.id === id) ?? null;
  }

  // Post a question and follow its run. Throws a Refusal when it is not accepted; its turn is gone then.
  async ask(question, agent) {
    const body = { input: question, ...(agent && { model: agent }), ...(this.id && { conversation: this.id }) };
    const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const turn = this.add(new Turn(new Run(), question, this.inspect));
    announce("Question sent");
    try {
      await this.follow(turn, (signal) => api.submit(body, key, signal));
    } catch (error) {
      if (turn.run.id === null) this.remove(turn);
      throw error;
    }
  }

  // Show a run among the other turns of its conversation, and follow it from its first event.
  async open(id, signal = this.leaving.signal) {
    const [response, question] = await Promise.all([api.retrieve(id), api.questionOf(id)]);
    if (signal.aborted) return;
    this.say("");
    const run = new Run(id);
    run.conversation = response.conversation.id;
    run.model = response.model;
    const turn = this.add(new Turn(run, question, this.inspect));
    this.opened(turn);
    this.addOthers(id, run.conversation, signal).catch(() => {}); // the run itself is shown; that is what was asked for
    await this.follow(turn);
  }

  // A run that is only shown by its answer yet gets its events too.
  async complete(turn) {
    if (turn.run.events.length > 0 || turn.following) return;
    const run = new Run(turn.run.id);
    await follow(run, { signal: this.leaving.signal, onEvent: (event) => run.apply(event), onConnection: () => {} });
    turn.restart(run);
    this.draw(turn);
  }

  async follow(turn, begin) {
    const { signal } = this.leaving;
    turn.following = true;
    try {
      await follow(turn.run, {
        begin,
        signal,
        onEvent: (event) => this.apply(turn, event),
        onConnection: (state) => this.connected(turn, state),
      });
    } finally {
      turn.following = false;
    }
    if (turn.run.ended && !signal.aborted) announce(`The run is ${statusWords(turn.run.status)}`);
  }

  apply(turn, event) {
    const unnamed = turn.run.id === null;
    turn.run.apply(event);
    if (unnamed) this.named(turn);
    this.draw(turn);
  }

  connected(turn, state) {
    if (turn.connection === state) return;
    turn.connection = state;
    if (!turn.run.ended) announce(state === "reconnecting" ? "Reconnecting" : "Connected");
    this.draw(turn);
  }

  async stop() {
    const turn = this.active;
    if (!turn || turn.stopping) return;
    turn.stopping = true;
    this.draw(turn);
    try {
      for (let failures = 0; !turn.run.ended && !this.leaving.signal.aborted; failures += 1) {
        try {
          return await api.cancel(turn.run.id);
        } catch (error) {
          if (error instanceof api.Refusal && !error.passing) return; // it has ended by itself meanwhile
          await pause(failures, this.leaving.signal);
        }
      }
    } finally {
      turn.stopping = false;
      this.draw(turn);
    }
  }

  // The conversation's other turns, as far as they are among the newest runs.
  async addOthers(id, conversation, signal) {
    const { data } = await api.list({ limit: 100 });
    const others = data.filter((entry) => entry.conversation.id === conversation && entry.id !== id).slice(0, MOST_TURNS);
    const turns = await Promise.all(others.map(async (entry) => {
      const question = entry.title && !entry.title.endsWith("…") ? entry.title : await api.questionOf(entry.id);
      return new Turn(Run.from(await api.retrieve(entry.id)), question, this.inspect);
    }));
    if (signal.aborted) return;
    for (const turn of turns) {
      if (this.turnOf(turn.run.id)) continue; // asked meanwhile
      this.add(turn);
      if (!turn.run.ended) this.restart(turn);
    }
  }

  restart(turn) {
    const run = new Run(turn.run.id);
    run.conversation = turn.run.conversation;
    turn.restart(run);
    this.follow(turn).catch(() => {});
  }

  // Ids are ordered by time. A turn without one has just been asked.
  add(turn) {
    const later = turn.run.id === null ? -1 : this.turns.findIndex((other) => other.run.id === null || other.run.id > turn.run.id);
    if (later < 0) {
      this.turns.push(turn);
      this.element.append(turn.element);
    } else {
      this.turns[later].element.before(turn.element);
      this.turns.splice(later, 0, turn);
    }
    this.draw(turn);
    return turn;
  }

  remove(turn) {
    this.turns = this.turns.filter((other) => other !== turn);
    turn.element.remove();
  }

  draw(turn) {
    turn.draw ??= () => {
      turn.update();
      this.changed(turn);
    };
    update(turn.draw);
  }
}
