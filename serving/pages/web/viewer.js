// Film viewer: level, window, zoom, pan and inversion of one image under a heat map. It imports nothing and reads no pixels,
// so that it works as a module, and as a classic script in a page that is opened from a disk. viewer.css goes with it.
(() => {
  const START = { level: 50, window: 100, zoom: 1, inverted: false, x: 0, y: 0 }; // level and window in percent of the gray scale
  const LIMITS = { level: [0, 100], window: [1, 200], zoom: [1, 12], strength: [0, 100] };
  const LABELS = { level: "Level", window: "Window", zoom: "Zoom", strength: "Heat map" };
  const STEP = 1.25; // of one turn of the wheel
  const KEYS = {
    ArrowLeft: (viewer) => viewer.pan(60, 0),
    ArrowRight: (viewer) => viewer.pan(-60, 0),
    ArrowUp: (viewer) => viewer.pan(0, 60),
    ArrowDown: (viewer) => viewer.pan(0, -60),
    "+": (viewer) => viewer.zoomBy(STEP),
    "=": (viewer) => viewer.zoomBy(STEP),
    "-": (viewer) => viewer.zoomBy(1 / STEP),
    i: (viewer) => viewer.set({ inverted: !viewer.view.inverted }),
    0: (viewer) => viewer.reset(),
  };
  let count = 0;

  function make(tag, attributes = {}, ...children) {
    const svg = tag === "svg" || tag.startsWith("fe") || tag === "filter";
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);

  /** Builds its parts in `host`: `picture` and `heat` are the images, `stage` takes keys, wheel and pointers, `tools` has controls. */
  class FilmViewer {
    #pointers = new Map();
    #functions;
    #inputs = {};

    constructor(host) {
      const id = `film-window-${(count += 1)}`;
      this.view = { ...START };
      this.strength = 60;
      this.picture = make("img", { class: "film-picture", alt: "", draggable: "false" });
      this.heat = make("img", { class: "film-heat", alt: "", draggable: "false", hidden: "" });
      this.#functions = ["R", "G", "B"].map((channel) => make(`feFunc${channel}`, { type: "linear" }));
      const transfer = make("feComponentTransfer", {}, ...this.#functions);
      const filter = make("filter", { id, x: 0, y: 0, width: 1, height: 1, "color-interpolation-filters": "sRGB" }, transfer);
      const windowed = make("div", { class: "film-layer" }, this.picture);
      windowed.style.filter = `url("#${id}")`;
      this.stage = make(
        "div",
        { class: "film-stage", tabindex: 0, role: "group", "aria-label": "Image: arrow keys move it, + and - zoom, I inverts, 0 resets" },
        make("svg", { class: "film-filter", "aria-hidden": "true", width: 0, height: 0 }, filter),
        windowed,
        make("div", { class: "film-layer" }, this.heat),
      );
      this.invert = make("button", { type: "button", "aria-pressed": "false" }, "Invert");
      this.invert.addEventListener("click", KEYS.i.bind(null, this));
      const reset = make("button", { type: "button" }, "Reset");
      reset.addEventListener("click", () => this.reset());
      this.tools = make("div", { class: "film-tools" }, ...Object.keys(LABELS).map((name) => this.#slider(name)), this.invert, reset);
      host.append(this.stage, this.tools);
      this.#listen();
      this.set({});
    }

    /** Show an image by its address, under a heat map if there is one; another `alt` is another image, with an unchanged view. */
    show({ src, alt, heat }) {
      if (this.picture.alt !== alt) this.reset();
      this.picture.src = src;
      this.picture.alt = alt;
      this.heat.hidden = !heat;
      if (heat) this.heat.src = heat;
      this.set({});
    }

    reset() {
      this.set(START);
    }

    /** Change some of `level`, `window`, `zoom`, `inverted`, `x`, `y` (shift in CSS pixels), within their limits. */
    set(changes) {
      const view = { ...this.view, ...changes };
      for (const name of ["level", "window", "zoom"]) view[name] = clamp(view[name], LIMITS[name]);
      const { clientWidth, clientHeight } = this.stage;
      const [right, down] = [clientWidth, clientHeight].map((side) => ((view.zoom - 1) * side) / 2);
      view.x = clamp(view.x, [-right, right]);
      view.y = clamp(view.y, [-down, down]);
      this.view = view;
      this.stage.style.touchAction = view.zoom > 1 ? "none" : "pan-y"; // a finger scrolls the page
      const slope = 100 / view.window;
      const intercept = 0.5 - view.level / view.window;
      for (const each of this.#functions) {
        each.setAttribute("slope", view.inverted ? -slope : slope);
        each.setAttribute("intercept", view.inverted ? 1 - intercept : intercept);
      }
      for (const image of [this.picture, this.heat]) image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
      this.heat.style.opacity = this.strength / 100;
      this.invert.setAttribute("aria-pressed", view.inverted);
      for (const [name, input] of Object.entries(this.#inputs)) input.value = view[name] ?? this[name];
      this.#inputs.strength.parentElement.hidden = this.heat.hidden;
    }

    pan(right, down) {
      this.set({ x: this.view.x + right, y: this.view.y + down });
    }

    /** Zoom about a point of the screen, else about the centre. */
    zoomBy(factor, { clientX, clientY } = {}) {
      const { left, top, width, height } = this.stage.getBoundingClientRect();
      const { x, y, zoom: before } = this.view;
      const zoom = clamp(before * factor, LIMITS.zoom);
      const [px, py] = clientX === undefined ? [0, 0] : [clientX - left - width / 2, clientY - top - height / 2];
      this.set({ zoom, x: px - ((px - x) * zoom) / before, y: py - ((py - y) * zoom) / before });
    }

    #slider(name) {
      const [min, max] = LIMITS[name];
      const input = make("input", { type: "range", min, max, step: name === "zoom" ? 0.1 : 1, autocomplete: "off" });
      input.addEventListener("input", () => {
        if (name === "strength") this.strength = input.valueAsNumber;
        if (name === "zoom") this.zoomBy(input.valueAsNumber / this.view.zoom);
        else this.set(name === "strength" ? {} : { [name]: input.valueAsNumber });
      });
      this.#inputs[name] = input;
      return make("label", { class: "film-slider" }, LABELS[name], input);
    }

    #listen() {
      const { stage } = this;
      stage.addEventListener("keydown", (event) => {
        const act = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
        if (!act) return;
        event.preventDefault();
        event.stopPropagation();
        act(this);
      });
      stage.addEventListener(
        "wheel",
        (event) => {
          if (!event.ctrlKey && document.activeElement !== stage) return; // the page scrolls
          event.preventDefault();
          this.zoomBy(event.deltaY < 0 ? STEP : 1 / STEP, event);
        },
        { passive: false },
      );
      stage.addEventListener("contextmenu", (event) => event.preventDefault());
      stage.addEventListener("pointerdown", (event) => {
        stage.setPointerCapture(event.pointerId);
        this.#pointers.set(event.pointerId, event);
      });
      for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
      stage.addEventListener("pointermove", (event) => this.#drag(event));
    }

    /** One pointer moves the image, with Shift or the right button its window (across) and level (down); two pointers zoom. */
    #drag(event) {
      const before = this.#pointers.get(event.pointerId);
      if (!before) return;
      const [right, down] = [event.clientX - before.clientX, event.clientY - before.clientY];
      const other = [...this.#pointers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
      this.#pointers.set(event.pointerId, event);
      const { view } = this;
      if (other) {
        const distance = (one) => Math.max(Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), 1);
        this.zoomBy(distance(event) / distance(before), event);
      } else if (event.shiftKey || event.buttons === 2) this.set({ window: view.window + right / 4, level: view.level + down / 4 });
      else this.pan(right, down);
    }
  }

  globalThis.FilmViewer = FilmViewer;
})();
