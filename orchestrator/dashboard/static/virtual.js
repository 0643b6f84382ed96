// A table of any number of rows: only those in sight are in the document.
import { element } from "./dom.js";
import { number } from "./state.js";

const HEIGHT = 27, SPARE = 12;

export class VirtualTable {
  // columns: names; read(row, column) → what to show; onSort(column); link(row, column) → address or null
  // ticked(row) → whether it is chosen, and onTick(row): with them each row has a box, which the space bar ticks, too
  constructor(root, { onSort = null, link = () => null, ticked = null, onTick = null }) {
    Object.assign(this, { root, onSort, link, ticked, onTick, columns: [], rows: [], read: () => null, sort: "", at: -1 });
    this.head = element("thead");
    this.body = element("tbody");
    root.replaceChildren(element("table", {}, this.head, this.body));
    root.addEventListener("scroll", () => this.draw());
    root.addEventListener("keydown", (event) => this.key(event));
  }

  show(columns, rows, read, sort = "") {
    Object.assign(this, { columns, rows, read, sort });
    const boxes = this.onTick ? [element("th", { scope: "col", class: "tick" }, "chosen")] : [];
    this.head.replaceChildren(element("tr", {}, ...boxes, ...columns.map((name) => this.headCell(name))));
    this.draw();
  }

  headCell(name) {
    const order = this.sort === name ? "ascending" : this.sort === "-" + name ? "descending" : null;
    const text = name + (order === "ascending" ? " ▲" : order ? " ▼" : "");
    const sample = this.rows.slice(0, 50).map((row) => this.read(row, name)).find((value) => value !== null);
    return element("th", { scope: "col", class: typeof sample === "number" ? "num" : null, "aria-sort": order }, this.onSort ? element("button", { type: "button", onclick: () => this.onSort(order === "ascending" ? "-" + name : name) }, text) : text);
  }

  draw() {
    const first = Math.max(0, Math.floor(this.root.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(this.rows.length, first + Math.ceil((this.root.clientHeight || 540) / HEIGHT) + 2 * SPARE);
    const pad = (rows) => element("tr", { "aria-hidden": "true" }, element("td", { class: "pad", colspan: this.columns.length + (this.onTick ? 1 : 0), height: rows * HEIGHT }));
    const made = [];
    for (let i = first; i < last; i += 1) made.push(this.row(i));
    this.body.replaceChildren(pad(first), ...made, pad(this.rows.length - last));
  }

  row(index) {
    const row = this.rows[index];
    const cells = this.columns.map((name) => {
      const value = this.read(row, name), address = this.link(row, name);
      const text = number(value);
      return element("td", { class: typeof value === "number" ? "num" : null, title: text.length > 30 ? text : null }, address ? element("a", { href: address }, text) : text);
    });
    const box = this.onTick && element("input", { type: "checkbox", tabindex: "-1", "aria-label": `row ${index + 1}`, checked: this.ticked(row) ? "" : null, onchange: () => this.onTick(row) });
    return element("tr", { "aria-selected": index === this.at ? "true" : null }, ...(box ? [element("td", { class: "tick" }, box)] : []), ...cells);
  }

  key(event) {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 18, PageUp: -18 }[event.key];
    if (move) {
      event.preventDefault();
      this.at = Math.min(Math.max(this.at + move, 0), this.rows.length - 1);
      const top = this.at * HEIGHT;
      if (top < this.root.scrollTop || top > this.root.scrollTop + this.root.clientHeight - 3 * HEIGHT) this.root.scrollTop = Math.max(0, top - this.root.clientHeight / 2);
      this.draw();
    }
    if (event.key === " " && this.onTick && this.at >= 0 && event.target === this.root) { event.preventDefault(); this.onTick(this.rows[this.at]); }
    if (event.key === "Enter" && this.at >= 0 && event.target === this.root) {
      const address = this.link(this.rows[this.at], this.columns.find((c) => this.link(this.rows[this.at], c)) ?? "");
      if (address) location.assign(address);
    }
  }
}
