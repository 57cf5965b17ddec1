// The list of results: one row per image, those that need attention first, and counts that filter.

import { clone } from "./parts.js";
import { probability } from "./wording.js";

const ALL = "All";

export class List {
  #rows = new Map(); // of results, in the order in which they came
  #rowsElement;
  #filtersElement;
  #groups = new Map(); // counts by name: a button, and whether a result belongs to it
  #filter = ALL;
  #events;

  /** `events`: `open(result)`, `remove(result)`, and `filtered()` if other rows are shown. */
  constructor(rows, filters, events) {
    this.#rowsElement = rows;
    this.#filtersElement = filters;
    this.#events = events;
    this.#addGroup(ALL, () => true);
    this.#addGroup("Uncertain", (result) => result.uncertain && !result.outlier);
    this.#addGroup("Out of distribution", (result) => result.outlier);
    this.#addGroup("No result", ({ problem }) => problem !== null);
    this.#addGroup("In progress", ({ done }) => !done);
  }

  get results() {
    return [...this.#rows.keys()];
  }

  add(results) {
    for (const result of results) {
      const row = clone("row-template");
      row.querySelector(".open").textContent = result.name;
      row.querySelector(".remove").setAttribute("aria-label", `Remove ${result.name}`);
      row.addEventListener("click", ({ target }) => this.#events[target.closest(".remove") ? "remove" : "open"](result));
      this.#rows.set(result, row);
      this.#fill(result);
    }
    this.#rowsElement.append(...results.map((result) => this.#rows.get(result)));
    this.count();
  }

  /** Draw what has changed of a result. */
  update(result) {
    if (!this.#rows.has(result)) return; // removed, or not yet added
    const before = this.#rows.get(result).dataset.state;
    this.#fill(result);
    if (before === result.state) return;
    if (result.done || before === "error") this.#place(result);
    this.count();
  }

  remove(result) {
    this.#rows.get(result).remove();
    this.#rows.delete(result);
    this.count();
  }

  /** Return the result `step` rows after another one, among those shown; undefined beyond the ends. */
  beside(result, step) {
    const shown = this.#shown();
    return shown[shown.indexOf(result) + step];
  }

  /** Mark the row of the result that is shown large, if any. */
  mark(result) {
    for (const [each, row] of this.#rows) row.querySelector(".open").setAttribute("aria-current", String(each === result));
  }

  /** Return a button of a result's row, if it has one. */
  button(result, selector) {
    return this.#rows.get(result)?.querySelector(selector);
  }

  #shown() {
    const byRow = this.#byRow();
    return [...this.#rowsElement.children].filter((row) => !row.hidden).map((row) => byRow.get(row));
  }

  #byRow() {
    return new Map([...this.#rows].map(([result, row]) => [row, result]));
  }

  #fill(result) {
    const row = this.#rows.get(result);
    const { prediction, problem } = result;
    row.dataset.state = result.state;
    row.classList.toggle("positive", result.positive);
    row.classList.toggle("outlier", result.outlier);
    row.classList.toggle("several", result.model?.positive_class === null);
    const picture = row.querySelector(".picture");
    picture.hidden = result.picture === null;
    if (result.picture && picture.getAttribute("src") !== result.picture) picture.src = result.picture;
    row.querySelector(".answer-text").textContent = prediction?.label ?? result.words;
    row.querySelector(".value").textContent = prediction ? probability(prediction.probability) : "";
    const flags = [result.outlier ? "Out of distribution" : result.uncertain && "Uncertain", prediction?.remarks?.length && "Remark", problem?.title];
    row.querySelector(".flags").replaceChildren(
      ...flags.filter(Boolean).map((words) => Object.assign(document.createElement("span"), { className: "flag", textContent: words })),
    );
  }

  /** Move a row to its place among those that have an answer. */
  #place(result) {
    const row = this.#rows.get(result);
    const focused = document.activeElement;
    const byRow = this.#byRow();
    const next = [...this.#rowsElement.children].find((other) => other !== row && compare(result, byRow.get(other)) < 0);
    this.#rowsElement.insertBefore(row, next ?? null);
    if (row.contains(focused)) focused.focus(); // which a move takes away
  }

  /** Draw the counts, and show the rows of the chosen one. */
  count() {
    for (const { prediction } of this.results) {
      if (prediction) this.#addGroup(prediction.label, (result) => result.prediction?.label === prediction.label, "Uncertain");
    }
    for (const [name, { button, holds }] of this.#groups) {
      const count = this.results.filter(holds).length;
      button.textContent = `${name} ${count}`;
      button.hidden = !count;
      if (!count && this.#filter === name) this.#filter = ALL;
    }
    for (const [name, { button }] of this.#groups) button.setAttribute("aria-pressed", String(this.#filter === name));
    for (const [result, row] of this.#rows) row.hidden = !this.#groups.get(this.#filter).holds(result);
  }

  #addGroup(name, holds, before) {
    if (this.#groups.has(name)) return;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "count" });
    button.addEventListener("click", () => {
      this.#filter = name;
      this.count();
      this.#events.filtered();
    });
    this.#groups.set(name, { button, holds });
    this.#filtersElement.insertBefore(button, this.#groups.get(before)?.button ?? null);
  }
}

/** Compare by need of attention: positive, uncertain, out-of-distribution, without a result, others; then by probability. */
function compare(one, other) {
  return rank(one) - rank(other) || (other.prediction?.probability ?? 0) - (one.prediction?.probability ?? 0);
}

function rank(result) {
  const kinds = [result.positive, result.uncertain && !result.outlier, result.outlier, result.problem !== null, result.done];
  const place = kinds.indexOf(true);
  return place < 0 ? kinds.length : place;
}
