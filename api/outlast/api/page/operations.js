// What operators see and do: what is wrong, queues, workers, and the runs of everybody. Asked for while it is shown
// and somebody can see it; what was seen last stays when the server or its database is away.

import { cancelRun, drainWorker, examination, overview, retryRun, runsOfAll } from "./admin.js";
import { Refusal, serverNow } from "./api.js";
import { announce, byId, el, setText } from "./dom.js";
import { pause } from "./follow.js";
import { count, duration, oneLine, plural, statusWords } from "./format.js";
import { Rows } from "./rows.js";
import { sure } from "./sure.js";

const LOOK_MS = 5_000;
const EXAMINE_MS = 30_000; // it opens connections of its own
const PAGE = 50;
const COUNTED_MOST = 10_000; // where the server's counts end
const ACTIVE = ["queued", "in_progress"];
const RETRIABLE = ["failed", "cancelled"];

const many = (number) => `${count(number)}${number >= COUNTED_MOST ? "+" : ""}`;
const secondsOf = (time) => (time ? Date.parse(time) / 1000 : null);
const isScopeMissing = (error) => error instanceof Refusal && error.status === 403;

export class Operations {
  constructor({ onRefused }) {
    this.element = byId("operations-view"); // not what the address says: the browser would go there by itself
    this.onRefused = onRefused; // the key does not open this, or not any more
    this.timer = null;
    this.examinedAt = -Infinity;
    this.first = { data: [] };
    this.more = []; // further pages of runs: not looked at again
    this.queues = new Rows(byId("queues"), QUEUES);
    this.workers = new Rows(byId("workers"), { ...WORKERS, act: (worker) => this.drainOf(worker) });
    this.runs = new Rows(byId("all-runs"), { ...RUNS, act: (run) => this.actionOn(run) });
    byId("filters").addEventListener("submit", (event) => (event.preventDefault(), this.restart()));
    byId("filters").addEventListener("change", () => this.restart());
    byId("more-runs").addEventListener("click", () => this.doing(() => this.further()));
    document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(this.timer) : this.refresh()));
  }

  // Whether there is anything to show: the link to it appears when the key opens it.
  async offer() {
    for (let failures = 0; ; failures += 1) {
      try {
        await overview();
        byId("operations-link").hidden = false;
        return;
      } catch (error) {
        if (error instanceof Refusal && !error.passing) return this.onRefused();
        await pause(failures);
      }
    }
  }

  get shown() {
    return !this.element.hidden;
  }

  toggle(shown) {
    this.element.hidden = !shown;
    if (shown) byId("operations-link").setAttribute("aria-current", "page");
    else byId("operations-link").removeAttribute("aria-current");
    this.refuse("");
    if (shown) this.refresh();
    else clearTimeout(this.timer);
  }

  // Looks now, and again after a while. Two looks at the same time are one.
  refresh() {
    if (!this.shown || document.hidden) return undefined;
    this.looking ??= this.look().finally(() => {
      this.looking = null;
      clearTimeout(this.timer);
      if (this.shown && !document.hidden) this.timer = setTimeout(() => this.refresh(), LOOK_MS);
    });
    return this.looking;
  }

  async look() {
    const filters = this.filters;
    this.examine();
    try {
      const [seen, page] = await Promise.all([overview(), runsOfAll({ limit: PAGE, ...filters })]);
      this.drawOverview(seen);
      if (JSON.stringify(filters) !== JSON.stringify(this.filters)) return;
      this.first = page;
      this.drawRuns();
    } catch (error) {
      if (isScopeMissing(error)) return this.onRefused();
      this.examinedAt = -Infinity; // it may say why
      setText(byId("operations-state"), `${error.message} What was seen last stays below; trying again.`);
    }
  }

  // Takes as long as what it asks takes to answer: the rest does not wait for it.
  async examine() {
    if (this.examining || performance.now() - this.examinedAt < EXAMINE_MS) return;
    this.examining = true;
    try {
      this.drawFindings((await examination()).findings);
      this.examinedAt = performance.now();
    } catch (error) {
      setText(byId("findings-title"), `What is wrong: ${error.message}`);
    } finally {
      this.examining = false;
    }
  }

  get filters() {
    return Object.fromEntries([...new FormData(byId("filters"))].map(([name, value]) => [name, value.trim()]));
  }

  async restart() {
    this.more = [];
    await this.looking; // it was for other filters
    this.refresh();
  }

  async further() {
    const last = this.more.at(-1) ?? this.first;
    this.more.push(await runsOfAll({ limit: PAGE, ...this.filters, after: last.next_after }));
    this.drawRuns();
  }

  drawOverview(seen) {
    const rate = `${(seen.submitted / seen.submitted_seconds).toFixed(1)}/s submitted`;
    const queued = `${seen.exact ? "" : "about "}${count(seen.queued)} queued`;
    setText(byId("operations-state"), `${queued} · ${many(seen.running)} running · ${rate}`);
    this.queues.show(Object.entries(seen.queues).map(([name, queue]) => ({ name, ...queue })));
    this.workers.show(seen.workers);
  }

  drawFindings(findings) {
    const wrong = findings.filter((finding) => finding.severity !== "ok");
    const well = findings.filter((finding) => finding.severity === "ok");
    setText(byId("findings-title"), wrong.length ? "What is wrong" : "Nothing is wrong");
    byId("findings").replaceChildren(...wrong.map(lineOf));
    byId("well").hidden = well.length === 0;
    setText(byId("well").firstChild, `${plural(well.length, "finding")} that ${well.length === 1 ? "is" : "are"} well`);
    byId("well").lastChild.replaceChildren(...well.map(lineOf));
  }

  drawRuns() {
    const pages = [this.first, ...this.more];
    const runs = new Map(pages.flatMap((page) => page.data).map((run) => [run.id, run]));
    this.runs.show([...runs.values()]);
    byId("more-runs").hidden = !pages.at(-1).has_more;
    const all = pages.every((page) => page.looked_at_all !== false);
    setText(byId("all-runs-hint"), all ? "" : "Only the newest runs were looked at: there may be more of them.");
  }

  // -- what can be done ----------------------------------------------------------------------------------------------

  drainOf(worker) {
    if (!worker.alive || worker.draining || worker.drain_requested) return null;
    const name = `${worker.host}:${worker.pid}`;
    const what = `It takes no more runs, hands on its ${plural(worker.running, "run")} and ends.`;
    return ["Drain", () => this.ask(`Drain ${name}?`, what, "Drain", () => drainWorker(worker.owner))];
  }

  actionOn(run) {
    const whose = `A run of ${run.principal} by ${run.agent}.`;
    if (ACTIVE.includes(run.status) && !run.cancel_requested_at) {
      return ["Cancel", () => this.ask(`Cancel ${run.id}?`, `${whose} What it has said is kept.`, "Cancel it", () => cancelRun(run.id))];
    }
    if (!RETRIABLE.includes(run.status)) return null;
    const what = `${whose} It goes on from its last checkpoint, and its end is withdrawn.`;
    return ["Retry", () => this.ask(`Retry ${run.id}?`, what, "Retry it", () => retryRun(run.id))];
  }

  async ask(question, what, yes, act) {
    if (!(await sure(question, what, yes))) return;
    await this.doing(async () => {
      await act();
      announce(`${yes}: done.`);
      await this.looking;
      await this.refresh();
    });
  }

  async doing(work) {
    this.refuse("");
    try {
      await work();
    } catch (error) {
      if (isScopeMissing(error)) this.onRefused();
      else this.refuse(error.message);
    }
  }

  refuse(text) {
    byId("operations-refusal").hidden = text === "";
    setText(byId("operations-refusal"), text);
  }
}

