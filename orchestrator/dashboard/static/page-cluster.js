// Packs over time, by node and device, as lanes: a pack takes the first lane that is free when it begins.
import { axes, short } from "./axes.js";
import { svg } from "./dom.js";
import { figure } from "./figure.js";
import { onStudy } from "./live.js";
import { number, page } from "./state.js";

const CLASS = { ended: "s-finished", running: "s-running", superseded: "f-grey" };
const WIDTH = 1100, LEFT = 150, LANE = 22;

export function start() {
  const packs = page.packs;
  onStudy(({ study, version }) => { if (study === page.study && version > page.version) location.reload(); });
  const shown = figure("packs"), lost = figure("faults");
  shown.count(`n = ${packs.length} of ${page.of} packs${packs.length ? "; blue: ended, amber: running, red: lost, grey: superseded" : ""}`);
  lost.count(`${page.lost} of ${page.of} packs${page.lost_per_hour === null ? "" : `: ${number(page.lost_per_hour)} per hour`}`);
  if (!packs.length) return;
  const began = Math.min(...packs.map((p) => p.began)), ended = Math.max(...packs.map((p) => p.until), began + 1);
  const unit = ended - began > 7200 ? [3600, "hours"] : ended - began > 300 ? [60, "minutes"] : [1, "seconds"];
  const x = { low: 0, high: (ended - began) / unit[0], label: `${unit[1]} since ${new Date(began * 1000).toLocaleString()}` };
  timeline(shown, packs, began, unit[0], x);
  if (page.faults.length) faults(lost, unit[0], x);
}

function lanesOf(packs) {
  const names = [], where = (p) => (p.device ? `${p.host} · ${p.device}` : p.host);
  for (const place of [...new Set(packs.map(where))].sort()) {
    const free = [];
    for (const pack of packs.filter((p) => where(p) === place)) {
      let lane = free.findIndex((until) => until <= pack.began);
      if (lane < 0) lane = free.push(0) - 1;
      free[lane] = pack.until;
      pack.lane = names.length + lane;
    }
    names.push(...free.map((_, i) => (i ? "" : place)));
  }
  return names;
}

function timeline(found, packs, began, unit, x) {
  const lanes = lanesOf(packs);
  const y = { low: 0, high: lanes.length, most: 24, ticks: lanes.map((text, i) => [lanes.length - i - 0.6, text]) };
  const chart = axes({ width: WIDTH, left: LEFT, height: 60 + LANE * lanes.length, x, y, label: `${packs.length} packs over time` });
  for (const pack of packs) {
    const from = chart.px((pack.began - began) / unit), to = chart.px((pack.until - began) / unit), top = chart.py(lanes.length - pack.lane - 0.1);
    const said = `${pack.pack_id}: ${pack.runs} runs of ${pack.condition}, from step ${pack.first_step}, ${pack.state}${pack.reason ? `: ${pack.reason}` : ""}`;
    chart.root.append(svg("rect", { class: CLASS[pack.state] ?? "s-failed", x: from, width: Math.max(1.5, to - from - 1), y: top, height: 17, rx: 2 }, svg("title", {}, said)));
    const text = `${pack.runs} × ${pack.condition}`;
    if (to - from > 60) chart.add("text", { class: "on", x: from + 5, y: top + 12 }, short(text, Math.floor((to - from - 8) / 6.4)));
  }
  found.plots.replaceChildren(chart.root);
  found.table(["pack_id", "host", "device", "runs", "condition", "first_step", "seconds", "state", "beats", "reason"], packs.map((p) => ({ ...p, seconds: p.until - p.began })), number);
}

function faults(found, unit, x) {
  const most = Math.max(1, ...page.faults.map((f) => f.per_hour));
  const chart = axes({ width: WIDTH, left: LEFT, height: 150, x, y: { low: 0, high: most, label: "packs lost per hour" }, label: `${page.lost} packs lost, over time` });
  for (const bin of page.faults) {
    const from = chart.px(bin.after_s / unit), to = chart.px(Math.min(x.high, (bin.after_s + bin.seconds) / unit));
    if (bin.lost) chart.root.append(svg("rect", { class: "s-failed", x: from, width: Math.max(1.5, to - from - 1), y: chart.py(bin.per_hour), height: chart.py(0) - chart.py(bin.per_hour) }, svg("title", {}, `${bin.lost} lost within ${bin.seconds} s`)));
  }
  found.plots.replaceChildren(chart.root);
  found.table(["after_s", "seconds", "lost", "per_hour"], page.faults, number);
}
