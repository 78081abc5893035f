"use strict";
// The charts: curves with hyperparameters, the winner's schedule, the lineage tree.

function draw(chart, traces, layout, height) {
  const base = {
    height,
    autosize: true,
    margin: { l: 62, r: 12, t: 10, b: 42 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: css("--ink") },
    hovermode: "closest",
    showlegend: false,
    dragmode: touch.matches ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--accent") },
  };
  const config = {
    displaylogo: false,
    displayModeBar: touch.matches ? true : "hover",
    responsive: true,
    // Only these: by default plotly has a button, too, that sends the data to its cloud.
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
    plotlyServerURL: "",
  };
  return Plotly.react(chart, traces, { ...base, ...layout }, config);
}

function axis(title, more) {
  return {
    title: { text: escaped(title), standoff: 6 },
    gridcolor: css("--line"),
    zeroline: false,
    linecolor: css("--line"),
    exponentformat: "power",
    minexponent: 6,
    ...more,
  };
}

const spread = (value) => -Math.log10(Math.max(1 - value, 1e-12));

// How a hyperparameter is drawn: the height of a value, and the axis for such values.
function scaled(column, title, values = column.values) {
  const known = [...new Set(values)].filter((value) => value !== null).sort((a, b) => a - b);
  const height = column.scale === "near one" ? spread : (value) => value;
  if (column.scale === "text") {
    const ticks = { tickvals: column.levels.map((_, i) => i), ticktext: column.levels.map(escaped) };
    return { height, axis: axis(title, { ...ticks, automargin: true, range: [-0.5, column.levels.length - 0.5] }) };
  }
  if (known.length === 1) return { height, axis: axis(title, alone(known[0], height(known[0]))) };
  const more = column.scale === "near one" ? nearOne(known)
    : column.scale === "log" ? logarithmic(known) : { nticks: 5 };
  return { height, axis: axis(title, more) };
}

// An axis with a single value, which is its tick.
function alone(value, at) {
  const room = Math.abs(at) / 2 || 1;
  return { range: [at - room, at + room], tickvals: [at], ticktext: [shown(digits(value, 4))] };
}

const few = (list, most) => list.filter((_, i) => i % Math.ceil(list.length / most) === 0);

function nearOne(ascending) {
  const [low, high] = [ascending[0], ascending[ascending.length - 1]];
  let ticks = NEAR_ONE.filter((tick) => tick >= low && tick <= high);
  if (ticks.length < 3) {
    ticks = evenly(spread(high), spread(low)).map((height) => 1 - digits(10 ** -height, 2));
  }
  ticks = few(ticks, 6).map((tick) => digits(tick, 8));
  return { tickvals: ticks.map(spread), ticktext: ticks.map(String) };
}

// A logarithmic axis: ticks at powers of ten, or at as many more as needed for three.
function logarithmic(values) {
  const positive = values.filter((value) => value > 0);
  const low = positive.reduce((a, b) => Math.min(a, b), Infinity);
  const high = positive.reduce((a, b) => Math.max(a, b), 0);
  if (high <= low) return { type: "log", nticks: 5 };
  const decades = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) decades.push(power);
  let ticks = [];
  for (const parts of [[1], [1, 3], [1, 2, 5]]) {
    ticks = decades.flatMap((power) => parts.map((part) => Number(`${part}e${power}`)))
      .filter((tick) => tick >= low && tick <= high);
    if (ticks.length >= 3) break;
  }
  if (ticks.length < 3) {
    ticks = evenly(Math.log10(low), Math.log10(high)).map((height) => digits(10 ** height, 2));
  }
  const tickvals = few(ticks, 7);
  return { type: "log", tickvals, ticktext: tickvals.map(String) };
}

const digits = (value, count) => Number(value.toPrecision(count));
const evenly = (low, high) => [0, 1, 2, 3].map((i) => low + ((high - low) * i) / 3);

function trace(ids, heightOf, style) {
  const found = { x: [], y: [], customdata: [] };
  for (const id of ids) {
    const height = id === GAP ? null : heightOf(id);
    if (id !== GAP && height === null) continue;
    found.x.push(id === GAP ? null : points.step[id]);
    found.y.push(height);
    found.customdata.push(id === GAP ? null : id);
  }
  const mode = found.x.length < 60 ? "lines+markers" : "lines";
  return { type: "scatter", mode, hoverinfo: "none",
    marker: { size: 4 }, ...found, ...style };
}

