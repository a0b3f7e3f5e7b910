/* The page's sections: each fills its element from `data`, or says kindly what is missing. */

const total = (values) => values.reduce((sum, value) => sum + value, 0);
const alertTotals = Object.entries(data.alerts_by_window).map(([kind, counts]) => [kind, total(counts)]);
const alertTotal = total(alertTotals.map(([, count]) => count));

const best = (means, names) =>
  means
    .filter((row) => names.includes(row.name) && row["recall@20"] != null)
    .sort((a, b) => b["recall@20"] - a["recall@20"])[0];

const tile = (label, value, note, more = "") =>
  html(
    "div",
    { class: `tile ${more}` },
    html("dt", {}, label),
    html("dd", {}, value, note ? html("small", {}, note) : null),
  );

function standing(rival) {
  if (!rival) return "no model was trained";
  const blend = data.metrics.means.find((row) => row.name === "blend");
  const blended = blend ? `; with kNN blended in: ${score(blend["recall@20"])}` : "";
  return `best baseline: ${modelName(rival.name)}, ${score(rival["recall@20"])}${blended}`;
}

function overview(header) {
  const { summary, starts, metrics } = data;
  const from = summary.first_event ? Date.parse(summary.first_event) : starts[0];
  const to = summary.last_event ? Date.parse(summary.last_event) : starts.at(-1);
  const model = metrics.means.find((row) => row.name === "model");
  const rival = best(metrics.means, ["knn", "markov", "popularity", "personal"]);
  const facts = [
    summary.events != null && plural(summary.events, "event", "events"),
    summary.users != null && plural(summary.users, "user", "users"),
    starts.length && plural(starts.length, "window", "windows"),
  ].filter(Boolean);
  const part = (count) => (count != null && summary.events ? `${percent(count / summary.events)} of events` : "");
  header.append(
    html("p", { class: "eyebrow" }, "Backtest"),
    html("h1", {}, from != null ? `${day(from)} to ${day(to)}` : "Nothing was replayed"),
    html("p", { class: "lead" }, facts.length ? facts.join(" · ") : "This backtest left no summary."),
    html(
      "dl",
      { class: "tiles" },
      tile("Recall@20 of the model", score(model?.["recall@20"]), standing(rival), "third"),
      tile("Alerts", number(alertTotal), null, "wide alerts"),
      tile("Interest stage", number(summary.interest_events_per_second), "events a second"),
      tile("Applied", number(summary.applied), part(summary.applied)),
      tile("Late", number(summary.late), part(summary.late)),
      tile("Duplicates", number(summary.duplicates), part(summary.duplicates)),
      tile("Rejected", number(summary.rejected ?? data.rejects.total), "bad records"),
    ),
  );
  header.querySelector(".alerts dd").append(
    html(
      "ul",
      { class: "by-kind" },
      alertTotals.map(([kind, count]) =>
        html("li", { style: `--kind:${kindColour(kind)}` }, html("i", {}, KINDS[kind].sign), html("b", {}, number(count)), ` ${KINDS[kind].many}`),
      ),
    ),
  );
}

const SLICES = { all: "All events", cold_inclusive: "Cold-inclusive", repeat_free: "Repeat-free" };

function learning(section) {
  const { starts, series, means, windows } = data.metrics;
  if (!means.some((row) => row["recall@20"] != null)) {
    section.append(empty("No model was trained", "This replay ran the interest stage alone, or had no complete window. Replay with learning switched on to see the model beside its baselines."));
    return;
  }
  const view = { metric: "recall@20", slice: "all" };
  const slices = Object.fromEntries(Object.entries(SLICES).filter(([key]) => key === "all" || key in series));
  const chart = html("div");
  const line = (name, faint = false) => ({
    name,
    label: faint ? `${modelName(name)}, all events` : modelName(name),
    values: series[name][view.metric],
    faint,
  });
  const shown = () =>
    view.slice === "all" ? means.map((row) => line(row.name)) : [line(view.slice), line("model", true)];
  function draw() {
    const title = `${METRICS[view.metric]} by window, ${slices[view.slice].toLowerCase()}`;
    const lines = shown();
    const columns = [["Window"], ...lines.map(({ label }) => [label, true]), ["Events evaluated", true], ["Challenger"]];
    const rows = () =>
      starts.map((_, i) => [
        windowName(starts, i),
        ...lines.map(({ values }) => score(values[i])),
        number(windows[i].evaluated),
        windows[i].decision ?? NONE,
      ]);
    chart.replaceChildren(
      lines.some(({ values }) => values.some((value) => value != null))
        ? drawing(lineChart({
            title,
            starts,
            lines,
            decisions: windows.map((w) => w.decision),
            reasons: windows.map((w) => w.reason),
          }))
        : html("p", { class: "soft" }, "No window has a value for this slice."),
      html(
        "div",
        { class: "under" },
        legend(lines.map(({ name, label }) => [label, seriesColour(name)])),
        html("p", { class: "soft" }, html("i", { class: "key-promoted" }), "challenger promoted ", html("i", { class: "key-rejected" }, "×"), "rejected"),
      ),
      asTable(title, columns, rows),
    );
  }
  draw();
  const pick = (key) => (value) => {
    view[key] = value;
    draw();
  };
  section.append(
    html(
      "div",
      { class: "split" },
      figure(
        html(
          "span",
          { class: "controls" },
          choice("metric", "Metric", METRICS, pick("metric")),
          choice("slice", "Slice", slices, pick("slice")),
        ),
        chart,
      ),
      figure("Mean over the windows", meanTable(means)),
    ),
  );
}

