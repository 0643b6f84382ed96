// The completeness grid: a row per condition, a cell per run. Five paths draw any number of runs.
import { svg } from "./dom.js";
import { short } from "./axes.js";
import { studyPath } from "./state.js";

const STATUS = { w: "waiting", r: "running", f: "finished", d: "diverged", x: "failed" };

export function grid(conditions) {
  const most = Math.max(1, ...conditions.map((c) => c.runs.length));
  const left = 150, cell = Math.max(1.5, Math.min(14, 460 / most)), row = Math.max(8, Math.min(18, cell * 1.2));
  const width = 620, height = conditions.length * row + 18;
  const root = svg("svg", { class: "drawn", viewBox: `0 0 ${width} ${height}`, tabindex: "0", role: "application", "aria-label": "Every run: rows are conditions, cells are runs. Arrow keys move, Enter opens the run." });
  const gap = cell > 4 ? 1 : 0, parts = Object.fromEntries(Object.keys(STATUS).map((s) => [s, ""]));
  conditions.forEach((condition, r) => {
    root.append(svg("text", { x: left - 6, y: (r + 0.5) * row + 4, "text-anchor": "end" }, short(condition.condition, 24), svg("title", {}, condition.condition)));
    [...condition.runs].forEach((status, c) => { parts[status] += `M${(left + c * cell).toFixed(2)} ${r * row}h${(cell - gap).toFixed(2)}v${row - 1}h${(gap - cell).toFixed(2)}z`; });
  });
  for (const [status, d] of Object.entries(parts)) if (d) root.append(svg("path", { class: "s-" + STATUS[status], d }));
  const cursor = svg("rect", { class: "cursor", width: cell, height: row, visibility: "hidden" });
  const said = svg("text", { x: left, y: height - 4 });
  root.append(cursor, said);
  let at = [0, 0];
  const move = (r, c) => {
    at = [Math.min(Math.max(r, 0), conditions.length - 1), 0];
    at[1] = Math.min(Math.max(c, 0), conditions[at[0]].runs.length - 1);
    for (const [name, value] of Object.entries({ x: left + at[1] * cell, y: at[0] * row, visibility: "visible" })) cursor.setAttribute(name, value);
    said.textContent = `${conditions[at[0]].condition}, run ${at[1] + 1} of ${conditions[at[0]].runs.length}: ${STATUS[conditions[at[0]].runs[at[1]]]}`;
  };
  const open = () => location.assign(`${studyPath()}/cell?condition=${at[0]}&run=${at[1]}`);
  const under = (event) => {
    const box = root.getBoundingClientRect(), k = width / box.width;
    const r = Math.floor(((event.clientY - box.top) * k) / row), c = Math.floor(((event.clientX - box.left) * k - left) / cell);
    return r >= 0 && r < conditions.length && c >= 0 && c < conditions[r].runs.length ? [r, c] : null;
  };
  root.addEventListener("mousemove", (event) => { const cellUnder = under(event); if (cellUnder) move(...cellUnder); });
  root.addEventListener("click", (event) => { const cellUnder = under(event); if (cellUnder) { move(...cellUnder); open(); } });
  root.addEventListener("focus", () => move(...at));
  root.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (steps) { event.preventDefault(); move(at[0] + steps[0], at[1] + steps[1]); }
    if (event.key === "Enter") open();
  });
  return root;
}
