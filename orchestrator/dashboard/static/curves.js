// Curves over runs on canvases: the fan of quantiles, every run's line, chosen runs, and n where it changes.
import { area, axes, path } from "./axes.js";
import { element, svg } from "./dom.js";
import { crossings, painted } from "./raster.js";
import { number } from "./state.js";

const QUANTILES = ["q95", "q75", "q50", "q25", "q05"];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const MANY = 60;  // lines, above which they are drawn as one picture
const faint = (name, share) => colour(name) + Math.round(share * 255).toString(16).padStart(2, "0");

// Lines as they come from the server: a head of JSON, then float64 [run, step].
export async function fetchLines(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const buffer = await answer.arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const all = new Float64Array(buffer, 4 + length), width = head.steps.length;
  head.values = head.run_ids.map((_, i) => all.subarray(i * width, (i + 1) * width));
  return head;
}

export function range(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) for (const v of list) if (Number.isFinite(v)) { if (v < low) low = v; if (v > high) high = v; }
  if (low > high) return [0, 1];
  if (low >= 0 && high <= 1 && high > 0.2) return [-0.03, 1.03];
  const pad = 0.05 * (high - low || 1);
  return [low - pad, high + pad];
}

// One condition's panel. fan: rows of the roll-up; lines: what fetchLines gives, or null.
export class Panel {
  constructor(title, { onPick, onZoom, launched, height = 220 }) {
    Object.assign(this, { title, onPick, onZoom, launched, height, marked: new Set(), near: null, fan: [], lines: null, view: "fan", zoom: null });
    this.said = element("span", { class: "soft" });
    this.holder = element("div", { tabindex: "0", role: "img", "aria-label": title, onkeydown: (e) => this.key(e) });
    this.root = element("div", { class: "panel", "data-panel": title }, element("h3", {}, element("span", {}, title), this.said), this.holder);
  }

