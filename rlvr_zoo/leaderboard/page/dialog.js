// An entrant's settings, runs, scores by seed, card and configuration.

function openEntrant(row) {
  const dialog = byId("entrant");
  byId("entrant-title").textContent = row.name;
  dialog
    .querySelector(".body")
    .replaceChildren(
      facts(row),
      settings(row),
      runs(row),
      seedScores(row),
      ...card(row),
      el(
        "details",
        {},
        el("summary", {}, "Configuration of the first seed"),
        el("pre", {}, JSON.stringify(row.config, null, 2)),
      ),
    );
  dialog.showModal();
  dialog.scrollTop = 0;
}

function makeDialog() {
  const dialog = byId("entrant");
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
}

function facts(row) {
  const list = [
    ["Algorithm", row.algorithm],
    ["Seeds", row.seeds.join(", ")],
    ["Settings chosen by", row.tuning || "its preset"],
  ];
  if (row.control) list.push(["Control", "no contender; what the contenders must beat"]);
  if (row.not_ranked) list.push(["Not ranked", row.not_ranked]);
  return el("dl", {}, ...list.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]));
}

function settings(row) {
  const lines = Object.entries(row.settings).map(([key, value]) =>
    el("tr", {}, el("th", { scope: "row" }, el("code", {}, key)), el("td", {}, word(value))),
  );
  return el(
    "section",
    {},
    el("h3", {}, "Settings"),
    lines.length
      ? el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...lines)))
      : el("p", { class: "note" }, "The protocol leaves it none."),
  );
}

function seedScores(row) {
  const names = board.suites.map((each) => each.name).filter((name) => name in row.scores);
  const head = ["Suite", ...row.seeds.map((seed) => `seed ${seed}`)].map((text) =>
    el("th", { scope: "col" }, text),
  );
  const lines = names.map((name) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, name),
      ...row.seeds.map((seed) => el("td", {}, percent(row.scores[name].by_seed[seed]))),
    ),
  );
  return el(
    "section",
    {},
    el("h3", {}, "Accuracy by seed (%)"),
    el(
      "div",
      { class: "scroll" },
      el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...lines)),
    ),
  );
}

function runs(row) {
  const commands = new Set(
    row.runs.filter((run) => run.mlflow_run && !webAddress(run)).map((run) => run.mlflow_uri),
  );
  const head = ["Seed", "Folder", "Commit", "MLflow run"].map((text) =>
    el("th", { scope: "col" }, text),
  );
  const lines = row.runs.map((run) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, String(run.seed)),
      el("td", {}, el("code", {}, run.folder)),
      el("td", {}, el("code", {}, run.commit || "release")),
      el("td", {}, mlflowRun(run)),
    ),
  );
  return el(
    "section",
    {},
    el("h3", {}, "Runs"),
    el(
      "div",
      { class: "scroll" },
      el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...lines)),
    ),
    ...[...commands]
      .filter(Boolean)
      .map((uri) =>
        el(
          "p",
          { class: "note" },
          "To look at these runs, then search for the run's id: ",
          el("code", {}, `mlflow ui --backend-store-uri ${quoted(uri)}`),
        ),
      ),
  );
}

function mlflowRun(run) {
  if (!run.mlflow_run) return NOTHING;
  const address = webAddress(run);
  const id = el("code", {}, run.mlflow_run);
  return address ? el("a", { href: address, rel: "noopener noreferrer" }, id) : id;
}

/** Only http and https become links: a record may say `javascript:`. */
function webAddress(run) {
  if (!/^https?:\/\//i.test(run.mlflow_uri)) return "";
  try {
    return `${new URL(run.mlflow_uri).href.replace(/\/+$/, "")}/#/runs/${encodeURIComponent(run.mlflow_run)}`;
  } catch {
    return "";
  }
}

const quoted = (text) =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** Cards were made HTML when the page was written, with all markup of theirs escaped. */
function card(row) {
  if (row.card === null) return [];
  return [
    el(
      "details",
      { open: true },
      el("summary", {}, "Card"),
      el("div", { class: "card" }, byId(`card-${row.card}`).content.cloneNode(true)),
    ),
  ];
}
