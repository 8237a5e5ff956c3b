// What the charts show: curves, pass@k, signals, sweeps; and which entrants are drawn.

const HINT = "Point at a line to name it, or go through lines and points with the arrow keys.";
const drawnRows = () => board.rows.filter((row) => state.drawn.has(row.name));
const share = {
  text: percent,
  tick: (value) => String(Number((100 * value).toFixed(3))),
  unit: " %",
  whole: [0, 1],
};
const plain = {
  text: (value) => String(Number(value.toPrecision(3))),
  tick: (value) => String(Number(value.toPrecision(4))),
};

function byTokens(rows) {
  const most = Math.max(
    ...rows.flatMap((row) =>
      [...row.curve, ...Object.values(row.signals).flat()].map((point) => point.tokens),
    ),
    0,
  );
  const [size, letter] = [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ].find(([each]) => most >= each) ?? [1, ""];
  return {
    key: "tokens",
    label: `generated tokens${letter && ` (${letter})`}`,
    text: (value) => `${amount(value * size)} tokens`,
    tick: (value) => String(Number(value.toPrecision(6))),
    size,
  };
}

function bySeconds(rows) {
  const most = Math.max(...rows.flatMap((row) => row.curve.map((point) => point.seconds)), 0);
  const [size, unit] = [
    [3600, "h"],
    [60, "min"],
  ].find(([each]) => most >= 2 * each) ?? [1, "s"];
  return {
    key: "seconds",
    label: `training time (${unit})`,
    text: (value) => duration(value * size),
    tick: (value) => String(Number(value.toPrecision(6))),
    size,
  };
}

const along = (points, x) =>
  points.map((point) => ({
    x: point[x.key] / x.size,
    y: point.value,
    low: point.low,
    high: point.high,
  }));
const asSeries = (rows, pointsOf) =>
  rows.map((row) => ({
    name: row.name,
    aside: row.control,
    look: looks.get(row.name),
    points: pointsOf(row),
  }));

function drawCurves() {
  const rows = drawnRows();
  const empty = rows.length
    ? "None of the entrants chosen has these numbers."
    : "No entrant is chosen above.";
  for (const [id, x, what] of [
    ["by-tokens", byTokens(rows), "generated tokens"],
    ["by-seconds", bySeconds(rows), "training time"],
  ]) {
    plot(byId(id), {
      title: `Held-out accuracy (%) against ${what}`,
      x,
      y: share,
      zoom: state.zoom,
      hint: HINT,
      empty,
      series: asSeries(rows, (row) => along(row.curve, x)),
    });
  }
  const sizes = [
    ...new Set(
      rows.flatMap((row) => Object.keys(row.scores[state.suite]?.pass_at ?? {}).map(Number)),
    ),
  ].sort((a, b) => a - b);
  plot(byId("pass-at"), {
    title: `pass@k (%) on ${state.suite}`,
    x: {
      label: "k samples",
      text: (value) => `k = ${2 ** value}`,
      ticks: sizes.map((k) => [Math.log2(k), String(k)]),
    },
    y: share,
    hint: HINT,
    empty,
    series: asSeries(rows, (row) =>
      Object.entries(row.scores[state.suite]?.pass_at ?? {}).map(([k, number]) => ({
        x: Math.log2(k),
        y: number.value,
        low: number.low,
        high: number.high,
      })),
    ),
  });
}

// -------------------------------------------------------------------------------------- signals

const SIGNALS = {
  entropy: ["Entropy of the policy (nats a token)", plain],
  length: ["Length of completions (tokens)", plain],
  no_signal: ["Groups with no signal (%)", share],
};

function drawSignals() {
  const rows = drawnRows();
  const x = byTokens(rows);
  const kinds = [
    ...new Set([...Object.keys(SIGNALS), ...board.rows.flatMap((row) => Object.keys(row.signals))]),
  ].filter((kind) => board.rows.some((row) => row.signals[kind]?.length));
  const place = byId("signal-charts");
  if (place.children.length !== kinds.length)
    place.replaceChildren(...kinds.map(() => el("figure")));
  if (!kinds.length) place.replaceChildren(el("p", { class: "note" }, "No run has them."));
  kinds.forEach((kind, index) => {
    const [title, y] = SIGNALS[kind] ?? [kind, plain];
    plot(place.children[index], {
      title,
      x,
      y,
      hint: HINT,
      empty: "None of the entrants chosen has this.",
      series: asSeries(rows, (row) => along(row.signals[kind] ?? [], x)),
    });
  });
}

// --------------------------------------------------------------------------------------- sweeps

const word = (value) => (typeof value === "string" ? value : (JSON.stringify(value) ?? NOTHING));

