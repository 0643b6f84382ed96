// The page of a study: its charts, the choices that the URL keeps, and the news.
import * as control from "./control.js";
import { Panel, fetchLines, pointsOf, range } from "./curves.js";
import { draw as drawScores } from "./distribution.js";
import { choice, element } from "./dom.js";
import { figure } from "./figure.js";
import { grid } from "./grid.js";
import { onKey } from "./keys.js";
import { onStudy } from "./live.js";
import { progress } from "./page-home.js";
import { onsets, success } from "./scale.js";
import * as pictures from "./pictures.js";
import { fetchJson, get, number, page, rows, set, studyPath } from "./state.js";

const VIEWS = ["fan", "lines", "both"], KINDS = ["strip", "histogram", "ecdf", "ridgeline"];
const fanFigure = figure("fan"), scoreFigure = figure("scores"), successFigure = figure("success"), onsetFigure = figure("onsets"), gridFigure = figure("grid");
let study = page, fan = [], scores = [], panels = [];
const query = () => `metric=${encodeURIComponent(study.metric)}`;
const runHref = (run) => `/run/${encodeURIComponent(run)}?study=${encodeURIComponent(study.study)}`;

export async function start() {
  const select = element("select", { "aria-label": "Metric", onchange: (e) => { set({ metric: e.target.value }); location.reload(); } }, ...study.metrics.map((m) => element("option", m === study.metric ? { selected: "" } : {}, m)));
  fanFigure.controls.append(select, " ", choice("View", VIEWS, get("view", "fan"), setView), " ", element("button", { type: "button", class: "quiet", onclick: () => zoomTo(null) }, "whole range"));
  scoreFigure.controls.append(choice("Kind", KINDS, get("scores", "strip"), setKind));
  onKey("v", () => next(fanFigure, VIEWS, get("view", "fan")));
  onKey("d", () => next(scoreFigure, KINDS, get("scores", "strip")));
  onKey("0", () => zoomTo(null));
  [fan, scores] = (await Promise.all([fetchJson(`${studyPath()}/fan.json?${query()}`), fetchJson(`${studyPath()}/scores.json`)])).map(rows);
  panels = study.conditions.map((c) => new Panel(c.condition, { launched: c.launched, onPick: mark, onZoom: zoomTo }));
  fanFigure.plots.replaceChildren(...panels.map((p) => p.root));
  fanFigure.drawings = () => panels.map((p) => p.svg(study.metric));
  await drawCurves();
  drawRest();
  onStudy(take);
  control.start();
  pictures.start(() => study);
  const again = () => { drawCurves(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new ResizeObserver(() => panels.forEach((p) => p.resize())).observe(fanFigure.plots);
}

const next = (holder, options, now) => holder.controls.querySelector(`[data-choice="${options[(options.indexOf(now) + 1) % options.length]}"]`).click();
function setView(view) { set({ view: view === "fan" ? "" : view }); drawCurves(); }
function setKind(kind) { set({ scores: kind === "strip" ? "" : kind }); drawRest(); }
function zoomTo(zoom) { set({ from: zoom ? Math.floor(zoom[0]) : "", to: zoom ? Math.ceil(zoom[1]) : "" }); drawCurves(); }

function mark(run) {
  const marked = new Set(get("run").split(",").filter(Boolean));
  if (!marked.delete(run)) marked.add(run);
  set({ run: [...marked].join(",") });
  drawCurves();
}

async function drawCurves() {
  const view = get("view", "fan"), zoom = get("to") ? [Number(get("from", "0")), Number(get("to"))] : null;
  const marked = new Set(get("run").split(",").filter(Boolean));
  const byCondition = Map.groupBy(fan, (r) => r.condition);
  await Promise.all(panels.map(async (panel) => {
    Object.assign(panel, { view, zoom, marked, fan: byCondition.get(panel.title) ?? [] });
    if (view === "fan") { panel.lines = null; return; }
    const bounds = zoom ? `&from=${Math.floor(zoom[0])}&to=${Math.ceil(zoom[1])}` : "";
    panel.lines = await fetchLines(`${studyPath()}/lines.bin?${query()}&condition=${encodeURIComponent(panel.title)}&px=${Math.max(panel.root.clientWidth, 300)}${bounds}`);
  }));
  const shown = panels.flatMap((p) => view === "fan" ? [p.fan.map((r) => r.q05), p.fan.map((r) => r.q95)] : [p.fan.map((r) => r.q05), p.fan.map((r) => r.q95), ...(p.lines?.values ?? [])]);
  const y = range(shown);
  for (const panel of panels) panel.draw(y);
  const last = panels.map((p) => p.fan.at(-1)?.n ?? 0), total = study.conditions.reduce((sum, c) => sum + c.launched, 0);
  const chosen = marked.size ? `; marked: ${[...marked].join(", ")}` : "";
  fanFigure.count(`n = ${last.reduce((a, b) => a + b, 0)} of ${total} runs at the last step; band 5–95 %, 25–75 %, line: median${chosen}`);
  const reduced = panels.some((p) => p.lines?.reduced);
  if (reduced) fanFigure.count(`n = ${last.reduce((a, b) => a + b, 0)} of ${total} runs; each line by its least and greatest value per pixel: zoom in for every step${chosen}`);
  behindCurves(view, zoom);
}

// The rows of what is drawn: the fan's, or the lines' as they were reduced; their CSV has every value.
function behindCurves(view, zoom) {
  const bounds = zoom ? `&from=${zoom[0]}&to=${zoom[1]}` : "", inside = zoom ? fan.filter((r) => r.step >= zoom[0] && r.step <= zoom[1]) : fan;
  fanFigure.csv(`${studyPath()}/${view === "fan" ? "fan" : "values"}.csv?${query()}${bounds}`);
  if (view === "fan") fanFigure.table(["condition", "step", "n", "launched", "mean", "q05", "q25", "q50", "q75", "q95"], inside, number);
  else fanFigure.table(["condition", "run_id", "step", "value"], (most) => pointsOf(panels, most), (v, name) => name === "run_id" ? element("a", { href: runHref(v) }, v) : number(v), pointsOf(panels, 0, true));
}

function drawRest() {
  const conditions = study.conditions, scale = study.scale, finished = Map.groupBy(scores, (s) => s.condition);
  const groups = conditions.map((c) => ({ label: c.condition, factors: c.factors, scores: finished.get(c.condition) ?? [], launched: c.launched }));
  const kind = get("scores", "strip"), diverged = study.counts.diverged, failed = study.counts.failed;
  scoreFigure.plots.replaceChildren(...drawScores(kind, groups, { scale, metric: study.rule.metric, threshold: study.rule.threshold, href: (s) => runHref(s.run_id) }));
  const total = conditions.reduce((sum, c) => sum + c.launched, 0), known = conditions.reduce((sum, c) => sum + c.known, 0);
  scoreFigure.count(`n = ${scores.length} of ${total}${diverged ? `; ${diverged} diverged have none` : ""}${failed ? `; ${failed} failed have none` : ""}`);
  scoreFigure.table(["condition", "run_id", "seed_init", "seed_data", "score", "success"], scores, (v, name) => name === "run_id" ? element("a", { href: runHref(v) }, v) : number(v));
  successFigure.plots.replaceChildren(success(conditions, scale));
  successFigure.count(`n = ${known} of ${total}; line: Wilson, band: Jeffreys, 95 %`);
  successFigure.table(["condition", "successes", "known", "launched", "P", "low", "high"], conditions.map((c) => ({ ...c, P: c.success.value, low: c.success.low, high: c.success.high })), number);
  const planned = Math.max(1, ...fan.map((r) => r.step));
  onsetFigure.plots.replaceChildren(onsets(conditions, scale, planned));
  onsetFigure.count(`n = ${conditions.reduce((sum, c) => sum + c.onset.runs, 0)} of ${total}; box: the bracket, line: its interval`);
  onsetFigure.table(["condition", "onset", "runs", "low", "high"], conditions.map((c) => ({ condition: c.condition, onset: c.onset.text, runs: c.onset.runs, low: c.onset.interval[0], high: c.onset.interval[1] })), number);
  gridFigure.plots.replaceChildren(grid(conditions));
  gridFigure.count(`${total} of ${total} runs: ${Object.entries(study.counts).filter(([, n]) => n).map(([s, n]) => `${n} ${s}`).join(", ")}`);
  gridFigure.table(["condition", "launched", "waiting", "running", "finished", "diverged", "failed"], conditions, (v, name) => name === "condition" ? element("a", { href: `/runs?study=${encodeURIComponent(study.study)}&filter=${encodeURIComponent(`condition="${v}"`)}` }, v) : number(v));
}

// A delta: the numbers of the study, and of each changed condition only the steps from the first changed one on.
async function take({ study: name, changed, version }) {
  if (name !== study.study || version <= study.version) return;
  study = await fetchJson(`${studyPath()}.json?${query()}`);
  const from = changed === null ? 0 : Math.min(...Object.values(changed));
  if (Number.isFinite(from)) {
    const [newer, all] = await Promise.all([fetchJson(`${studyPath()}/fan.json?${query()}&after=${from}`), fetchJson(`${studyPath()}/scores.json`)]);
    fan = [...fan.filter((r) => r.step < from), ...rows(newer)].sort((a, b) => (a.condition < b.condition ? -1 : a.condition > b.condition ? 1 : a.step - b.step));
    scores = rows(all);
    await drawCurves();
  }
  progress(document, study);
  numbers();
  drawRest();
}

function numbers() {
  for (const condition of study.conditions) {
    const row = document.querySelector(`#conditions tr[data-condition="${CSS.escape(condition.condition)}"]`);
    if (!row) return location.reload();
    const two = (v) => (v === null ? "–" : v.toFixed(2).replace(/^0/, "")), pair = ([a, b]) => `[${two(a)}, ${two(b)}]`;
    const four = (v) => (v === null ? "–" : String(Number(v.toPrecision(4))));
    const texts = [condition.launched, condition.finished, condition.diverged, condition.failed, two(condition.success.value), `${condition.successes} of ${condition.known}`, pair([condition.success.low, condition.success.high]), pair(condition.jeffreys), pair(condition.bounds), four(condition.mean_of_successes), four(condition.mean_of_failures), condition.onset.text];
    texts.forEach((text, i) => { row.cells[i + 1].textContent = text; });
  }
}
