// The SQL page: the editor, queries that this browser remembers, the answer as a table and as a chart.
import { axes, path } from "./axes.js";
import { element } from "./dom.js";
import { range } from "./curves.js";
import { figure } from "./figure.js";
import { onKey } from "./keys.js";
import { get, page, set } from "./state.js";
import { VirtualTable } from "./virtual.js";

const KEY = "seedbed-queries";
const editor = document.getElementById("q"), form = document.getElementById("sql");

export function start() {
  editor.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  document.getElementById("examples").addEventListener("change", (event) => { if (event.target.value) editor.value = event.target.value; });
  onKey("/", () => editor.focus());
  saved();
  if (page.answer) answer(page.answer);
}

function saved() {
  const select = document.getElementById("saved");
  const list = () => JSON.parse(localStorage.getItem(KEY) ?? "[]");
  const fill = () => select.replaceChildren(element("option", { value: "" }, "choose"), ...list().map((text) => element("option", { value: text }, text.replace(/\s+/g, " ").slice(0, 60))));
  select.addEventListener("change", () => { if (select.value) editor.value = select.value; });
  document.getElementById("save").addEventListener("click", () => {
    localStorage.setItem(KEY, JSON.stringify([...new Set([editor.value, ...list()])].slice(0, 30)));
    fill();
  });
  fill();
}

function answer(table) {
  const read = (row, name) => table.data[table.columns.indexOf(name)][row];
  const virtual = new VirtualTable(document.getElementById("answer"), { link: (row, name) => (name === "run_id" ? `/run/${encodeURIComponent(read(row, name))}${page.study ? `?study=${encodeURIComponent(page.study)}` : ""}` : null) });
  virtual.show(table.columns, Array.from({ length: table.rows }, (_, i) => i), read);
  const numeric = table.columns.filter((_, i) => table.data[i].some((v) => typeof v === "number") && table.data[i].every((v) => v === null || typeof v === "number"));
  const found = figure("drawn");
  if (numeric.length < 1 || !table.rows) { found.root.hidden = true; return; }
  const texts = table.columns.filter((c) => !numeric.includes(c));
  const choices = { x: numeric[0], y: numeric.at(-1), by: texts[0] ?? "" };
  for (const name of ["x", "y", "by"]) {
    const options = name === "by" ? ["", ...texts] : numeric;
    const select = element("select", { "aria-label": name, onchange: (e) => { set({ [name]: e.target.value }); draw(); } }, ...options.map((o) => element("option", { value: o, ...(o === get(name, choices[name]) ? { selected: "" } : {}) }, o || "nothing")));
    found.controls.append(` ${name} `, select);
  }
  const draw = () => chart(found, table, get("x", choices.x), get("y", choices.y), get("by", choices.by));
  draw();
}

function chart(found, table, xName, yName, by) {
  const column = (name) => table.data[table.columns.indexOf(name)];
  const x = column(xName), y = column(yName), group = by ? column(by) : null;
  if (!x || !y) return;
  const [low, high] = range([y]), left = Math.min(...x), right = Math.max(...x);
  const drawn = axes({ width: 1100, height: 340, x: { low: left, high: right > left ? right : left + 1, label: xName }, y: { low, high, label: yName }, right: group ? 220 : 12, label: `${yName} against ${xName}` });
  const indices = Array.from({ length: table.rows }, (_, i) => i);
  const groups = [...(group ? Map.groupBy(indices, (i) => group[i]) : new Map([["", indices]]))];
  groups.slice(0, 8).forEach(([label, members], number) => {
    const points = members.filter((i) => x[i] !== null && y[i] !== null).sort((a, b) => x[a] - x[b]).map((i) => [drawn.px(x[i]), drawn.py(y[i])]);
    drawn.add("path", { class: `line k${number}`, d: path(points) });
    for (const [cx, cy] of points.length <= 200 ? points : []) drawn.add("circle", { class: "f-grey", cx, cy, r: 2.5 });
    if (group) drawn.add("line", { class: `line k${number}`, x1: 892, x2: 922, y1: 14 + 15 * number, y2: 14 + 15 * number });
    if (group) drawn.add("text", { class: "label", x: 928, y: 18 + 15 * number }, String(label).slice(-28));
  });
  found.plots.replaceChildren(drawn.root);
  found.table([...(by ? [by] : []), xName, yName], indices.map((i) => ({ ...(by ? { [by]: group[i] } : {}), [xName]: x[i], [yName]: y[i] })), String);
  found.count(`${table.rows} of ${table.rows} rows${groups.length > 8 ? `; the first 8 of ${groups.length} groups are drawn` : ""}${page.answer.cut ? "; the answer itself is cut" : ""}`);
}
