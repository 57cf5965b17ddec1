// The page: filters, list, keys, and one case large.

const list = new CaseList(part("scroller"), (position) => detail.open(position));
const detail = new CaseDetail(list, drawTagged);
const choices = FACETS.map(([title, read]) => {
  const counts = Map.groupBy(NUMBERS, read);
  const values = title === "Tag" ? ["none", ...TAGS.map(({ words }) => words)] : [...counts.keys()].sort();
  const options = values.map((value) => element("option", { value }, title === "Tag" ? value : `${value} (${counts.get(value).length})`));
  return element("select", { "aria-label": title }, element("option", { value: "" }, "any"), ...options);
});

function filter() {
  const number = (id, other) => (Number.isFinite(part(id).valueAsNumber) ? part(id).valueAsNumber : other);
  const chosen = choices.map(({ value }) => value);
  list.position = part("scroller").scrollTop = 0;
  list.show(select({ chosen, words: part("search").value, from: number("from", 0), to: number("to", 1), order: part("sort").value }));
  part("count").textContent = `${list.cases.length} of ${WORDING.plural(NUMBERS.length, "case")}, ${WORDING.plural(list.cases.filter(isWrong).length, "mistake")} among them`;
}

function drawTagged() {
  const [relabel, exclude] = [listEntries(false).length, listEntries(true).length];
  const lost = isKept ? "" : " This browser keeps nothing once the page is closed: save the tables.";
  part("tagged").textContent = relabel + exclude ? `${relabel + exclude} tagged or noted, ${exclude} to exclude.${lost}` : "No case is tagged.";
  part("save-relabel").disabled = !relabel;
  part("save-exclude").disabled = !exclude;
  part("clear").disabled = !(relabel + exclude);
  list.redraw();
}

function choose(view) {
  for (const name of ["grid", "table"]) part(name).setAttribute("aria-pressed", name === view);
  list.show(list.cases, view);
  list.move(list.position, false);
}

/** Answer a key in the list or in the dialog, but not where a person writes. */
function press(event) {
  const { target, key, ctrlKey, metaKey, altKey } = event;
  if (ctrlKey || metaKey || altKey || !list.cases.length || target.matches("input:not([type=range]), textarea")) return;
  if (key.length === 1 && !part("shortcuts").checked) return; // speech and slips send letters: WCAG 2.2, 2.1.4
  const isLarge = part("case").open;
  const tag = TAGS[Number(key) - 1];
  const arrows = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: list.across, ArrowUp: -list.across };
  const count = { j: 1, k: -1, J: 1, K: -1, ...(isLarge ? {} : arrows) }[key];
  if (!count && !tag) return;
  event.preventDefault();
  if (tag && isLarge) detail.tag(tag);
  else if (tag) {
    toggleTag(list.cases[list.position], tag);
    drawTagged();
  } else if (isLarge) detail.step(count);
  else list.move(list.position + count);
}

document.title = `Cases of ${CASES.name}`;
part("title").textContent = document.title;
part("facts").textContent = `${CASES.config} on ${CASES.data}.${second ? ` Second model: ${second.name} (${second.config}).` : ""} ${CASES.remark}`;
part("key-tags").textContent = TAGS.map(({ words }, place) => `${place + 1} tags "${words}"`).join(", ");
part("range").textContent = LEADING;
part("facets").append(...choices.map((choice, place) => element("label", {}, FACETS[place][0], choice)));
part("sort").append(...ORDERS.map(([title], place) => element("option", { value: place }, title)));
part("filters").open = matchMedia("(min-width: 900px)").matches;
part("form").addEventListener("input", filter);
part("form").addEventListener("submit", (event) => event.preventDefault());
part("form").addEventListener("reset", () => setTimeout(filter));
part("sort").addEventListener("input", filter);
for (const view of ["grid", "table"]) part(view).addEventListener("click", () => choose(view));
part("save-relabel").addEventListener("click", () => saveTable("relabel.csv", false));
part("save-exclude").addEventListener("click", () => saveTable("exclude.csv", true));
part("clear").addEventListener("click", () => {
  if (!confirm("Delete all tags and notes of this data set from this browser?")) return;
  deleteEntries();
  drawTagged();
});
part("shortcuts").addEventListener("change", ({ target }) => attempt(() => sessionStorage.setItem("shortcuts", target.checked)));
attempt(() => {
  part("shortcuts").checked = sessionStorage.getItem("shortcuts") !== "false";
});
for (const id of ["scroller", "case"]) part(id).addEventListener("keydown", press);
filter();
drawTagged();
part("scroller").focus({ preventScroll: true });
