// Stop, resume, extend: each asks once more on its own button, and says what was done.
import { studyPath } from "./state.js";

const SURE_MS = 5000;

export function start() {
  for (const form of document.querySelectorAll("form[data-control]")) form.addEventListener("submit", (event) => press(event, form));
}

function press(event, form) {
  event.preventDefault();
  const button = form.querySelector("button"), text = button.dataset.text ?? button.textContent;
  if (button.dataset.text) { calm(button); ask(form); return; }
  button.dataset.text = text;
  button.textContent = `${text}: sure?`;
  button.classList.add("sure");
  setTimeout(() => calm(button), SURE_MS);
}

function calm(button) {
  if (!button.dataset.text) return;
  button.textContent = button.dataset.text;
  delete button.dataset.text;
  button.classList.remove("sure");
}

async function ask(form) {
  const body = new URLSearchParams(new FormData(form)), told = document.getElementById("control-told");
  body.set("action", form.dataset.control);
  const answer = await fetch(`${studyPath()}/control.json`, { method: "POST", body });
  const { says, command, log, error } = await answer.json();
  told.textContent = error ?? [says, command, log && `log: ${log}`].filter(Boolean).join("\n");
  told.hidden = false;
}
