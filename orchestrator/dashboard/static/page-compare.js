// Compare: medians with their bands over one axis, and distributions over another.
import { area, axes, path } from "./axes.js";
import { draw as drawScores } from "./distribution.js";
import { tableOf } from "./dom.js";
import { range } from "./curves.js";
import { figure } from "./figure.js";
import { number, page } from "./state.js";

export function start() {
  const form = document.getElementById("compare");
  form.addEventListener("submit", () => {
    form.elements.with.value = [...form.querySelectorAll("[name=chosen]:checked")].map((box) => box.value).join("\n");
    for (const box of form.querySelectorAll("[name=chosen]")) box.disabled = true;
  });
  const rows = page.rows.map((r) => ({ ...r, name: `${r.study} · ${r.label}` }));
  medians(rows);
  const found = figure("ecdf"), rule = rows[0]?.rule;
  if (!rule) return;
  const groups = rows.map((r) => ({ label: r.name, factors: {}, scores: r.scores, launched: r.numbers.launched }));
  found.plots.replaceChildren(...drawScores("ecdf", groups, { scale: "", metric: rule.metric, threshold: rule.threshold, href: () => "" }));
  found.count(rows.map((r) => `n = ${r.scores.length} of ${r.numbers.launched}`).join("; "));
  found.table(() => tableOf(["name", "run_id", "score", "success"], rows.flatMap((r) => r.scores.map((s) => ({ ...s, name: r.name }))), number));
}

function medians(rows) {
  const found = figure("medians"), steps = rows.flatMap((r) => r.fan.map((p) => p.step));
  if (!steps.length) { found.count("no probe yet"); return; }
  const [low, high] = range(rows.flatMap((r) => [r.fan.map((p) => p.q25), r.fan.map((p) => p.q75)]));
  const chart = axes({ width: 1100, height: 380, right: 230, x: { low: Math.min(...steps), high: Math.max(...steps), label: "step" }, y: { low, high, label: page.metric }, label: `Medians of ${page.metric}` });
  rows.forEach((row, i) => {
    const points = (name) => row.fan.filter((p) => p[name] !== null).map((p) => [chart.px(p.step), chart.py(p[name])]);
    chart.add("path", { class: `k${i}`, fill: "currentColor", opacity: 0.08, stroke: "none", d: area(points("q25"), points("q75")) });
    chart.add("path", { class: `line k${i}`, d: path(points("q50")) });
    chart.add("line", { class: `line k${i}`, x1: 884, x2: 910, y1: 16 + 17 * i, y2: 16 + 17 * i });
    chart.add("text", { class: "label", x: 916, y: 20 + 17 * i }, row.name.length > 30 ? row.name.slice(-30) : row.name);
  });
  found.plots.replaceChildren(chart.root);
  found.count(rows.map((r) => `n = ${r.fan.at(-1)?.n ?? 0} of ${r.numbers.launched}`).join("; "));
  found.table(() => tableOf(["name", "step", "n", "launched", "q25", "q50", "q75"], rows.flatMap((r) => r.fan.map((p) => ({ ...p, name: r.name }))), number));
}
