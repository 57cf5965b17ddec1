// Numbers in words, for a reader who is not a statistician.

const SPACE = "\u00a0";
const FAINT = 0.05; // of full colour

/** Format a metric with three decimals, as serving/contracts/figures.py does; halves go to the even digit, as in Python. */
export function figure(value, digits = 3) {
  const text = value.toFixed(digits);
  const isHalf = (value * 2 ** (digits + 1)) % 2 === 1; // only such fractions lie between two decimals, exactly
  return isHalf && Number(text.at(-1)) % 2 === 1 ? (value - 0.5 * 10 ** -digits).toFixed(digits) : text;
}

/** Format a probability likewise; one that is not 0 or 1 never looks so. */
export function probability(value, digits = 3) {
  const step = 10 ** -digits;
  if (value > 0 && value < step) return `<${figure(step, digits)}`;
  return value < 1 && value > 1 - step ? `>${figure(1 - step, digits)}` : figure(value, digits);
}

/** Format two probabilities with enough digits to show which is larger. */
export function probabilities(one, other) {
  let digits = 3;
  while (one !== other && digits < 8 && probability(one, digits) === probability(other, digits)) digits += 1;
  return [probability(one, digits), probability(other, digits)];
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

/**
 * Describe the certainty of a prediction.
 *
 * `sets` has limit and measured coverage of each class under the model that answered, or is undefined if the page does
 * not know them: the prediction set holds each class with 1 - p at or below its limit (serving/model/calibration.py).
 */
export function certainty({ label, probabilities, certainty, in_distribution: inside }, sets) {
  if (inside === false) return "Uncertain: the image is out of distribution.";
  const names = Object.keys(probabilities);
  if (certainty === "certain") {
    const others = names.filter((name) => name !== label);
    return `The prediction set is ${label} alone.${reliability(others, sets)}`;
  }
  if (!sets) return "Uncertain: the model does not settle on one class.";
  const possible = names.filter((name) => 1 - probabilities[name] <= sets[name].limit);
  if (possible.length === 0) return `Uncertain: no class is probable enough.`;
  if (possible.length === 1) return `Uncertain: the threshold gives ${label}, but only ${possible[0]} is not ruled out.`;
  if (names.length === 2) return `Uncertain: neither class can be ruled out.`;
  return `Uncertain: ${new Intl.ListFormat("en-GB").format(possible)} cannot be ruled out.`;
}

/** Say how far to trust that the set leaves classes out: the measured coverage of the one that is covered least. */
function reliability(names, sets) {
  if (!sets) return "";
  if (names.some((name) => sets[name].coverage === null)) return " How often that is right was not measured.";
  const least = names.reduce((one, other) => (sets[one].coverage <= sets[other].coverage ? one : other));
  return ` ${sets[least].words}`;
}

export const IN_DISTRIBUTION = "The image resembles the training X-rays.";
export const OUT_OF_DISTRIBUTION =
  "Out of distribution: the image does not resemble the training X-rays. Do not rely on the prediction.";

/** Compare a probability with its threshold. */
export function againstThreshold(one, threshold) {
  const [value, limit] = probabilities(one, threshold);
  return { value, words: `${one >= threshold ? "At or above" : "Below"} the threshold of ${limit}` };
}

/** Describe the heat map of an answer of `/v1/explain`, and whether it is empty. */
export function evidence({ class_name: name, method, peak }) {
  if (peak < FAINT) return { empty: true, words: `The heat map is empty: no region supports ${name}.` };
  const words = method === "cam"
    ? `Coloured regions support ${name}, yellow ones most strongly (class activation map).`
    : `${name} becomes less probable if a coloured region is covered, yellow ones most strongly (occlusion).`;
  return { empty: false, words };
}

/** Describe one prediction in a sentence for a screen reader. */
export function spoken(name, prediction, positive) {
  const of = positive === prediction.label || positive === null ? "" : ` of ${positive}`;
  const doubt = prediction.certainty === "certain" ? "" : " Uncertain.";
  const warning = prediction.in_distribution ? "" : ` ${OUT_OF_DISTRIBUTION}`;
  return `${name}: ${prediction.label}, probability${of} ${probability(prediction.probability)}.${doubt}${warning}`;
}

/** Summarise all results in one line. */
export function summary(results) {
  const predictions = results.map(({ prediction }) => prediction).filter(Boolean);
  const failed = results.filter(({ problem }) => problem).length;
  const open = results.length - predictions.length - failed;
  const labels = new Map();
  for (const { label } of predictions) labels.set(label, (labels.get(label) ?? 0) + 1);
  const parts = [...labels].map(([label, count]) => `${count} ${label}`);
  if (failed) parts.push(`${failed} without a result`);
  if (open) parts.push(`${open} in progress`);
  const uncertain = predictions.filter((prediction) => prediction.certainty !== "certain").length;
  const outliers = predictions.filter((prediction) => !prediction.in_distribution).length;
  const doubts = (uncertain ? ` Uncertain: ${uncertain}.` : "") + (outliers ? ` Out of distribution: ${outliers}.` : "");
  return `${plural(results.length, "image")}: ${parts.join(", ")}.${doubts}`;
}

const FIXES = {
  400: "Export the image again, or use another copy of it.",
  408: "The connection may be slow. Try again, or send a smaller image.",
  413: "Save the image smaller, or as JPEG, and choose it again.",
  415: "Choose another file.",
  429: "Try again later.",
  503: "Try again in a moment.",
};

/** Describe a problem and its fix. */
export function trouble(problem) {
  if (problem.status === 500) problem = { ...problem, title: "The service failed", detail: "" };
  const detail = problem.detail ? `${problem.detail[0].toUpperCase()}${problem.detail.slice(1)}.`.replace(/([.!?])\.$/, "$1") : "";
  const id = problem.requestId ? ` and quote the request id ${problem.requestId}` : "";
  const fix = problem.fix ?? FIXES[problem.status] ?? `Try again. If the problem remains, contact the operator of the service${id}.`;
  return { title: problem.title, detail, fix };
}
