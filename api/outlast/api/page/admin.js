// What operators ask and do, with a key that has the scope admin.

import { json } from "./api.js";

const post = (path) => json(`../admin/${path}`, { method: "POST" });

export const overview = () => json("../admin/queue");

export const examination = () => json("../admin/doctor");

// A page of the runs of all principals; empty filters are left out.
export function runsOfAll({ limit, after, ...filters }) {
  const given = Object.entries({ limit, after, ...filters }).filter(([, value]) => value !== "" && value != null);
  return json(`../admin/runs?${new URLSearchParams(given)}`);
}

export const cancelRun = (id) => post(`runs/${encodeURIComponent(id)}/cancel`);

export const retryRun = (id) => post(`runs/${encodeURIComponent(id)}/retry`);

export const drainWorker = (owner) => post(`workers/${encodeURIComponent(owner)}/drain`);
