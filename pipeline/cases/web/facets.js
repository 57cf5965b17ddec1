// What a case is: its properties in words, and the filters and orders that follow from them. A case is its number.

import * as WORDING from "../../../serving/pages/web/wording.js";

const { classes, positive, columns, groups, second } = CASES;
const NUMBERS = [...columns.image.keys()];

const isWrong = (index) => columns.label[index] !== CASES.answer[index];
const leading = (index) => positive ?? CASES.answer[index]; // column of the positive class, or of the predicted one
const probability = (index) => CASES.p[index][leading(index)];
const change = (index) => Math.abs(second.p[index][columns.label[index]] - CASES.p[index][columns.label[index]]);
const certainty = (index) => (columns.certain[index] ? "certain" : "uncertain");
const distribution = (index) => (columns.flagged[index] ? "out-of-distribution" : "in distribution");
const likelihood = (index) => (columns.rank[index] < 0 ? "not judged" : columns.rank[index] < CASES.likely ? "likely" : "unlikely");

/** Name the kind of answer: right, or the kind of error. */
function outcome(index) {
  const [label, answer] = [columns.label[index], CASES.answer[index]];
  if (label === answer) return "right";
  if (positive === null) return `${classes[label]} called ${classes[answer]}`;
  return label === positive ? "false negative" : "false positive";
}

/** Say which of two models is right about a case. */
function agreement(index) {
  if (!second.matched[index]) return "not in the second";
  const [label, one, other] = [columns.label[index], CASES.answer[index], second.answer[index]];
  if (one === other) return one === label ? "right in both" : "wrong in both";
  return one === label ? "right only in the first" : other === label ? "right only in the second" : "wrong in both, differently";
}

const FACETS = [
  ["Split", (index) => columns.split[index]],
  ["Fold", (index) => String(CASES.folds[index]), CASES.folds],
  ["Label", (index) => classes[columns.label[index]]],
  ["Answer", (index) => classes[CASES.answer[index]]],
  ["Mistake", (index) => (isWrong(index) ? "mistake" : "right")],
  ["Outcome", outcome],
  ["Certainty", certainty],
  ["Distribution", distribution],
  ["Label error", likelihood],
  ["Second model", agreement, second],
  ...Object.entries(groups).map(([name, values]) => [`Subgroup: ${name}`, (index) => values[index] || "none"]),
  ["Tag", (index) => tagOf(index)?.words ?? "none"],
].filter(([, , needed]) => needed !== null);

const ORDERS = [
  ["Worst mistakes first", (index) => index], // as the folder was written: by the probability of the label
  ["Likeliest label errors", (index) => (columns.rank[index] < 0 ? Infinity : columns.rank[index])],
  ["Highest probability", (index) => -probability(index)],
  ["Lowest probability", probability],
  ["Nearest to the threshold", (index) => Math.abs(probability(index) - CASES.thresholds[index]), positive],
  ["Highest out-of-distribution score", (index) => -columns.outlier[index]],
  ["Largest change between models", (index) => (second.matched[index] ? -change(index) : 1), second],
  ["Image name", (index) => columns.image[index]],
  ["Patient", (index) => columns.patient[index]],
].filter(([, , needed]) => needed !== null);

/** Return the cases that meet all conditions, in an order: `chosen` is the value of each facet, or "" for any. */
function select({ chosen, words, from, to, order }) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (index) => [columns.image[index], columns.source[index], columns.patient[index], noteOf(index)].join(" ").toLowerCase();
  const fits = (index) =>
    FACETS.every(([, read], place) => chosen[place] === "" || read(index) === chosen[place]) &&
    probability(index) >= from && probability(index) <= to && wanted.every((word) => text(index).includes(word));
  const keyed = NUMBERS.filter(fits).map((index) => [ORDERS[order][1](index), index]);
  return keyed.sort(([one], [other]) => (one < other ? -1 : Number(one > other))).map(([, index]) => index);
}

/** Describe a case in a sentence. */
function describe(index) {
  const remarks = [columns.certain[index] ? "" : "uncertain", columns.flagged[index] ? "out-of-distribution" : "", tagOf(index)?.words];
  const sure = `probability of ${classes[leading(index)]} ${WORDING.probability(probability(index))}`;
  const answer = `${columns.image[index]}: label ${classes[columns.label[index]]}, called ${classes[CASES.answer[index]]}`;
  return [answer, sure, ...remarks].filter(Boolean).join(", ");
}

/** Make an element with attributes and children; text is set as text, never as HTML. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Draw a case's thumbnail from its sprite. */
function thumbnail(index) {
  const { across, count } = CASES.thumbs;
  const place = index % count;
  const made = element("span", { class: "thumb" });
  made.style.background = `url("sprites/${Math.floor(index / count)}.jpg") 0 0 / ${across * 100}% ${across * 100}%`;
  made.style.backgroundPosition = [place % across, Math.floor(place / across)].map((cell) => `${(cell * 100) / (across - 1)}%`).join(" ");
  return made;
}
