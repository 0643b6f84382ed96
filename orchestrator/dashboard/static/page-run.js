// The page of a run: a curve for each metric, and its attempts over the steps.
import { axes, path } from "./axes.js";
import { element, svg } from "./dom.js";
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
  found.count(`${all.length} of ${all.length} rows, of ${byMetric.size} metrics; dotted: where an attempt resumed`);
  found.table(["metric", "step", "value", "correct", "total", "attempt"], all, number);
}

function attempts() {
  const found = figure("attempts"), list = page.attempts;
  if (!list.length) { found.count("none yet"); return; }
  const x = { low: 0, high: Math.max(1, page.run.planned_steps), label: "step" };
  const width = 1100, left = 150, ticks = list.map((a, i) => [list.length - i - 0.6, `attempt ${a.attempt}${a.host ? ` · ${a.host}` : ""}`]);
  const chart = axes({ width, height: 60 + 34 * list.length, left, x, y: { low: 0, high: list.length, most: 24, ticks }, label: `${list.length} attempts over steps` });
  list.forEach((attempt, i) => {
    const from = chart.px(attempt.first_step), to = chart.px(attempt.last_step), y = chart.py(list.length - i - 0.1), cut = attempt.ended.startsWith("cut");
    if (i) chart.add("line", { class: "threshold", x1: from, x2: from, y1: y - 16, y2: y });
    chart.root.append(svg("rect", { class: cut ? "s-failed" : CLASS[attempt.status], x: from, y, width: Math.max(2, to - from), height: 18, rx: 2 }, svg("title", {}, `${attempt.pack_id}: ${attempt.ended} ${attempt.reason}`)));
    const seconds = attempt.began && attempt.until ? `, ${number(Math.round(attempt.until - attempt.began))} s` : "", said = attempt.ended + seconds;
    const after = width - 20 - to > 6 * said.length, inside = !after && to - from > 6 * said.length;
    chart.add("text", { class: inside ? "on" : "label", x: after ? to + 6 : inside ? from + 8 : to, y: after || inside ? y + 13 : y + 29, "text-anchor": after || inside ? "start" : "end" }, said);
  });
  found.plots.replaceChildren(chart.root);
  found.count(`${list.length} attempt${list.length === 1 ? "" : "s"}`);
  found.table(["attempt", "pack_id", "host", "first_step", "last_step", "ended", "reason", "environment"], list, number);
}