function meanTable(means) {
  const highest = (metric) => Math.max(...means.map((row) => row[metric] ?? 0));
  const cell = (row, metric) =>
    row[metric] === highest(metric)
      ? html("b", { class: "best" }, score(row[metric]), html("span", { class: "unseen" }, " best"))
      : score(row[metric]);
  const metrics = Object.keys(METRICS);
  return table(
    "Mean over the windows",
    [["Model"], ...metrics.map((metric) => [METRICS[metric], true])],
    means.map((row) => [
      html("span", { class: "with-dot" }, html("i", { class: "dot", style: `background:${seriesColour(row.name)}` }), modelName(row.name)),
      ...metrics.map((metric) => cell(row, metric)),
    ]),
    "plain means",
  );
}

function alertsOverTime(section) {
  const { starts, alerts_by_window: counts } = data;
  if (!alertTotal) {
    section.append(empty("No alerts", "Nobody’s interest moved further than the thresholds allow. On a short history that is what to expect."));
    return;
  }
  const kinds = Object.keys(counts);
  const title = "Alerts by kind and window";
  section.append(
    figure(
      legend(kinds.map((kind) => [KINDS[kind].name, kindColour(kind)])),
      drawing(stackedBars({ title, starts, counts })),
      asTable(title, [["Window"], ...kinds.map((kind) => [KINDS[kind].name, true])], () =>
        starts.map((_, i) => [windowName(starts, i), ...kinds.map((kind) => number(counts[kind][i]))]),
      ),
    ),
  );
}

function flow(section) {
  if (!data.flows.length) {
    section.append(empty("No movement to show", "No user’s interest migrated or jumped from one category to another."));
    return;
  }
  const named = (name) => (name === null ? "All others" : category(name));
  const all = total(data.flows.map(([, , weight]) => weight));
  const drawn = data.flows.filter(([from, to]) => from !== null || to !== null);
  const rest = 1 - total(drawn.map(([, , weight]) => weight)) / all;
  section.append(
    figure(
      html("span", { class: "ends" }, html("span", {}, "From"), html("span", {}, "To")),
      drawing(flowChart(drawn, (weight, alerts) => [
        ...(alerts == null ? [] : [["alerts", number(alerts), null]]),
        ["users’ worth of interest", number(weight, 1), null],
        ["of all that moved", percent(weight / all), null],
      ])),
      rest > 0.0005
        ? html("p", { class: "soft" }, `Not drawn: ${percent(rest)} of all that moved went between smaller categories.`)
        : null,
      asTable("Where interest moved", [["From"], ["To"], ["Users’ worth of interest", true], ["Alerts", true]], () =>
        data.flows.map(([from, to, weight, alerts]) => [named(from), named(to), number(weight, 1), number(alerts)]),
      ),
    ),
  );
}

const CARDS = 12;

/* How the forecasts stood up to what came, a row a horizon. */
function forecastTable() {
  const ratio = (value) => (value == null ? NONE : value.toFixed(2));
  return html(
    "div",
    { class: "card hindsight" },
    html("h3", {}, "How the forecasts stood up"),
    table(
      "How the forecasts stood up",
      [["Windows ahead"], ["Intervals", true], ["Held what came", true], ["Width over expected", true], ["Error, naive = 1", true], ["Error, seasonal naive = 1", true]],
      data.hindsight.map((row) => [
        number(row.ahead),
        number(row.intervals),
        `${number(100 * row.coverage, 1)} %`,
        ratio(row.width),
        ratio(row.to_naive),
        ratio(row.to_seasonal_naive),
      ]),
      "plain",
    ),
  );
}

