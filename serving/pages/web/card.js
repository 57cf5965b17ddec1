// One image: its picture, the progress of its request, and its prediction or problem.

import { clone, point, scales } from "./parts.js";
import { Problem } from "./service.js";
import { IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, bytes, certainty, evidence, milliseconds, trouble } from "./wording.js";

const OVERHEAD = 1_000; // bytes of a form around its file
let count = 0;

export class Card {
  #file;
  #environment;
  #leaving = new AbortController();
  #urls = [];
  #mapping = false;
  #drawn; // promise: whether the browser shows the file itself

  /**
   * `environment`: `service`, `pool`, `maxBytes`, `modelShown()` (the model that the page shows), and the events
   * `changed(card)`, `settled(card)`, `removed(card)`, `enlarge(card)`.
   */
  constructor({ file, name }, environment) {
    this.name = name;
    this.element = clone("card-template");
    this.prediction = this.model = this.requestId = this.notice = this.problem = this.map = null;
    this.strength = 60;
    this.heatShown = false;
    this.#file = file;
    this.#environment = environment;
    this.#part(".name").textContent = name;
    const remove = this.#part(".remove");
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => environment.removed(this));
    const film = this.#part(".film");
    film.setAttribute("aria-label", `Enlarge ${name}`);
    film.addEventListener("click", () => environment.enlarge(this));
    this.#showFile();
    this.send();
  }

  /** Send the image in its turn. */
  send() {
    this.problem = null;
    this.#state("waiting", "Waiting");
    const { signal } = this.#leaving;
    this.#environment.pool.add(() => this.#predict(), { signal });
  }

  /** Abort all requests and free the picture. */
  leave() {
    this.#leaving.abort(new DOMException("removed", "AbortError"));
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
  }

  async #predict() {
    const { service, maxBytes, changed, settled } = this.#environment;
    try {
      this.#checkFile(maxBytes);
      this.#state("sending", "Sending");
      const answer = await service.ask("v1/predict?partial=true", this.#file, this.#hooks());
      const [prediction] = answer.predictions;
      this.requestId = answer.request_id;
      this.notice = answer.notice;
      if (!prediction) throw new Problem(answer.errors[0]);
      this.prediction = prediction;
      this.model = answer.model;
      this.#showAnswer();
      // A remark tells of a file that the service and a browser may read differently.
      this.#drawn.then((drawn) => (drawn && !prediction.remarks?.length) || this.#queueFilm());
    } catch (failure) {
      if (this.#leaving.signal.aborted) return;
      this.#showTrouble(asProblem(failure));
    }
    changed(this);
    settled(this);
  }

  #checkFile(maxBytes) {
    const file = this.#file;
    if (file.size + OVERHEAD > maxBytes) {
      throw new Problem({ status: 413, title: "Too large", detail: `the file has ${bytes(file.size)}; the limit is ${bytes(maxBytes)}` });
    }
    if (/\.(zip|tar|t?gz|7z|rar)$/i.test(this.name)) {
      throw new Problem({ status: 415, title: "An archive, not an image", fix: "Unpack it and choose the folder." });
    }
  }

  #hooks() {
    return {
      signal: this.#leaving.signal,
      waiting: (words) => this.#state("waiting", words),
      sending: (share) => (share < 1 ? this.#state("sending", "Sending", share) : this.#state("analysing", "Analysing")),
    };
  }

  #state(state, words, share) {
    this.element.dataset.state = state;
    const progress = this.#part(".under-way progress");
    if (!progress) return;
    progress.setAttribute("aria-label", `${this.name}: ${words}`);
    if (state === "analysing") progress.removeAttribute("value"); // progress is unknown
    else progress.value = share ?? 0;
    this.#part(".step").textContent = words;
  }

  // The picture

  #showFile() {
    const picture = this.#part(".picture");
    picture.addEventListener("load", () => this.#pictureLoaded());
    this.#drawn = browsersMisread(this.#file).then(
      (misread) =>
        !misread &&
        new Promise((resolve) => {
          picture.addEventListener("load", () => resolve(true), { once: true });
          picture.addEventListener("error", () => resolve(false), { once: true }); // DICOM, 12-bit JPEG
          picture.src = this.#url(this.#file);
        }),
    );
  }

  /** Let the service draw the file: a browser shows it black, otherwise than the model sees it, or not at all. */
  #queueFilm() {
    if (this.#mapping || this.map) return; // a heat map brings its film
    const { signal } = this.#leaving;
    this.#environment.pool.add(() => this.#showFilm(), { later: true, signal });
  }

  async #showFilm() {
    if (this.map) return;
    try {
      const hooks = { signal: this.#leaving.signal };
      this.#part(".picture").src = this.#url(await this.#environment.service.ask("v1/explain?format=film", this.#file, hooks));
    } catch (failure) {
      if (this.#leaving.signal.aborted) return;
      const { title, detail } = trouble(asProblem(failure));
      this.#part(".heat-words").textContent = `No picture: ${[title, detail].filter(Boolean).join(". ")}`;
    }
  }

  #pictureLoaded() {
    this.#part(".picture").hidden = false;
    this.#part(".no-picture").style.display = "none";
    this.#part(".film").disabled = false;
  }

  #url(blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    return url;
  }

  get picture() {
    return this.#part(".picture").src;
  }

  // The answer

  #showAnswer() {
    const answer = clone("answer-template");
    const { prediction, model } = this;
    const warning = answer.querySelector(".outlier-note");
    warning.hidden = prediction.in_distribution;
    warning.querySelector("span").textContent = OUT_OF_DISTRIBUTION;
    answer.querySelector(".label-text").textContent = prediction.label;
    answer.classList.toggle("positive", prediction.label === model.positive_class);
    answer.classList.toggle("several", model.positive_class === null);
    answer.querySelector(".scales").append(...scales(prediction, model.positive_class));
    const uncertain = prediction.certainty !== "certain" || !prediction.in_distribution;
    const points = answer.querySelector(".words");
    points.append(point(uncertain ? "unsure" : "yes", certainty(prediction, this.#answering()?.sets), uncertain));
    if (prediction.in_distribution) points.append(point("yes", IN_DISTRIBUTION, false));
    for (const remark of prediction.remarks ?? []) points.append(point("unsure", `About the file: ${remark}`, false));
    this.#wireHeat(answer);
    this.#part(".under-way").replaceWith(answer);
    this.nameModel();
    this.element.dataset.state = "done";
    this.element.classList.toggle("outlier", !prediction.in_distribution);
  }

  /** Name the model that answered, if the page shows another one. */
  nameModel() {
    if (!this.prediction) return;
    const by = this.#answering() ? "" : `, by ${this.model.name} ${this.model.version}`;
    this.#part(".foot").textContent = `Analysed in ${milliseconds(this.prediction.elapsed_ms)}${by}`;
  }

  /** Return the model that answered, with the limits of its prediction sets, if the page shows it. */
  #answering() {
    const shown = this.#environment.modelShown();
    return shown?.name === this.model.name && shown?.version === this.model.version ? shown : null;
  }

  #showTrouble(problem) {
    this.problem = problem;
    const { title, detail, fix } = trouble(problem);
    const element = clone("trouble-template");
    element.querySelector(".title").textContent = title;
    element.querySelector(".detail").textContent = detail;
    element.querySelector(".fix").textContent = fix;
    const again = element.querySelector(".again");
    again.hidden = !problem.mayTryAgain;
    again.setAttribute("aria-label", `Try ${this.name} again`);
    again.addEventListener("click", () => {
      element.replaceWith(clone("card-template").querySelector(".under-way"));
      this.#environment.service.reconsider();
      this.send();
      this.#part(".remove").focus();
      this.#environment.changed(this);
    });
    this.#part(".under-way").replaceWith(element);
    this.element.dataset.state = "error";
  }

  // The heat map

  #wireHeat(answer) {
    const slider = answer.querySelector("input[type=range]");
    const label = answer.querySelector(".strength label");
    slider.id = label.htmlFor = `strength-${(count += 1)}`;
    slider.setAttribute("aria-label", `Heat map strength, ${this.name}`);
    slider.addEventListener("input", () => this.setStrength(slider.valueAsNumber));
    const button = answer.querySelector(".show-heat");
    button.setAttribute("aria-label", `Heat map of ${this.name}`);
    button.addEventListener("click", () => this.showHeat(!this.heatShown));
  }

  /** Show or hide the heat map. */
  showHeat(shown) {
    if (!this.prediction) return;
    this.heatShown = shown;
    this.#part(".show-heat").setAttribute("aria-pressed", String(shown));
    if (!this.map && shown) {
      this.#part(".heat-words").textContent = "Drawing the heat map";
      this.#queueMap();
    }
    this.#drawHeat();
  }

  /** Set the opacity of the heat map, in percent. */
  setStrength(percentage) {
    this.strength = percentage;
    this.#drawHeat();
  }

  #drawHeat() {
    const visible = this.heatShown && this.map !== null;
    const heat = this.#part(".heat");
    heat.hidden = !visible;
    this.element.classList.toggle("heated", visible);
    heat.style.opacity = this.strength / 100;
    const slider = this.#part(".heat-part input");
    slider.value = this.strength;
    slider.setAttribute("aria-valuetext", `${this.strength} percent`);
    this.#part(".heat-part .strength").hidden = !visible || this.map.empty;
    if (this.map) this.#part(".heat-words").textContent = visible ? this.map.words : "";
  }

  #queueMap() {
    if (this.#mapping || this.map) return;
    this.#mapping = true;
    const { signal } = this.#leaving;
    this.#environment.pool.add(() => this.#explain().finally(() => (this.#mapping = false)), { later: true, signal });
  }

  async #explain() {
    try {
      const hooks = { signal: this.#leaving.signal };
      const answer = await this.#environment.service.ask("v1/explain?format=json", this.#file, hooks);
      this.map = { heat: this.#url(png(answer.heat)), ...evidence(answer) };
      this.#part(".heat").src = this.map.heat;
      this.#part(".picture").src = this.#url(png(answer.film)); // upright, in the size of the map
      this.#drawHeat();
    } catch (failure) {
      if (this.#leaving.signal.aborted) return;
      const { title, detail } = trouble(asProblem(failure));
      this.showHeat(false);
      this.#part(".heat-words").textContent = `No heat map: ${[title, detail].filter(Boolean).join(". ")}`;
    }
  }

  #part(selector) {
    return this.element.querySelector(selector);
  }
}

/** Return whether a file is a TIFF or a PNG of 16 bits, whose 10 or 12 used bits browsers show as black. */
async function browsersMisread(file) {
  const head = new Uint8Array(await file.slice(0, 25).arrayBuffer().catch(() => new ArrayBuffer(0)));
  const begins = (...bytes) => bytes.every((byte, place) => head[place] === byte);
  const isTiff = [42, 43].some((kind) => begins(0x49, 0x49, kind, 0) || begins(0x4d, 0x4d, 0, kind));
  return isTiff || (begins(0x89, 0x50, 0x4e, 0x47) && head[24] === 16);
}

function png(base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}

function asProblem(failure) {
  return failure instanceof Problem ? failure : new Problem({ title: "This page failed", detail: String(failure), mayTryAgain: true });
}
