// A question before something that cannot be taken back. The answer that changes nothing has the focus.

import { byId } from "./dom.js";

export function sure(question, what, yes) {
  const dialog = byId("sure-dialog");
  byId("sure-question").textContent = question;
  byId("sure-what").textContent = what;
  byId("sure-yes").textContent = yes;
  dialog.returnValue = "no"; // Escape leaves it as it is
  dialog.showModal();
  return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === "yes")));
}