function lineOf(finding) {
  const fix = finding.fix ? el("code", {}, finding.fix) : null;
  const name = el("span", { class: "check" }, finding.check);
  return el("li", { "data-severity": finding.severity }, name, el("span", {}, finding.seen, fix && " "), fix);
}

// -- columns -----------------------------------------------------------------------------------------------------------

const QUEUES = {
  title: "queues-title",
  none: "Nothing is queued or running, and no worker is there.",
  key: (queue) => queue.name,
  columns: [
    ["queue", (queue) => queue.name],
    ["ready", (queue) => many(queue.ready)],
    ["waiting", (queue) => many(queue.waiting)],
    ["running", (queue) => many(queue.running)],
    ["oldest", (queue) => (queue.ready ? duration(queue.oldest_seconds) : "–")],
  ],
};

function stateOf(worker) {
  if (!worker.alive) return { text: `silent for ${duration(worker.seen_seconds)}`, state: "failed" };
  if (worker.draining) return { text: "draining", state: "cancelled" };
  if (worker.drain_requested) return { text: "asked to drain", state: "cancelled" };
  if (worker.resting) return { text: "resting", state: "completed" };
  return worker.running ? { text: "working", state: "in_progress" } : { text: "idle", state: "completed" };
}

const WORKERS = {
  title: "workers-title",
  none: "No worker is there: runs wait.",
  key: (worker) => worker.owner,
  columns: [
    ["worker", (worker) => ({ text: `${worker.host}:${worker.pid}`, title: worker.queues.join(", ") })],
    ["state", stateOf],
    ["children", (worker) => count(worker.children)],
    ["running", (worker) => `${count(worker.running)} of ${count(worker.slots)}`],
    ["oldest run", (worker) => duration(worker.oldest_seconds)],
    ["up", (worker) => duration(worker.up_seconds)],
    ["version", (worker) => worker.version],
  ],
};

function standing(run) {
  const asked = run.cancel_requested_at && ACTIVE.includes(run.status);
  return { text: asked ? "to be cancelled" : statusWords(run.status), state: run.status };
}

function ageOf(run) {
  const end = secondsOf(run.finished_at) ?? serverNow();
  return duration(Math.max(0, end - secondsOf(run.created_at)));
}

const RUNS = {
  title: "all-runs-title",
  none: "None.",
  key: (run) => run.id,
  columns: [
    ["run", (run) => ({ text: run.id, title: run.id })],
    ["status", standing],
    ["agent", (run) => run.agent],
    ["principal", (run) => run.principal],
    ["took", ageOf],
    ["attempts", (run) => count(run.attempt)],
    ["worker", (run) => run.worker?.replace(/:[^:]*$/, "") ?? "–"],
    ["why", (run) => ({ text: oneLine(run.error?.message ?? run.last_cause ?? ""), title: run.error?.message ?? "" })],
  ],
};
