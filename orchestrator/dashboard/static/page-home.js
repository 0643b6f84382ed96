// Home: sparklines, and numbers that follow the news.
import { element } from "./dom.js";
import { onStudy } from "./live.js";
import { spark } from "./scale.js";
import { fetchJson, page } from "./state.js";

export function start() {
  draw(page);
  let versions = Object.fromEntries(page.studies.map((s) => [s.study, s.version]));
  onStudy(async ({ study, version }) => {
    if (version <= (versions[study] ?? 0)) return;
    const home = await fetchJson("/home.json");
    versions = Object.fromEntries(home.studies.map((s) => [s.study, s.version]));
    draw(home);
  });
}

function draw(home) {
  const cards = document.querySelectorAll("[data-spark]");
  if (home.studies.length !== cards.length) return location.reload();
  for (const study of home.studies) {
    const card = document.querySelector(`[data-study="${CSS.escape(study.study)}"]`);
    if (!card) return location.reload();
    card.querySelector("[data-spark]").replaceChildren(spark(study.success));
    progress(card, study);
  }
}

// The line "34 of 40 runs ended · 85 % of all steps", and a tag per status.
export function progress(root, study) {
  const { ended, launched, share } = study.progress;
  root.querySelector("[data-progress]").replaceChildren(element("strong", {}, `${ended.toLocaleString("en")} of ${launched.toLocaleString("en")}`), ` runs ended · ${Math.floor(100 * share)} % of all steps`);
  const tags = Object.entries(study.counts).filter(([, n]) => n).flatMap(([status, n]) => [element("span", { class: `tag s-${status}` }, `${n.toLocaleString("en")} ${status}`), " "]);
  root.querySelector("[data-counts]").replaceChildren(...tags);
}
