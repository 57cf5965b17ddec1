// The large view of one image: its film with level, window and zoom, its heat map, and its prediction in words.

import "./viewer.js";
import { clone, point, scales } from "./parts.js";
import { IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, certainty, milliseconds, trouble } from "./wording.js";

export class View {
  #element;
  #film;
  #events;
  #wantsHeat = false;
  #drawn = "";

  /** `events`: `again(result)`, and `modelShown()`, the model that the page shows. */
  constructor(element, events) {
    this.result = null;
    this.#element = element;
    this.#events = events;
    this.#film = new globalThis.FilmViewer(this.#part(".film-viewer"));
    this.#part(".show-heat").addEventListener("click", () => {
      this.#wantsHeat = !this.#wantsHeat;
      this.result.mapFailed = false;
      this.refresh();
    });
  }

  /** Show a result, or nothing for null. */
  show(result) {
    this.result = result;
    this.#drawn = "";
    this.#film.reset();
    this.#element.hidden = result === null;
    if (result) this.refresh();
  }

  /** Draw what has changed of the result. */
  refresh() {
    const { result } = this;
    if (!result) return;
    this.#part("#view-name").textContent = result.name;
    const by = result.prediction && !this.#answering() ? `, by ${result.model.name} ${result.model.version}` : "";
    this.#part(".foot").textContent = result.prediction ? `Analysed in ${milliseconds(result.prediction.elapsed_ms)}${by}` : "";
    const drawn = `${result.state} ${result.words} ${by}`;
    if (drawn !== this.#drawn) this.#part(".said").replaceChildren(this.#describe());
    this.#drawn = drawn;
    this.#drawFilm();
  }

  #drawFilm() {
    const { result } = this;
    const button = this.#part(".show-heat");
    button.hidden = !result.prediction;
    if (result.mapFailed) this.#wantsHeat = false; // pressing again asks again
    if (this.#wantsHeat) result.explain();
    button.setAttribute("aria-pressed", String(this.#wantsHeat));
    const heat = this.#wantsHeat && result.map ? result.map : null;
    this.#part(".film-viewer").hidden = result.picture === null;
    this.#part(".no-film").hidden = result.picture !== null;
    if (result.picture) this.#film.show({ src: result.picture, alt: `Film of ${result.name}`, heat: heat?.heat });
    this.#part(".heat-words").textContent = heat?.words ?? result.remark;
  }

  #describe() {
    const { result } = this;
    if (result.problem) return this.#describeProblem();
    if (!result.prediction) return Object.assign(document.createElement("p"), { className: "step small", textContent: result.words });
    const answer = clone("answer-template");
    const { prediction, model } = result;
    const warning = answer.querySelector(".outlier-note");
    warning.hidden = !result.outlier;
    warning.querySelector("span").textContent = OUT_OF_DISTRIBUTION;
    answer.querySelector(".label-text").textContent = prediction.label;
    answer.classList.toggle("positive", result.positive);
    answer.classList.toggle("outlier", result.outlier);
    answer.classList.toggle("several", model.positive_class === null);
    answer.querySelector(".scales").append(...scales(prediction, model.positive_class));
    const points = answer.querySelector(".words");
    points.append(point(result.uncertain ? "unsure" : "yes", certainty(prediction, this.#answering()?.sets), result.uncertain));
    if (!result.outlier) points.append(point("yes", IN_DISTRIBUTION, false));
    for (const remark of prediction.remarks ?? []) points.append(point("unsure", `About the file: ${remark}`, false));
    return answer;
  }

  #describeProblem() {
    const { result } = this;
    const element = clone("trouble-template");
    for (const [name, words] of Object.entries(trouble(result.problem))) element.querySelector(`.${name}`).textContent = words;
    const again = element.querySelector(".again");
    again.hidden = !result.problem.mayTryAgain;
    again.setAttribute("aria-label", `Try ${result.name} again`);
    again.addEventListener("click", () => {
      this.#events.again(result);
      this.#part("#view-name").focus();
    });
    return element;
  }

  /** Return the model that answered, with the limits of its prediction sets, if the page shows it. */
  #answering() {
    const shown = this.#events.modelShown();
    return shown?.name === this.result.model.name && shown?.version === this.result.model.version ? shown : null;
  }

  #part(selector) {
    return this.#element.querySelector(selector);
  }
}
