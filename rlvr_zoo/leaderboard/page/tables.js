// The tables that sort, and the matrix of pairs.

/**
 * Fills a table.  Columns: {label, cell, value?: sorted by it, down?: highest first, number?}; the first is the row's name.
 * What is not ranked stays below.
 */
function sortable(table, columns, rows, chosen) {
  const lines = rows.map((row) => ({ row, node: el("tr", { class: row.not_ranked ? "listed" : null },
    ...columns.map((column, index) => el(index ? "td" : "th", { class: column.number ? "number" : null, scope: index ? null : "row" }, ...[column.cell(row)].flat()))) }));
  const body = el("tbody");
  const heads = columns.map((column) => el("th", { scope: "col", class: column.number ? "number" : null },
    column.value ? el("button", { type: "button", onclick: () => choose(column) }, column.label) : column.label));
  const order = () => {
    const column = columns.find((each) => each.label === chosen.label);
    const way = chosen.down ? -1 : 1;
    lines.sort((one, other) => Boolean(one.row.not_ranked) - Boolean(other.row.not_ranked)
      || compare(column.value(one.row), column.value(other.row), way));
    columns.forEach((each, index) => {
      if (each.value) heads[index].setAttribute("aria-sort", each === column ? (chosen.down ? "descending" : "ascending") : "none");
    });
    lines.forEach(({ row, node }, index) => {
      const before = lines[index - 1]?.row;
      node.classList.toggle("new-tier", Boolean(before && column.tiers && column.tiers(before) !== column.tiers(row)));
    });
    body.replaceChildren(...lines.map((line) => line.node));
  };
  const choose = (column) => {
    chosen.down = chosen.label === column.label ? !chosen.down : Boolean(column.down);
    chosen.label = column.label;
    order();
  };
  table.replaceChildren(el("thead", {}, el("tr", {}, ...heads)), body);
  order();
}

function compare(one, other, way) {
  const known = (value) => isNumber(value) || typeof value === "string";
  if (!known(one) || !known(other)) return known(other) - known(one);
  return way * (typeof one === "string" ? one.localeCompare(other, "en") : one - other);
}

const who = (row) => [
  el("button", { type: "button", class: "who", onclick: () => openEntrant(row) }, row.name),
  row.control ? el("span", { class: "badge" }, "control") : null,
  row.not_ranked ? el("span", { class: "badge", title: row.not_ranked }, "not ranked") : null,
].filter(Boolean);

// ------------------------------------------------------------------------------------ the results

const resultsOrder = { label: "Accuracy (95 %)", down: true };

function drawResults() {
  const rows = bestFirst(state.suite);
  const score = (row) => row.scores[state.suite];
  const tier = (row) => score(row).tier ?? 0;
  const sizes = [...new Set(rows.flatMap((row) => Object.keys(score(row).pass_at).map(Number)))].sort((a, b) => a - b);
  const most = sizes.at(-1);
  const bar = ranges(rows.map(score));
  const columns = [
    { label: "Entrant", cell: who, value: (row) => row.name },
    { label: "Tier", cell: (row) => tierMark(score(row).tier), value: (row) => score(row).tier, tiers: tier },
    { label: "Accuracy (95 %)", cell: (row) => [bar(score(row)), spread(score(row).accuracy)], value: (row) => score(row).accuracy.value, down: true, tiers: tier },
    { label: "Interquartile mean", cell: (row) => spread(score(row).iqm), value: (row) => score(row).iqm.value, down: true },
    { label: `pass@${most}`, cell: (row) => spread(score(row).pass_at[most]), value: (row) => score(row).pass_at[most]?.value, down: true },
    { label: "Points to reference", cell: (row) => versus(row), value: (row) => pairOf(row.name, state.reference)?.difference.value, down: true },
    { label: "Seeds", cell: (row) => String(row.seeds.length), value: (row) => row.seeds.length, number: true },
    { label: "Generated tokens", cell: (row) => amount(row.costs.generated_tokens), value: (row) => row.costs.generated_tokens, number: true },
    { label: "Time", cell: (row) => duration(row.costs.total_s), value: (row) => row.costs.total_s, number: true },
    { label: "Peak memory", cell: (row) => memory(row.costs.peak_memory_bytes), value: (row) => row.costs.peak_memory_bytes, number: true },
  ].filter((column) => column.label !== "pass@undefined" && (state.reference || column.label !== "Points to reference"));
  if (!columns.some((column) => column.label === resultsOrder.label)) Object.assign(resultsOrder, { label: "Accuracy (95 %)", down: true });
  sortable(byId("results"), columns, rows, resultsOrder);
  const here = suite();
  const least = isNumber(here.detectable)
    ? `Smallest detectable difference: ${points(here.detectable)} points` + (isNumber(here.detectable_holm) ? `, ${points(here.detectable_holm)} corrected for all pairs.` : ".")
    : "There are too few seeds to say how small a difference would be found.";
  byId("table-note").textContent = `${here.name}: ${count(here.num_problems, "problem")}, ${count(here.num_samples, "sample")} each. ${least}`;
}

const tierMark = (tier) => (tier ? el("span", { class: tier === 1 ? "tier first" : "tier" }, String(tier)) : NOTHING);

