// An SVG with two axes: where distributions, probabilities and timelines are drawn. No statistics here.
import { svg } from "./dom.js";

export function ticks(low, high, most = 6) {
  if (!(high > low)) return [low];
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let i = first; i * step <= high + step * 1e-6; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}

const plain = (value) => (Math.abs(value) >= 1e4 ? value.toLocaleString("en") : String(value));

// x, y: {low, high, log, ticks: [[value, text]], label}
export function axes({ width = 620, height = 300, left = 52, right = 20, top = 10, bottom = 40, x, y, label, role = "img" }) {
  const root = svg("svg", { class: width > 700 ? "drawn" : "drawn narrow", viewBox: `0 0 ${width} ${height}`, role, "aria-label": label });
  const place = (axis, from, to) => {
    const map = axis.log ? Math.log : (v) => v;
    const low = map(axis.low), span = map(axis.high) - low || 1;
    return (value) => from + ((map(value) - low) / span) * (to - from);
  };
  const px = place(x, left, width - right), py = place(y, height - bottom, top);
  const xTicks = x.ticks ?? ticks(x.low, x.high, 7).map((v) => [v, plain(v)]);
  const yTicks = y.ticks ?? ticks(y.low, y.high, 5).map((v) => [v, plain(v)]);
  for (const [value, text] of yTicks) {
    root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: py(value), y2: py(value) }));
    root.append(svg("text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, short(text, y.most ?? 9)));
  }
  const room = (width - left - right) / Math.max(xTicks.length, 1);
  for (const [value, text] of xTicks) {
    root.append(svg("text", { x: px(value), y: height - bottom + 16, "text-anchor": "middle" }, short(text, Math.max(4, Math.floor(room / 6.2)))));
  }
  root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  if (x.label) root.append(svg("text", { class: "label", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label));
  if (y.label) root.append(svg("text", { class: "label", transform: `translate(${Math.max(12, left > 100 && !y.most ? left - 48 : 12)} ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label));
  return { root, px, py, add: (name, attributes, ...children) => root.appendChild(svg(name, attributes, ...children)) };
}

export const short = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

// A text beside a point: to its left where there is no room to its right.
export function beside(chart, x, y, text, gap = 10) {
  const right = x + gap + 6 * text.length < chart.root.viewBox.baseVal.width;
  chart.add("text", { x: right ? x + gap : x - gap, y, "text-anchor": right ? "start" : "end" }, text);
}

// A path through points, broken where a value is missing.
export function path(points) {
  let text = "", pen = false;
  for (const [x, y] of points) {
    if (!Number.isFinite(x) || !Number.isFinite(y)) { pen = false; continue; }
    text += `${pen ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`;
    pen = true;
  }
  return text;
}

// The area between two lines of points: there along the first, back along the second.
export const area = (there, back) => (there.length ? path([...there, ...back.reverse()]) + "Z" : "");

// Where conditions stand on the x axis: by their number where the scale is one, else in their order.
export function positions(conditions, scale) {
  const values = conditions.map((c) => c.factors[scale]);
  const numeric = conditions.length > 1 && values.every((v) => typeof v === "number") && new Set(values).size === values.length;
  if (!numeric) return { at: conditions.map((_, i) => i), low: -0.6, high: conditions.length - 0.4, log: false, ticks: conditions.map((c, i) => [i, c.condition]), label: "condition" };
  const low = Math.min(...values), high = Math.max(...values), log = low > 0 && high / low >= 4;
  const pad = log ? (high / low) ** 0.09 : (high - low) * 0.08;
  return { at: values, low: log ? low / pad : low - pad, high: log ? high * pad : high + pad, log, ticks: values.map((v) => [v, String(v)]), label: scale };
}
