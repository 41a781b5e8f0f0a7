// Elements, numbers and the names of things. Data reaches the page as text nodes and attributes, never as markup.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const byId = (id) => document.getElementById(id);
const report = read("report");
const ROLE = { teacher: "Teacher", student: "Student", baseline: "Baseline" };

function el(name, attributes = {}, ...children) {
  const node = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const fill = (node, ...children) => node.replaceChildren(...children);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const missing = (value) => value === null || value === undefined || Number.isNaN(value);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** A number with three digits that count; a dash where there is none. */
function number(value, digits = 3) {
  if (missing(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size >= 1e6 || (size > 0 && size < 1e-3)
    ? value.toExponential(digits - 1)
    : size >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}

/** Two decimals; a dash where there is no number. */
const fixed = (value) => (missing(value) ? "–" : value.toFixed(2).replace("-", "−"));

/** A mean with two decimals and its interval, [mean, low, high, n]. */
function interval(found) {
  const [mean, low, high] = found ?? [];
  return missing(low) || missing(high) ? fixed(mean) : `${fixed(mean)} [${fixed(low)}, ${fixed(high)}]`;
}

const network = (key) => report.networks.find((one) => one.key === key);
const roleOf = (key) => ROLE[key] ?? capital(key);
const others = report.networks.filter((one) => one.key !== report.reference);
const rowOf = (name) => report.rows.find((row) => row.name === name);
const differenceName = (key) => `${roleOf(key)} − ${roleOf(report.reference).toLowerCase()}`;
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

/** A head of texts, and rows {cells, current} of texts, the first of which are headers. */
function fillTable(table, head, rows) {
  table.querySelectorAll("thead, tbody").forEach((part) => part.remove());
  const look = (i) => (i < 2 ? "text" : null);
  const cell = (text, i) => (i ? el("td", { class: look(i) }, text) : el("th", { scope: "row" }, text));
  const line = head.map((text, i) => el("th", { scope: "col", class: look(i) }, text));
  const body = rows.map(({ cells, current }) => (
    el("tr", { "aria-current": current ? "true" : null }, ...cells.map(cell))));
  table.append(el("thead", {}, el("tr", {}, ...line)), el("tbody", {}, ...body));
}
