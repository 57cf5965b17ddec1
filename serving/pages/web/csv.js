// Results as a table for a spreadsheet (RFC 4180).

// Keep both as in serving/contracts/csv_text.py, which reads such cells back.
const FORMULA = /^'*(?:[\t-\r \xa0]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])/;
const NUMBER = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;

/** Format a cell. A text that a spreadsheet would run as a formula gets an apostrophe; numbers stay numbers. */
export function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = FORMULA.test(value) && !NUMBER.test(value) ? `'${value}` : value;
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Format rows of cells with the line ends and the UTF-8 mark that spreadsheets expect. */
export function csv(rows) {
  return `\ufeff${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/** Build a table with a row for each image that has a prediction or a problem. */
export function table(results, notice) {
  const settled = results.filter(({ done }) => done);
  const classes = [...new Set(settled.flatMap(({ prediction }) => Object.keys(prediction?.probabilities ?? {})))];
  const head = [
    "image", "label", "probability", "threshold", "certainty", "in_distribution", "outlier_score",
    ...classes.map((name) => `p_${name}`), "elapsed_ms", "model", "version", "request_id", "error", "notice",
  ];
  const rows = settled.map(({ name, prediction, model, requestId, notice: own, problem }) => [
    name, prediction?.label, prediction?.probability, prediction?.threshold, prediction?.certainty,
    prediction?.in_distribution, prediction?.outlier_score,
    ...classes.map((each) => prediction?.probabilities[each]), prediction?.elapsed_ms, model?.name, model?.version, requestId ?? problem?.requestId,
    problem && [problem.title, problem.detail].filter(Boolean).join(": "), own ?? notice,
  ]);
  return csv([head, ...rows]);
}
