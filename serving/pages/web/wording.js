// What numbers mean, in words for a reader who is no statistician.

const SPACE = "\u00a0";
const FAINT = 0.05; // of full colour

/** A probability in [0, 1] as a percentage that never rounds to a certainty that it is not. */
export function percent(probability, digits = 1) {
  const value = 100 * probability;
  const step = 10 ** -digits;
  if (probability > 0 && value < step) return `<${SPACE}${step.toFixed(digits)}${SPACE}%`;
  if (probability < 1 && value > 100 - step) return `>${SPACE}${(100 - step).toFixed(digits)}${SPACE}%`;
  return `${value.toFixed(digits)}${SPACE}%`;
}

/** Two probabilities with as many digits as it takes to see which is larger. */
export function percents(one, other) {
  let digits = 1;
  while (one !== other && digits < 6 && percent(one, digits) === percent(other, digits)) digits += 1;
  return [percent(one, digits), percent(other, digits)];
}

export function milliseconds(value) {
  return value < 1000 ? `${value < 10 ? value.toFixed(1) : Math.round(value)}${SPACE}ms` : `${(value / 1000).toFixed(1)}${SPACE}s`;
}

export function bytes(count) {
  return count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))}${SPACE}kB` : `${(count / 1e6).toFixed(1)}${SPACE}MB`;
}

export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Names as a list in a sentence. */
export function list(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/**
 * How sure the model is.
 *
 * `conformal` is the level and limit of the model that answered, or null where only the verdict is known: a class stays
 * possible while 1 - p is at most the limit (serving/model/calibration.py).
 */
export function certainty(prediction, conformal) {
  const { label, probabilities } = prediction;
  const at = conformal ? ` at ${percent(conformal.level, 0)} coverage` : "";
  if (prediction.certainty === "certain") return `The model is sure: only ${label} remains possible${at}.`;
  if (!conformal) return "The model is not sure: it cannot settle on one class.";
  const names = Object.keys(probabilities);
  const possible = names.filter((name) => 1 - probabilities[name] <= conformal.limit);
  if (possible.length === 0) return `The model is not sure: no class is likely enough to settle on${at}.`;
  if (possible.length === 1) return `The model is not sure: the threshold says ${label}, but only ${possible[0]} remains possible${at}.`;
  if (possible.length === 2 && names.length === 2) return `The model is not sure: both classes remain possible${at}.`;
  return `The model is not sure: ${list(possible)} remain possible${at}.`;
}

export const FAMILIAR = "The image looks like the X-rays that the model was trained on.";
export const STRANGE =
  "This image does not look like the X-rays that the model was trained on: do not rely on the answer.";

/** Where a probability lies against its threshold. */
export function againstThreshold(probability, threshold) {
  const [value, limit] = percents(probability, threshold);
  return { value, words: `${probability >= threshold ? "Reaches" : "Below"} the threshold of ${limit}` };
}

/** What the heat map of an answer of `/v1/explain` shows, and whether that is nothing. */
export function evidence({ class_name: name, method, peak }) {
  if (peak < FAINT) return { empty: true, words: `The map is empty: nothing on this image speaks for ${name}.` };
  const words = method === "cam"
    ? `Coloured areas speak for ${name}, yellow ones the most (class activation map).`
    : `${name} becomes less probable where a coloured area is covered, yellow ones the most (occlusion).`;
  return { empty: false, words };
}

/** One answer as a sentence for a screen reader. */
export function spoken(name, prediction, positive) {
  const of = positive ?? prediction.label;
  const warning = prediction.in_distribution ? "" : ` ${STRANGE}`;
  const doubt = prediction.certainty === "certain" ? "" : " The model is not sure.";
  const said = positive === prediction.label || positive === null ? "" : ` of ${of}`;
  return `${name}: ${prediction.label}, probability${said} ${percent(prediction.probability)}.${doubt}${warning}`;
}

/** What all answers come to, in one line. */
export function summary(cards) {
  const done = cards.filter((card) => card.prediction);
  const failed = cards.filter((card) => card.problem).length;
  const open = cards.length - done.length - failed;
  const labels = new Map();
  for (const { prediction } of done) labels.set(prediction.label, (labels.get(prediction.label) ?? 0) + 1);
  const unsure = done.filter(({ prediction }) => prediction.certainty !== "certain").length;
  const strange = done.filter(({ prediction }) => !prediction.in_distribution).length;
  const parts = [...labels].map(([label, count]) => `${count} ${label}`);
  if (failed) parts.push(`${failed} without an answer`);
  if (open) parts.push(`${open} under way`);
  const doubts = [];
  if (unsure) doubts.push(`${unsure} not sure`);
  if (strange) doubts.push(`${strange} unfamiliar`);
  const doubt = doubts.length ? ` Among the answers: ${doubts.join(", ")}.` : "";
  return `${plural(cards.length, "image")}: ${parts.join(", ")}.${doubt}`;
}

const MENDS = {
  400: "Export the image again, or take another copy of it.",
  408: "The connection may be slow. Try again, or send a smaller image.",
  413: "Save the image smaller, or as JPEG, and choose it again.",
  415: "Choose another file.",
  429: "Try again later.",
  503: "Try again in a moment.",
};

/** What is wrong and what to do about it. */
export function trouble(problem) {
  if (problem.status === 500) problem = { ...problem, title: "The service failed", detail: "" };
  const detail = problem.detail ? `${problem.detail[0].toUpperCase()}${problem.detail.slice(1)}.`.replace(/([.!?])\.$/, "$1") : "";
  const mend = problem.mend ?? MENDS[problem.status] ??
    `Try again. If it stays so, tell whoever runs the service${problem.requestId ? ` the request id ${problem.requestId}` : ""}.`;
  return { title: problem.title, detail, mend };
}
