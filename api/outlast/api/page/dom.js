// Elements made of text. Nothing on this page is ever parsed as HTML: the server forbids it (Trusted Types), and so
// does this file, the only one that makes elements.

export const byId = (id) => document.getElementById(id);

// el("p", { class: "hint", onclick: f }, "text", element): attributes by name, listeners by on + name.
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A link to where an agent says. Anything but the web's own schemes stays text.
export function link(address, ...children) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return el("span", {}, ...children);
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return el("span", {}, ...children);
  return el("a", { href: url.href, rel: "noopener noreferrer nofollow", target: "_blank" }, ...children);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = el("textarea", { class: "unseen" }); // plain http from another machine: no clipboard there
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

export function copyButton(label, makeText) {
  const button = el("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    await copy(makeText());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

export function announce(text) {
  byId("announcer").textContent = text;
}