  draw(y) {
    this.y = y;
    const useFan = this.view !== "lines", useLines = this.view !== "fan" && this.lines;
    const steps = useLines ? mergedSteps(this.fan, this.lines) : this.fan.map((r) => r.step);
    const data = [steps], series = [{}], bands = [];
    if (useFan) {
      const byStep = new Map(this.fan.map((r) => [r.step, r]));
      const ink = colour("--ink"), edge = faint("--blue", 0.35);
      for (const q of QUANTILES) {
        data.push(steps.map((s) => byStep.get(s)?.[q] ?? null));
        series.push({ stroke: q === "q50" ? ink : edge, width: q === "q50" ? 2 : 0.5, points: { show: steps.length < 2 }, spanGaps: true });
      }
      bands.push({ series: [1, 5], fill: faint("--blue", 0.14) }, { series: [2, 4], fill: faint("--blue", 0.24) });
    }
    this.first = data.length;
    if (useLines) {
      const at = new Map(steps.map((s, i) => [s, i])), same = steps.length === this.lines.steps.length;
      const many = this.lines.run_ids.length > MANY;
      this.lines.run_ids.forEach((run, i) => {
        const values = this.lines.values[i];
        let line = values;  // a whole line over the same steps is drawn from where it lies
        if (!same || values.some(Number.isNaN)) {
          line = new Array(steps.length).fill(null);
          values.forEach((v, j) => { if (!Number.isNaN(v)) line[at.get(this.lines.steps[j])] = v; });
        }
        const marked = this.marked.has(run);
        data.push(line);
        const own = many && !marked ? { paths: () => null, auto: false } : {};
        series.push({ stroke: marked ? colour("--green") : faint(this.lines.scores[run] ? "--orange" : "--blue", 0.6), width: marked ? 2.5 : 1, points: { show: false }, spanGaps: true, ...own });
      });
    }
    const n = steps.length ? this.fan.map((r) => r.n) : [];
    if (n.some((v) => v !== this.launched)) {
      const byStep = new Map(this.fan.map((r) => [r.step, r.n]));
      data.push(steps.map((s) => byStep.get(s) ?? null));
      series.push({ scale: "n", stroke: colour("--grey"), fill: faint("--grey", 0.15), width: 1, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), spanGaps: true });
    }
    this.plot?.destroy();
    this.plot = new uPlot(this.options(series, bands, y), data, this.holder);
    this.tell(null);
  }

  options(series, bands, y) {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "11px system-ui" };
    return {
      width: Math.max(this.root.clientWidth, 260), height: this.height, series, bands,
      legend: { show: false }, cursor: { points: { show: false }, drag: { x: true, y: false, setScale: false } },
      scales: { x: { time: false, range: (u, low, high) => this.zoom ?? [low, high] }, y: { range: () => y }, n: { range: () => [0, 6 * this.launched] } },
      axes: [{ ...axis, size: 30, values: (u, v) => v.map((s) => number(s)) }, { ...axis, size: 46 }],
      hooks: {
        drawAxes: [(u) => this.drawMany(u)],
        setCursor: [(u) => this.tell(u.cursor.idx)],
        setSelect: [(u) => { if (u.select.width > 8) this.onZoom([u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")]); }],
        ready: [(u) => u.over.addEventListener("click", () => { const run = this.nearest(u); if (run) this.onPick(run); })],
      },
    };
  }

  // Lines that are too many to be stroked one by one, below what is drawn of them by name.
  drawMany(u) {
    if (this.view === "fan" || !(this.lines?.run_ids.length > MANY)) return;
    const { left, top, width, height } = u.bbox;
    const groups = [["--blue", false], ["--orange", true]].map(([name, success]) => {
      const lines = this.lines.values.filter((_, i) => !this.marked.has(this.lines.run_ids[i]) && Boolean(this.lines.scores[this.lines.run_ids[i]]) === success);
      const column = (step) => u.valToPos(step, "x", true) - left, row = (value) => u.valToPos(value, "y", true) - top;
      return { counts: crossings(this.lines.steps, lines, column, row, width, height), rgb: rgbOf(colour(name)) };
    });
    u.ctx.drawImage(painted(groups, width, height, 0.35), left, top);
  }

  nearest(u) {
    if (u.cursor.idx === null || u.select.width > 8 || !this.lines || this.view === "fan") return null;
    let best = null, distance = 20;
    this.lines.run_ids.forEach((run, i) => {
      const v = u.data[this.first + i][u.cursor.idx];
      const gap = v === null ? Infinity : Math.abs(u.valToPos(v, "y") - u.cursor.top);
      if (gap < distance) [best, distance] = [run, gap];
    });
    return best;
  }

  // The header's text: n of N at the cursor, and the median there.
  tell(index) {
    if (!this.fan.length) { this.said.textContent = `n = 0 of ${this.launched}: no probe yet`; return; }
    const step = index === null || index === undefined ? this.fan.at(-1).step : this.plot?.data[0][index];
    const row = this.fan.find((r) => r.step === step) ?? this.fan.at(-1);
    this.said.textContent = `n = ${row.n} of ${row.launched} at step ${row.step.toLocaleString("en")}: median ${number(row.q50)}, 25–75 % ${number(row.q25)}–${number(row.q75)}${this.near ? `; run ${this.near}` : ""}`;
    this.holder.setAttribute("aria-label", `${this.title}: ${this.said.textContent}`);
  }

  // Left and right: step by step; up and down: from run to run there; Enter marks the run.
  key(event) {
    if (!this.plot || !["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Enter"].includes(event.key)) return;
    event.preventDefault();
    const steps = this.plot.data[0], median = (step) => this.fan.find((r) => r.step === step)?.q50 ?? this.y[0];
    if (event.key === "Enter") { if (this.near) this.onPick(this.near); return; }
    const across = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    this.at = Math.min(Math.max((this.at ?? steps.length - 1) + (across ?? 0), 0), steps.length - 1);
    if (!across && this.lines && this.view !== "fan") this.near = this.neighbour(event.key === "ArrowUp");
    const line = this.near && this.lines ? this.plot.data[this.first + this.lines.run_ids.indexOf(this.near)] : null;
    this.plot.setCursor({ left: this.plot.valToPos(steps[this.at], "x"), top: this.plot.valToPos(line?.[this.at] ?? median(steps[this.at]), "y") });
    this.tell(this.at);
  }

  // The run above or below the one that was chosen last, at the cursor's step.
  neighbour(up) {
    const at = (run) => this.plot.data[this.first + this.lines.run_ids.indexOf(run)][this.at];
    const measured = this.lines.run_ids.filter((run) => at(run) !== null).sort((a, b) => at(a) - at(b) || (a < b ? -1 : 1));
    const now = measured.indexOf(this.near);
    return measured[now < 0 ? (up ? 0 : measured.length - 1) : Math.min(Math.max(now + (up ? 1 : -1), 0), measured.length - 1)] ?? null;
  }

  resize() {
    if (this.plot) this.plot.setSize({ width: Math.max(this.root.clientWidth, 260), height: this.height });
  }

  // The same as SVG, for a file.
  svg(yLabel) {
    const steps = this.fan.map((r) => r.step);
    const [low, high] = this.zoom ?? [steps[0] ?? 0, steps.at(-1) ?? 1];
    const last = this.fan.at(-1);
    const chart = axes({ height: 260, top: 26, x: { low, high, label: "step" }, y: { low: this.y[0], high: this.y[1], label: yLabel }, label: this.title });
    chart.add("text", { class: "label", x: 52, y: 14 }, `${this.title}  (n = ${last?.n ?? 0} of ${this.launched})`);
    const inside = this.fan.filter((r) => r.step >= low && r.step <= high && r.q50 !== null);
    if (this.view !== "lines") {
      for (const [a, b] of [["q05", "q95"], ["q25", "q75"]]) {
        const there = inside.map((r) => [chart.px(r.step), chart.py(r[a])]), back = inside.map((r) => [chart.px(r.step), chart.py(r[b])]);
        chart.add("path", { class: "band", d: area(there, back) });
      }
      chart.add("path", { class: "k-ink line", d: path(inside.map((r) => [chart.px(r.step), chart.py(r.q50)])) });
    }
    if (this.view !== "fan" && this.lines) {
      this.lines.run_ids.forEach((run, i) => chart.root.append(svg("path", { class: this.lines.scores[run] ? "k1 thin" : "k-blue thin", fill: "none", "stroke-dasharray": "none", opacity: 0.5, d: path(this.lines.steps.map((s, j) => [s >= low && s <= high ? chart.px(s) : NaN, chart.py(this.lines.values[i][j])])) })));
    }
    return chart.root;
  }
}

const rgbOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// The first points of all lines as rows; or only how many points there are.
export function pointsOf(panels, most, onlyCount = false) {
  const found = [];
  let count = 0;
  for (const { title, lines } of panels) for (const [i, values] of (lines?.values ?? []).entries()) for (let j = 0; j < values.length; j += 1) {
    if (Number.isNaN(values[j])) continue;
    count += 1;
    if (!onlyCount && found.push({ condition: title, run_id: lines.run_ids[i], step: lines.steps[j], value: values[j] }) >= most) return found;
  }
  return onlyCount ? count : found;
}

function mergedSteps(fan, lines) {
  return [...new Set([...fan.map((r) => r.step), ...lines.steps])].sort((a, b) => a - b);
}
