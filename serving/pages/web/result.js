// One image: its request, its picture, and its prediction or problem. It draws nothing; its events tell who does.

import { Problem } from "./service.js";
import { bytes, evidence, trouble } from "./wording.js";

const OVERHEAD = 1_000; // bytes of a form around its file

export class Result {
  #file;
  #environment;
  #leaving = new AbortController();
  #urls = [];
  #mapping = false;
  #drawn; // promise: whether the browser shows the file itself

  /** `environment`: `service`, `pool`, `maxBytes`, and the events `changed(result)` and `settled(result)`. */
  constructor({ file, name }, environment) {
    this.name = name;
    this.prediction = this.model = this.requestId = this.notice = this.problem = this.picture = this.map = null;
    this.remark = ""; // on its picture or heat map
    this.mapFailed = false;
    this.#file = file;
    this.#environment = environment;
    this.#drawn = this.#readPicture();
    this.send();
  }

  get done() {
    return this.prediction !== null || this.problem !== null;
  }

  get positive() {
    return this.prediction !== null && this.prediction.label === this.model.positive_class;
  }

  get outlier() {
    return this.prediction !== null && !this.prediction.in_distribution;
  }

  get uncertain() {
    return this.outlier || (this.prediction !== null && this.prediction.certainty !== "certain");
  }

  /** Send the image in its turn. */
  send() {
    this.problem = null;
    this.#step("waiting", "Waiting");
    this.#queue(() => this.#predict());
  }

  /** Abort all requests and free the pictures. */
  leave() {
    this.#leaving.abort(new DOMException("removed", "AbortError"));
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
  }

  /** Ask for the heat map, once. */
  explain() {
    if (this.#mapping || this.map || !this.prediction) return;
    this.#mapping = true;
    this.mapFailed = false;
    this.remark = "Drawing the heat map";
    this.#queue(() => this.#explain().finally(() => (this.#mapping = false)), { later: true });
  }

  #queue(task, options) {
    this.#environment.pool.add(task, { ...options, signal: this.#leaving.signal });
  }

  async #predict() {
    const { service, maxBytes, settled } = this.#environment;
    try {
      this.#checkFile(maxBytes);
      this.#step("sending", "Sending");
      const answer = await service.ask("v1/predict?partial=true", this.#file, this.#hooks());
      const [prediction] = answer.predictions;
      this.requestId = answer.request_id;
      this.notice = answer.notice;
      if (!prediction) throw new Problem(answer.errors[0]);
      this.model = answer.model;
      this.prediction = prediction;
      this.#step("done", "");
      // A remark tells of a file that the service and a browser may read differently.
      this.#drawn.then((drawn) => (drawn && !prediction.remarks?.length) || this.#queueFilm());
    } catch (failure) {
      if (this.#leaving.signal.aborted) return;
      this.problem = asProblem(failure);
      this.#step("error", "No result");
    }
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
      waiting: (words) => this.#step("waiting", words),
      sending: (share) => share === 1 && this.#step("analysing", "Analysing"),
    };
  }

  #step(state, words) {
    this.state = state;
    this.words = words;
    this.#environment.changed(this);
  }

  async #readPicture() {
    if (await browsersMisread(this.#file)) return false;
    const image = new Image();
    image.src = this.#url(this.#file);
    const drawn = await image.decode().then(() => true, () => false); // DICOM, 12-bit JPEG
    if (drawn && !this.picture) this.#showPicture(image.src);
    return drawn;
  }

  #showPicture(url) {
    this.picture = url;
    this.#environment.changed(this);
  }

  /** Let the service draw the file: a browser shows it black, otherwise than the model sees it, or not at all. */
  #queueFilm() {
    if (!this.#mapping && !this.map) this.#queue(() => this.#askForFilm(), { later: true }); // a heat map brings its film
  }

  async #askForFilm() {
    if (this.map) return;
    await this.#ask("v1/explain?format=film", "No picture", (film) => this.#showPicture(this.#url(film)));
  }

  async #explain() {
    this.mapFailed = !(await this.#ask("v1/explain?format=json", "No heat map", (answer) => {
      this.map = { heat: this.#url(png(answer.heat)), ...evidence(answer) };
      this.remark = "";
      this.#showPicture(this.#url(png(answer.film))); // upright, in the size of the map
    }));
    this.#environment.changed(this);
  }

  async #ask(path, lack, take) {
    try {
      take(await this.#environment.service.ask(path, this.#file, { signal: this.#leaving.signal }));
      return true;
    } catch (failure) {
      if (this.#leaving.signal.aborted) return false;
      const { title, detail } = trouble(asProblem(failure));
      this.remark = `${lack}: ${[title, detail].filter(Boolean).join(". ")}`;
      this.#environment.changed(this);
      return false;
    }
  }

  #url(blob) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    return url;
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