function trends(section) {
  const { categories, untracked } = data.trends;
  const { starts } = data;
  const marked = categories.some(({ marks }) => marks.length);
  if (!categories.length && !untracked.length) {
    section.append(empty("No trends", "This backtest kept no shares by window, and no category rose or fell beyond its threshold."));
    return;
  }
  if (!marked && categories.length) {
    section.append(html("p", { class: "soft" }, "No category rose or fell beyond its threshold; these are the largest."));
  }
  const card = ({ category: name, shares, marks, band, ahead }) => {
    const known = shares.filter((share) => share != null);
    const kinds = Object.keys(KINDS).filter((kind) => marks.some(([, marked]) => marked === kind));
    const title = `${category(name)}: share of events by window, ${percent(known[0])} at first, ${percent(known.at(-1))} at last`;
    return html(
      "article",
      { class: "card trend" },
      html("h3", { title: name }, category(name)),
      html("p", { class: "soft" }, `${percent(known[0])} → ${percent(known.at(-1))}`),
      drawing(sparkline({ title, starts, shares, marks, band: band.length ? band : shares.map(() => null), ahead }), "chart spark-box"),
      html(
        "p",
        { class: "marks" },
        kinds.map((kind) =>
          html("span", { style: `--kind:${kindColour(kind)}` }, html("i", {}, KINDS[kind].sign), plural(marks.filter(([, k]) => k === kind).length, `${KINDS[kind].name.toLowerCase()} alert`, `${KINDS[kind].name.toLowerCase()} alerts`)),
        ),
      ),
    );
  };
  const grid = html("div", { class: "grid-cards" }, categories.slice(0, CARDS).map(card));
  section.append(grid);
  if (categories.length > CARDS) {
    const more = html("button", { type: "button", class: "more" }, `Show all ${number(categories.length)} categories`);
    more.addEventListener("click", () => {
      grid.append(...categories.slice(CARDS).map(card));
      more.remove();
    });
    section.append(more);
  }
  if (untracked.length) {
    const names = untracked.slice(0, 12).map(category).join(", ");
    section.append(html("p", { class: "soft" }, `${plural(untracked.length, "category", "categories")} with alerts too small to be followed here: ${names}${untracked.length > 12 ? ", …" : "."}`));
  }
  if (data.hindsight.length) section.append(forecastTable());
}

function segments(section) {
  const { starts, sizes, flows, windows } = data.segments;
  if (!sizes.length) {
    section.append(empty("No segments", "This backtest kept no history of interests: profiles were switched off, or nobody had any."));
    return;
  }
  const title = "Users by segment and window";
  const lines = sizes.map(([name, values], rank) => ({ label: name, values, colour: `var(--flow-${rank % 9})` }));
  const moved = total(flows.map(([, , users]) => users));
  const told = (users) => [["users", number(users), null], ["of all who moved", percent(users / moved), null]];
  const drawn = flows.filter(([from, to]) => from !== null || to !== null);
  section.append(
    html(
      "div",
      { class: "halves" },
      figure(
        title,
        drawing(countChart({ title, starts, lines })),
        html("div", { class: "under" }, legend(lines.map(({ label, colour }) => [label, colour]))),
        asTable(title, [["Window"], ...lines.map(({ label }) => [label, true])], () =>
          starts.map((_, i) => [windowName(starts, i), ...lines.map(({ values }) => number(values[i]))]),
        ),
      ),
      moved
        ? figure(
            `${plural(moved, "move", "moves")} between segments in the last ${plural(windows, "window", "windows")}`,
            drawing(flowChart(drawn, told)),
            asTable("Moves between segments", [["From"], ["To"], ["Users", true]], () =>
              flows.map(([from, to, users]) => [from ?? "All others", to ?? "All others", number(users)]),
            ),
          )
        : null,
    ),
  );
}

function everyAlert(section) {
  if (!data.alerts.rows.length) section.append(empty("No alerts", "There is nothing to list: this replay raised none."));
  else section.append(...alertBrowser(data.alerts, alertTotal));
}