function drawSweeps() {
  const place = byId("sweep-list");
  if (!place) return;
  if (!place.children.length) {
    place.append(
      ...board.sweeps.map((sweep) =>
        el(
          "section",
          {},
          el("h3", {}, sweep.name),
          el("p", { class: "note" }, `Of ${sweep.algorithm}, over ${sweep.knobs.join(", ")}.`),
          el(
            "div",
            { class: "charts" },
            el("figure"),
            el(
              "div",
              { class: "scroll", tabindex: 0, role: "region", "aria-label": sweep.name },
              el("table"),
            ),
          ),
        ),
      ),
    );
  }
  board.sweeps.forEach((sweep, index) => {
    const section = place.children[index];
    drawSweep(section.querySelector("figure"), sweep);
    sweepTable(section.querySelector("table"), sweep);
  });
}

/** The first knob runs along the axis, in the order of the records; the others make the lines. */
function drawSweep(figure, sweep) {
  const [knob, ...others] = sweep.knobs;
  const values = [...new Set(sweep.rows.map((row) => word(row.values[knob])))];
  const lines = new Map();
  for (const row of sweep.rows) {
    const name =
      others.map((each) => `${each} ${word(row.values[each])}`).join(", ") || sweep.algorithm;
    const number = row.scores[state.suite];
    if (!lines.has(name)) lines.set(name, []);
    if (number)
      lines
        .get(name)
        .push({
          x: values.indexOf(word(row.values[knob])),
          y: number.value,
          low: number.low,
          high: number.high,
        });
  }
  const series = [...lines].map(([name, points], index) => ({
    name,
    look: look(index),
    points: points.sort((a, b) => a.x - b.x),
  }));
  const nudge = (index) => (index - (series.length - 1) / 2) * Math.min(0.08, 0.5 / series.length); // whiskers side by side
  series.forEach((each, index) => each.points.forEach((point) => (point.x += nudge(index))));
  plot(figure, {
    title: `Accuracy (%) on ${state.suite}`,
    whiskers: true,
    hint: HINT,
    empty: "Not measured on this suite.",
    series,
    y: share,
    x: {
      label: knob,
      text: (value) => `${knob} = ${values[Math.round(value)]}`,
      ticks: values.map((value, index) => [index, value]),
    },
  });
}

function sweepTable(table, sweep) {
  const head = [...sweep.knobs, `${state.suite} (95 %)`, "seeds"].map((text) =>
    el("th", { scope: "col" }, text),
  );
  table.replaceChildren(
    el("thead", {}, el("tr", {}, ...head)),
    el(
      "tbody",
      {},
      ...sweep.rows.map((row) =>
        el(
          "tr",
          {},
          ...sweep.knobs.map((knob) => el("td", {}, word(row.values[knob]))),
          el("td", {}, spread(row.scores[state.suite])),
          el("td", {}, String(row.seeds.length)),
        ),
      ),
    ),
  );
}

// ---------------------------------------------------------------------------------- who is drawn

const AT_MOST = 6;

/** The first tier's first, and the one that the others are compared with. */
function firstDrawn() {
  const first = contenders.filter((row) => row.scores[board.primary]?.tier === 1);
  const names = (first.length ? first : contenders).slice(0, AT_MOST).map((row) => row.name);
  return byName.has(state.reference) ? [...names, state.reference] : names;
}

function makePicker() {
  const box = byId("picker");
  const checks = new Map();
  const redraw = () => {
    for (const [name, check] of checks) check.checked = state.drawn.has(name);
    box.querySelector("summary").textContent =
      `Drawn in the charts: ${state.drawn.size} of ${board.rows.length}`;
    drawCurves();
    drawSignals();
  };
  const only = (names) => () => {
    state.drawn = new Set(names());
    redraw();
  };
  const button = (label, names) => el("button", { type: "button", onclick: only(names) }, label);
  box.querySelector(".buttons").replaceChildren(
    button("At first", firstDrawn),
    button("First tier", () =>
      contenders.filter((row) => row.scores[state.suite]?.tier === 1).map((row) => row.name),
    ),
    ...(controls.length
      ? [button("With controls", () => [...state.drawn, ...controls.map((row) => row.name)])]
      : []),
    button("All", () => byName.keys()),
    button("None", () => []),
    el(
      "label",
      {},
      el("input", {
        type: "checkbox",
        onchange: (event) => {
          state.zoom = event.target.checked;
          drawCurves();
        },
      }),
      "Zoom to where curves end",
    ),
  );
  for (const row of [...contenders, ...controls]) {
    const check = el("input", {
      type: "checkbox",
      onchange: () => {
        if (check.checked) state.drawn.add(row.name);
        else state.drawn.delete(row.name);
        redraw();
      },
    });
    checks.set(row.name, check);
    box
      .querySelector("fieldset")
      .append(
        el(
          "label",
          {},
          check,
          swatch(looks.get(row.name)),
          row.name + (row.control ? " (control)" : ""),
        ),
      );
  }
  redraw();
}
