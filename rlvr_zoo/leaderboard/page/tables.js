// The tables that sort, and the matrix of pairs.

/**
 * Fills a table.  Columns: {id, label, cell, value?: sorted by it, down?: highest first, number?}; the first is the row's name.
 * What is not ranked stays below.
 */
function sortable(table, columns, rows, chosen) {
  const lines = rows.map((row) => ({
    row,
    node: el(
      "tr",
      { class: row.not_ranked ? "listed" : null },
      ...columns.map((column, index) =>
        el(
          index ? "td" : "th",
          { class: column.number ? "number" : null, scope: index ? null : "row" },
          ...[column.cell(row)].flat(),
        ),
      ),
    ),
  }));
  const body = el("tbody");
  const heads = columns.map((column) =>
    el(
      "th",
      { scope: "col", class: column.number ? "number" : null },
      column.value
        ? el("button", { type: "button", onclick: () => choose(column) }, column.label)
        : column.label,
    ),
  );
  const order = () => {
    const column = columns.find((each) => each.id === chosen.id);
    const way = chosen.down ? -1 : 1;
    lines.sort(
      (one, other) =>
        Boolean(one.row.not_ranked) - Boolean(other.row.not_ranked) ||
        compare(column.value(one.row), column.value(other.row), way),
    );
    columns.forEach((each, index) => {
      if (each.value)
        heads[index].setAttribute(
          "aria-sort",
          each === column ? (chosen.down ? "descending" : "ascending") : "none",
        );
    });
    lines.forEach(({ row, node }, index) => {
      const before = lines[index - 1]?.row;
      node.classList.toggle(
        "new-tier",
        Boolean(before && column.tiers && column.tiers(before) !== column.tiers(row)),
      );
    });
    body.replaceChildren(...lines.map((line) => line.node));
  };
  const choose = (column) => {
    chosen.down = chosen.id === column.id ? !chosen.down : Boolean(column.down);
    chosen.id = column.id;
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

const who = (row) =>
  [
    el("button", { type: "button", class: "who", onclick: () => openEntrant(row) }, row.name),
    row.control ? el("span", { class: "badge" }, "control") : null,
    row.not_ranked ? el("span", { class: "badge", title: row.not_ranked }, "not ranked") : null,
  ].filter(Boolean);

// ------------------------------------------------------------------------------------ the results

const resultsOrder = { id: "accuracy", down: true };

function drawResults() {
  const rows = bestFirst(state.suite);
  const score = (row) => row.scores[state.suite];
  const tier = (row) => score(row).tier ?? 0;
  const most = Math.max(0, ...rows.flatMap((row) => Object.keys(score(row).pass_at).map(Number)));
  const bar = ranges(rows, score);
  const columns = [
    { id: "name", label: "Entrant", cell: who, value: (row) => row.name },
    {
      id: "tier",
      label: "Tier",
      cell: (row) => tierMark(score(row).tier),
      value: (row) => score(row).tier,
      tiers: tier,
    },
    {
      id: "accuracy",
      label: "Accuracy (95 %)",
      cell: (row) => [bar(row), spread(score(row).accuracy)],
      value: (row) => score(row).accuracy.value,
      down: true,
      tiers: tier,
    },
    {
      id: "against",
      label: `Points over ${shortened(state.reference, 16)}`,
      cell: versus,
      value: (row) =>
        row.name === state.reference ? 0 : pairOf(row.name, state.reference)?.difference.value,
      down: true,
    },
    {
      id: "iqm",
      label: "Interquartile mean",
      cell: (row) => spread(score(row).iqm),
      value: (row) => score(row).iqm.value,
      down: true,
    },
    {
      id: "pass",
      label: `pass@${most}`,
      cell: (row) => spread(score(row).pass_at[most]),
      value: (row) => score(row).pass_at[most]?.value,
      down: true,
    },
    {
      id: "seeds",
      label: "Seeds",
      cell: (row) => String(row.seeds.length),
      value: (row) => row.seeds.length,
      number: true,
    },
  ];
  const absent = { pass: !most, against: !state.reference };
  sortable(
    byId("results"),
    columns.filter((column) => !absent[column.id]),
    rows,
    resultsOrder,
  );
  const here = suite();
  const least = isNumber(here.detectable)
    ? `Smallest detectable difference: ${points(here.detectable)} points` +
      (isNumber(here.detectable_holm)
        ? `, ${points(here.detectable_holm)} corrected for all pairs.`
        : ".")
    : "There are too few seeds to say how small a difference would be found.";
  byId("table-note").textContent =
    `${here.name}: ${count(here.num_problems, "problem")}, ${count(here.num_samples, "sample")} each. ${least}`;
}

const tierMark = (tier) =>
  tier ? el("span", { class: tier === 1 ? "tier first" : "tier" }, String(tier)) : NOTHING;

function versus(row) {
  if (row.name === state.reference) return "reference";
  const pair = pairOf(row.name, state.reference);
  if (!pair) return NOTHING;
  const [mark, kind, words] = !pair.shown
    ? ["≈", "open", "not shown to differ"]
    : pair.difference.value > 0
      ? ["▲", "better", "better beyond noise"]
      : ["▼", "worse", "worse beyond noise"];
  return [
    el("span", { class: kind, title: words }, mark, el("span", { class: "hidden" }, ` ${words}: `)),
    ` ${differenceText(pair.difference)}`,
  ];
}

/** Row -> its interval as a bar, on one axis for all; it covers the contenders, and who is off it gets an arrow. */
function ranges(rows, score) {
  const width = 140;
  const shown = rows.some((row) => !row.control) ? rows.filter((row) => !row.control) : rows;
  const numbers = (row) => [
    score(row).accuracy.value,
    score(row).accuracy.low,
    score(row).accuracy.high,
    ...Object.values(score(row).by_seed),
  ];
  const [low, high] = extent(shown.flatMap(numbers).filter(isNumber), [0, 1]);
  const at = (value) => Math.min(Math.max(((value - low) / (high - low)) * width, 0), width);
  return (row) => {
    const { accuracy, by_seed } = score(row);
    const line = (kind, from, to, top, bottom) =>
      svg("line", { class: kind, x1: from, x2: to, y1: top, y2: bottom });
    const parts = [line("axis", 0, width, 9, 9)];
    if (accuracy.value < low) parts.push(svg("path", { class: "off", d: "M8 4L1 9L8 14Z" }));
    else if (isNumber(accuracy.value)) {
      if (isNumber(accuracy.low) && isNumber(accuracy.high))
        parts.push(
          line(
            "interval",
            at(accuracy.low),
            Math.max(at(accuracy.high), at(accuracy.low) + 1),
            9,
            9,
          ),
        );
      parts.push(
        ...Object.values(by_seed)
          .filter(isNumber)
          .map((value) => svg("circle", { class: "seed", cx: at(value), cy: 9, r: 1.8 })),
      );
      parts.push(line("value", at(accuracy.value), at(accuracy.value), 2, 16));
    }
    return svg(
      "svg",
      { class: "range", viewBox: `0 0 ${width} 18`, width, height: 18, "aria-hidden": "true" },
      ...parts,
    );
  };
}

// -------------------------------------------------------------------------------------- the costs

const costsOrder = { id: "total_s", down: false };

function drawCosts() {
  const of = (label, id, words) => ({
    id,
    label,
    cell: (row) => words(row.costs[id]),
    value: (row) => row.costs[id],
    number: true,
  });
  const held = (row) => Object.values(row.costs.parameters).reduce((sum, each) => sum + each, 0);
  sortable(
    byId("cost-table"),
    [
      { id: "name", label: "Entrant", cell: who, value: (row) => row.name },
      of("Generated tokens", "generated_tokens", amount),
      of("Trained tokens", "trained_tokens", amount),
      of("Time", "total_s", duration),
      of("Rollout", "rollout_s", duration),
      of("Verdicts", "verify_s", duration),
      of("Updates", "update_s", duration),
      of("Evaluation", "evaluate_s", duration),
      of("Peak memory", "peak_memory_bytes", memory),
      {
        id: "held",
        label: "Models held (parameters)",
        cell: (row) =>
          Object.entries(row.costs.parameters)
            .map(([name, size]) => `${name} ${amount(size)}`)
            .join(", ") || NOTHING,
        value: held,
      },
    ],
    board.rows,
    costsOrder,
  );
}

// ------------------------------------------------------------------------------------- the matrix

function drawMatrix() {
  const names = bestFirst(state.suite)
    .map((row) => row.name)
    .filter((name) => pairs.get(state.suite)?.has(name));
  const readout = byId("pair");
  readout.textContent = names.length ? "" : "No two entrants are ranked on this suite.";
  if (!names.length) return byId("pairs").replaceChildren();
  const cells = names.map((a) => names.map((b) => matrixCell(a, b, readout)));
  const head = el(
    "tr",
    {},
    el("td", {}),
    ...names.map((name) => el("th", { scope: "col", title: name }, el("span", {}, name))),
  );
  byId("pairs").replaceChildren(
    el("thead", {}, head),
    el(
      "tbody",
      {},
      ...names.map((name, line) =>
        el("tr", {}, el("th", { scope: "row", title: name }, name), ...cells[line]),
      ),
    ),
  );
  byId("pairs").onkeydown = (event) => walk(event, cells);
  cells[0][0].tabIndex = 0;
}

function matrixCell(a, b, readout) {
  const pair = pairOf(a, b);
  if (!pair)
    return el(
      "td",
      { class: "same", tabindex: -1, onfocus: () => (readout.textContent = a) },
      a === b ? "·" : "",
    );
  const chance = pair.improvement.value;
  const say = () => (readout.textContent = pairText(pair));
  return el(
    "td",
    {
      class: pair.shown ? "shown" : null,
      tabindex: -1,
      onfocus: say,
      onpointerenter: say,
      style: {
        background: `rgba(var(${chance >= 0.5 ? "--win" : "--loss"}), ${(Math.abs(chance - 0.5) * 1.1).toFixed(2)})`,
      },
    },
    isNumber(chance) ? (100 * chance).toFixed(0) : NOTHING,
  );
}

function pairText(pair) {
  const verdict = pair.shown ? "beyond noise" : "not beyond noise";
  return `${pair.a} scores higher than ${pair.b} with probability ${spread(pair.improvement)}; accuracy differs by ${differenceText(pair.difference)} points, p = ${shortP(pair.p_holm)} after correction: ${verdict}.`;
}

const shortP = (p) => (!isNumber(p) ? NOTHING : p < 0.001 ? "<0.001" : p.toPrecision(2));

/** Arrow keys move the focus within the matrix, which is one stop for Tab. */
function walk(event, cells) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[
    event.key
  ];
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
