// The list of cases as a grid or as a table. Only what is near the screen is in the page.

const HEIGHTS = { grid: 184, table: 45 };
const CELL = 138; // least width of a cell of the grid
const AHEAD = 4; // rows beyond the screen
const LEADING = positive === null ? "Probability of the answer" : `Probability of ${classes[positive]}`;
const TABLE = [
  ["Image", thumbnail],
  ["Name", (index) => columns.image[index]],
  [LEADING, (index) => WORDING.probability(probability(index))],
  ...FACETS,
  ["Score", (index) => WORDING.figure(columns.outlier[index], 2)],
  ["Patient", (index) => columns.patient[index]],
];

class CaseList {
  cases = [];
  position = 0;
  across = 1;
  #view = "grid";
  #drawn = "";

  /** `open` is called with the position of the case that a person opens. */
  constructor(scroller, open) {
    this.scroller = scroller;
    scroller.addEventListener("scroll", () => this.#draw(), { passive: true });
    scroller.addEventListener("click", ({ target }) => {
      const row = target.closest("[data-position]");
      if (row) open(Number(row.dataset.position));
    });
    new ResizeObserver(() => this.redraw()).observe(scroller);
  }

  /** Show cases in this order, as a `grid` or as a `table`. */
  show(cases, view = this.#view) {
    const kinds = view === "grid" ? ["div", "ul", "div"] : ["tbody", "tbody", "tbody"];
    const parts = kinds.map((kind, place) => element(kind, { class: ["before", "rows", "after"][place] }));
    const titles = TABLE.map(([title]) => element("th", { scope: "col" }, title));
    const table = () => element("table", { "aria-rowcount": cases.length + 1 }, element("thead", {}, element("tr", {}, ...titles)), ...parts);
    this.scroller.replaceChildren(...(view === "grid" ? parts : [table()]));
    [this.cases, this.#view] = [cases, view];
    this.redraw();
  }

  /** Draw all that is shown anew: its size, or what is known about it, has changed. */
  redraw() {
    this.across = this.#view === "grid" ? Math.max(1, Math.floor(this.scroller.clientWidth / CELL)) : 1;
    this.scroller.style.setProperty("--across", this.across);
    this.#drawn = "";
    const focused = this.scroller.contains(document.activeElement) ? document.activeElement.closest("[data-position]") : null;
    this.scroller.querySelector(".rows").replaceChildren();
    this.#draw();
    if (focused) (this.scroller.querySelector("[tabindex='0']") ?? this.scroller).focus({ preventScroll: true });
  }

  /** Make a case the current one, and bring it into view; with focus unless a dialog has it. */
  move(position, focus = true) {
    const { scroller } = this;
    this.position = Math.max(Math.min(position, this.cases.length - 1), 0);
    const height = HEIGHTS[this.#view];
    const top = Math.floor(this.position / this.across) * height;
    const bottom = top + height + (scroller.querySelector("thead")?.offsetHeight ?? 0);
    scroller.scrollTop = Math.max(Math.min(scroller.scrollTop, top), bottom - scroller.clientHeight);
    this.redraw();
    if (focus) scroller.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  #draw() {
    const { scroller, across, cases } = this;
    const height = HEIGHTS[this.#view];
    const rows = Math.ceil(cases.length / across);
    const first = Math.max(0, Math.min(Math.floor(scroller.scrollTop / height) - AHEAD, rows));
    const last = Math.min(rows, Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + AHEAD);
    if (this.#drawn === `${first} ${last}`) return;
    this.#drawn = `${first} ${last}`;
    const [begin, end] = [first * across, Math.min(last * across, cases.length)];
    const body = scroller.querySelector(".rows");
    const hadFocus = body.contains(document.activeElement);
    const old = new Map([...body.children].map((each) => [Number(each.dataset.position), each]));
    for (const [position, each] of old) if (position < begin || position >= end) each.remove();
    let next = body.firstElementChild;
    for (let position = begin; position < end; position += 1) {
      if (old.has(position)) next = old.get(position).nextElementSibling;
      else body.insertBefore(this.#make(position), next);
    }
    scroller.querySelector(".before").style.height = `${first * height}px`;
    scroller.querySelector(".after").style.height = `${(rows - last) * height}px`;
    if (hadFocus && !body.contains(document.activeElement)) (body.querySelector("[tabindex='0']") ?? scroller).focus({ preventScroll: true });
  }

  #make(position) {
    const index = this.cases[position];
    const attributes = { "data-position": position, class: isWrong(index) ? "wrong" : "" };
    const button = element("button", { type: "button", tabindex: position === this.position ? 0 : -1 });
    if (this.#view === "table") {
      const cells = TABLE.map(([title, read]) => element("td", {}, title === "Name" ? button : read(index)));
      button.append(columns.image[index]);
      return element("tr", { ...attributes, "aria-rowindex": position + 2 }, ...cells);
    }
    const doubt = columns.flagged[index] ? "out-of-distribution" : columns.certain[index] ? "" : "uncertain";
    const lines = [isWrong(index) ? outcome(index) : classes[CASES.answer[index]], WORDING.probability(probability(index)), doubt, tagOf(index)?.words ?? ""];
    button.setAttribute("aria-label", describe(index));
    button.append(thumbnail(index), ...lines.map((line) => element("span", { class: "line" }, line)));
    return element("li", { ...attributes, "aria-setsize": this.cases.length, "aria-posinset": position + 1 }, button);
  }
}