function versus(row) {
  if (row.name === state.reference) return "reference";
  const pair = pairOf(row.name, state.reference);
  if (!pair) return NOTHING;
  const [mark, kind, words] = !pair.shown ? ["≈", "open", "not shown to differ"]
    : pair.difference.value > 0 ? ["▲", "better", "better beyond noise"] : ["▼", "worse", "worse beyond noise"];
  return [el("span", { class: kind, title: words }, mark, el("span", { class: "hidden" }, ` ${words}: `)), ` ${differenceText(pair.difference)}`];
}

/** Score -> its interval as a bar, on one axis for all. */
function ranges(scores) {
  const width = 120;
  const numbers = scores.flatMap((score) => [score.accuracy.value, score.accuracy.low, score.accuracy.high, ...Object.values(score.by_seed)]).filter(isNumber);
  const [low, high] = extent(numbers, [0, 1]);
  const at = (value) => ((value - low) / (high - low)) * width;
  return ({ accuracy, by_seed }) => {
    const parts = [svg("line", { class: "axis", x1: 0, x2: width, y1: 9, y2: 9 })];
    if (isNumber(accuracy.low) && isNumber(accuracy.high)) {
      parts.push(svg("line", { class: "interval", x1: at(accuracy.low), x2: Math.max(at(accuracy.high), at(accuracy.low) + 1), y1: 9, y2: 9 }));
    }
    for (const value of Object.values(by_seed)) if (isNumber(value)) parts.push(svg("circle", { class: "seed", cx: at(value), cy: 9, r: 1.8 }));
    if (isNumber(accuracy.value)) parts.push(svg("line", { class: "value", x1: at(accuracy.value), x2: at(accuracy.value), y1: 3, y2: 15 }));
    return svg("svg", { class: "range", width, height: 18, "aria-hidden": "true" }, ...parts);
  };
}

// -------------------------------------------------------------------------------------- the costs

const costsOrder = { label: "Time", down: false };

function drawCosts() {
  const of = (label, key, words) => ({ label, cell: (row) => words(row.costs[key]), value: (row) => row.costs[key], number: true });
  const held = (row) => Object.values(row.costs.parameters).reduce((sum, each) => sum + each, 0);
  sortable(byId("cost-table"), [
    { label: "Entrant", cell: who, value: (row) => row.name },
    of("Generated tokens", "generated_tokens", amount),
    of("Trained tokens", "trained_tokens", amount),
    of("Time", "total_s", duration),
    of("Rollout", "rollout_s", duration),
    of("Verdicts", "verify_s", duration),
    of("Updates", "update_s", duration),
    of("Evaluation", "evaluate_s", duration),
    of("Peak memory", "peak_memory_bytes", memory),
    { label: "Models held (parameters)", cell: (row) => Object.entries(row.costs.parameters).map(([name, size]) => `${name} ${amount(size)}`).join(", ") || NOTHING, value: held },
  ], board.rows, costsOrder);
}

// ------------------------------------------------------------------------------------- the matrix

function drawMatrix() {
  const names = bestFirst(state.suite).map((row) => row.name).filter((name) => pairs.get(state.suite)?.has(name));
  const readout = byId("pair");
  readout.textContent = names.length ? "" : "No two entrants are ranked on this suite.";
  if (!names.length) return byId("pairs").replaceChildren();
  const cells = names.map((a) => names.map((b) => matrixCell(a, b, readout)));
  const head = el("tr", {}, el("td", {}), ...names.map((name) => el("th", { scope: "col", title: name }, el("span", {}, name))));
  byId("pairs").replaceChildren(el("thead", {}, head), el("tbody", {},
    ...names.map((name, line) => el("tr", {}, el("th", { scope: "row", title: name }, name), ...cells[line]))));
  byId("pairs").onkeydown = (event) => walk(event, cells);
  cells[0][0].tabIndex = 0;
}

function matrixCell(a, b, readout) {
  const pair = pairOf(a, b);
  if (!pair) return el("td", { class: "same", tabindex: -1, onfocus: () => (readout.textContent = a) }, a === b ? "·" : "");
  const chance = pair.improvement.value;
  const say = () => (readout.textContent = pairText(pair));
  return el("td", {
    class: pair.shown ? "shown" : null, tabindex: -1, onfocus: say, onpointerenter: say,
    style: { background: `rgba(var(${chance >= 0.5 ? "--win" : "--loss"}), ${(Math.abs(chance - 0.5) * 1.1).toFixed(2)})` },
  }, isNumber(chance) ? (100 * chance).toFixed(0) : NOTHING);
}

function pairText(pair) {
  const verdict = pair.shown ? "beyond noise" : "not beyond noise";
  return `${pair.a} scores higher than ${pair.b} with probability ${spread(pair.improvement)}; accuracy differs by ${differenceText(pair.difference)} points, p = ${shortP(pair.p_holm)} after correction: ${verdict}.`;
}

const shortP = (p) => (!isNumber(p) ? NOTHING : p < 0.001 ? "<0.001" : p.toPrecision(2));

/** Arrow keys move the focus within the matrix, which is one stop for Tab. */
function walk(event, cells) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  const line = cells.findIndex((row) => row.includes(document.activeElement));
  if (line < 0) return;
  event.preventDefault();
  const place = cells[line].indexOf(document.activeElement);
  const next = cells[line + step[0]]?.[place + step[1]];
  if (!next) return;
  document.activeElement.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
