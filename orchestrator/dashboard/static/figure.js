// What every chart has: its count "n of N", a table behind it, and its export as PNG, SVG and CSV.
import { csvOf, element, tableOf } from "./dom.js";

const KEPT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "font", "text-anchor"];

export function figure(id) {
  const root = document.getElementById(id);
  if (!root) return null;
  const part = (name) => root.querySelector(`[data-${name}]`);
  const made = {
    root, rows: { columns: [], records: [] }, plots: part("plots"), controls: part("controls"), drawings: () => [...root.querySelectorAll("svg.drawn")],
    count: (text) => { part("count").textContent = text; },
    // The rows of what is drawn: behind the chart as a table, and as CSV where the server has no file of them.
    table: (columns, records, show, total = records.length) => {
      made.rows = { columns, records };
      const details = root.querySelector("details.behind"), holder = part("table");
      const fill = () => { if (details.open) holder.replaceChildren(tableOf(columns, records, show, total)); };
      if (!details) return;
      details.ontoggle = fill;
      fill();
    },
    csv: (address) => { root.querySelector("a[data-export=csv]").href = address; },
  };
  for (const button of root.querySelectorAll("button[data-export]")) {
    button.addEventListener("click", () => save(made, id, button.dataset.export));
  }
  return made;
}

async function save(made, id, kind) {
  const name = `${document.title.split(" · ")[0]}-${id}.${kind}`.replace(/[^\w.-]+/g, "-");
  if (kind === "csv") return download(new Blob([csvOf(made.rows.columns, made.rows.records)], { type: "text/csv" }), name);
  const drawings = made.drawings();
  // What a canvas shows is drawn once more as SVG; styles are known only inside the document.
  const aside = element("div", { class: "aside" }, ...drawings.filter((drawing) => !drawing.isConnected));
  document.body.append(aside);
  const [whole, width, height] = together(drawings);
  aside.remove();
  const text = new XMLSerializer().serializeToString(whole);
  const blob = new Blob([text], { type: "image/svg+xml" });
  if (kind === "svg") return download(blob, name);
  const image = new Image(), address = URL.createObjectURL(blob);
  await new Promise((resolve, reject) => { image.onload = resolve; image.onerror = reject; image.src = address; });
  const canvas = element("canvas", { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  URL.revokeObjectURL(address);
  canvas.toBlob((png) => download(png, name), "image/png");
}

// One SVG of all panels, each with the styles it has on the page, on the page's paper.
function together(drawings) {
  const whole = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  let width = 0, height = 0;
  for (const drawing of drawings) {
    const copy = drawing.cloneNode(true), box = drawing.viewBox.baseVal;
    const from = [drawing, ...drawing.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
    from.forEach((source, i) => {
      const style = getComputedStyle(source);
      for (const name of KEPT) to[i].setAttribute(name, style.getPropertyValue(name));
      to[i].removeAttribute("class");
    });
    copy.setAttribute("y", height);
    copy.setAttribute("width", box.width);
    copy.setAttribute("height", box.height);
    height += box.height;
    width = Math.max(width, box.width);
    whole.append(copy);
  }
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: getComputedStyle(document.body).backgroundColor })) paper.setAttribute(name, value);
  whole.prepend(paper);
  for (const [name, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` })) whole.setAttribute(name, value);
  return [whole, width, height];
}

function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 5000);
}
