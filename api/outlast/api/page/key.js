// The API key: asked for when the server wants one, kept in this tab's session storage, sent in a header only.

import { byId } from "./dom.js";

const NAME = "outlast.key";
let asking = null;

export const currentKey = () => sessionStorage.getItem(NAME);

// Resolves when there is another key than the one that was refused.
export async function anotherKey(refused, reason) {
  if (currentKey() !== refused) return;
  asking ??= ask(refused === null ? reason : `The key was refused. ${reason}`);
  await asking;
}

export function offerToForget() {
  const button = byId("forget-key");
  button.hidden = currentKey() === null;
  button.onclick = () => {
    sessionStorage.removeItem(NAME);
    location.reload();
  };
}

function ask(reason) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  byId("key-reason").textContent = reason;
  field.value = "";
  dialog.oncancel = (event) => event.preventDefault();
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.onclose = () => asking && dialog.showModal();
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, field.value.trim());
      field.value = "";
      asking = null;
      dialog.close();
      offerToForget();
      resolve();
    };
  });
}
