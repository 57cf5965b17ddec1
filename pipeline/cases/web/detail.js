// One case large: its image with window, zoom and heat map, and all that is known about it.

const part = (id) => document.getElementById(id);

class CaseDetail {
  #viewer = new FilmViewer(part("film"));
  #wantsHeat = false;

  /** `list` gives the neighbours of a case, `changed` is called if a tag or note changed. */
  constructor(list, changed) {
    this.list = list;
    this.changed = changed;
    part("previous").addEventListener("click", () => this.step(-1));
    part("next").addEventListener("click", () => this.step(1));
    part("close").addEventListener("click", () => part("case").close());
    part("case").addEventListener("close", () => list.move(list.position));
    part("heat").addEventListener("click", () => {
      this.#wantsHeat = !this.#wantsHeat;
      this.#drawHeat();
    });
    part("note").addEventListener("change", ({ target }) => {
      saveEntry(this.index, { note: target.value.trim() });
      changed();
    });
  }

  /** Open the case at a position of the list. */
  open(position) {
    this.list.move(position, false);
    if (!part("case").open) part("case").showModal();
    this.#show(this.list.cases[this.list.position]);
  }

  /** Open the next case of the list, or the one before. */
  step(count) {
    this.open(this.list.position + count);
  }

  tag(tag) {
    toggleTag(this.index, tag);
    this.changed();
    this.#drawTags();
  }

  #show(index) {
    this.index = index;
    const { cases, position } = this.list;
    const kind = isWrong(index) && positive !== null ? `: ${outcome(index)}` : "";
    const both = second?.matched[index] ? scales(second, index) : [];
    const rows = properties(index).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    part("case-title").textContent = `${cases[position] === index ? `${position + 1} of ${cases.length}: ` : ""}${columns.image[index]}`;
    part("case-title").focus();
    part("verdict").replaceChildren(element("b", {}, classes[CASES.answer[index]]), ` (label ${classes[columns.label[index]]}${kind})`);
    part("verdict").classList.toggle("wrong", isWrong(index));
    part("scales").replaceChildren(...scales(CASES, index), ...(second ? [element("h3", {}, `${second.name}: ${agreement(index)}`)] : []), ...both);
    part("note").value = noteOf(index);
    part("properties").replaceChildren(...rows);
    part("near").replaceChildren(...columns.near[index].map((other) => this.#neighbour(other)));
    this.#drawTags();
    this.#drawHeat();
  }

  #neighbour(index) {
    const words = `${classes[columns.label[index]]}${isWrong(index) ? `, called ${classes[CASES.answer[index]]}` : ""}`;
    const button = element("button", { type: "button", title: columns.image[index] }, thumbnail(index), words);
    button.addEventListener("click", () => this.#show(index));
    return element("li", { class: isWrong(index) ? "wrong" : "" }, button);
  }

  #drawTags() {
    const focused = [...part("tags").children].indexOf(document.activeElement);
    const buttons = TAGS.map((tag, place) => element("button", { type: "button", "aria-pressed": tagOf(this.index) === tag }, element("span", { class: "key" }, `${place + 1} `), tag.words));
    for (const [place, button] of buttons.entries()) button.addEventListener("click", () => this.tag(TAGS[place]));
    part("tags").replaceChildren(...buttons);
    buttons[focused]?.focus();
  }

  /** Show the image, and its heat map once it is there: a server makes one on demand, a folder has those of mistakes. */
  #drawHeat() {
    const { index } = this;
    const show = (words, heat = null) => {
      if (this.index !== index || this.#wantsHeat !== (words !== "")) return; // something else is shown meanwhile
      part("heat-words").textContent = words;
      this.#viewer.show({ src: `images/${index}.png`, alt: describe(index), heat });
    };
    part("heat").setAttribute("aria-pressed", this.#wantsHeat);
    show(this.#wantsHeat ? "The heat map is computed." : "");
    if (!this.#wantsHeat) return;
    const heat = new Image();
    heat.onload = () => show(`Regions that support ${classes[leading(index)]} are coloured, yellow ones most strongly; without colour, none does.`, heat.src);
    heat.onerror = () => show(`It was made for ${WORDING.plural(CASES.heats, "mistake")}. With --serve, pneumo cases makes it for any image.`);
    heat.src = `heat/${index}.png`;
  }
}

/** Draw a model's positive class against its threshold, or every class. */
function scales({ p, thresholds }, index) {
  const threshold = thresholds && thresholds[index];
  const shown = positive === null ? [...classes.keys()] : [positive];
  return shown.map((column) => {
    const value = p[index][column];
    const track = element("div", { class: "track" }, element("div", { class: "fill" }));
    track.style.setProperty("--share", value);
    track.style.setProperty("--threshold", threshold ?? 0);
    if (threshold !== null) track.append(element("div", { class: "mark" }));
    const words = threshold === null ? "" : `, ${value >= threshold ? "at or above" : "below"} the threshold of ${WORDING.probability(threshold)}`;
    return element("div", { class: "scale" }, `Probability of ${classes[column]} ${WORDING.probability(value)}${words}`, track);
  });
}

/** List what is known about a case, as names and values. */
function properties(index) {
  const facts = FACETS.filter(([title]) => !["Label", "Answer", "Outcome", "Mistake", "Second model", "Tag"].includes(title));
  return [
    ...facts.map(([title, read]) => [title, read(index)]),
    ["Score", `${WORDING.figure(columns.outlier[index], 2)}, out-of-distribution above ${WORDING.figure(columns.limit[index], 2)}`],
    ["Patient", columns.patient[index]],
    ["Source", columns.source[index]],
  ];
}
