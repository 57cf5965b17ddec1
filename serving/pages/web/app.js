// The page: takes files, shows a card for each, and a summary of all.

import { Card } from "./card.js";
import { table } from "./csv.js";
import { fromClipboard, fromDrop, fromInput } from "./files.js";
import { Pool } from "./pool.js";
import { ROOT, Service } from "./service.js";
import { plural, spoken, summary } from "./wording.js";

const AT_ONCE = 2;
const LOOK_AGAIN_MS = 1_000;
const QUIET_MS = 3_000;

const byId = (id) => document.getElementById(id);
const drop = byId("drop");
const cards = [];
const pool = new Pool(AT_ONCE);
const service = new Service(askForKey, () => refreshModel());
const environment = {
  service,
  pool,
  maxBytes: Number(drop.dataset.maxBytes),
  modelShown,
  changed: refresh,
  settled,
  removed,
  enlarge,
};

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
  byId("results").hidden = false;
  const added = found.map((each) => new Card(each, environment));
  byId("cards").append(...added.map((card) => card.element));
  cards.push(...added);
  refresh();
  say(`${plural(added.length, "image")} added.`);
}

// Results

function refresh() {
  byId("results").hidden = !cards.length;
  byId("main").classList.toggle("with-results", cards.length > 0);
  byId("summary").textContent = cards.length ? summary(cards) : "";
  byId("download").disabled = !cards.some((card) => card.prediction || card.problem);
}

function settled(card) {
  if (byId("heat-all").checked) card.showHeat(true);
  const open = cards.filter(({ prediction, problem }) => !prediction && !problem).length;
  const words = card.prediction
    ? spoken(card.name, card.prediction, card.model.positive_class)
    : `${card.name}: ${card.problem.title}.`;
  if (cards.length === 1) say(words);
  else if (open) sayNowAndThen(`${plural(open, "image")} left. ${words}`);
  else say(`Done. ${summary(cards)}`);
  if (card.model && !sameModel(card.model)) refreshModel(card.model);
}

byId("heat-all").addEventListener("change", ({ target }) => {
  for (const card of cards) card.showHeat(target.checked);
});

byId("download").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([table(cards, document.querySelector(".notice").textContent)], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `pneumo-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`;
  link.click();
  URL.revokeObjectURL(url);
});

byId("clear").addEventListener("click", () => {
  for (const card of cards.splice(0)) card.leave();
  byId("cards").replaceChildren();
  refresh();
  say("All images removed.");
  byId("choose").focus();
});

function removed(card) {
  const place = cards.indexOf(card);
  cards.splice(place, 1);
  card.leave();
  card.element.remove();
  refresh();
  say(`${card.name} removed.`);
  const next = cards[Math.min(place, cards.length - 1)];
  (next ? next.element.querySelector(".remove") : byId("choose")).focus();
}

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
  for (const id of ["model", "account"]) byId(id).replaceWith(document.adoptNode(page.getElementById(id)));
  for (const card of cards) card.nameModel();
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

let enlarged = null;

function enlarge(card) {
  enlarged = card;
  byId("viewer-name").textContent = card.name;
  byId("viewer-picture").src = card.picture;
  byId("viewer-picture").alt = `Film of ${card.name}`;
  showViewerHeat();
  byId("viewer").showModal();
}

function showViewerHeat() {
  const heat = byId("viewer-heat");
  const shown = enlarged.heatShown && enlarged.map !== null;
  heat.hidden = !shown;
  byId("viewer-controls").hidden = !shown || enlarged.map.empty;
  if (!shown) return;
  heat.src = enlarged.map.heat;
  heat.style.opacity = enlarged.strength / 100;
  byId("viewer-strength").value = enlarged.strength;
}

byId("viewer-strength").addEventListener("input", ({ target }) => {
  enlarged.setStrength(target.valueAsNumber);
  showViewerHeat();
});
byId("viewer-close").addEventListener("click", () => byId("viewer").close());
byId("viewer").addEventListener("click", ({ target, currentTarget }) => target === currentTarget && currentTarget.close());
