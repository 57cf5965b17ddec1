// The page: takes files, and shows a list of their results and one of them large.

import { table } from "./csv.js";
import { fromClipboard, fromDrop, fromInput } from "./files.js";
import { List } from "./list.js";
import { Pool } from "./pool.js";
import { Result } from "./result.js";
import { ROOT, Service } from "./service.js";
import { View } from "./view.js";
import { plural, spoken, summary } from "./wording.js";

const AT_ONCE = 2;
const LOOK_AGAIN_MS = 1_000;
const QUIET_MS = 3_000;

const byId = (id) => document.getElementById(id);
const drop = byId("drop");
const pool = new Pool(AT_ONCE);
const service = new Service(askForKey, () => refreshModel());
const environment = { service, pool, maxBytes: Number(drop.dataset.maxBytes), changed, settled };
const list = new List(byId("rows"), byId("counts"), { open, remove, filtered: refresh });
const view = new View(byId("view"), { again, modelShown });

// Files

byId("choose").addEventListener("click", () => byId("files").click());
byId("choose-folder").addEventListener("click", () => byId("folder").click());
for (const id of ["files", "folder"]) {
  byId(id).addEventListener("change", ({ target }) => {
    add(fromInput(target));
    target.value = ""; // so that the same file can be chosen again
  });
}
byId("sample").addEventListener("click", async () => {
  const answer = await fetch(new URL("static/sample.png", ROOT)).catch(() => null);
  if (answer?.ok) add([{ file: await answer.blob(), name: "Synthetic sample, not a patient" }]);
  else say("The sample could not be loaded: the service does not answer.");
});
document.addEventListener("paste", (event) => {
  const found = fromClipboard(event.clipboardData);
  if (!found.length) return;
  event.preventDefault();
  add(found);
});
let depth = 0; // of elements under a dragged file
document.addEventListener("dragenter", (event) => {
  if (!holdsFiles(event)) return;
  depth += 1;
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (holdsFiles(event) && (depth -= 1) <= 0) dragEnded();
});
document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
document.addEventListener("drop", async (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault(); // a browser would open the file instead of the page
  dragEnded();
  try {
    add(await fromDrop(event.dataTransfer));
  } catch {
    say("The dropped files could not be read. Choose them instead.");
  }
});

function holdsFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

function dragEnded() {
  depth = 0;
  drop.classList.remove("over");
}

function add(found) {
  if (!found.length) {
    say("No images were found.");
    return;
  }
  const added = found.map((each) => new Result(each, environment));
  list.add(added);
  if (list.results.length === 1) show(added[0]);
  refresh();
  say(`${plural(added.length, "image")} added.`);
}

// Results

function refresh() {
  const { results } = list;
  byId("results").hidden = !results.length;
  byId("main").classList.toggle("with-results", results.length > 0);
  byId("summary").textContent = results.length ? summary(results) : "";
  byId("download").disabled = !results.some(({ done }) => done);
  for (const [id, step] of [["previous", -1], ["next", 1]]) byId(id).disabled = !list.beside(view.result, step);
}

function changed(result) {
  list.update(result);
  if (result === view.result) view.refresh();
}

function settled(result) {
  refresh();
  const open = list.results.filter(({ done }) => !done).length;
  const words = result.prediction
    ? spoken(result.name, result.prediction, result.model.positive_class)
    : `${result.name}: ${result.problem.title}.`;
  if (list.results.length === 1) say(words);
  else if (open) sayNowAndThen(`${plural(open, "image")} left. ${words}`);
  else say(`Done. ${summary(list.results)}`);
  if (result.model && !sameModel(result.model)) refreshModel(result.model);
}

function again(result) {
  service.reconsider();
  result.send();
  refresh();
}

byId("download").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([table(list.results, document.querySelector(".notice").textContent)], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `pneumo-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`;
  link.click();
  URL.revokeObjectURL(url);
});

byId("print").addEventListener("click", () => window.print());

byId("clear").addEventListener("click", () => {
  show(null);
  for (const result of list.results) take(result);
  refresh();
  say("All images removed.");
  byId("choose").focus();
});

function remove(result) {
  const next = list.beside(result, 1) ?? list.beside(result, -1);
  if (view.result === result) show(null);
  take(result);
  refresh();
  say(`${result.name} removed.`);
  (list.button(next, ".remove") ?? byId("choose")).focus();
}

function take(result) {
  result.leave();
  list.remove(result);
}

// The large view

function show(result) {
  view.show(result);
  list.mark(result);
  byId("results").classList.toggle("viewing", result !== null);
}

function open(result) {
  show(result);
  refresh();
  byId("view-name").focus({ preventScroll: true });
  byId("view").scrollIntoView({ block: "start" });
}

function step(by) {
  const next = list.beside(view.result, by);
  if (next) open(next);
}

byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("view-close").addEventListener("click", () => {
  const button = list.button(view.result, ".open");
  show(null);
  button?.focus();
});
byId("view").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else if (event.key === "Escape") byId("view-close").click();
});

// Announcements for screen readers

let lastSaid = 0;

function say(words) {
  byId("live").textContent = words;
  lastSaid = performance.now();
}

function sayNowAndThen(words) {
  if (performance.now() - lastSaid > QUIET_MS) say(words);
}

// The model

function modelShown() {
  const { name, version, sets } = byId("model").dataset;
  return name === undefined ? null : { name, version, sets: JSON.parse(sets) };
}

function sameModel({ name, version }) {
  const shown = modelShown();
  return shown?.name === name && shown?.version === version;
}

const asked = new Set();

/** Show the current model of the service; once for each answer of another model. */
async function refreshModel(model) {
  const id = model ? `${model.name}:${model.version}` : "";
  if (asked.has(id)) return;
  if (id) asked.add(id);
  const answer = await fetch(ROOT, { cache: "no-store" }).catch(() => null);
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["model", "account", "banner"]) byId(id).replaceWith(document.adoptNode(page.getElementById(id)));
  view.refresh();
}

async function awaitModel() {
  while (modelShown() === null && byId("model").dataset.state !== "failed") {
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
    const state = await service.state();
    if (state === "ready" || state === "failed") await refreshModel();
  }
}
awaitModel();

// Dialogs

function askForKey(reason) {
  const dialog = byId("key-dialog");
  byId("key-reason").textContent = reason ? `${reason[0].toUpperCase()}${reason.slice(1)}.` : "";
  byId("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const key = byId("key").value.trim();
        byId("key").value = "";
        resolve(dialog.returnValue === "use" && key ? key : null);
      },
      { once: true },
    );
  });
}
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close(""));
for (const id of ["choose", "choose-folder", "sample"]) byId(id).disabled = false; // earlier, a click would be lost
