// Numbers, times and JSON as people read them.

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 0.0995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(seconds < 0.995 ? 2 : 1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 100 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${(seconds / 3600).toFixed(1)} h`;
}

export function ago(unixSeconds, now = Date.now() / 1000) {
  const seconds = now - unixSeconds;
  if (seconds < 45) return "now";
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h`;
  return new Date(unixSeconds * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

export const count = (number) => Number(number).toLocaleString("en");

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

export const statusWords = (status) => String(status).replace("_", " ");

// Arguments and outputs are text that is often JSON.
export function pretty(text) {
  if (typeof text !== "string") return JSON.stringify(text, null, 2) ?? "";
  if (!/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export function oneLine(text, most = 90) {
  const line = text.slice(0, 4 * most).replace(/\s+/g, " ").trim();
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}

// {"query":"lease","limit":3} as: query: "lease", limit: 3
export function argumentsLine(text) {
  try {
    const values = JSON.parse(text);
    if (values && typeof values === "object" && !Array.isArray(values)) {
      const named = Object.entries(values).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
      return oneLine(named.join(", "));
    }
  } catch {
    // not JSON: as it is
  }
  return oneLine(text ?? "");
}
