// The charts of the runs' page: of the runs that are ticked, else of all that pass the filter.
import { Panel, fetchLines, pointsOf, range } from "./curves.js";
import { draw as drawScores } from "./distribution.js";
import { choice, element } from "./dom.js";
import { figure } from "./figure.js";
import { fetchJson, get, number, page, rows, set } from "./state.js";

const MANY = 2000, MOST = 200, GROUPS = 12;
const VIEWS = ["fan", "lines", "both"], KINDS = ["strip", "histogram", "ecdf", "ridgeline"];
const curves = figure("chosen"), finals = figure("finals"), study = `study=${encodeURIComponent(page.study)}`;
const ticked = new Set(get("run").split(",").filter(Boolean));
const runHref = (run) => `/run/${encodeURIComponent(run)}?${study}`;
let state = () => null, asked = 0, forced = false;

export const has = (run) => ticked.has(run);
export function clear() { ticked.clear(); keep(); }
export function tick(run) {
  if (!ticked.delete(run) && ticked.size < MOST) ticked.add(run);
  keep();
}
function keep() { set({ run: [...ticked].join(",") }); draw(); }

export function start(given) {
  state = given;
  const select = element("select", { "aria-label": "Metric", onchange: (e) => { set({ metric: e.target.value }); draw(); } }, ...page.metrics.map((m) => element("option", m === page.metric ? { selected: "" } : {}, m)));
  curves.controls.append(select, " ", choice("View", VIEWS, get("view", "fan"), (view) => { set({ view: view === "fan" ? "" : view }); draw(); }), " ");
  curves.controls.append(element("button", { type: "button", class: "quiet", onclick: () => { set({ from: "", to: "" }); draw(); } }, "whole range"));
  finals.controls.append(choice("Kind", KINDS, get("scores", "strip"), (kind) => { set({ scores: kind === "strip" ? "" : kind }); scores(); }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

const members = () => {
  const { all, places } = state(), ids = all.data[all.columns.indexOf("run_id")];
  return ticked.size ? ids.map((_, place) => place).filter((place) => ticked.has(ids[place])) : places;
};
const told = (n) => (ticked.size ? `${n} chosen runs` : `${n.toLocaleString("en")} runs that pass the filter`);

export async function draw() {
  document.getElementById("ticked").textContent = ticked.size ? `${ticked.size} chosen` : "none chosen: the charts are of all that pass the filter";
  document.getElementById("none").hidden = !ticked.size;
  document.getElementById("mark").hidden = !ticked.size;
  document.getElementById("mark").href = `/study/${encodeURIComponent(page.study)}?view=both&run=${encodeURIComponent([...ticked].join(","))}`;
  scores();
  const mine = (asked += 1), n = members().length;
  if (!n) { curves.plots.replaceChildren(); curves.count("no run passes the filter"); return; }
  if (!ticked.size && n > MANY && !forced) {
    const button = element("button", { type: "button", onclick: () => { forced = true; draw(); } }, `Draw the curves of ${told(n)}`);
    curves.plots.replaceChildren(element("p", {}, button, element("span", { class: "soft" }, " reads every row of the metric")));
    return;
  }
  curves.count("reading");
  try {
    await drawCurves(mine, n);
  } catch (error) { curves.count(error.message); }
}

async function drawCurves(mine, n) {
  const zoom = get("to") ? [Number(get("from", "0")), Number(get("to"))] : null, bounds = zoom ? `&from=${zoom[0]}&to=${zoom[1]}` : "";
  const metric = get("metric", page.metric), which = ticked.size ? `run=${[...ticked].join(",")}` : `filter=${encodeURIComponent(state().filter)}`;
  const query = `${study}&metric=${encodeURIComponent(metric)}&${which}`;
  const view = ticked.size ? get("view", "fan") : "fan";
  const [answer, lines] = await Promise.all([fetchJson(`/chosen.json?${query}`), view === "fan" ? null : fetchLines(`/chosen.bin?${query}&px=1200${bounds}`)]);
  if (mine !== asked) return;
  const panel = new Panel(`${metric} of ${told(n)}`, { launched: n, height: 280, onPick: (run) => location.assign(runHref(run)), onZoom: (to) => { set({ from: Math.floor(to[0]), to: Math.ceil(to[1]) }); draw(); } });
  Object.assign(panel, { fan: rows(answer), view, lines, zoom });
  curves.plots.replaceChildren(panel.root);
  curves.drawings = () => [panel.svg(metric)];
  panel.draw(range([panel.fan.map((r) => r.q05), panel.fan.map((r) => r.q95), ...(lines?.values ?? [])]));
  curves.count(`n = ${panel.fan.at(-1)?.n ?? 0} of ${n} at the last step; ${n} of ${page.launched.toLocaleString("en")} runs of the study${get("view") && !ticked.size ? "; lines are of chosen runs" : ""}`);
  if (lines) curves.table(["run_id", "step", "value"], pointsOf([panel], Infinity), (v, name) => (name === "run_id" ? element("a", { href: runHref(v) }, v) : number(v)));
  else curves.table(["step", "n", "launched", "mean", "q05", "q25", "q50", "q75", "q95"], panel.fan, number);
  document.getElementById("chosen-sql").href = answer.question.href;
}

function scores() {
  const { all } = state(), column = (name) => all.data[all.columns.indexOf(name)];
  const by = page.group && all.columns.includes(page.group) ? page.group : "condition", of = column(by), value = column("score");
  const groups = [...Map.groupBy(members(), (place) => of[place])].sort(([a], [b]) => (a === b ? 0 : a < b ? -1 : 1)).map(([label, places]) => ({
    label: by === "condition" ? String(label) : `${by} = ${label}`, factors: { [by]: label }, launched: places.length,
    scores: places.filter((p) => value[p] !== null).map((p) => ({ group: label, run_id: column("run_id")[p], score: value[p], success: value[p] >= page.rule.threshold })),
  }));
  const drawn = groups.slice(0, GROUPS), list = groups.flatMap((g) => g.scores);
  finals.plots.replaceChildren(...drawScores(get("scores", "strip"), drawn, { scale: by, metric: page.rule.metric, threshold: page.rule.threshold, href: (s) => runHref(s.run_id) }));
  finals.count(`n = ${list.length} of ${told(members().length)}, by ${by}${groups.length > GROUPS ? `; the first ${GROUPS} of ${groups.length} groups are drawn` : ""}`);
  finals.table(["group", "run_id", "score", "success"], list, (v, name) => (name === "run_id" ? element("a", { href: runHref(v) }, v) : number(v)));
}
