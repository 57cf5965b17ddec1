// Pieces of a card. Text is set as text, never as HTML: file names can hold anything.

import { againstThreshold, percent } from "./wording.js";

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
  return sorted.map(([name, probability]) => scale(name, percent(probability), probability));
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
  const item = document.createElement("li");
  item.classList.toggle("doubtful", doubtful);
  const image = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  image.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${icon}`);
  image.append(use);
  item.append(image, words);
  return item;
}
