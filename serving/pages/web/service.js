// Requests to the service: sign-in, retries, and problems in words.

/** The address of the service, from this file's: a proxy may publish it at any path. */
export const ROOT = new URL("../", import.meta.url);

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
  #signedIn;
  #asking = null;
  #signIns = 0;
  #knocked = null;
  #pausedUntil = 0;
  #pausedFor = "";
  #declined = false;

  /** `askForKey(reason)` returns a promise of a key, or of null if the user has none; `signedIn` is told of success. */
  constructor(askForKey, signedIn) {
    this.#askForKey = askForKey;
    this.#signedIn = signedIn;
  }

  /**
   * Send an image and return the answer: JSON, or a picture as a blob.
   *
   * `hooks`: `signal` to abort, `sending(share)` while bytes leave, `waiting(words)` between retries.
   */
  async ask(path, file, hooks) {
    await this.#knock(hooks);
    // The file's own name can be a patient's: it is not sent.
    return this.#persist(hooks, () => {
      const form = new FormData();
      form.append("file", file, "image");
      return exchange("POST", path, form, hooks);
    });
  }

  /** Ask for a key again, although the user had none before. */
  reconsider() {
    this.#declined = false;
  }

  /** Return the state of the service: `loading`, `ready`, `draining`, `failed`, or `away`. */
  async state() {
    try {
      return JSON.parse(text(await exchange("GET", "readyz", null, {}))).status;
    } catch {
      return "away";
    }
  }

  /** Send a small request first: an image that is refused while it is sent looks like a broken connection. */
  #knock(hooks) {
    this.#knocked ??= this.#persist({ waiting: hooks.waiting }, () => exchange("GET", "v1/model", null, {})).catch(
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
      const signIns = this.#signIns;
      let answer;
      try {
        answer = await attempt();
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
        await this.#signIn(signIns);
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

  /** Start a session; a browser sends its cookie by itself. */
  async #signIn(before) {
    if (this.#signIns !== before) return; // for another request
    if (!this.#declined) {
      this.#asking ??= this.#askUntilSignedIn().finally(() => {
        this.#asking = null;
      });
    }
    if (await this.#asking) return;
    this.#declined = true; // once for all waiting images
    throw new Problem({
      status: 401,
      title: "This service requires an API key",
      fix: "Try again and enter the key that the operator of the service gave you.",
      mayTryAgain: true,
    });
  }

  async #askUntilSignedIn() {
    let reason = this.#signIns ? "the session has ended, or this browser accepts no cookies" : "";
    for (;;) {
      const key = await this.#askForKey(reason);
      if (key === null) return false;
      try {
        const answer = await exchange("POST", "sign-in", new URLSearchParams({ key }), {});
        if (answer.status === 204) {
          this.#signIns += 1;
          this.#signedIn();
          return true;
        }
        const { detail, title } = problemOf(answer);
        reason = detail || title;
      } catch {
        reason = "the service does not answer";
      }
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

function exchange(method, path, body, { signal, sending }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch cannot tell how much was sent
    request.open(method, new URL(path, ROOT));
    request.timeout = SILENCE_MS;
    request.responseType = "arraybuffer";
    request.setRequestHeader("Accept", "application/json");
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

function text(answer) {
  return new TextDecoder().decode(answer.response);
}

function parsed(answer) {
  const type = answer.getResponseHeader("Content-Type");
  if (type === "image/png") return new Blob([answer.response], { type });
  try {
    return JSON.parse(text(answer));
  } catch {
    throw new Problem({ status: answer.status, title: "The answer cannot be read", detail: "a proxy may have changed it", mayTryAgain: true });
  }
}

function problemOf(answer) {
  let problem = {};
  try {
    problem = JSON.parse(text(answer)) ?? {};
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
