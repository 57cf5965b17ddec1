// Tags and notes of a person, kept in this browser by image, and the tables that `pneumo data import` takes.

import * as CSV from "../../../serving/pages/web/csv.js";

const LABELS = classes.slice(0, 7).map((label) => ({ id: `=${label}`, words: `label ${label}`, label }));
const TAGS = [...LABELS, { id: "exclude", words: "exclude" }, { id: "look", words: "look again" }]; // by the keys 1 to 9
const STORE = `pneumo cases ${CASES.fingerprint}`;
// Columns of `pneumo data check --label-errors`, and two more.
const HEAD = ["rank", "image", "source", "split", "label", "suggested", "probability", "likely", "tag", "note"];

let entries = new Map();
let isKept = true; // whether this browser keeps them once the page is closed
attempt(() => {
  entries = new Map(Object.entries(JSON.parse(localStorage.getItem(STORE) ?? "{}")));
});

function attempt(act) {
  try {
    act();
  } catch {
    isKept = false;
  }
}

/** Change tag or note of a case. */
function saveEntry(index, changed) {
  const entry = { tag: "", note: "", ...entries.get(columns.image[index]), ...changed };
  entries.set(columns.image[index], entry);
  if (!entry.tag && !entry.note) entries.delete(columns.image[index]);
  attempt(() => localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(entries))));
}

function deleteEntries() {
  entries.clear();
  attempt(() => localStorage.removeItem(STORE));
}

const tagOf = (index) => TAGS.find(({ id }) => id === entries.get(columns.image[index])?.tag);
const noteOf = (index) => entries.get(columns.image[index])?.note ?? "";

/** Set a tag, or take it away if the case has it. */
const toggleTag = (index, tag) => saveEntry(index, { tag: tagOf(index) === tag ? "" : tag.id });

/** List the tagged and noted cases to exclude, or all others. The label is the one that the image should have. */
function listEntries(excluded) {
  const listed = NUMBERS.filter((index) => entries.has(columns.image[index]) && (tagOf(index)?.id === "exclude") === excluded);
  return listed.map((index, place) => {
    const [label, p] = [columns.label[index], CASES.p[index]];
    const others = [...classes.keys()].filter((column) => column !== label);
    const suggested = others.reduce((best, column) => (p[column] > p[best] ? column : best));
    return [
      place + 1, columns.image[index], columns.source[index], columns.split[index], tagOf(index)?.label ?? classes[label],
      classes[suggested], p[label], likelihood(index) === "likely", tagOf(index)?.words, noteOf(index),
    ];
  });
}

/** Save a table of tagged cases as a file. */
function saveTable(name, excluded) {
  const href = URL.createObjectURL(new Blob([CSV.csv([HEAD, ...listEntries(excluded)])], { type: "text/csv" }));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
