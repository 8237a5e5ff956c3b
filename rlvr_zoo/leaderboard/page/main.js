// Puts the page together; the suite that is shown stands in the address, so that it can be sent.

function drawFindings() {
  const found = board.findings[state.suite][state.reference];
  byId("headline").textContent = found.headline;
  byId("details").replaceChildren(...found.details.map((text) => el("li", {}, text)));
}

function drawSuite() {
  drawFindings();
  drawResults();
  drawMatrix();
  drawCurves();
  drawSweeps();
}

function makeSuites() {
  for (const each of board.suites) {
    const input = el("input", {
      type: "radio",
      name: "suite",
      value: each.name,
      onchange: () => {
        state.suite = each.name;
        history.replaceState(null, "", `#${new URLSearchParams({ suite: each.name })}`);
        drawSuite();
      },
    });
    input.checked = each.name === state.suite;
    byId("suites").append(el("label", { class: "pill" }, input, el("span", {}, each.name)));
  }
}

function makeReference() {
  const select = byId("against").querySelector("select");
  const ranked = board.rows.filter((row) => !row.not_ranked);
  byId("against").hidden = !ranked.length;
  select.append(...ranked.map((row) => el("option", { value: row.name }, row.name)));
  select.value = state.reference;
  select.addEventListener("change", () => {
    state.reference = select.value;
    drawFindings();
    drawResults();
  });
}

function start() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("suite");
  if (board.suites.some((each) => each.name === asked)) state.suite = asked;
  state.reference = board.reference;
  state.drawn = new Set(firstDrawn());
  makeDialog();
  makeSuites();
  makeReference();
  drawCosts();
  makePicker();
  if (suite()) drawSuite();
  let width = document.documentElement.clientWidth;
  addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return; // a phone's bars come and go
    width = document.documentElement.clientWidth;
    drawCurves();
    drawSignals();
    drawSweeps();
  });
}

start();
