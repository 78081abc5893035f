"use strict";
// The data of the page, what it says of them, and the card under the pointer. All texts
// of the run become text nodes, or pass through `escaped` before plotly gets them, as
// plotly reads some HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const { points, generations, hyperparameters, metrics, lines, lineages, notes } = data;
const GAP = -1;
const ROWS = 500; // Rows of a table that are shown at once.
const WINNER = 12; // Hyperparameters in the schedule of the winner.
// Okabe and Ito's colours, safe for the colour-blind, and viridis.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
  "#b3a000", "#8c8c8c"];
const VIRIDIS = ["#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c",
  "#22a884", "#44bf70", "#7ad151", "#bddf26"];
const NEAR_ONE = [0, 0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999];
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const touch = window.matchMedia("(pointer: coarse)");
const byId = (id) => document.getElementById(id);
const diverged = new Set(points.diverged);

// Texts and numbers

const escaped = (text) => short(text).replace(/&/g, "&amp;").replace(/</g, "&lt;")
  .replace(/>/g, "&gt;");
const short = (text, most = 40) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const shown = (value) => {
  if (typeof value !== "number") return value ?? "–";
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  const rounded = Number(value.toPrecision(6));
  return size < 1e-4 || size >= 1e9 ? rounded.toExponential() : String(rounded);
};
const css = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const many = (count) => count.toLocaleString("en");
const of = (count, all, what) =>
  count < all ? `${many(count)} of ${many(all)} ${what}` : `all ${many(all)} ${what}`;
const cell = (column, index) => {
  const value = column.values[index];
  return column.levels && value !== null ? column.levels[value] : value;
};

function make(tag, text, parent, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (parent) parent.append(made);
  return made;
}

function pairs(id, list) {
  const isWide = ([, text]) => text.length > 60;
  for (const [name, text] of [...list.filter((pair) => !isWide(pair)), ...list.filter(isWide)]) {
    const pair = make("div", undefined, byId(id), isWide([name, text]) ? "wide" : "");
    make("dt", name, pair);
    make("dd", text, pair);
  }
}

function options(id, labels) {
  labels.forEach((label, index) => {
    make("option", short(label), byId(id)).value = String(index);
  });
  return byId(id);
}

// The card of the checkpoint or the generation under the pointer

function ofGeneration(index) {
  const reason = data.texts[generations.reason[index]];
  const kind = data.texts[generations.kind[index]];
  const rows = hyperparameters.map((column) => [column.name, cell(column, index)]);
  return [["opened by", reason && reason !== kind ? `${kind}: ${reason}` : kind], ...rows];
}

function checkpointCard(index) {
  const generation = points.generation[index];
  return [
    ["worker", points.worker[index]],
    ["generation", generations.id[generation]],
    ["step", points.step[index]],
    ["value", diverged.has(index) ? "diverged" : points.value[index]],
    ...metrics.map((column) => [column.name, column.values[index]]),
    ...ofGeneration(generation),
  ];
}

function generationCard(index) {
  return [
    ["worker", generations.worker[index]],
    ["generation", generations.id[index]],
    ["steps", `${generations.step[index]} to ${generations.last_step[index]}`],
    ["last value", generations.value[index]],
    ...ofGeneration(index),
  ];
}

function showCard(event, rows) {
  const card = byId("card");
  const table = document.createElement("table");
  for (const [name, value] of rows.slice(0, 24)) {
    const row = make("tr", undefined, table);
    make("td", short(String(name), 60), row);
    make("td", String(shown(value)), row);
  }
  card.replaceChildren(table);
  card.hidden = false;
  const { clientX: x = 0, clientY: y = 0 } = event || {};
  const left = x + 18 + card.offsetWidth > window.innerWidth
    ? Math.max(4, x - 18 - card.offsetWidth) : x + 18;
  card.style.left = `${left}px`;
  card.style.top = `${Math.max(4, Math.min(y + 14, window.innerHeight - card.offsetHeight - 4))}px`;
}

function listen(chart, cardOf) {
  const show = ({ event, points: [point] }) => {
    if (point && point.customdata !== undefined) showCard(event, cardOf(point.customdata));
  };
  chart.on("plotly_hover", show);
  chart.on("plotly_click", show); // A tap does not hover.
  chart.on("plotly_unhover", () => { byId("card").hidden = true; });
}
