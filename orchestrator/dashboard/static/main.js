// The entry: what every page has, then the page's own module.
import * as keys from "./keys.js";
import * as live from "./live.js";

const name = document.body.dataset.page;
keys.start();
for (const time of document.querySelectorAll("time[data-time]")) {
  const at = new Date(1000 * time.dataset.time);
  time.dateTime = at.toISOString();
  time.textContent = at.toLocaleString();
}
if (["home", "study", "runs", "run", "cluster", "sql", "compare"].includes(name)) {
  const module = await import(`./page-${name}.js`);
  await module.start();
  live.start();
}
document.documentElement.dataset.ready = "yes";
