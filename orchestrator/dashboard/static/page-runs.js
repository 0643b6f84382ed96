// The table of runs: sorted and drawn here; filtered and grouped by the server, so that SQL says the same.
import { element } from "./dom.js";
import { onKey } from "./keys.js";
import { onStudy } from "./live.js";
import * as chosen from "./chosen.js";
import { fetchJson, get, page, set } from "./state.js";
import { VirtualTable } from "./virtual.js";

const input = document.getElementById("filter"), failed = document.getElementById("filter-error");
const study = `study=${encodeURIComponent(page.study)}`;
let all = null, places = [], shown = page.shown, asked = 0, later = 0;
const read = (row, name) => all.data[all.columns.indexOf(name)][row];
const table = new VirtualTable(document.getElementById("table"), {
  onSort: (sort) => { set({ sort }); draw(); },
  link: (row, name) => (name === "run_id" ? `/run/${encodeURIComponent(read(row, "run_id"))}?${study}` : null),
  ticked: (row) => chosen.has(read(row, "run_id")),
  onTick: (row) => { chosen.tick(read(row, "run_id")); draw(); },
});

export async function start() {
  columns();
  chosen.start(() => ({ all, places, filter: input.value }));
  document.getElementById("none").addEventListener("click", () => { chosen.clear(); draw(); });
  await load();
  input.addEventListener("input", () => { set({ filter: input.value }); filter(); });
  onKey("/", () => input.focus());
  onStudy(({ study: name, version }) => { if (name === page.study && version > page.version) load(); });
}

async function load() {
  all = await fetchJson(`/rows.json?${study}`);
  await filter();
  clearTimeout(later);
  await chosen.draw();
}

async function filter() {
  const mine = (asked += 1);
  try {
    const answer = await fetchJson(`/places.json?${study}&filter=${encodeURIComponent(input.value)}`);
    if (mine !== asked) return;
    places = answer.places;
    failed.hidden = true;
  } catch (error) {
    failed.textContent = error.message;
    failed.hidden = false;
    return;
  }
  document.getElementById("matching").textContent = places.length.toLocaleString("en");
  for (const kind of ["csv", "parquet"]) document.getElementById(kind).href = `/rows.${kind}?${study}&filter=${encodeURIComponent(input.value)}`;
  draw();
  clearTimeout(later);
  later = setTimeout(chosen.draw, 250);  // not at every key
}

function draw() {
  const sort = get("sort"), name = sort.replace(/^-/, ""), turn = sort.startsWith("-") ? -1 : 1;
  const sorted = [...places];
  if (all.columns.includes(name)) {
    const values = all.data[all.columns.indexOf(name)];
    const rank = (v) => (v === null ? 1 : 0);
    sorted.sort((a, b) => rank(values[a]) - rank(values[b]) || (values[a] < values[b] ? -turn : values[a] > values[b] ? turn : a - b));
  }
  table.show(shown, sorted, read, sort);
}

function columns() {
  const box = (name) => element("input", { type: "checkbox", ...(shown.includes(name) ? { checked: "" } : {}), onchange: (event) => {
    shown = event.target.checked ? [...shown, name] : shown.filter((c) => c !== name);
    set({ columns: shown.join(",") });
    draw();
  } });
  document.getElementById("columns").replaceChildren(...page.columns.map((name) => element("label", {}, box(name), " ", name)));
}
