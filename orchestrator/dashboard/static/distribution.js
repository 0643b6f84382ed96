// Final scores of every run: each as a dot, as a histogram, as the share at or below, as ridges; by condition.
import { axes, path, positions } from "./axes.js";
import { svg } from "./dom.js";
import { range } from "./curves.js";
import { number } from "./state.js";

const GOLDEN = 0.6180339887498949;
const BINS = 20;

// groups: [{label, factors, scores: [{run_id, score, success}], launched, diverged}]
export function draw(kind, groups, { scale, metric, threshold, href }) {
  const [low, high] = range(groups.map((g) => g.scores.map((s) => s.score)));
  const drawing = kind === "ecdf" ? ecdf : kind === "histogram" ? histogram : kind === "ridgeline" ? ridgeline : strip;
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
    const y = 18 + 15 * index, named = `${group.label}${group.scores.length ? "" : " (n = 0)"}`;
    chart.add("line", { class: `line k${index % 8}`, x1: 452, x2: 474, y1: y - 4, y2: y - 4 });
    chart.add("text", { class: "label", x: 480, y }, named.length > 22 ? "…" + named.slice(-21) : named);
    if (!group.scores.length) return;
    const sorted = group.scores.map((s) => s.score).sort((a, b) => a - b), n = sorted.length;
    const points = [[chart.px(low), chart.py(0)]];
    sorted.forEach((score, i) => points.push([chart.px(score), chart.py(i / n)], [chart.px(score), chart.py((i + 1) / n)]));
    points.push([chart.px(high), chart.py(n ? 1 : 0)]);
    chart.add("path", { class: `line k${index % 8}`, d: path(points) });
  });
  return [chart.root];
}

// A ridge is the histogram of a condition, as a share of its runs; conditions stand one above the other.
function ridgeline(groups, { metric, threshold, low, high }) {
  const row = Math.max(30, Math.min(56, 420 / Math.max(groups.length, 1))), top = 8 + row, height = top + row * groups.length + 40;
  const ticks = groups.map((g, i) => [groups.length - i, g.label]);
  const chart = axes({ left: 150, height, top, x: { low, high, label: `${metric} at the last step` }, y: { low: 0, high: groups.length, ticks, most: 24 }, label: "Final scores of each condition, one above the other" });
  chart.add("line", { class: "threshold", x1: chart.px(threshold), x2: chart.px(threshold), y1: 8, y2: chart.py(0) });
  const width = (high - low) / (2 * BINS);
  groups.forEach((group, index) => {
    const counts = new Array(2 * BINS).fill(0), base = chart.py(groups.length - index), n = group.scores.length;
    for (const one of group.scores) counts[Math.min(2 * BINS - 1, Math.floor((one.score - low) / width))] += 1;
    const most = Math.max(1, ...counts), points = [[chart.px(low), base]];
    counts.forEach((count, i) => { for (const x of [low + i * width, low + (i + 1) * width]) points.push([chart.px(x), base - (0.95 * row * count) / most]); });
    points.push([chart.px(high), base]);
    chart.add("path", { class: "ridge", d: path(points) });
    chart.add("text", { x: 144, y: base + 17, "text-anchor": "end" }, `n = ${n} of ${group.launched}, top ${most}`);
  });
  return [chart.root];
}
