// The common part of Markdown, as elements: paragraphs, headings, lists, quotes, tables, rules and fenced code.

import { el } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]{0,30})/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const LISTED = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTED = /^ {0,3}> ?(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/;
const DEEPEST = 8; // quotes and lists within each other; beyond it they are text

export function blocks(text, depth = 0) {
  const lines = text.split("\n");
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const [element, next] = block(lines, at, depth);
    if (element) made.push(element);
    at = next;
  }
  return made;
}

// Where text can be cut: what comes before is made of whole blocks, whatever follows.
export function settledLength(text, from) {
  let settled = from;
  let fence = null;
  for (let start = from; ; ) {
    const end = text.indexOf("\n", start);
    if (end < 0) return settled;
    const line = text.slice(start, end);
    const mark = FENCE.exec(line)?.[1];
    if (fence === null && mark) fence = mark;
    else if (fence !== null && closes(line, fence)) {
      fence = null;
      settled = end + 1;
    } else if (fence === null && line.trim() === "") settled = end + 1;
    start = end + 1;
  }
}

function block(lines, at, depth) {
  const line = lines[at];
  if (line.trim() === "") return [null, at + 1];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2])), at + 1];
  if (RULE.test(line)) return [el("hr"), at + 1];
  if (depth < DEEPEST && QUOTED.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && LISTED.test(line)) return list(lines, at, depth);
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) return table(lines, at);
  return paragraph(lines, at, depth);
}

const closes = (line, mark) => line.trim().startsWith(mark) && line.trim().replaceAll(mark[0], "") === "";

function code(lines, at, fence) {
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], fence[1])) end += 1;
  const text = lines.slice(at + 1, end).join("\n");
  return [el("pre", { class: "code", tabindex: 0, "data-language": fence[2] || null }, el("code", {}, text)), end + 1];
}

function quote(lines, at, depth) {
  const inner = [];
  let end = at;
  while (end < lines.length && QUOTED.test(lines[end])) inner.push(QUOTED.exec(lines[end++])[1]);
  return [el("blockquote", {}, ...blocks(inner.join("\n"), depth + 1)), end];
}

function list(lines, at, depth) {
  const [, indent, bullet] = LISTED.exec(lines[at]);
  const ordered = /\d/.test(bullet);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const match = LISTED.exec(lines[end]);
    if (match && match[1].length <= indent.length && /\d/.test(match[2]) === ordered) items.push([match[3]]);
    else if (lines[end].trim() !== "" && /^\s/.test(lines[end]) && items.length) items.at(-1).push(lines[end].slice(indent.length + 2));
    else break;
    end += 1;
  }
  const made = items.map((inner) => el("li", {}, ...tight(blocks(inner.join("\n"), depth + 1))));
  return [ordered ? el("ol", { start: Number.parseInt(bullet, 10) }, ...made) : el("ul", {}, ...made), end];
}

// A list item of one paragraph holds its words, not a paragraph.
function tight(made) {
  return made.flatMap((element) => (element.tagName === "P" ? [...element.childNodes] : [element]));
}

function table(lines, at) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, kind) => el("tr", {}, ...cells(line).map((cell) => el(kind, {}, ...inline(cell))));
  let end = at + 2;
  const body = [];
  while (end < lines.length && lines[end].includes("|")) body.push(row(lines[end++], "td"));
  const whole = el("table", {}, el("thead", {}, row(lines[at], "th")), el("tbody", {}, ...body));
  return [el("div", { class: "wide", tabindex: 0 }, whole), end];
}

function paragraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !interrupts(lines[end], depth)) end += 1;
  return [el("p", {}, ...inline(lines.slice(at, end).join("\n"))), end];
}

function interrupts(line, depth) {
  return FENCE.test(line) || HEADING.test(line) || (depth < DEEPEST && (QUOTED.test(line) || LISTED.test(line)));
}
