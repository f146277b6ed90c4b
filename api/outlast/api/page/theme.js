// Dark or light: as the system says, until the reader chooses.

import { byId } from "./dom.js";

const NAME = "outlast.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

export function offerThemes() {
  apply();
  dark.addEventListener("change", apply);
  byId("theme").addEventListener("click", () => {
    const other = current() === "dark" ? "light" : "dark";
    if ((other === "dark") === dark.matches) localStorage.removeItem(NAME); // the system's own again
    else localStorage.setItem(NAME, other);
    apply();
  });
}

const current = () => localStorage.getItem(NAME) ?? (dark.matches ? "dark" : "light");

function apply() {
  document.documentElement.dataset.theme = current();
  byId("theme").textContent = current() === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Use the ${current() === "dark" ? "light" : "dark"} colours`);
}
