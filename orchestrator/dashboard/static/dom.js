// Elements without markup: every text that comes from a study is text, whatever it holds.
const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// records: objects, or a function that makes the first so many of them; total: how many there are.
export function tableOf(columns, records, show, total = records.length, most = 500) {
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const first = typeof records === "function" ? records(most) : records.slice(0, most);
  const body = first.map((record) =>
    element("tr", {}, ...columns.map((name) => element("td", {}, show(record[name], name, record)))));
  const note = total > most ? `The first ${most} of ${total.toLocaleString("en")} rows; CSV has all.` : `${total} rows`;
  return element("table", { class: "numbers" }, element("caption", {}, note), element("thead", {}, head), element("tbody", {}, ...body));
}

// A text that a spreadsheet would take for a formula gets an apostrophe before it, as in the server's files.
export function csvOf(columns, records) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value !== "string") return String(value);
    const safe = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return '"' + safe.replaceAll('"', '""') + '"';
  };
  return [columns.map(cell), ...records.map((record) => columns.map((name) => cell(record[name])))].map((row) => row.join(",") + "\n").join("");
}

// Two or three buttons of which one is pressed.
export function choice(label, options, chosen, onChange) {
  const group = element("span", { role: "group", "aria-label": label });
  for (const option of options) {
    group.append(element("button", {
      type: "button", class: "quiet", "data-choice": option, "aria-pressed": String(option === chosen), onclick: () => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other.dataset.choice === option));
        onChange(option);
      },
    }, option), " ");
  }
  return group;
}
