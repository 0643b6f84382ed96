// The page of a run: a curve for each metric, and its attempts over the steps.
import { axes, path } from "./axes.js";
import { element, svg, tableOf } from "./dom.js";
import { range } from "./curves.js";
import { figure } from "./figure.js";
import { onStudy } from "./live.js";
import { number, page, rows } from "./state.js";

const CLASS = { finished: "s-finished", diverged: "s-diverged", failed: "s-failed", running: "s-running" };

export function start() {
  curves();
  attempts();
  onStudy(({ study, version }) => { if (study === page.study && version > page.version && ["waiting", "running"].includes(page.run.status)) location.reload(); });
}

function curves() {
  const found = figure("curves"), all = rows(page.curves), byMetric = Map.groupBy(all, (r) => r.metric);
  const steps = [0, Math.max(1, page.run.planned_steps)];
  const drawn = [...byMetric].map(([metric, points]) => {
    const [low, high] = range([points.map((p) => p.value)]);
    const chart = axes({ height: 200, top: 24, x: { low: steps[0], high: steps[1], label: "step" }, y: { low, high }, label: `${metric} over steps` });
    chart.add("text", { class: "label", x: 52, y: 14 }, `${metric}  (${points.length} probes, last ${number(points.at(-1).value)})`);
    if (metric === page.rule.metric) chart.add("line", { class: "threshold", x1: 52, x2: 600, y1: chart.py(page.rule.threshold), y2: chart.py(page.rule.threshold) });
    for (const attempt of page.attempts.slice(1)) chart.add("line", { class: "threshold", x1: chart.px(attempt.first_step), x2: chart.px(attempt.first_step), y1: 24, y2: 160 });
    chart.add("path", { class: "k-blue line", d: path(points.map((p) => [chart.px(p.step), chart.py(p.value)])) });
    return element("div", { class: "panel" }, chart.root);
  });
  found.plots.replaceChildren(...drawn);
  found.count(`${all.length} rows of ${byMetric.size} metrics`);
  found.table(() => tableOf(["metric", "step", "value", "correct", "total", "attempt"], all, number));
}

function attempts() {
  const found = figure("attempts"), list = page.attempts;
  if (!list.length) { found.count("none yet"); return; }
  const x = { low: 0, high: Math.max(1, page.run.planned_steps), label: "step" };
  const chart = axes({ height: 60 + 30 * list.length, left: 80, x, y: { low: 0, high: list.length, ticks: list.map((a, i) => [list.length - i - 0.6, `attempt ${a.attempt}`]) }, label: `${list.length} attempts over steps` });
  list.forEach((attempt, i) => {
    const from = chart.px(attempt.first_step), to = chart.px(attempt.last_step), y = chart.py(list.length - i - 0.25);
    const bar = svg("rect", { class: attempt.ended.startsWith("cut") ? "f-grey" : CLASS[attempt.status], x: from, y, width: Math.max(2, to - from), height: 14, rx: 2 }, svg("title", {}, `${attempt.pack_id}: ${attempt.ended} ${attempt.reason}`));
    chart.root.append(bar);
    const right = to < 380;
    chart.add("text", { class: "label", x: right ? to + 6 : to - 6, y: y + 11, "text-anchor": right ? "start" : "end", ...(right ? {} : { fill: "#fff" }) }, right ? attempt.ended : "");
  });
  found.plots.replaceChildren(chart.root);
  found.count(`${list.length} attempt${list.length === 1 ? "" : "s"}`);
  found.table(() => tableOf(["attempt", "pack_id", "first_step", "last_step", "ended", "reason", "environment"], list, number));
}
