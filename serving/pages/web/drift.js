// Draws the dashboard's plots. Each also has a table, for readers who cannot see plots or have no script.

import { figure } from "./wording.js";

const plots = JSON.parse(document.getElementById("plots").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const PAPER = "rgba(0, 0, 0, 0)";
const OPTIONS = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false };
const TICKS = { count: ",d", share: ".0%", area: ".2f" };
const COLOURS = { ok: "plot-ok", warning: "plot-warning", drift: "plot-drift" };

/** Return a colour of the style sheet in the current scheme. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${COLOURS[name] ?? name}`).trim();
}

/** Return a colour with an opacity. */
function faint(name, opacity) {
  const hex = colour(name);
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  return `rgba(${red}, ${green}, ${blue}, ${opacity})`;
}

function tracesOf(plot, series) {
  const own = { x: plot.x, y: series.y, name: series.name, hovertemplate: plot.unit === "count" ? "%{y:,}" : series.y.map((value) => format(plot, value)) };
  const tone = colour(series.tone);
  if (series.kind === "bars") {
    const width = plot.is_time ? 0.75 * stepOf(plot) : undefined; // of a single bar Plotly does not know it
    return [{ ...own, type: "bar", width, marker: { color: plot.compact ? faint(series.tone, 0.6) : tone } }];
  }
  if (series.kind === "steps") {
    return [{ ...own, type: "scatter", mode: "lines", line: { color: tone, width: 2, shape: "hvh" } }];
  }
  if (series.kind === "points") {
    const error = {
      type: "data",
      symmetric: false,
      array: series.y.map((value, place) => (value === null ? null : series.high[place] - value)),
      arrayminus: series.y.map((value, place) => (value === null ? null : value - series.low[place])),
      color: tone,
      thickness: 1.5,
      width: 3,
    };
    return [{ ...own, type: "scatter", mode: "markers", marker: { color: tone, size: 8 }, error_y: error, hovertemplate: interval(plot, series) }];
  }
  const line = { ...own, type: "scatter", mode: "lines+markers", line: { color: tone, width: 2 }, marker: { size: 5 } };
  if (!series.low) return [line];
  return [...bandsOf(plot, series), { ...line, hovertemplate: interval(plot, series) }];
}

/** Return bands between the ends of intervals, one for each stretch without a gap: a fill would cross the gap. */
function bandsOf(plot, series) {
  const stretches = [];
  series.low.forEach((value, place) => {
    if (value === null) return;
    if (place === 0 || series.low[place - 1] === null) stretches.push([]);
    stretches.at(-1).push(place);
  });
  const edge = { type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  return stretches.flatMap((places) => {
    const x = places.map((place) => plot.x[place]);
    const ends = [series.low, series.high].map((values) => places.map((place) => values[place]));
    return [
      { ...edge, x, y: ends[0] },
      { ...edge, x, y: ends[1], fill: "tonexty", fillcolor: faint(series.tone, 0.25) },
    ];
  });
}

/** Format a value of y as the table beside the plot does. */
function format(plot, value) {
  return value === null ? "" : plot.unit === "share" ? `${figure(100 * value, 1)}%` : figure(value);
}

function interval(plot, series) {
  return series.y.map((value, place) => `${format(plot, value)} (${format(plot, series.low[place])} to ${format(plot, series.high[place])})`);
}

function layoutOf(plot, width) {
  const axis = { gridcolor: colour("line"), linecolor: colour("edge"), zerolinecolor: colour("line"), fixedrange: true, automargin: true };
  const several = plot.series.length > 1 && !plot.compact;
  return {
    barmode: plot.stacked ? "stack" : "group",
    bargap: plot.compact ? 0.05 : 0.25,
    dragmode: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: plot.compact ? 11 : 13, color: colour("muted") },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("edge"), font: { color: colour("ink") } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
    margin: { l: 8, r: 8, t: several ? 30 : 8, b: 8 },
    paper_bgcolor: PAPER,
    plot_bgcolor: PAPER,
    shapes: plot.diagonal ? [{ type: "line", x0: 0, y0: 0, x1: 1, y1: 1, line: { color: colour("edge"), width: 1.5, dash: "dot" } }] : [],
    showlegend: several,
    xaxis: { ...axis, ...xOf(plot, width), showgrid: false, tickangle: 0 },
    yaxis: { ...axis, nticks: plot.compact ? 4 : 6, ...yOf(plot) },
  };
}

