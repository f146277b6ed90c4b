// Markdown within a line, as elements: code, strong, emphasis, strike, links. Everything else stays text.

import { el, link } from "./dom.js";

// In the order in which they win at one place. The repeats are bounded: no input makes them slow.
const PATTERNS = [
  [/(`{1,3})([^`]{1,2000})\1/y, (match) => el("code", {}, match[2].trim() || match[2])],
  [/\[([^\[\]]{1,500})\]\(([^\s()]{1,2000})\)/y, (match) => link(match[2], ...inline(match[1]))],
  [/https?:\/\/[^\s<>"'`)\]]{1,2000}[^\s<>"'`)\].,;:!?*_]/y, (match) => link(match[0], match[0])],
  [/\*\*(?=\S)([^*]{1,2000})\*\*/y, (match) => el("strong", {}, ...inline(match[1]))],
  [/__(?=\S)([^_]{1,2000})__(?!\w)/y, (match) => el("strong", {}, ...inline(match[1])), true],
  [/\*(?=\S)([^*]{1,2000})\*/y, (match) => el("em", {}, ...inline(match[1]))],
  [/_(?=\S)([^_]{1,2000})_(?!\w)/y, (match) => el("em", {}, ...inline(match[1])), true],
  [/~~(?=\S)([^~]{1,2000})~~/y, (match) => el("s", {}, ...inline(match[1]))],
];
const STARTS = /[`[h*_~\\]/g;
const ESCAPED = /[\\`*_{}[\]()#+\-.!~>|]/;

export function inline(text) {
  const nodes = [];
  let plainFrom = 0;
  let at = 0;
  const push = (until, node, next) => {
    if (until > plainFrom) nodes.push(text.slice(plainFrom, until));
    if (node !== null) nodes.push(node);
    plainFrom = at = next;
  };
  while ((at = nextStart(text, at)) >= 0) {
    if (text[at] === "\\" && ESCAPED.test(text[at + 1] ?? "")) {
      push(at, text[at + 1], at + 2);
      continue;
    }
    const found = matchAt(text, at);
    if (found) push(at, found.node, at + found.length);
    else at += 1;
  }
  push(text.length, null, text.length);
  return nodes;
}

function nextStart(text, from) {
  STARTS.lastIndex = from;
  return STARTS.exec(text)?.index ?? -1;
}

function matchAt(text, at) {
  for (const [pattern, make, atWordOnly] of PATTERNS) {
    if (atWordOnly && /\w/.test(text[at - 1] ?? "")) continue;
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) return { node: make(match), length: match[0].length };
  }
  return null;
}