// Where a line diverges: a cross at its last value.
function crosses(ids, heightOf) {
  const found = { x: [], y: [], customdata: [] };
  let before = null;
  for (const id of ids) {
    if (id === GAP) continue;
    if (diverged.has(id) && before !== null) {
      found.x.push(points.step[id]);
      found.y.push(before);
      found.customdata.push(id);
    }
    before = heightOf(id) ?? before;
  }
  return { type: "scatter", mode: "markers", hoverinfo: "none", ...found,
    marker: { symbol: "x", size: 8, color: css("--alert") } };
}

const coloured = lines.length <= COLOURS.length;
const joined = (list) => list.flatMap((line) => [...line.points, GAP]);

function bases(chosen) {
  if (chosen !== null) return [[chosen.points, css("--accent"), 1.6]];
  if (coloured) return lines.map((line, i) => [line.points, COLOURS[i], 1.4]);
  return [[joined(lines), css("--crowd"), 1]];
}

function drawCurves() {
  const choice = Number(byId("shown-value").value);
  const measured = choice === 0 ? { name: "value", values: points.value } : metrics[choice - 1];
  const column = hyperparameters[Number(byId("shown-hyperparameter").value)];
  const worker = Number(byId("worker").value);
  const lineage = lineages[Number(byId("lineage").value) - 1] || null;
  const only = byId("only-lineage").checked && lineage !== null;
  const log = byId("log-value").checked;
  const chosen = worker === 0 ? null : lines[worker - 1];
  const valueOf = (id) => measured.values[id];
  const scale = column ? scaled(column, column.name) : null;
  const setting = (id) => {
    const value = column.values[points.generation[id]];
    return value === null ? null : scale.height(value);
  };
  const traces = [];
  const add = (ids, color, width, opacity) => {
    const style = { line: { color, width }, opacity };
    traces.push(trace(ids, valueOf, style));
    // Training up to a checkpoint used its hyperparameters: first up, then to the right.
    const stairs = { line: { color, width, shape: "vh" }, opacity, xaxis: "x", yaxis: "y2" };
    if (column) traces.push(trace(ids, setting, stairs));
  };
  const faded = lineage === null ? 0.9 : 0.65;
  if (!only) bases(chosen).forEach(([ids, color, width]) => add(ids, color, width, faded));
  if (lineage !== null) add(lineage.points, css("--ink"), 2.4, 1);
  const all = only ? lineage.points : chosen === null ? joined(lines) : chosen.points;
  if (choice === 0) traces.push(crosses(all, valueOf));
  const layout = {
    uirevision: "kept",
    xaxis: axis("step", { anchor: column ? "y2" : "y", rangemode: "tozero" }),
    yaxis: axis(measured.name, { ...(log ? logarithmic(measured.values) : {}),
      domain: [column ? 0.4 : 0, 1], uirevision: `${choice} ${log}` }),
  };
  if (column) layout.yaxis2 = { ...scale.axis, domain: [0, 0.34], uirevision: column.name };
  return draw(byId("curves"), traces, layout, column ? 560 : 400);
}

function drawLegend() {
  const legend = byId("legend");
  legend.replaceChildren();
  const entry = (colour, text, mark) => {
    const span = make("span", undefined, legend);
    make("i", undefined, span, mark).style.background = colour;
    make("span", text, span);
  };
  if (coloured) lines.forEach((line, i) => entry(COLOURS[i], `worker ${line.worker}`));
  else entry(css("--crowd"), "workers");
  entry(css("--ink"), "the chosen lineage");
  if (points.diverged.length) entry(css("--alert"), "diverged", "mark");
}

function drawWinner() {
  const best = lineages[0];
  const columns = hyperparameters.slice(0, WINNER);
  const height = 1 / (columns.length + 1);
  const traces = [];
  const layout = { xaxis: axis("step", { anchor: `y${columns.length + 1}`, rangemode: "tozero" }), annotations: [] };
  const add = (title, scale, heightOf, index, style) => {
    const name = index === 0 ? "" : String(index + 1);
    const top = 1 - index * height;
    const label = { text: escaped(title), showarrow: false, xref: "paper", yref: "paper",
      x: 0, y: top, xanchor: "left", yanchor: "top", font: { color: css("--faint") } };
    layout.annotations.push(label);
    layout[`yaxis${name}`] = { ...scale, title: undefined,
      domain: [top - height * 0.98, top - Math.min(22 / total, height * 0.25)] };
    traces.push(trace(best.points, heightOf, { yaxis: `y${name}`, xaxis: "x", ...style }));
  };
  const total = (columns.length + 1) * 120 + 50;
  const log = byId("log-value").checked ? logarithmic(points.value) : { nticks: 5 };
  add("value", axis("value", log), (id) => points.value[id], 0, { line: { color: css("--ink"), width: 2 } });
  columns.forEach((column, i) => {
    const used = best.points.map((id) => column.values[points.generation[id]]);
    const scale = scaled(column, column.name, used);
    const heightOf = (id) => {
      const value = column.values[points.generation[id]];
      return value === null ? null : scale.height(value);
    };
    const style = { line: { color: css("--accent"), width: 2, shape: "vh" } };
    add(column.name, scale.axis, heightOf, i + 1, style);
  });
  return draw(byId("winner"), traces, layout, total);
}

