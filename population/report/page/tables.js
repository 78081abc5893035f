"use strict";
// The tables; and the start of the page, once everything is defined.

function table(id, columns, note, sorted = null) {
  const top = make("div", undefined, byId(id), "filter");
  const search = make("input", undefined, top);
  search.type = "search";
  search.placeholder = "Filter: words that a row has";
  search.setAttribute("aria-label", "Filter the rows");
  const count = make("span", undefined, top, "note");
  const scroll = make("div", undefined, byId(id), "scroll");
  const grid = make("table", undefined, scroll);
  const head = make("tr", undefined, make("thead", undefined, grid));
  const body = make("tbody", undefined, grid);
  const all = columns[0].values.map((_, row) => row);
  const words = all.map((row) => columns.map((c) => String(shown(cell(c, row)))).join("\u0000").toLowerCase());
  const state = { column: sorted, down: false };
  const compare = (a, b) => {
    const [x, y] = [cell(columns[state.column], a), cell(columns[state.column], b)];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    const order = x < y ? -1 : x > y ? 1 : 0;
    return (state.down ? -order : order) || a - b;
  };
  const render = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = all.filter((row) => wanted.every((word) => words[row].includes(word)));
    if (state.column !== null) rows.sort(compare);
    body.replaceChildren(...rows.slice(0, ROWS).map((row) => {
      const made = document.createElement("tr");
      for (const column of columns) make("td", String(shown(cell(column, row))), made, column.levels ? column.className : "number");
      return made;
    }));
    count.textContent = `${of(Math.min(ROWS, rows.length), rows.length, "rows")} shown${note}`;
  };
  columns.forEach((column, index) => {
    const place = make("th", undefined, head, column.levels ? "" : "number");
    const button = make("button", short(column.name), place);
    button.addEventListener("click", () => {
      state.down = state.column === index && !state.down;
      state.column = index;
      for (const other of head.children) other.removeAttribute("aria-sort");
      place.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      render();
    });
  });
  search.addEventListener("input", render);
  render();
}

const FIRST_STEP = 2; // Its place among the columns of the branches.

function branchColumns() {
  const cut = (name) => generations[name].slice(0, notes.listed);
  const texts = (values) => ({ values: values.map((_, i) => i), levels: values });
  const parent = cut("parent").map((index, i) =>
    (index < 0 ? "" : `${generations.id[index]}, step ${generations.parent_step[i]}`));
  return [
    { name: "generation", ...texts(cut("id")) },
    { name: "worker", values: cut("worker") },
    { name: "first step", values: cut("step") },
    { name: "last step", values: cut("last_step") },
    { name: "last value", values: cut("value") },
    { name: "kind", values: cut("kind"), levels: data.texts },
    { name: "reason", values: cut("reason"), levels: data.texts, className: "wide" },
    { name: "from", ...texts(parent) },
    ...hyperparameters.map((column) => ({ ...column, values: column.values.slice(0, notes.listed) })),
    { name: "time", ...texts(cut("time")) },
  ];
}

// The start

function begin() {
  const find = (name) => (data.overview.find((pair) => pair[0] === name) || ["", ""])[1];
  byId("headline").textContent = [find("Status"), `${find("Members")} members`,
    `best value ${find("Best value")}`, `step ${find("Step")}`].join(" · ");
  pairs("overview", data.overview);
  pairs("environment", data.environment.pairs);
  byId("environment-note").textContent = data.environment.recorded
    ? "As the newest session of the run recorded it."
    : "The run records no versions; these are of the process that made this page.";
  for (const warning of data.warnings) make("li", warning, byId("warnings"));
  byId("warnings").hidden = data.warnings.length === 0;
  options("shown-value", ["value", ...metrics.map((column) => column.name)]);
  options("shown-hyperparameter", hyperparameters.map((column) => column.name));
  options("worker", ["all", ...lines.map((line) => `worker ${line.worker}`)]);
  options("lineage", ["none", ...lineages.map((line) => line.label)]);
  byId("lineage").value = data.best === null ? "0" : "1";
  byId("log-value").checked = data.value_scale === "log";
  const thinned = notes.points < notes.checkpoints
    ? " The first, last, least and greatest value of each part of a line are kept." : "";
  const choices = [
    notes.lineages < notes.workers
      ? ` To choose: the lineages of ${of(notes.lineages, notes.workers, "workers")}.` : "",
    metrics.length < notes.metrics
      ? ` To show: ${of(metrics.length, notes.metrics, "metrics")}.` : "",
  ].join("");
  byId("curves-note").textContent =
    `Drawn: ${of(notes.points, notes.checkpoints, "checkpoints")} and ` +
    `${of(notes.lines, notes.workers, "workers")}.${thinned}${choices} Hover or tap for a ` +
    "checkpoint; drag over a part to see it larger, double-click to see all.";
  if (hyperparameters.length > WINNER) {
    byId("winner-note").textContent =
      `Drawn: ${of(WINNER, hyperparameters.length, "hyperparameters")}.`;
  }
  if (points.step.length === 0) byId("curves-section").hidden = true;
  if (data.best === null) byId("winner-section").hidden = true;
  if (notes.tree === 0) byId("tree-section").hidden = true;
}

function fillTables() {
  const left = `; this page holds ${of(notes.listed, notes.generations, "generations")}: ` +
    "the lineages of the best and of the members, and others spread over the run";
  const cutMembers = `; this page holds ${of(notes.members, notes.workers, "members")}`;
  for (const column of data.members) if (column.name === "reason") column.className = "wide";
  table("members", data.members, notes.members < notes.workers ? cutMembers : "");
  table("branches", branchColumns(), notes.listed < notes.generations ? left : "", FIRST_STEP);
}

function drawAll() {
  const charts = [];
  if (points.step.length > 0) {
    drawLegend();
    charts.push(drawCurves());
  }
  if (data.best !== null) charts.push(drawWinner());
  if (notes.tree > 0) charts.push(drawTree());
  return Promise.all(charts);
}

begin();
drawAll().then(() => {
  if (points.step.length > 0) listen(byId("curves"), checkpointCard);
  if (data.best !== null) listen(byId("winner"), checkpointCard);
  if (notes.tree > 0) listen(byId("tree"), generationCard);
  fillTables();
  document.body.dataset.ready = "yes";
});
for (const id of ["shown-value", "shown-hyperparameter", "worker", "lineage", "only-lineage"]) {
  byId(id).addEventListener("change", drawCurves);
}
byId("log-value").addEventListener("change", drawAll);
dark.addEventListener("change", drawAll);
for (const event of ["scroll", "pointerdown"]) {
  window.addEventListener(event, () => { byId("card").hidden = true; }, { passive: true });
}
