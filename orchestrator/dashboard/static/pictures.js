// Figures that the server draws beside the page: shown when they are there, drawn anew when the study has changed.
import { element } from "./dom.js";
import { fetchJson, studyPath } from "./state.js";

const POLL_MS = 700, ANEW_MS = 15_000;

export function start(study) {
  for (const root of document.querySelectorAll("[data-picture]")) {
    // Only what is looked at is drawn.
    const seen = new IntersectionObserver((entries) => { if (entries.some((e) => e.isIntersecting)) { seen.disconnect(); follow(root, study); } }, { rootMargin: "400px" });
    seen.observe(root);
  }
}

async function follow(root, study) {
  const address = `${studyPath()}/figure/${root.dataset.picture}`, query = `metric=${encodeURIComponent(study().metric)}`;
  const said = root.querySelector("[data-state]");
  let wait = POLL_MS;
  try {
    const state = await fetchJson(`${address}.json?${query}`);
    if (state.version !== null && String(state.version) !== root.dataset.version) show(root, `${address}.svg?${query}&version=${state.version}`, state.version);
    said.textContent = { ready: "", drawing: state.version === null ? "drawing" : "of an earlier look; drawing anew", impossible: state.says }[state.state];
    for (const link of root.querySelectorAll("[data-form]")) link.setAttribute("aria-disabled", String(state.version === null));
    root.dataset.state = state.state;
    if (state.state !== "drawing") wait = ANEW_MS;
  } catch { wait = ANEW_MS; }
  setTimeout(() => follow(root, study), wait);
}

function show(root, address, version) {
  const title = root.querySelector("h2").textContent;
  const image = element("img", { src: address, alt: `${title}: a figure of ${root.dataset.picture}; its rows are below` });
  image.onload = () => root.querySelector("[data-sheet]").replaceChildren(image);
  root.dataset.version = version;
}