function xOf(plot, width) {
  if (plot.is_time) {
    const hours = plot.x[0].length > 10;
    return { type: "date", hoverformat: hours ? "%-d %b, %H:%M" : "%-d %b %Y", tickformatstops: stops(), ...timesOf(plot, width) };
  }
  if (plot.diagonal) {
    return { range: [0, 1.02], tickformat: ".0%", title: { text: plot.x_title, standoff: 6 } };
  }
  const fine = plot.x.at(-1) - plot.x[0] < 0.05 ? ".1%" : ".0%";
  return { nticks: 5, tickformat: plot.percent ? fine : "", hoverformat: plot.percent ? ".1%" : ".4~g" };
}

const LEAST_STEPS = 6;
const HOUR = 3600000;
const TICK_STEPS = [1, 2, 3, 6, 12, 24, 48].map((hours) => hours * HOUR);

/** Return the milliseconds of a bar: an hour or a day. */
function stepOf(plot) {
  return plot.x[0].length > 10 ? HOUR : 24 * HOUR;
}

/** Return range and ticks of moments: room for a few steps, and no tick between two of them. */
function timesOf(plot, width) {
  const ends = [plot.x[0], plot.x.at(-1)].map((moment) => Date.parse(`${moment.replace(" ", "T")}${moment.length > 10 ? "" : "T00:00"}Z`));
  const step = stepOf(plot);
  const spare = Math.max(step, (LEAST_STEPS - 1) * step - (ends[1] - ends[0])) / 2;
  const range = [ends[0] - spare, ends[1] + spare];
  const dtick = TICK_STEPS.find((each) => each >= step && (range[1] - range[0]) / each <= width / 75);
  return { range: range.map((end) => new Date(end).toISOString().slice(0, 19)), ...(dtick ? { dtick } : { nticks: Math.ceil(width / 75) }) };
}

function stops() {
  return [
    { dtickrange: [null, 86400000 - 1], value: "%H:%M\n%-d %b" },
    { dtickrange: [86400000, "M1"], value: "%-d %b\n%Y" },
    { dtickrange: ["M1", null], value: "%b\n%Y" },
  ];
}

function yOf(plot) {
  const scale = { tickformat: TICKS[plot.unit], rangemode: "tozero" };
  if (plot.diagonal) return { ...scale, range: [0, 1.02] };
  if (plot.intervals) {
    const lows = plot.series.flatMap((series) => series.low).filter((value) => value !== null);
    return { ...scale, range: [Math.max(0, Math.floor(10 * Math.min(...lows)) / 10), 1.02] };
  }
  const highest = plot.x.map((_, place) => plot.series.reduce((sum, series) => sum + (series.y[place] ?? 0), 0));
  return plot.unit !== "count" || Math.max(...highest) > 5 ? scale : { ...scale, dtick: 1 }; // no half images
}

function draw(plot) {
  const place = document.getElementById(plot.id);
  place.hidden = false;
  place.closest("figure").querySelector("details").open = false;
  Plotly.react(place, plot.series.flatMap((series) => tracesOf(plot, series)), layoutOf(plot, place.clientWidth), OPTIONS);
}

/** Draw one plot after the other, so that the page stays responsive. */
async function drawAll() {
  delete document.documentElement.dataset.drawn;
  for (const plot of plots) {
    draw(plot);
    await new Promise((resolve) => setTimeout(resolve));
  }
  document.documentElement.dataset.drawn = "true";
}

if (globalThis.Plotly) {
  dark.addEventListener("change", drawAll);
  drawAll();
}
