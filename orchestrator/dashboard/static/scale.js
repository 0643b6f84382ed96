// P(success) and onsets against scale, each with its interval as Python gave it.
import { axes, beside, path, positions } from "./axes.js";
import { svg } from "./dom.js";
import { number } from "./state.js";

export function success(conditions, scale) {
  const x = positions(conditions, scale);
  const chart = axes({ x, y: { low: 0, high: 1, label: "P(success)" }, label: `P(success) against ${x.label}` });
  const at = conditions.map((_, i) => chart.px(x.at[i]));
  conditions.forEach((c, i) => {
    if (c.success.value === null) return;
    chart.add("rect", { class: "band", x: at[i] - 7, width: 14, y: chart.py(c.jeffreys[1]), height: chart.py(c.jeffreys[0]) - chart.py(c.jeffreys[1]) });
    chart.add("line", { class: "k-blue line", x1: at[i], x2: at[i], y1: chart.py(c.success.low), y2: chart.py(c.success.high) });
    if (c.launched > c.known) chart.add("line", { class: "k-grey thin", "stroke-dasharray": "2 2", x1: at[i] + 11, x2: at[i] + 11, y1: chart.py(c.bounds[0]), y2: chart.py(c.bounds[1]) });
  });
  const known = conditions.map((c, i) => [at[i], c.success.value === null ? NaN : chart.py(c.success.value)]);
  chart.add("path", { class: "k-blue thin", d: path(known) });
  conditions.forEach((c, i) => {
    if (c.success.value === null) return;
    const said = `${c.condition}: ${c.successes} of ${c.known}, ${number(c.success.value)} [${number(c.success.low)}, ${number(c.success.high)}]`;
    chart.root.append(svg("circle", { class: "f-blue", cx: at[i], cy: known[i][1], r: 5 }, svg("title", {}, said)));
    const rises = known[i + 1]?.[1] < known[i][1];  // the line goes on above: the text stands below
    beside(chart, at[i], known[i][1] + (rises ? 15 : -8), `${c.successes}/${c.known}`);
  });
  return chart.root;
}

export function onsets(conditions, scale, planned) {
  const x = positions(conditions, scale), top = planned * 1.05;
  const chart = axes({ x, y: { low: 0, high: top, label: "step" }, label: `Median onset against ${x.label}` });
  conditions.forEach((c, i) => {
    const at = chart.px(x.at[i]), [low, high] = c.onset.interval;
    if (!c.onset.runs) return;
    const y = (step) => chart.py(Math.min(step ?? top, top));
    chart.add("line", { class: "k-blue thin", "stroke-dasharray": high === null ? "3 3" : "none", x1: at, x2: at, y1: y(low ?? 0), y2: y(high) });
    const never = c.onset.until === null;
    chart.root.append(svg("rect", { class: never ? "f-grey" : "f-blue", x: at - 9, width: 18, y: never ? chart.py(top) : y(c.onset.until), height: never ? 5 : Math.max(4, y(c.onset.after ?? 0) - y(c.onset.until)) }, svg("title", {}, `${c.condition}: ${c.onset.text}, ${c.onset.runs} runs`)));
    beside(chart, at, never ? chart.py(top) + 12 : y(c.onset.until) + 4, c.onset.text, 13);
  });
  return chart.root;
}

// P(success) of a study as small as a word: for the list of studies.
export function spark(list) {
  const width = 320, height = 64, root = svg("svg", { class: "drawn", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "P(success): " + list.map((c) => `${c.condition} ${c.successes} of ${c.known}`).join(", ") });
  const px = (i) => 16 + (i * (width - 60)) / Math.max(list.length - 1, 1), py = (p) => height - 8 - p * (height - 16);
  for (const p of [0, 1]) root.append(svg("line", { class: "axis", x1: 0, x2: width - 30, y1: py(p), y2: py(p) }), svg("text", { x: width - 24, y: py(p) + 4 }, p ? "1" : "0"));
  root.append(svg("path", { class: "k-blue thin", d: path(list.map((c, i) => [px(i), c.value === null ? NaN : py(c.value)])) }));
  list.forEach((c, i) => {
    if (c.value === null) return;
    root.append(svg("line", { class: "k-blue thin", x1: px(i), x2: px(i), y1: py(c.low), y2: py(c.high) }));
    root.append(svg("circle", { class: "f-blue", cx: px(i), cy: py(c.value), r: 3.5 }, svg("title", {}, `${c.condition}: ${c.successes} of ${c.known} (launched ${c.launched})`)));
  });
  return root;
}
