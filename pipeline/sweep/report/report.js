"use strict";
// The charts of a sweep's report: plain SVG from the JSON in #data. Text goes in as text only, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byName = new Map(data.trials.map((trial) => [trial.name, trial]));
  const better = data.goal === "maximize" ? 1 : -1;
  const at = (id) => document.getElementById(id);

  // --- drawing ---

  function make(tag, attributes, parent, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }

  function canvas(host, width, height, label) {
    host.replaceChildren();
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    host.append(svg);
    return svg;
  }

  function mark(trial, tag, kind, attributes, parent) {
    const names = [kind];
    if (trial.winner) names.push("won");
    if (trial.repeats) names.push("again");
    if (trial.status === "failed") names.push("failed");
    const node = make(tag, { ...attributes, class: names.join(" "), "data-trial": trial.name }, parent);
    node.style.setProperty("--heat", trial.heat === null ? 0 : trial.heat);
    return node;
  }

  // A line under a wide invisible one, which is easier to point at.
  function line(trial, path, parent) {
    mark(trial, "path", "line", { d: path }, parent);
    mark(trial, "path", "hit", { d: path }, parent);
  }

  const cut = (text, width) => {
    const room = Math.max(3, Math.floor(width / 6.6));
    return text.length <= room ? text : text.slice(0, room - 1) + "\u2026";
  };

  function label(parent, x, y, text, attributes = {}, width = Infinity) {
    const node = make("text", { x, y, ...attributes }, parent, width === Infinity ? text : cut(text, width));
    if (node.textContent !== text) make("title", {}, node, text);
    return node;
  }

  // --- scales ---

  function scale(kind, low, high, from, to) {
    const place = kind === "log" ? Math.log : (value) => value;
    const span = place(high) - place(low);
    const map = (value) => {
      const share = span ? (place(value) - place(low)) / span : 0.5;
      return from + Math.min(1.02, Math.max(-0.02, share)) * (to - from);
    };
    map.back = (pixel) => {
      const share = (pixel - from) / (to - from);
      return kind === "log" ? Math.exp(place(low) + share * span) : low + share * span;
    };
    map.ticks = (count) => (kind === "log" ? logTicks(low, high, count) : linearTicks(low, high, count));
    return map;
  }

  function linearTicks(low, high, count) {
    if (!(high > low)) return [{ value: low, text: figure(low) }];
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw * 0.999);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const found = [];
    for (let index = Math.ceil(low / step - 1e-6); index * step <= high + step * 1e-6; index++) {
      const value = index * step;
      const small = Math.max(Math.abs(low), Math.abs(high)) < 1e-3 || Math.abs(value) >= 1e5;
      found.push({ value, text: small ? figure(value) : value.toFixed(digits) });
    }
    return found;
  }

  function logTicks(low, high, count) {
    if (!(high > low)) return [{ value: low, text: figure(low) }];
    const decades = Math.log10(high / low);
    const factors = decades > 2 ? [1] : [1, 2, 5];
    const every = decades > 2 ? Math.max(1, Math.ceil(decades / count)) : 1;
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      if (power % every) continue;
      for (const factor of factors) {
        const value = factor * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push({ value, text: figure(value) });
      }
    }
    return found.length ? found : [low, high].map((value) => ({ value, text: figure(value) }));
  }

  function figure(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  }

  // A frame with a grid, a y axis of the metric, and the given x ticks.
  function frame(svg, box, y, x, xTicks, xTitle, yTitle) {
    const drawn = y.ticks(Math.max(3, Math.floor((box.bottom - box.top) / 36)));
    for (const tick of drawn) {
      make("path", { class: "grid", d: `M${box.left},${y(tick.value)}H${box.right}` }, svg);
      label(svg, box.left - 6, y(tick.value) + 4, tick.text, { "text-anchor": "end" });
    }
    make("path", { class: "axis", d: `M${box.left},${box.bottom}H${box.right}` }, svg);
    let last = -Infinity;
    for (const tick of xTicks) {
      const where = x(tick.value);
      const width = Math.min(tick.text.length * 6.6, tick.room || Infinity);
      make("path", { class: "axis", d: `M${where},${box.bottom}v4` }, svg);
      if (where - width / 2 < last) continue;
      last = where + width / 2 + 6;
      label(svg, where, box.bottom + 17, tick.text, { "text-anchor": "middle" }, tick.room || Infinity);
    }
    if (xTitle) label(svg, (box.left + box.right) / 2, box.bottom + 34, xTitle, { "text-anchor": "middle", class: "title" }, box.right - box.left);
    if (yTitle) label(svg, 2, box.top - 8, yTitle, { class: "title" }, box.right);
  }

  // Worse trials first, so that better ones lie on top; the winner last.
  const drawn = [...data.trials].sort((one, other) => one.winner - other.winner || (one.heat ?? -1) - (other.heat ?? -1));

  // --- the charts ---

  function bestSoFar(host, points, dots, low, high, ticks, title) {
    const width = host.clientWidth, height = 260;
    const svg = canvas(host, width, height, `Best ${data.metric} so far, ${title}`);
    const box = { left: 54, right: width - 10, top: 24, bottom: height - 40 };
    const y = scale("linear", ...data.progressed, box.bottom, box.top);
    const x = scale("linear", low, high, box.left, box.right);
    frame(svg, box, y, x, ticks(x), title, data.metric);
    for (const trial of drawn) {
      const where = dots(trial);
      if (where === null || trial.value === null || trial.repeats) continue;
      mark(trial, "circle", "dot", { cx: x(where), cy: y(trial.value), r: trial.winner ? 6 : 4.5 }, svg);
    }
    if (!points.length) return;
    let path = `M${x(points[0][0])},${y(points[0][1])}`;
    for (const [place, value] of points.slice(1)) path += `H${x(place)}V${y(value)}`;
    make("path", { class: "best", d: `${path}H${box.right}` }, svg);
  }

  function byTime() {
    const [unit, size] = data.wall < 180 ? ["seconds", 1] : data.wall < 10800 ? ["minutes", 60] : ["hours", 3600];
    const points = data.progress.time.map(([seconds, value]) => [seconds / size, value]);
    const ticks = (x) => x.ticks(Math.max(3, Math.floor(at("by-time").clientWidth / 80)));
    bestSoFar(at("by-time"), points, (trial) => (trial.at === null ? null : trial.at / size), 0, data.wall / size || 1, ticks, `Wall time, ${unit}`);
  }

  function byTrial() {
    const order = data.trials.filter((trial) => !trial.repeats);
    const places = new Map(order.map((trial, index) => [trial.name, index + 1]));
    const last = Math.max(order.length, 2);
    const ticks = (x) => x.ticks(Math.min(8, last)).filter((tick) => Number.isInteger(tick.value));
    bestSoFar(at("by-trial"), data.progress.trials, (trial) => places.get(trial.name) ?? null, 0.5, last + 0.5, ticks, "Trials");
  }

  const brushes = new Map(); // axis number -> [low, high] in shares of the axis, 0 at the bottom

  function parallel() {
    const host = at("parallel");
    const columns = data.axes.length + 1;
    const width = Math.max(host.clientWidth, columns * 104 + 40), height = 400;
    const svg = canvas(host, width, height, "Parameters of each trial and the value it reached");
    const box = { left: 30, right: width - 78, top: 52, bottom: height - 34 };
    const gap = (box.right - box.left) / Math.max(1, columns - 1);
    const axes = data.axes.map((axis, index) => ({ ...axis, x: box.left + index * gap }));
    const ends = better > 0 ? [box.bottom, box.top] : [box.top, box.bottom];
    axes.push({ short: data.metric, name: data.metric, kind: "linear", low: data.domain[0], high: data.domain[1], x: columns > 1 ? box.right : box.left, metric: true });
    for (const axis of axes) {
      const [from, to] = axis.metric ? ends : [box.bottom, box.top];
      axis.map = scale(axis.kind, axis.low, axis.high, from, to);
    }
    const stagger = axes.some((axis) => axis.short.length * 6.8 > gap - 8);
    const pixel = (trial, index) => {
      // Jitter separates the trials of one category.
      const jitter = axes[index].kind === "category" ? (((data.trials.indexOf(trial) * 0.618) % 1) - 0.5) * 16 : 0;
      if (index < data.axes.length) return trial.places[index] === null ? null : axes[index].map(trial.places[index]) + jitter;
      return trial.value === null ? box.bottom + 18 : axes[index].map(trial.value);
    };
    const lines = make("g", { class: drawn.length > 80 ? "many" : "" }, svg);
    for (const trial of drawn) {
      if (trial.repeats) continue;
      const known = axes.map((axis, index) => [axis.x, pixel(trial, index)]).filter(([, y]) => y !== null);
      // Curves keep lines apart that meet in one category.
      let path = `M${known[0][0]},${known[0][1]}`;
      for (let index = 1; index < known.length; index++) {
        const [[x0, y0], [x1, y1]] = [known[index - 1], known[index]];
        path += `C${x0 + (x1 - x0) * 0.35},${y0} ${x1 - (x1 - x0) * 0.35},${y1} ${x1},${y1}`;
      }
      line(trial, path, lines);
    }
    axes.forEach((axis, index) => {
      make("path", { class: "axis", d: `M${axis.x},${box.top}V${box.bottom}` }, svg);
      const high = stagger && index % 2 === 0;
      const anchor = index === 0 && columns > 1 ? "start" : index === columns - 1 ? "end" : "middle";
      const shift = anchor === "start" ? -26 : anchor === "end" ? 74 : 0;
      const text = axis.share ? `${axis.short}, ${Math.round(axis.share * 100)}%` : axis.short;
      label(svg, axis.x + shift, high ? 14 : 32, text, { class: "title halo", "text-anchor": anchor }, (stagger ? 1.8 : 1) * gap - 6);
      if (high) make("path", { class: "grid", d: `M${axis.x},20V${box.top}` }, svg);
      const ticks = axis.kind === "category" ? axis.labels.map((each, place) => ({ value: place, text: each })) : axis.map.ticks(6);
      for (const tick of ticks) {
        make("path", { class: "axis", d: `M${axis.x - 3},${axis.map(tick.value)}h6` }, svg);
        label(svg, axis.x + 7, axis.map(tick.value) + 4, tick.text, { class: "halo", "pointer-events": "none" }, index === columns - 1 ? 74 : gap - 14);
      }
      if (axis.metric) {
        label(svg, axis.x + 74, box.top - 6, "better \u2191", { "text-anchor": "end" });
        if (data.trials.some((trial) => trial.value === null)) label(svg, axis.x + 7, box.bottom + 22, "no value", { class: "halo" });
      }
      brush(svg, axis, index, box);
    });
    parallel.share = (trial, index) => {
      const y = pixel(trial, index);
      return y === null ? null : (box.bottom - y) / (box.bottom - box.top);
    };
    select();
  }

  function brush(svg, axis, index, box) {
    const size = box.bottom - box.top;
    const band = make("rect", { class: "band", x: axis.x - 8, width: 16, y: 0, height: 0 }, svg);
    const area = make("rect", { class: "brush", x: axis.x - 13, width: 26, y: box.top - 6, height: size + 30 }, svg);
    const show = () => {
      const range = brushes.get(index);
      band.setAttribute("y", range ? box.bottom - range[1] * size : 0);
      band.setAttribute("height", range ? (range[1] - range[0]) * size : 0);
    };
    const place = (event) => {
      const bounds = svg.getBoundingClientRect();
      return (box.bottom - (event.clientY - bounds.top) * (svg.height.baseVal.value / bounds.height)) / size;
    };
    let start = null;
    area.addEventListener("pointerdown", (event) => {
      start = place(event);
      area.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    area.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const end = place(event);
      if (Math.abs(end - start) * size < 4) brushes.delete(index);
      else brushes.set(index, [Math.max(-0.06, Math.min(start, end)), Math.min(1.02, Math.max(start, end))]);
      show();
      select();
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      area.addEventListener(kind, (event) => {
        if (start !== null && Math.abs(place(event) - start) * size < 4) brushes.delete(index);
        start = null;
        show();
        select();
      });
    }
    show();
  }

  function slices() {
    const host = at("slices");
    host.replaceChildren();
    data.axes.forEach((axis, index) => {
      const part = document.createElement("figure");
      host.append(part);
      const width = part.clientWidth, height = 210;
      const svg = canvas(part, width, height, `${data.metric} over ${axis.name}`);
      const box = { left: 54, right: width - 12, top: 24, bottom: height - 42 };
      const y = scale("linear", ...data.domain, box.bottom, box.top);
      const inset = axis.kind === "category" ? (box.right - box.left) / (2 * Math.max(1, axis.labels.length)) : 8;
      const x = scale(axis.kind, axis.low, axis.high, box.left + inset, box.right - inset);
      const ticks = axis.kind === "category" ? axis.labels.map((text, value) => ({ text, value, room: 2 * inset - 4 })) : x.ticks(4);
      frame(svg, box, y, x, ticks, axis.name, index === 0 ? data.metric : "");
      drawn.forEach((trial) => {
        if (trial.places[index] === null || trial.value === null) return;
        // Dots of one category lie side by side, spaced by the golden ratio: evenly, and the same each time.
        const order = data.trials.indexOf(trial);
        const jitter = axis.kind === "category" ? (((order * 0.618) % 1) - 0.5) * inset * 0.9 : 0;
        mark(trial, "circle", "dot", { cx: x(trial.places[index]) + jitter, cy: y(trial.value), r: trial.winner ? 6 : 4.5 }, svg);
      });
    });
  }

  function learning() {
    const host = at("learning");
    const width = host.clientWidth, height = width < 500 ? 300 : 380;
    const svg = canvas(host, width, height, `${data.metric} of each trial by epoch`);
    const box = { left: 54, right: width - 14, top: 24, bottom: height - 42 };
    const y = scale("linear", ...data.rounds, box.bottom, box.top);
    const x = scale("linear", Math.min(1, data.epochs - 1), Math.max(data.epochs, 1), box.left + 8, box.right - 8);
    const ticks = x.ticks(Math.min(data.epochs, Math.floor(width / 70))).filter((tick) => Number.isInteger(tick.value));
    frame(svg, box, y, x, ticks, "Epoch", data.metric);
    for (const trial of drawn) {
      if (!trial.rounds.length) continue;
      const points = trial.rounds.map(([epoch, value]) => [x(epoch), y(value)]);
      line(trial, `M${points.map((point) => point.join(",")).join("L")}`, svg);
      const [cx, cy] = points[points.length - 1];
      if (trial.status === "stopped") mark(trial, "path", "end", { d: `M${cx},${cy - 6}v12` }, svg);
      else if (trial.status === "failed") mark(trial, "path", "end", { d: `M${cx - 5},${cy - 5}l10,10m0,-10l-10,10`, style: "stroke-dasharray: none" }, svg);
      else mark(trial, "circle", "dot", { cx, cy, r: trial.winner ? 5 : 3.5 }, svg);
    }
  }

  function seeds() {
    const host = at("seeds");
    const width = host.clientWidth, row = 30, height = data.families.length * row + 48;
    const svg = canvas(host, width, height, `${data.metric} of the best trials with several seeds`);
    const all = data.families.flatMap((family) => [...family.values, family.low, family.high]).filter((value) => value !== null);
    const margin = (Math.max(...all) - Math.min(...all)) * 0.04 || 0.01;
    const box = { left: 60, right: width - 16, top: 6, bottom: height - 40 };
    const x = scale("linear", Math.min(...all) - margin, Math.max(...all) + margin, box.left, box.right);
    for (const tick of x.ticks(Math.max(2, Math.floor(width / 110)))) {
      make("path", { class: "grid", d: `M${x(tick.value)},${box.top}V${box.bottom}` }, svg);
      label(svg, x(tick.value), box.bottom + 17, tick.text, { "text-anchor": "middle" });
    }
    label(svg, (box.left + box.right) / 2, box.bottom + 34, data.metric, { "text-anchor": "middle", class: "title" });
    data.families.forEach((family, index) => {
      const y = box.top + (index + 0.5) * row;
      label(svg, 0, y + 4, family.name, { class: "title" }, 56);
      if (family.low !== null) make("path", { class: "reach", d: `M${x(family.low)},${y}H${x(family.high)}` }, svg);
      make("path", { class: "mean", d: `M${x(family.mean)},${y - 9}v18` }, svg);
      const trials = data.trials.filter((trial) => trial.name === family.name || trial.repeats === family.name);
      for (const trial of trials) {
        if (trial.value === null || trial.status === "failed") continue;
        mark(trial, "circle", "dot", { cx: x(trial.value), cy: y, r: 5 }, svg);
      }
    });
  }

  // --- selection and tooltip ---

  function select() {
    const out = new Set();
    for (const trial of data.trials) {
      for (const [index, [low, high]] of brushes) {
        const share = parallel.share(trial, index);
        if (share === null || share < low || share > high) out.add(trial.name);
      }
    }
    for (const node of document.querySelectorAll("[data-trial]")) node.classList.toggle("out", out.has(node.dataset.trial));
    const all = data.trials.length;
    at("selected").textContent = brushes.size ? `${all - out.size} of ${all} trials selected` : `${all} trial${all === 1 ? "" : "s"}`;
    at("clear").hidden = !brushes.size;
  }

  const tip = at("tip");
  let held = null;

  function point(name, event) {
    const trial = byName.get(name);
    document.body.classList.toggle("hovering", Boolean(trial));
    for (const node of document.querySelectorAll("[data-trial]")) {
      const shown = node.closest("#parallel") ? (trial?.repeats ?? name) : name; // repetitions have no line of their own
      node.classList.toggle("hot", node.dataset.trial === shown);
    }
    tip.hidden = !trial;
    if (!trial) return;
    tip.replaceChildren();
    const add = (tag, text, parent = tip) => {
      const node = document.createElement(tag);
      node.textContent = text;
      parent.append(node);
      return node;
    };
    add("b", `${trial.name}${trial.winner ? ", winner" : ""}, ${trial.status}`);
    if (trial.repeats) add("div", `repeats ${trial.repeats} with another seed`);
    if (trial.value !== null) add("div", `${data.metric} ${trial.figure} in epoch ${trial.epoch}`);
    if (trial.error) add("div", trial.error);
    const list = add("dl", "");
    data.axes.forEach((axis, index) => {
      add("dt", axis.short, list);
      add("dd", trial.texts[index] || "-", list);
    });
    const { innerWidth, innerHeight } = window, { offsetWidth, offsetHeight } = tip;
    const x = event.clientX + 16 + offsetWidth > innerWidth ? event.clientX - offsetWidth - 12 : event.clientX + 16;
    const y = event.clientY + 16 + offsetHeight > innerHeight ? event.clientY - offsetHeight - 8 : event.clientY + 16;
    tip.style.left = `${Math.max(4, Math.min(x, innerWidth - offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, y)}px`;
  }

  const trialOf = (event) => {
    const name = event.target.closest?.("[data-trial]")?.dataset.trial;
    return byName.has(name) ? name : null;
  };
  document.addEventListener("pointerover", (event) => held === null && point(trialOf(event), event));
  document.addEventListener("pointermove", (event) => {
    if (held === null && !tip.hidden && trialOf(event)) point(trialOf(event), event);
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("a, thead, summary, #clear")) return;
    const name = trialOf(event);
    held = name === held ? null : name;
    const box = event.target.getBoundingClientRect();
    point(held ?? (event.detail ? name : null), event.detail ? event : { clientX: box.right, clientY: box.bottom });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    held = null;
    point(null);
  });
  at("clear")?.addEventListener("click", () => {
    brushes.clear();
    parallel();
  });

  // --- the table ---

  const table = at("trials");
  table?.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const heading = button.parentElement;
      const down = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      rows.sort(([one], [other]) => {
        if (!one || !other) return Number(!one) - Number(!other); // missing values come last in both directions
        const order = isNaN(one) || isNaN(other) ? one.localeCompare(other) : one - other;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });

  // --- draw, and redraw when the width changes ---

  function draw() {
    if (at("parallel")) {
      for (const chart of [byTime, byTrial, slices, learning, parallel]) chart();
    }
    if (at("seeds")) seeds();
    if (at("parallel")) select();
  }
  let width = window.innerWidth, timer = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(timer);
    timer = setTimeout(draw, 100);
  });
  draw();
})();
