// News without reload: one stream for all tabs of this browser, which comes back by itself and says when it is gone.
import { element } from "./dom.js";

const listeners = new Set();
const channel = new BroadcastChannel("seedbed-news-" + location.port);
const SILENCE_MS = 12_000;
let heard = performance.now();

export const onStudy = (listener) => listeners.add(listener);

export function start() {
  channel.onmessage = (message) => take(message.data);
  // The lock's holder keeps the stream; when its tab closes, the next one takes over.
  navigator.locks.request("seedbed-stream-" + location.port, () => new Promise(() => listen()));
  setInterval(() => { if (performance.now() - heard > SILENCE_MS) show(false); }, 1000);
  setInterval(() => { if (stopped()) fetch("/home.json").then((a) => { if (a.ok) take({ kind: "hello" }); }, () => {}); }, 2000);
}

function listen() {
  const source = new EventSource("/events");
  const pass = (kind) => (event) => {
    const message = { kind, told: JSON.parse(event.data) };
    channel.postMessage(message);
    take(message);
  };
  for (const kind of ["hello", "beat", "study", "alert"]) source.addEventListener(kind, pass(kind));
  source.onerror = () => {
    const message = { kind: "lost" };
    channel.postMessage(message);
    take(message);
    // A refusal ends an EventSource for good: a new one is made.
    if (source.readyState === EventSource.CLOSED) { source.close(); setTimeout(listen, 2000); }
  };
}

const stopped = () => !document.getElementById("stopped").hidden;

function take({ kind, told }) {
  if (kind === "lost") return show(false);
  heard = performance.now();
  show(true);
  // What was missed before the stream began, or while it was gone, is read anew.
  for (const [study, version] of Object.entries(told?.versions ?? {})) for (const listener of listeners) listener({ study, version, changed: null });
  if (kind === "study") for (const listener of listeners) listener(told);
  if (kind === "alert") toast(`${told.study}: ${told.message}`);
}

function show(on) {
  const live = document.getElementById("live"), banner = document.getElementById("stopped");
  live.textContent = on ? "live" : "not live";
  live.className = "live " + (on ? "on" : "off");
  if (on) banner.hidden = true;
  else if (banner.hidden) {
    banner.textContent = `The server does not answer (since ${new Date().toLocaleTimeString()}). What you see is what it said last; this page goes on by itself when it is back.`;
    banner.hidden = false;
  }
}

export function toast(text) {
  const made = element("div", { class: "toast" }, text);
  document.getElementById("toasts").append(made);
  setTimeout(() => made.remove(), 8000);
}
