// What every part uses: the board, what is chosen, elements that take text only, numbers as words.

const board = JSON.parse(document.getElementById("board").textContent);
const byName = new Map(board.rows.map((row) => [row.name, row]));
const contenders = board.rows.filter((row) => !row.control);
const controls = board.rows.filter((row) => row.control);

const state = { suite: board.primary, reference: "", drawn: new Set(), zoom: false };

const byId = (id) => document.getElementById(id);

/** An element; children are elements or text, and text is never markup. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style")
      Object.assign(node.style, value); // the policy forbids the attribute
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// ----------------------------------------------------------------------------- numbers as words

const NOTHING = "–";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const minus = (text) => text.replace("-", "−");

function threeDigits(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

const percent = (share) => (isNumber(share) ? (100 * share).toFixed(1) : NOTHING);

function spread(number) {
  if (!number) return NOTHING;
  const ends = isNumber(number.low) && isNumber(number.high);
  return (
    `${percent(number.value)} %` + (ends ? ` (${percent(number.low)}–${percent(number.high)})` : "")
  );
}

const signed = (share) => minus((share > 0 ? "+" : "") + percent(share));

function differenceText(number) {
  const ends = isNumber(number.low) && isNumber(number.high);
  return signed(number.value) + (ends ? ` (${signed(number.low)} to ${signed(number.high)})` : "");
}

function points(share) {
  if (!isNumber(share)) return NOTHING;
  const size = 100 * share;
  return Math.abs(size) >= 0.95 ? size.toFixed(1) : String(Number(size.toPrecision(2)));
}

function amount(value) {
  if (!isNumber(value)) return NOTHING;
  for (const [size, letter] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(value) >= 0.9995 * size) return `${threeDigits(value / size)} ${letter}`;
  }
  return value.toFixed(0);
}

function duration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  for (const [size, unit] of [
    [3600, "h"],
    [60, "min"],
  ]) {
    if (Math.abs(seconds) >= 0.9995 * size) return `${threeDigits(seconds / size)} ${unit}`;
  }
  return `${threeDigits(seconds)} s`;
}

function memory(bytes) {
  if (!isNumber(bytes)) return NOTHING;
  const gib = bytes / 2 ** 30;
  return gib >= 0.1 ? `${threeDigits(gib)} GiB` : `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

const count = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;

// --------------------------------------------------------------------------------------- lookups

const suite = () => board.suites.find((each) => each.name === state.suite);

/** Rows by accuracy on a suite; what is not ranked last, what was not measured not at all. */
function bestFirst(name) {
  return board.rows
    .filter((row) => name in row.scores)
    .sort(
      (a, b) =>
        Boolean(a.not_ranked) - Boolean(b.not_ranked) ||
        b.scores[name].accuracy.value - a.scores[name].accuracy.value,
    );
}

const pairs = new Map(); // suite -> a -> b -> pair, both ways round
for (const pair of board.pairs) {
  if (!pairs.has(pair.suite)) pairs.set(pair.suite, new Map());
  const mine = pairs.get(pair.suite);
  for (const [a, b, turned] of [
    [pair.a, pair.b, false],
    [pair.b, pair.a, true],
  ]) {
    if (!mine.has(a)) mine.set(a, new Map());
    mine.get(a).set(b, turned ? turn(pair) : pair);
  }
}

function turn(pair) {
  const against = (whole, number) => ({
    value: whole - number.value,
    low: isNumber(number.high) ? whole - number.high : null,
    high: isNumber(number.low) ? whole - number.low : null,
  });
  return {
    ...pair,
    a: pair.b,
    b: pair.a,
    difference: against(0, pair.difference),
    improvement: against(1, pair.improvement),
  };
}

const pairOf = (a, b) => pairs.get(state.suite)?.get(a)?.get(b);

// ------------------------------------------------------------------------------ colour and dashes

const DASHES = ["", "7 3", "7 3 2 3", "2 3", "10 3 2 3 2 3"];
const MARKERS = [
  "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0Z",
  "M-3.2-3.2h6.4v6.4h-6.4Z",
  "M0-4.4L4.2 3.2H-4.2Z",
  "M0-4.6L4.2 0L0 4.6L-4.2 0Z",
  "M0 4.4L4.2-3.2H-4.2Z",
  "M-1.5-4.2h3v2.7h2.7v3h-2.7v2.7h-3v-2.7h-2.7v-3h2.7Z",
];

/** Forty looks before one comes back; the same entrant looks the same in every chart. */
function look(index, control = false) {
  return {
    colour: control ? "var(--control)" : `var(--c${index % 8})`,
    dash: DASHES[(control ? index + 3 : index) % DASHES.length],
    marker: MARKERS[index % MARKERS.length],
  };
}

const looks = new Map([
  ...contenders.map((row, index) => [row.name, look(index)]),
  ...controls.map((row, index) => [row.name, look(index, true)]),
]);

function swatch({ colour, dash, marker }) {
  return svg(
    "svg",
    { width: 34, height: 12, "aria-hidden": "true" },
    svg("line", {
      x1: 1,
      x2: 33,
      y1: 6,
      y2: 6,
      stroke: colour,
      "stroke-width": 2.2,
      "stroke-dasharray": dash || null,
    }),
    svg("path", { d: marker, fill: colour, transform: "translate(17 6)" }),
  );
}
