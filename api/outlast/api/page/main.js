// What is where: the conversation, the list of runs, the details of one run. The address names the run that is shown,
// so that a reload, a bookmark and the back button find it again.

import { models, Refusal } from "./api.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { pause } from "./follow.js";
import { Inspector } from "./inspector.js";
import { offerToForget } from "./key.js";
import { Operations } from "./operations.js";
import { RunsList } from "./runs_list.js";
import { Scroll } from "./scroll.js";
import { offerThemes } from "./theme.js";

const WIDE = matchMedia("(min-width: 1160px)");

const runs = new RunsList();
const inspector = new Inspector();
const scroll = new Scroll();
const composer = new Composer({ onAsk: ask, onStop: () => conversation.stop() });
const conversation = new Conversation({ changed, named, opened, inspect });
const operations = new Operations({ onRefused: hideOperations });
const OPERATIONS = "operations"; // what the address says instead of a run

function changed(turn) {
  scroll.settle();
  const active = conversation.active;
  composer.showStop(active === null ? "none" : active.stopping ? "stopping" : "active");
  if (inspector.run?.id === turn.run.id) {
    inspector.run = turn.run;
    inspector.refresh();
  }
  const state = `${turn.run.id} ${turn.run.status} ${turn.run.attempt?.number}`;
  if (state !== turn.listed) runs.refresh(); // the list is behind
  turn.listed = state;
}

// A question has become a run: from now on the address finds it.
function named(turn) {
  history.pushState(null, "", `#${turn.run.id}`);
  runs.select(turn.run.id);
  if (WIDE.matches || inspector.open) inspector.show(turn.run);
}

// A run that the address names is shown.
function opened(turn) {
  composer.choose(turn.run.model);
  if (WIDE.matches || inspector.open) inspector.show(turn.run);
}

async function inspect(turn) {
  inspector.show(turn.run, turn.element.querySelector(".inspect"));
  byId("tab-timeline").focus();
  await conversation.complete(turn);
}

async function ask(question) {
  byId("welcome").hidden = true;
  scroll.toEnd();
  try {
    await conversation.ask(question, composer.agent);
  } catch (error) {
    composer.refuse(wordsOf(error), question);
    byId("welcome").hidden = conversation.turns.length > 0;
  }
}

async function show() {
  const id = location.hash.slice(1);
  operations.toggle(id === OPERATIONS);
  byId("composer").hidden = byId("conversation").hidden = id === OPERATIONS;
  if (id === OPERATIONS) return showOperations();
  const turn = conversation.turnOf(id);
  runs.select(id || null);
  closeSidebar();
  if (turn) {
    turn.element.scrollIntoView({ block: "start" });
    inspector.run = turn.run;
    inspector.refresh();
    await conversation.complete(turn);
    return;
  }
  conversation.clear();
  composer.refuse("");
  composer.showStop("none");
  byId("welcome").hidden = id !== "";
  if (id === "") {
    inspector.element.hidden = true;
    if (WIDE.matches) composer.focus();
    return;
  }
  await open(id);
}

function showOperations() {
  runs.select(null);
  closeSidebar();
  conversation.clear();
  byId("welcome").hidden = byId("inspector").hidden = true;
  byId("scroller").scrollTop = 0;
  byId("operations-title").focus();
}

// The key does not open it: there is nothing to see of it.
function hideOperations() {
  byId("operations-link").hidden = true;
  if (operations.shown) byId("new").click();
}

async function open(id) {
  const { signal } = conversation.leaving;
  scroll.toEnd();
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      return await conversation.open(id, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal && !error.passing) return conversation.say(wordsOf(error));
      conversation.say("reconnecting…");
      await pause(failures, signal);
    }
  }
}

function wordsOf(error) {
  return error instanceof Refusal ? `${error.message} (${error.code})` : `${error.message ?? error}`;
}

function openSidebar() {
  byId("app").classList.add("sidebar-open");
  byId("open-sidebar").setAttribute("aria-expanded", "true");
  byId("close-sidebar").focus();
}

function closeSidebar() {
  byId("app").classList.remove("sidebar-open");
  byId("open-sidebar").setAttribute("aria-expanded", "false");
}

byId("open-sidebar").addEventListener("click", openSidebar);
byId("close-sidebar").addEventListener("click", closeSidebar);
byId("sidebar").addEventListener("keydown", (event) => event.key === "Escape" && closeSidebar());
byId("new").addEventListener("click", () => {
  history.pushState(null, "", location.pathname + location.search);
  show();
  composer.focus();
});
addEventListener("hashchange", show);

async function offerAgents() {
  for (let failures = 0; ; failures += 1) {
    try {
      return composer.offer(await models());
    } catch {
      await pause(failures);
    }
  }
}

offerThemes();
offerToForget();
runs.refresh();
offerAgents();
operations.offer();
show();
