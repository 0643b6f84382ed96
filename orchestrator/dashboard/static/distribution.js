// Final scores of every run: each as a dot, as a histogram, or as the share at or below; by condition.
import { axes, path, positions } from "./axes.js";
import { svg } from "./dom.js";
import { range } from "./curves.js";
import { number } from "./state.js";

const GOLDEN = 0.6180339887498949;
const BINS = 20;

// groups: [{label, factors, scores: [{run_id, score, success}], launched, diverged}]
export function draw(kind, groups, { scale, metric, threshold, href }) {
  const [low, high] = range(groups.map((g) => g.scores.map((s) => s.score)));
  const drawing = kind === "ecdf" ? ecdf : kind === "histogram" ? histogram : strip;
  return drawing(groups, { scale, metric, threshold, href, low, high });
}

function strip(groups, { scale, metric, threshold, href, low, high }) {
  const x = positions(groups.map((g) => ({ condition: g.label, factors: g.factors })), scale);
  const chart = axes({ x, y: { low, high, label: `${metric} at the last step` }, label: `The last ${metric} of each run by ${x.label}`, role: "group" });
  chart.add("line", { class: "threshold", x1: 52, x2: 600, y1: chart.py(threshold), y2: chart.py(threshold) });
  const room = Math.min(46, 420 / Math.max(groups.length, 1));
  groups.forEach((group, index) => {
    const middle = chart.px(x.at[index]);
    group.scores.forEach((one, i) => {
      const dot = svg("circle", { class: one.success ? "f-good" : "f-bad", cx: (middle + room * ((((i + 1) * GOLDEN) % 1) - 0.5)).toFixed(1), cy: chart.py(one.score).toFixed(1), r: 3, opacity: 0.75 }, svg("title", {}, `${one.run_id}: ${number(one.score)}`));
      // One stop of the Tab key for each run would be hundreds: the table behind the chart has the links for keys.
      chart.root.append(svg("a", { href: href(one), tabindex: "-1" }, dot));
    });
    const mean = group.mean;
    if (mean !== null && mean !== undefined) chart.add("line", { class: "mean", x1: middle - room / 2 - 5, x2: middle + room / 2 + 5, y1: chart.py(mean), y2: chart.py(mean) });
  });
  return [chart.root];
}

function histogram(groups, { metric, threshold, low, high }) {
  return groups.map((group) => {
    const width = (high - low) / BINS;
    const counts = Array.from({ length: BINS }, () => [0, 0]);
    for (const one of group.scores) counts[Math.min(BINS - 1, Math.floor((one.score - low) / width))][one.success ? 1 : 0] += 1;
    const most = Math.max(1, ...counts.map(([a, b]) => a + b));
    const chart = axes({ height: 150, top: 20, x: { low, high, label: metric }, y: { low: 0, high: most, label: "runs" }, label: `${group.label}: histogram of ${group.scores.length} runs` });
    chart.add("text", { class: "label", x: 52, y: 12 }, `${group.label}  (n = ${group.scores.length} of ${group.launched})`);
    counts.forEach(([bad, good], i) => {
      const left = chart.px(low + i * width) + 0.5, wide = chart.px(low + width) - chart.px(low) - 1;
      chart.add("rect", { class: "f-bad", x: left, width: wide, y: chart.py(bad), height: chart.py(0) - chart.py(bad), opacity: 0.8 });
      chart.add("rect", { class: "f-good", x: left, width: wide, y: chart.py(bad + good), height: chart.py(bad) - chart.py(bad + good), opacity: 0.8 });
    });
    chart.add("line", { class: "threshold", x1: chart.px(threshold), x2: chart.px(threshold), y1: 20, y2: chart.py(0) });
    return chart.root;
  });
}

function ecdf(groups, { metric, threshold, low, high }) {
  const chart = axes({ right: 175, x: { low, high, label: `${metric} at the last step` }, y: { low: 0, high: 1, label: "share of runs at or below" }, label: "Share of finished runs at or below a score" });
  chart.add("line", { class: "threshold", x1: chart.px(threshold), x2: chart.px(threshold), y1: 10, y2: chart.py(0) });
  groups.forEach((group, index) => {
    const sorted = group.scores.map((s) => s.score).sort((a, b) => a - b), n = sorted.length;
    const points = [[chart.px(low), chart.py(0)]];
    sorted.forEach((score, i) => points.push([chart.px(score), chart.py(i / n)], [chart.px(score), chart.py((i + 1) / n)]));
    points.push([chart.px(high), chart.py(n ? 1 : 0)]);
    chart.add("path", { class: `line k${index % 8}`, d: path(points) });
    const y = 18 + 15 * index;
    chart.add("line", { class: `line k${index % 8}`, x1: 452, x2: 474, y1: y - 4, y2: y - 4 });
    chart.add("text", { class: "label", x: 480, y }, group.label.length > 22 ? "…" + group.label.slice(-21) : group.label);
  });
  return [chart.root];
}
