// Pieces of the page. Text is set as text, never as HTML: file names can hold anything.

import { againstThreshold, probability } from "./wording.js";

/** Copy the content of a template of the page. */
export function clone(template) {
  return document.getElementById(template).content.firstElementChild.cloneNode(true);
}

/** Draw the positive class against its threshold, or all classes, the most probable first. */
export function scales(prediction, positive) {
  if (positive !== null) {
    const { value, words } = againstThreshold(prediction.probability, prediction.threshold);
    return [scale(`Probability of ${positive}`, value, prediction.probability, { threshold: prediction.threshold, foot: words })];
  }
  const sorted = Object.entries(prediction.probabilities).sort(([, one], [, other]) => other - one);
  return sorted.map(([name, value]) => scale(name, probability(value), value));
}

function scale(name, value, probability, { threshold, foot } = {}) {
  const element = clone("scale-template");
  element.querySelector(".scale-name").textContent = name;
  element.querySelector(".scale-value").textContent = value;
  element.style.setProperty("--share", probability);
  if (threshold !== undefined) {
    element.style.setProperty("--threshold", threshold);
    element.querySelector(".mark").hidden = false;
    element.querySelector(".scale-foot").hidden = false;
    element.querySelector(".scale-foot").textContent = foot;
  }
  return element;
}

/** Draw one remark about a prediction, with its icon. */
export function point(icon, words, doubtful) {
  const item = clone("point-template");
  item.classList.toggle("doubtful", doubtful);
  item.querySelector("use").setAttribute("href", `#icon-${icon}`);
  item.append(words);
  return item;
}