function champions(section) {
  const { starts, windows, series } = data.metrics;
  if (!windows.length) {
    section.append(empty("No champions", "No model was trained in this replay, so there is no history of checkpoints."));
    return;
  }
  const decided = { promoted: "Promoted", rejected: "Rejected" };
  const count = (decision) => windows.filter((w) => w.decision === decision).length;
  const id = (text) => (text ? html("code", { title: text }, text.slice(0, 10)) : NONE);
  const { cells, transfer } = data.retention;
  const title = "Recall@20 of each champion on past windows";
  if (transfer != null) {
    section.append(
      figure(
        `${title}: ${number(transfer, 3)} on average, at the end, since each window was learnt`,
        drawing(heatMap({ title, starts, cells })),
        asTable(title, [["Champion after"], ["Window asked"], ["Recall@20", true], ["Since it was learnt", true]], () =>
          cells.map(([at, asked, value, change]) => [windowName(starts, at), windowName(starts, asked), score(value), number(change, 3)]),
        ),
      ),
    );
  }
  section.append(
    html("p", { class: "soft" }, `${number(count("promoted"))} promoted, ${number(count("rejected"))} rejected, ${plural(windows.length, "window", "windows")} in all; newest first.`),
    html(
      "div",
      { class: "card" },
      table(
        "Challengers and champions by window",
        [["Window"], ["Decision"], ["Reason"], ["Challenger"], ["Champion after"], ["Recall@20", true], ["Training", true], ["Items", true]],
        windows
          .map((w, i) => [
            windowName(starts, i),
            html("span", { class: `decision ${w.decision}` }, decided[w.decision] ?? "None"),
            html("span", { class: "reason" }, w.reason || NONE),
            id(w.checkpoint),
            id(w.champion),
            score(series.model["recall@20"][i]),
            w.training_seconds == null ? NONE : `${number(w.training_seconds, 1)} s`,
            number(w.items),
          ])
          .reverse(),
        "tall",
      ),
    ),
  );
}

function rejects(section) {
  const { summary, rejects: found } = data;
  const words = (count, one, many, what) =>
    html("li", {}, html("b", {}, plural(count ?? 0, one, many)), ` ${what}`);
  section.append(
    html(
      "ul",
      { class: "left-out" },
      words(summary.late, "late event", "late events", "came after the watermark had passed them: counted, not applied."),
      words(summary.duplicates, "duplicate", "duplicates", "carried an event id already applied to the same user."),
      words(found.total || summary.rejected, "rejected record", "rejected records", "could not be read as a click."),
    ),
  );
  if (!found.total) {
    section.append(empty("Nothing was rejected", "Every record could be read as a click."));
    return;
  }
  const most = found.reasons[0].count;
  section.append(
    html(
      "div",
      { class: "card" },
      found.reasons.map(({ reason, count, examples }) =>
        html(
          "details",
          { class: "reject" },
          html(
            "summary",
            {},
            html("span", {}, reason),
            html("span", { class: "track" }, html("i", { style: `width:${(100 * count) / most}%` })),
            html("b", {}, number(count)),
          ),
          examples.map(({ source, line, record }) =>
            html("figure", { class: "example" }, html("figcaption", {}, `${source}, line ${line}`), html("pre", { tabindex: 0 }, record)),
          ),
        ),
      ),
      found.further_reasons
        ? html("p", { class: "soft" }, `${plural(found.further_reasons, "further reason stands", "further reasons stand")} in rejects.jsonl.`)
        : null,
    ),
  );
}

function colophon(footer) {
  const { summary } = data;
  if (summary.command) footer.append(html("p", {}, "Replayed with ", html("code", {}, summary.command)));
  const took = summary.elapsed_seconds == null ? null : `took ${number(summary.elapsed_seconds)} s`;
  const settings = summary.settings ? `settings ${summary.settings}` : null;
  footer.append(html("p", {}, [settings, took, "all times are UTC"].filter(Boolean).join(" · ")));
}

const PARTS = {
  overview,
  learning,
  "alerts-over-time": alertsOverTime,
  flow,
  trends,
  segments,
  "every-alert": everyAlert,
  champions,
  rejects,
  colophon,
};

for (const [id, part] of Object.entries(PARTS)) {
  const element = document.getElementById(id);
  const title = element.querySelector("h2");
  if (title) title.id = `${id}-title`;
  part(element);
}
drawAll();
const asked = /[#&](q|user|kind)=/.test(location.hash) ? "every-alert" : location.hash.slice(1);
document.getElementById(asked)?.scrollIntoView({ behavior: "instant" });
document.documentElement.dataset.report = "ready";
