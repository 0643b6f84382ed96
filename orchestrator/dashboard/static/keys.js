// The keyboard: where to go, what to switch. A page adds its own keys with `onKey`.
import { page } from "./state.js";

const own = new Map();
export const onKey = (key, action) => own.set(key, action);

export function start() {
  const help = document.getElementById("help");
  document.getElementById("help-button")?.addEventListener("click", () => help.showModal());
  const places = { h: "/", s: page.study && `/study/${encodeURIComponent(page.study)}`, r: page.study && `/runs?study=${encodeURIComponent(page.study)}`, q: page.study && `/sql?study=${encodeURIComponent(page.study)}` };
  let goes = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (goes && places[event.key]) location.assign(places[event.key]);
    goes = event.key === "g";
    if (event.key === "?") help.showModal();
    const action = own.get(event.key);
    if (action && !help.open) { event.preventDefault(); action(); }
  });
}
