// A line chart: bands or whiskers, names at the lines' ends, and a line that says what is pointed at.

const WIDE = 480; // px from which names stand beside the lines

/** About `most` round numbers that cover low to high. */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
  const found = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + step * 1e-9; number++)
    found.push(number * step);
  return found;
}

function extent(values, whole) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = (high - low || Math.abs(high) * 0.1 || 1) * 0.05;
  [low, high] = [low - pad, high + pad];
  return whole
    ? [Math.max(low, whole[0] - pad / 4), Math.min(high, whole[1] + pad / 4)]
    : [low, high];
}

/**
 * Draws into a figure.  `spec`: title; x: {label, text, ticks?: [[place, words]]}; y: {text, whole?}; series:
 * [{name, look, points: [{x, y, low, high}], aside?}]; whiskers: in place of bands; zoom: to the later half of what is
 * not `aside`; empty: said without series.
 */
function plot(figure, spec) {
  const series = spec.series
    .map((each) => ({
      ...each,
      points: each.points.filter((point) => isNumber(point.x) && isNumber(point.y)),
    }))
    .filter((each) => each.points.length);
  const readout = el(
    "p",
    { class: "readout", role: "status" },
    series.length ? (spec.hint ?? "") : (spec.empty ?? "Nothing to draw."),
  );
  const canvas = el("div", { class: "plot" });
  figure.replaceChildren(el("figcaption", {}, spec.title), readout, canvas);
  if (!series.length) return;
  const width = Math.max(figure.clientWidth, 200);
  const named = width >= WIDE && series.length <= 12;
  const frame = {
    left: 46,
    right: width - (named ? 118 : 12),
    top: 8,
    bottom: width < WIDE ? 200 : 240,
  };
  const scale = scales(spec, series, frame);
  const picture = svg("svg", {
    width,
    height: frame.bottom + 40,
    role: "group",
    "aria-label": spec.title,
  });
  picture.append(axes(spec, frame, scale, width));
  const drawn = series.map((each) => drawSeries(each, spec, scale));
  const bands = drawn.map((each) => each.band).filter(Boolean); // below all lines
  picture.append(
    inside(svg("g", { class: series.length > 3 ? "many" : null }, ...bands), frame, figure.id),
  );
  picture.append(inside(svg("g", {}, ...drawn.map((each) => each.node)), frame, figure.id));
  const labels = named ? endLabels(series, scale, frame) : [];
  const spot = svg("circle", { class: "spot", r: 6, visibility: "hidden" });
  picture.append(...labels.filter(Boolean), spot);
  canvas.append(picture);
  if (!named) canvas.append(legend(series));
  pointing({ canvas, picture, series, drawn, labels, spot, readout, scale, spec });
}

function scales(spec, series, frame) {
  const all = series.flatMap((each) => each.points);
  const places = spec.x.ticks ? spec.x.ticks.map(([place]) => place) : all.map((point) => point.x);
  let [left, right] = [Math.min(...places), Math.max(...places)];
  if (spec.whiskers || left === right) [left, right] = [left - 0.5, right + 0.5];
  const late = series
    .filter((each) => !each.aside)
    .flatMap((each) => each.points)
    .filter((point) => point.x >= (left + right) / 2);
  const [low, high] = extent(
    (spec.zoom && late.length ? late : all)
      .flatMap((point) => [point.y, point.low, point.high])
      .filter(isNumber),
    spec.y.whole,
  );
  return {
    low,
    high,
    left,
    right,
    x: (value) => frame.left + ((value - left) / (right - left)) * (frame.right - frame.left),
    y: (value) => frame.bottom - ((value - low) / (high - low)) * (frame.bottom - frame.top),
  };
}

function axes(spec, frame, scale, width) {
  const parts = [];
  for (const value of ticks(scale.low, scale.high, 5)) {
    const y = scale.y(value);
    parts.push(svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y, y2: y }));
    parts.push(
      svg("text", { x: frame.left - 6, y: y + 4, "text-anchor": "end" }, minus(spec.y.tick(value))),
    );
  }
  const marks =
    spec.x.ticks ??
    ticks(scale.left, scale.right, width < WIDE ? 4 : 6).map((value) => [
      value,
      spec.x.tick(value),
    ]);
  for (const [value, words] of marks) {
    const x = scale.x(value);
    parts.push(
      svg("line", { class: "grid", x1: x, x2: x, y1: frame.bottom, y2: frame.bottom + 4 }),
    );
    parts.push(
      svg("text", { x, y: frame.bottom + 17, "text-anchor": "middle" }, shortened(words, 12)),
    );
  }
  parts.push(
    svg(
      "text",
      { x: (frame.left + frame.right) / 2, y: frame.bottom + 34, "text-anchor": "middle" },
      shortened(spec.x.label, 40),
    ),
  );
  return svg("g", { "aria-hidden": "true" }, ...parts);
}

const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

