// Requests to the service: API key, retries, and problems in words.

const KEY = "pneumo-api-key";
const PATIENCE_S = 300;
const TRIES_WITHOUT_ANSWER = 3;
const SILENCE_MS = 120_000;

/** A request without an answer. `fix` says what to do; without it the status does. */
export class Problem extends Error {
  constructor({ status = 0, type, title, detail = "", fix, requestId, mayTryAgain = false }) {
    super(title);
    Object.assign(this, { status, type, title, detail, fix, requestId, mayTryAgain });
  }
}

export class Service {
  #askForKey;
  #asking = null;
  #knocked = null;
  #pausedUntil = 0;
  #pausedFor = "";
  #declined = false;
  #key = null;

  /** `askForKey(reason)` returns a promise of a key, or of null if the user has none. */
  constructor(askForKey) {
    this.#askForKey = askForKey;
    try {
      this.#key = sessionStorage.getItem(KEY);
    } catch {
      // Storage may be blocked: then the key is lost with the page.
    }
  }

  /**
   * Send an image and return the answer's JSON.
   *
   * `hooks`: `signal` to abort, `sending(share)` while bytes leave, `waiting(words)` between retries.
   */
  async ask(path, file, hooks) {
    await this.#knock(hooks);
    // The file's own name can be a patient's: it is not sent.
    return this.#persist(hooks, (key) => {
      const form = new FormData();
      form.append("file", file, "image");
      return exchange("POST", path, key, form, hooks);
    });
  }

  /** Ask for a key again, although the user had none before. */
  reconsider() {
    this.#declined = false;
  }

  /** Return the state of the service: `loading`, `ready`, `draining`, `failed`, or `away`. */
  async state() {
    try {
      return JSON.parse((await exchange("GET", "readyz", null, null, {})).responseText).status;
    } catch {
      return "away";
    }
  }

  /** Send a small request first: an image that is refused while it is sent looks like a broken connection. */
  #knock(hooks) {
    this.#knocked ??= this.#persist({ waiting: hooks.waiting }, (key) => exchange("GET", "v1/model", key, null, {})).catch(
      (problem) => {
        this.#knocked = null;
        throw problem;
      },
    );
    return this.#knocked;
  }

  async #persist(hooks, attempt) {
    let waited = 0;
    let unanswered = 0;
    for (let tries = 0; ; tries += 1) {
      await this.#pause(hooks);
      const key = this.#key;
      let answer;
      try {
        answer = await attempt(key);
      } catch (failure) {
        if (!(failure instanceof Silence)) throw failure;
        if (!navigator.onLine) {
          hooks.waiting?.("Offline: waiting for the connection");
          await heard(window, "online", hooks.signal);
          continue;
        }
        unanswered += 1;
        if (unanswered >= TRIES_WITHOUT_ANSWER) throw noAnswer();
        this.#pauseFor(2 ** unanswered, "The service does not answer");
        continue;
      }
      if (answer.status >= 200 && answer.status < 300) return parsed(answer);
      if (answer.status === 401) {
        await this.#renewKey(key, problemOf(answer));
        continue;
      }
      const problem = problemOf(answer);
      const loading = problem.type?.endsWith(":not-ready") ?? false;
      if (loading && (await this.state()) === "failed") throw problem;
      const busy = answer.status === 429 || answer.status === 503;
      const seconds = retryAfter(answer) ?? Math.min(2 ** tries, 30);
      if (!busy || waited + seconds > PATIENCE_S) throw problem;
      waited += seconds;
      this.#pauseFor(seconds, loading ? "The model is loading" : "The service is busy");
    }
  }

  async #renewKey(refused, problem) {
    if (this.#key !== refused) return; // another request has asked
    if (!this.#declined) {
      this.#asking ??= this.#askForKey(refused === null ? "" : problem.detail).finally(() => {
        this.#asking = null;
      });
    }
    const key = await this.#asking;
    if (key === null) {
      this.#declined = true; // once for all waiting images
      throw new Problem({
        status: 401,
        title: "This service requires an API key",
        fix: "Try again and enter the key that the operator of the service gave you.",
        mayTryAgain: true,
      });
    }
    this.#key = key;
    try {
      sessionStorage.setItem(KEY, key);
    } catch {
      // Storage may be blocked.
    }
  }

  /** Pause all requests: each would get the same answer. */
  #pauseFor(seconds, why) {
    this.#pausedUntil = Math.max(this.#pausedUntil, performance.now() + 1000 * seconds);
    this.#pausedFor = why;
  }

  async #pause({ waiting, signal }) {
    for (;;) {
      signal?.throwIfAborted();
      const left = this.#pausedUntil - performance.now();
      if (left <= 0) return;
      waiting?.(`${this.#pausedFor}: retrying in ${Math.ceil(left / 1000)}\u00a0s`);
      await new Promise((resolve) => setTimeout(resolve, Math.min(left, 250)));
    }
  }
}

/** No answer came through the connection. */
class Silence extends Error {}

function exchange(method, path, key, body, { signal, sending }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch cannot tell how much was sent
    request.open(method, path);
    request.timeout = SILENCE_MS;
    request.setRequestHeader("Accept", "application/json");
    if (key !== null) request.setRequestHeader("X-API-Key", key);
    if (sending) {
      request.upload.onprogress = (event) => event.lengthComputable && sending(event.loaded / event.total);
      request.upload.onload = () => sending(1);
    }
    request.onload = () => resolve(request);
    request.onerror = request.ontimeout = () => reject(new Silence());
    request.onabort = () => reject(signal.reason);
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(body);
  });
}

function parsed(answer) {
  try {
    return JSON.parse(answer.responseText);
  } catch {
    throw new Problem({ status: answer.status, title: "The answer cannot be read", detail: "a proxy may have changed it", mayTryAgain: true });
  }
}

function problemOf(answer) {
  let problem = {};
  try {
    problem = JSON.parse(answer.responseText) ?? {};
  } catch {
    // A proxy sent its own answer.
  }
  const { status } = answer;
  return new Problem({
    status,
    type: problem.type,
    title: problem.title ?? `The service answered with status ${status}`,
    detail: problem.detail,
    requestId: problem.request_id,
    mayTryAgain: status >= 500 || status === 429 || status === 408,
  });
}

function retryAfter(answer) {
  const header = answer.getResponseHeader("Retry-After");
  if (!header) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(seconds, 0.5) : null;
}

function noAnswer() {
  return new Problem({
    title: "The service does not answer",
    fix: "Check the connection and try again. If the problem remains, contact the operator of the service.",
    mayTryAgain: true,
  });
}

function heard(target, event, signal) {
  return new Promise((resolve, reject) => {
    target.addEventListener(event, resolve, { once: true, signal });
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
