// A table of any number of rows: only those in sight are in the document.
import { element } from "./dom.js";
import { number } from "./state.js";

const HEIGHT = 27, SPARE = 12;

export class VirtualTable {
  // columns: names; value(row, column) → what to show; onSort(column), onOpen(row), link(row, column) → address or null
  constructor(root, { onSort = null, link = () => null, onSelect = null }) {
    Object.assign(this, { root, onSort, link, onSelect, columns: [], rows: [], read: () => null, sort: "", at: -1 });
    this.head = element("thead");
    this.body = element("tbody");
    root.replaceChildren(element("table", {}, this.head, this.body));
    root.addEventListener("scroll", () => this.draw());
    root.addEventListener("keydown", (event) => this.key(event));
  }

  show(columns, rows, read, sort = "") {
    Object.assign(this, { columns, rows, read, sort });
    this.head.replaceChildren(element("tr", {}, ...columns.map((name) => this.headCell(name))));
    this.draw();
  }

  headCell(name) {
    const order = this.sort === name ? "ascending" : this.sort === "-" + name ? "descending" : null;
    const text = name + (order === "ascending" ? " ▲" : order ? " ▼" : "");
    return element("th", { scope: "col", "aria-sort": order }, this.onSort ? element("button", { type: "button", onclick: () => this.onSort(order === "ascending" ? "-" + name : name) }, text) : text);
  }

  draw() {
    const first = Math.max(0, Math.floor(this.root.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(this.rows.length, first + Math.ceil((this.root.clientHeight || 540) / HEIGHT) + 2 * SPARE);
    const pad = (rows) => element("tr", { "aria-hidden": "true" }, element("td", { class: "pad", colspan: this.columns.length, height: rows * HEIGHT }));
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
    return element("tr", { "aria-selected": index === this.at ? "true" : null, onclick: () => this.onSelect?.(row, index) }, ...cells);
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
    if (event.key === "Enter" && this.at >= 0 && event.target === this.root) {
      const address = this.link(this.rows[this.at], this.columns.find((c) => this.link(this.rows[this.at], c)) ?? "");
      if (address) location.assign(address);
    }
  }
}
