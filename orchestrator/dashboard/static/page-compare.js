// Compare: curves with their bands over one axis or side by side, and distributions of final scores.
import { area, axes, path, short } from "./axes.js";
import { Panel, range } from "./curves.js";
import { draw as drawScores } from "./distribution.js";
import { choice } from "./dom.js";
import { figure } from "./figure.js";
import { onKey } from "./keys.js";
import { get, number, page, set } from "./state.js";

const VIEWS = ["together", "side by side"], KINDS = ["ecdf", "strip", "histogram", "ridgeline"];
const rows = page.rows.map((r) => ({ ...r, name: `${r.study} · ${r.label}` }));

export function start() {
  const form = document.getElementById("compare");
  form.addEventListener("submit", () => {
    form.elements.with.value = [...form.querySelectorAll("[name=chosen]:checked")].map((box) => box.value).join("\n");
    for (const box of form.querySelectorAll("[name=chosen]")) box.disabled = true;
  });
  for (const button of form.querySelectorAll("[data-all]")) button.addEventListener("click", () => {
    const boxes = [...form.querySelectorAll("[name=chosen]")].filter((box) => box.dataset.study === button.dataset.all), on = !boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = on;
  });
  if (!rows.length) return;
  const curvesFigure = figure("medians"), scoresFigure = figure("ecdf");
  curvesFigure.controls.append(choice("View", VIEWS, get("view", usual()), (view) => { set({ view: view === usual() ? "" : view }); curves(curvesFigure); }));
  scoresFigure.controls.append(choice("Kind", KINDS, get("scores", KINDS[0]), (kind) => { set({ scores: kind === KINDS[0] ? "" : kind }); scores(scoresFigure); }));
  const next = (holder, options, now) => holder.controls.querySelector(`[data-choice="${options[(options.indexOf(now) + 1) % options.length]}"]`).click();
  onKey("v", () => next(curvesFigure, VIEWS, get("view", usual())));
  onKey("d", () => next(scoresFigure, KINDS, get("scores", KINDS[0])));
  curves(curvesFigure);
  scores(scoresFigure);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => curves(curvesFigure));
}

const usual = () => VIEWS[rows.length > 4 ? 1 : 0];  // more bands than four over one another are a blot
// n of N of all conditions together, and of each where they are not whole.
function told(n, of) {
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const parts = rows.map((r, i) => [r.name, n[i], of[i]]).filter(([, some, all]) => some !== all).map(([name, some, all]) => `${name}: ${some} of ${all}`);
  return `n = ${sum(n)} of ${sum(of)} runs${parts.length ? `; ${parts.join("; ")}` : ""}`;
}

function curves(found) {
  const steps = rows.flatMap((r) => r.fan.map((p) => p.step));
  found.count(told(rows.map((r) => r.fan.at(-1)?.n ?? 0), rows.map((r) => r.numbers.launched)));
  found.table(["name", "step", "n", "launched", "mean", "q05", "q25", "q50", "q75", "q95"], rows.flatMap((r) => r.fan.map((p) => ({ ...p, name: r.name }))), number);
  if (!steps.length) { found.count("no probe yet"); return; }
  if (get("view", usual()) === VIEWS[0]) together(found, steps);
  else beside(found, steps);
}

function beside(found, steps) {
  const y = range(rows.flatMap((r) => [r.fan.map((p) => p.q05), r.fan.map((p) => p.q95)]));
  const panels = rows.map((r) => Object.assign(new Panel(r.name, { launched: r.numbers.launched, onPick() {}, onZoom() {} }), { fan: r.fan, zoom: [Math.min(...steps), Math.max(...steps)] }));
  found.plots.replaceChildren(...panels.map((p) => p.root));
  for (const panel of panels) panel.draw(y);
  found.drawings = () => panels.map((p) => p.svg(page.metric));
}

function together(found, steps) {
  const [low, high] = range(rows.flatMap((r) => [r.fan.map((p) => p.q25), r.fan.map((p) => p.q75)]));
  const chart = axes({ width: 1100, height: 380, right: 250, x: { low: Math.min(...steps), high: Math.max(...steps), label: "step" }, y: { low, high, label: page.metric }, label: `Medians of ${page.metric}` });
  rows.forEach((row, i) => {
    const points = (name) => row.fan.filter((p) => p[name] !== null).map((p) => [chart.px(p.step), chart.py(p[name])]);
    chart.add("path", { class: `mist b${i}`, d: area(points("q25"), points("q75")) });
  });
  rows.forEach((row, i) => {
    chart.add("path", { class: `line k${i}`, d: path(row.fan.filter((p) => p.q50 !== null).map((p) => [chart.px(p.step), chart.py(p.q50)])) });
    chart.add("line", { class: `line k${i}`, x1: 864, x2: 894, y1: 16 + 17 * i, y2: 16 + 17 * i });
    chart.add("text", { class: "label", x: 900, y: 20 + 17 * i }, short(row.name, 32));
  });
  found.plots.replaceChildren(chart.root);
  found.drawings = () => [chart.root];
}

function scores(found) {
  const rule = rows[0].rule, groups = rows.map((r) => ({ label: r.name, factors: { condition: r.name }, scores: r.scores, launched: r.numbers.launched }));
  found.plots.replaceChildren(...drawScores(get("scores", KINDS[0]), groups, { scale: "condition", metric: rule.metric, threshold: rule.threshold, href: (s) => `/run/${encodeURIComponent(s.run_id)}` }));
  found.count(told(rows.map((r) => r.scores.length), rows.map((r) => r.numbers.launched)));
  found.table(["name", "run_id", "score", "success"], rows.flatMap((r) => r.scores.map((s) => ({ ...s, name: r.name }))), number);
}