// The share of generations with worse values, 0 to 1; null without a value.
function ranks(values) {
  const sign = data.mode === "min" ? -1 : 1;
  const known = values.filter((value) => value !== null).sort((a, b) => sign * (a - b));
  const place = new Map(known.map((value, i) => [value, i / Math.max(1, known.length - 1)]));
  return values.map((value) => (value === null ? null : place.get(value)));
}

function drawTree() {
  const count = notes.tree;
  const scale = dark.matches ? VIRIDIS.slice(2) : VIRIDIS.slice(0, 9).reverse();
  const rank = ranks(generations.value.slice(0, count));
  const span = Math.max(1, ...generations.last_step.slice(0, count)) / 60;
  const groups = [...scale, css("--crowd")].map(() => ({ x: [], y: [], customdata: [] }));
  const joints = { x: [], y: [] };
  const winner = { x: [], y: [] };
  const winners = new Set(data.best === null ? []
    : lineages[0].points.map((id) => points.generation[id]));
  const push = (group, x, y, id) => { group.x.push(x); group.y.push(y); group.customdata.push(id); };
  for (let i = 0; i < count; i++) {
    const [begin, end, row] = [generations.step[i], generations.last_step[i], generations.row[i]];
    const group = groups[rank[i] === null ? scale.length
      : Math.min(scale.length - 1, Math.floor(rank[i] * scale.length))];
    const pieces = Math.max(1, Math.ceil((end - begin) / span)); // So that hovering finds it.
    for (let k = 0; k <= pieces; k++) push(group, begin + ((end - begin) * k) / pieces, row, i);
    push(group, null, null, null);
    const parent = generations.parent[i];
    if (winners.has(i)) {
      winner.x.push(begin, end, null);
      winner.y.push(row, row, null);
    }
    if (parent < 0 || parent >= count || generations.row[parent] === row) continue;
    joints.x.push(begin, begin, null);
    joints.y.push(generations.row[parent], row, null);
  }
  const rows = Math.max(1, ...generations.row);
  const width = rows > 200 ? 1.2 : rows > 60 ? 2 : 3;
  const line = (color, thick) => ({ type: "scatter", hoverinfo: "none", mode: "lines", line: { color, width: thick } });
  const traces = [{ ...joints, ...line(css("--crowd"), Math.min(1, width / 2)), opacity: rows > 200 ? 0.5 : 1, hoverinfo: "skip" },
    { ...winner, ...line(css("--ink"), width + 4), opacity: 0.3, hoverinfo: "skip" },
    ...groups.map((group, i) => ({ ...group, ...line(scale[i] || css("--crowd"), width) }))];
  const layout = {
    margin: { l: 12, r: 12, t: 10, b: 42 },
    xaxis: axis("step", { rangemode: "tozero" }),
    yaxis: { visible: false, autorange: "reversed" },
  };
  const legend = byId("tree-legend");
  legend.replaceChildren();
  const entry = make("span", "worst last value", legend);
  make("i", undefined, entry, "scale").style.background = `linear-gradient(90deg, ${scale.join(",")})`;
  make("span", "best (by rank)", entry);
  if (winners.size > 0) {
    const shade = make("span", undefined, legend);
    make("i", undefined, shade, "shade");
    make("span", "lineage of the best", shade);
  }
  const kept = ": the lineages of the best and of the members, and others spread over the run";
  byId("tree-note").textContent = `Drawn: ${of(count, notes.generations, "generations")}` +
    `${count < notes.generations ? kept : ""}.`;
  return draw(byId("tree"), traces, layout, Math.min(900, Math.max(220, rows * 14 + 90)));
}
