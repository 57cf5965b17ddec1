// Runs a limited number of tasks at a time, urgent ones first.

export class Pool {
  #size;
  #running = 0;
  #queues = [[], []];

  constructor(size) {
    this.#size = size;
  }

  /** Run a task in its turn, or never if `signal` is aborted. Tasks handle their own errors. */
  add(task, { later = false, signal } = {}) {
    this.#queues[later ? 1 : 0].push({ task, signal });
    this.#next();
  }

  #next() {
    while (this.#running < this.#size) {
      const first = this.#queues[0].shift() ?? this.#queues[1].shift();
      if (!first) return;
      if (first.signal?.aborted) continue;
      this.#running += 1;
      first.task().finally(() => {
        this.#running -= 1;
        this.#next();
      });
    }
  }
}