function drawSeries(each, spec, scale) {
  const { colour, dash, marker } = each.look;
  const bounded = each.points.filter((point) => isNumber(point.low) && isNumber(point.high));
  const at = (point) => `${scale.x(point.x).toFixed(1)} ${scale.y(point.y).toFixed(1)}`;
  const node = svg("g", {
    class: "series",
    tabindex: -1,
    role: "img",
    "aria-label": described(each, spec),
  });
  if (spec.whiskers) {
    for (const point of bounded) {
      const x = scale.x(point.x);
      node.append(
        svg("line", {
          class: "whisker",
          x1: x,
          x2: x,
          y1: scale.y(point.low),
          y2: scale.y(point.high),
          stroke: colour,
        }),
      );
    }
  }
  let band = null;
  if (!spec.whiskers && bounded.length > 1) {
    const edge = [
      ...bounded.map((point) => at({ x: point.x, y: point.high })),
      ...bounded.toReversed().map((point) => at({ x: point.x, y: point.low })),
    ];
    band = svg("path", { class: "band", d: `M${edge.join("L")}Z`, fill: colour });
  }
  node.append(
    svg("path", {
      class: "line",
      d: `M${each.points.map(at).join("L")}`,
      stroke: colour,
      "stroke-dasharray": dash || null,
    }),
  );
  const every = Math.ceil(each.points.length / 12);
  each.points.forEach((point, index) => {
    if (index % every === 0 || index === each.points.length - 1) {
      node.append(
        svg("path", {
          class: "marker",
          d: marker,
          fill: colour,
          transform: `translate(${at(point)})`,
        }),
      );
    }
  });
  return { node, band };
}

/** Cut at the frame, which a zoomed curve leaves. */
function inside(group, frame, id) {
  const name = `frame-${id}-${cuts++}`;
  const [width, height] = [frame.right - frame.left + 12, frame.bottom - frame.top + 12];
  group.setAttribute("clip-path", `url(#${name})`);
  return svg(
    "g",
    {},
    svg(
      "clipPath",
      { id: name },
      svg("rect", { x: frame.left - 6, y: frame.top - 6, width, height }),
    ),
    group,
  );
}

let cuts = 0;

function described(each, spec) {
  const [first, last] = [each.points[0], each.points.at(-1)];
  return `${each.name}: ${told(first, spec)}` + (first === last ? "" : `, to ${told(last, spec)}`);
}

function told(point, spec) {
  const ends =
    isNumber(point.low) && isNumber(point.high)
      ? ` (${spec.y.text(point.low)}–${spec.y.text(point.high)})`
      : "";
  return `${spec.y.text(point.y)}${spec.y.unit ?? ""}${ends} at ${spec.x.text(point.x)}`;
}

/** Names beside the last points, pushed apart until none covers another. */
function endLabels(series, scale, frame) {
  const gap = 14;
  const placed = series
    .map((each, index) => ({
      index,
      name: each.name,
      x: scale.x(each.points.at(-1).x),
      y: scale.y(each.points.at(-1).y),
    }))
    .filter((each) => each.y > frame.top - 6 && each.y < frame.bottom + 6)
    .sort((a, b) => a.y - b.y);
  placed.forEach((each, index) => {
    if (index) each.y = Math.max(each.y, placed[index - 1].y + gap);
  });
  let floor = frame.bottom;
  for (const each of placed.toReversed()) {
    each.y = Math.min(each.y, floor);
    floor = each.y - gap;
  }
  const labels = [];
  for (const each of placed) {
    labels[each.index] = svg(
      "text",
      { class: "end", x: frame.right + 8, y: each.y + 4, "aria-hidden": "true" },
      shortened(each.name, 17),
    );
    labels[each.index].style.fill = series[each.index].look.colour;
  }
  return labels;
}

function legend(series) {
  return el(
    "div",
    { class: "legend", "aria-hidden": "true" },
    ...series.map((each) => el("span", {}, swatch(each.look), each.name)),
  );
}

/**
 * Hovering or touching a line names it.  The chart is one stop for Tab; up and down go from line to line, left and right
 * from point to point.
 */
function pointing({ canvas, picture, series, drawn, labels, spot, readout, scale, spec }) {
  const hint = readout.textContent;
  const show = (index, place) => {
    canvas.classList.toggle("pointed", index >= 0);
    drawn.forEach((each, number) =>
      [each.node, each.band].forEach((node) => node?.classList.toggle("active", number === index)),
    );
    labels.forEach((each, number) => each?.classList.toggle("active", number === index));
    spot.setAttribute("visibility", index >= 0 ? "visible" : "hidden");
    if (index < 0) {
      readout.textContent = hint;
      return;
    }
    const point = series[index].points[place];
    spot.setAttribute("cx", scale.x(point.x));
    spot.setAttribute("cy", scale.y(point.y));
    readout.replaceChildren(el("b", {}, series[index].name), ` ${told(point, spec)}`);
  };
  const nearest = (event) => {
    const box = picture.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = { far: 40, index: -1, place: 0 };
    series.forEach((each, index) =>
      each.points.forEach((point, place) => {
        const far = Math.hypot(scale.x(point.x) - x, scale.y(point.y) - y);
        if (far < best.far && point.y >= scale.low && point.y <= scale.high)
          best = { far, index, place };
      }),
    );
    show(best.index, best.place);
  };
  picture.addEventListener("pointermove", nearest);
  picture.addEventListener("pointerdown", nearest);
  picture.addEventListener("pointerleave", () => show(-1));
  const places = series.map((each) => each.points.length - 1);
  drawn[0].node.setAttribute("tabindex", 0);
  drawn.forEach(({ node }, index) => {
    node.addEventListener("focus", () => show(index, places[index]));
    node.addEventListener("blur", () => show(-1));
    node.addEventListener("keydown", (event) => {
      const [line, place] = {
        ArrowUp: [-1, 0],
        ArrowDown: [1, 0],
        ArrowLeft: [0, -1],
        ArrowRight: [0, 1],
      }[event.key] ?? [0, 0];
      if (!line && !place) return;
      event.preventDefault();
      places[index] = Math.min(Math.max(places[index] + place, 0), series[index].points.length - 1);
      const next = drawn[index + line]?.node ?? node;
      node.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      if (next === node) show(index, places[index]);
      else next.focus();
    });
  });
}
