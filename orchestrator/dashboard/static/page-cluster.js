// Packs over time, by node, as lanes: a pack takes the first lane that is free when it begins.
import { axes } from "./axes.js";
import { svg, tableOf } from "./dom.js";
import { figure } from "./figure.js";
import { number, page } from "./state.js";

const CLASS = { ended: "s-finished", running: "s-running", "cut off": "s-failed" };

export function start() {
  const found = figure("packs"), packs = page.packs;
  found.count(`n = ${packs.length} of ${page.of} packs; blue: ended, amber: running, red: cut off`);
  if (!packs.length) return;
  const began = Math.min(...packs.map((p) => p.began)), ended = Math.max(...packs.map((p) => p.until), began + 1);
  const lanes = [];
  for (const host of page.nodes) {
    const free = [];
    for (const pack of packs.filter((p) => p.host === host)) {
      let lane = free.findIndex((until) => until <= pack.began);
      if (lane < 0) lane = free.push(0) - 1;
      free[lane] = pack.until;
      pack.lane = lanes.length + lane;
    }
    lanes.push(...free.map((_, i) => (i ? "" : host)));
  }
  const unit = ended - began > 7200 ? [3600, "hours"] : ended - began > 300 ? [60, "minutes"] : [1, "seconds"];
  const x = { low: 0, high: (ended - began) / unit[0], label: `${unit[1]} since ${new Date(began * 1000).toLocaleString()}` };
  const chart = axes({ width: 1100, left: 120, height: 60 + 22 * lanes.length, x, y: { low: 0, high: lanes.length, ticks: lanes.map((text, i) => [lanes.length - i - 0.6, text.length > 16 ? text.slice(0, 15) + "…" : text]) }, label: "Packs over time" });
  for (const pack of packs) {
    const from = chart.px((pack.began - began) / unit[0]), to = chart.px((pack.until - began) / unit[0]), y = chart.py(lanes.length - pack.lane - 0.1);
    chart.root.append(svg("rect", { class: CLASS[pack.state], x: from, width: Math.max(1.5, to - from - 1), y, height: 17, rx: 2 }, svg("title", {}, `${pack.pack_id}: ${pack.runs} runs of ${pack.condition}, from step ${pack.first_step}, ${pack.state}`)));
    if (to - from > 90) chart.add("text", { class: "on", x: from + 5, y: y + 12 }, `${pack.runs} × ${pack.condition}`.slice(0, Math.floor((to - from) / 6.5)));
  }
  found.plots.replaceChildren(chart.root);
  found.table(() => tableOf(["pack_id", "host", "device", "runs", "condition", "first_step", "seconds", "state"], packs.map((p) => ({ ...p, seconds: p.until - p.began })), number));
}
