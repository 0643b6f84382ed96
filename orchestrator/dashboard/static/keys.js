// The keyboard: where to go, what to switch. A page adds its own keys with `onKey`.

const own = new Map();
export const onKey = (key, action) => own.set(key, action);

export function start() {
  const help = document.getElementById("help");
  document.getElementById("help-button")?.addEventListener("click", () => help.showModal());
  const place = (start) => document.querySelector(`nav a[href^="${start}"]`)?.href;
  const places = { h: "/", s: place("/study/"), r: place("/runs"), c: place("/compare"), k: place("/cluster"), q: place("/sql") };
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
