/* The alerts to read one by one: unpacked, said in a sentence, searched, paged. */

const PAGE = 20;

function unpackAlerts({ kinds, categories, items, sources, guarantees, rows }) {
  const interests = (pairs) => pairs.map(([code, weight]) => ({ category: categories[code], weight }));
  return rows.map((row) => {
    const alert = {
      kind: kinds[row[0]],
      subject: row[1],
      time: row[2] * 1000,
      since: (row[2] - row[3]) * 1000,
      from: interests(row[4]),
      to: interests(row[5]),
      score: row[6],
      threshold: row[7],
      guarantee: guarantees[row[8]],
      evidence: row[9].map(([earlier, item, code]) => ({
        time: (row[2] - earlier) * 1000,
        item: items[item],
        category: categories[code],
      })),
      evidenceLeftOut: row[10],
      id: row[11],
      source: sources[row[12]],
      position: row[13],
      reach: row[14],
      belongs: row[15],
    };
    const named = [...alert.from, ...alert.to, ...alert.evidence].map((part) => part.category);
    const texts = [alert.subject, alert.id, ...named, ...alert.evidence.map((event) => event.item)];
    alert.text = texts.join("\n").toLowerCase();
    return alert;
  });
}

const overThreshold = (alert) =>
  alert.threshold ? Math.abs(alert.score / alert.threshold) : Math.abs(alert.score);

const isUserAlert = (alert) => alert.kind.startsWith("user_");

const inWords = (interests) =>
  interests
    .slice(0, 2)
    .flatMap(({ category: name, weight }, i) => [
      i ? " and " : "",
      html("b", {}, category(name)),
      ` (${percent(weight)})`,
    ]);

const changes = (from, to) =>
  from.slice(0, 3).flatMap(({ category: name, weight }, i) => [
    i ? ", " : "",
    html("b", {}, category(name)),
    ` ${percent(weight)} → ${percent(to[i]?.weight)}`,
  ]);

function sentence({ kind, subject, since, from, to, reach }) {
  const who = html("b", {}, subject || "(no name)");
  const origin = from.length ? [" from ", ...inWords(from)] : [];
  const goal = to.length ? [" to ", ...inWords(to)] : [];
  const shares = () =>
    from.length && to.length
      ? `: ${percent(to[0].weight)} of all events, where ${percent(from[0].weight)} was expected`
      : "";
  switch (kind) {
    case "user_migration":
      return ["User ", who, " migrated", ...origin, ...goal, `, since about ${day(since)}.`];
    case "user_jump":
      return ["User ", who, " jumped", ...origin, ...goal, `, on about ${day(since)}.`];
    case "category_rising":
      return [who, " rose", shares(), "."];
    case "category_falling":
      return [who, " fell", shares(), "."];
    case "category_emerging":
      return [who, " is new", to.length ? `: ${percent(to[0].weight)} of all events` : "", "."];
    case "population_shift":
      return ["About ", html("b", {}, `${number(reach?.[0])} of ${number(reach?.[1])} users`), " moved at once: ", ...changes(from, to), "."];
    case "input_drift":
      return ["What comes in differs: ", ...changes(from, to), "."];
    default:
      return ["The model ", who, ` has grown stale since about ${day(since)}.`];
  }
}

function guaranteeInWords([kind, value]) {
  if (kind === "average_run_length") {
    return `While nothing changes, this detector raises one false alarm in ${number(value)} events on average.`;
  }
  if (kind === "false_discovery_rate") {
    return `Of the alerts raised under this test, at most ${percent(value)} are false on average.`;
  }
  if (kind === "false_positive_rate") {
    return `Without a change, a window passes this threshold with a probability of ${percent(value)}.`;
  }
  return `${kind.replaceAll("_", " ")}: ${value}`;
}

function interestBars(title, interests) {
  if (!interests.length) return null;
  return html(
    "div",
    { class: "interests" },
    html("h4", {}, title),
    interests.map(({ category: name, weight }) =>
      html(
        "div",
        { class: "interest" },
        html("span", {}, category(name)),
        html("span", { class: "track" }, html("i", { style: `width:${Math.min(100, weight * 100)}%` })),
        html("b", {}, percent(weight)),
      ),
    ),
  );
}

function evidenceOf(alert) {
  const [before, after] =
    {
      user_migration: ["Interest before", "Interest after"],
      user_jump: ["Interest before", "Interest after"],
      population_shift: ["Share of users expected", "Share of users observed"],
    }[alert.kind] ?? ["Share expected", "Share observed"];
  const events = alert.evidence.map((event) => [moment(event.time), event.item, category(event.category)]);
  const more = alert.evidenceLeftOut;
  return [
    html("div", { class: "pair" }, interestBars(before, alert.from), interestBars(after, alert.to)),
    events.length
      ? table("The events that tipped it", [["The events that tipped it"], ["Item"], ["Category"]], events)
      : html("p", { class: "soft" }, "No single events stand behind this alert: it is about a whole window."),
    more ? html("p", { class: "soft" }, `${plural(more, "earlier event", "earlier events")} in alerts.jsonl.`) : null,
    alert.belongs
      ? html("p", {}, `It belongs to the population shift of the window from ${day(alert.belongs * 1000)}.`)
      : null,
    html("p", {}, guaranteeInWords(alert.guarantee)),
    html("p", { class: "soft" }, `Alert ${alert.id}, tipped at ${alert.source}, position ${number(alert.position)}.`),
  ];
}

function alertRow(alert) {
  const body = html("div", { class: "evidence" });
  const passed = overThreshold(alert);
  const details = html(
    "details",
    { class: "alert", style: `--kind:${kindColour(alert.kind)}` },
    html(
      "summary",
      {},
      html("span", { class: "chip" }, html("i", { "aria-hidden": "true" }, KINDS[alert.kind].sign), KINDS[alert.kind].name),
      html("span", { class: "sentence" }, sentence(alert)),
      html(
        "span",
        { class: "meta" },
        html("time", { datetime: new Date(alert.time).toISOString() }, day(alert.time)),
        html(
          "span",
          { title: "The detector’s score against the threshold that it had to pass" },
          html("b", {}, loose(alert.score)),
          ` against ${loose(alert.threshold)}`,
        ),
        html("span", { class: "gauge", "aria-hidden": "true" }, html("i", { style: `width:${Math.min(100, passed * 33.3)}%` })),
      ),
    ),
    body,
  );
  details.addEventListener("toggle", () => body.append(...evidenceOf(alert).filter(Boolean)), { once: true });
  return details;
}

/* The filter stands in the address, so that a view can be kept or sent: #q=shoes&kind=user_jump */
function alertBrowser(packed, total) {
  const alerts = unpackAlerts(packed);
  const present = Object.keys(KINDS).filter((kind) => alerts.some((alert) => alert.kind === kind));
  const asked = new URLSearchParams(location.hash.slice(1));
  const state = {
    q: asked.get("q") ?? "",
    user: asked.get("user") ?? "",
    kinds: new Set((asked.get("kind") ?? "").split(",").filter((kind) => kind in KINDS)),
    order: "newest",
    page: 0,
  };
  const list = html("div", { id: "alert-list" });
  const status = html("p", { class: "soft", role: "status", id: "alert-count" });
  const pager = html("nav", { class: "pager", "aria-label": "Pages of alerts" });

  const matching = () => {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const user = state.user.trim().toLowerCase();
    const found = alerts.filter(
      (alert) =>
        (!state.kinds.size || state.kinds.has(alert.kind)) &&
        (!user || (isUserAlert(alert) && alert.subject.toLowerCase().includes(user))) &&
        words.every((word) => alert.text.includes(word)),
    );
    return state.order === "newest" ? found : found.sort((a, b) => overThreshold(b) - overThreshold(a));
  };

  function show(focus = false) {
    const found = matching();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const start = state.page * PAGE;
    list.replaceChildren(...found.slice(start, start + PAGE).map(alertRow));
    list.dataset.found = found.length;
    if (!found.length) list.append(empty("Nothing matches", "Try fewer words, or another kind."));
    status.textContent = found.length
      ? `${number(start + 1)}–${number(Math.min(start + PAGE, found.length))} of ${plural(found.length, "alert", "alerts")}`
      : "No alerts";
    const turn = (by, text, possible) =>
      html("button", { type: "button", disabled: !possible, onclick: () => ((state.page += by), show(true)) }, text);
    pager.replaceChildren(
      turn(-1, "← Previous", state.page > 0),
      html("span", {}, `Page ${number(state.page + 1)} of ${number(pages)}`),
      turn(1, "Next →", state.page + 1 < pages),
    );
    pager.hidden = pages === 1;
    if (focus) {
      list.querySelector("summary")?.focus({ preventScroll: true });
      status.scrollIntoView({ behavior: "instant" });
    }
  }

  function changed() {
    state.page = 0;
    const kept = new URLSearchParams();
    if (state.q) kept.set("q", state.q);
    if (state.user) kept.set("user", state.user);
    if (state.kinds.size) kept.set("kind", [...state.kinds].join(","));
    history.replaceState(null, "", kept.size ? `#${kept}` : "#every-alert");
    show();
  }

  const field = (key, label, placeholder) =>
    html(
      "label",
      { class: "field" },
      html("span", {}, label),
      html("input", {
        type: "search",
        placeholder,
        value: state[key],
        oninput: (event) => ((state[key] = event.target.value), changed()),
      }),
    );
  const kindToggle = (kind) =>
    html(
      "label",
      { class: "toggle", style: `--kind:${kindColour(kind)}` },
      html("input", {
        type: "checkbox",
        checked: state.kinds.has(kind),
        onchange: (event) => (state.kinds[event.target.checked ? "add" : "delete"](kind), changed()),
      }),
      html("span", {}, html("i", { "aria-hidden": "true" }, KINDS[kind].sign), KINDS[kind].name),
    );
  const order = html(
    "label",
    { class: "field" },
    html("span", {}, "Order"),
    html(
      "select",
      { onchange: (event) => ((state.order = event.target.value), changed()) },
      html("option", { value: "newest" }, "Newest first"),
      html("option", { value: "strongest" }, "Strongest first"),
    ),
  );
  show();
  const left = total - alerts.length;
  return [
    html(
      "p",
      { class: "lead", id: "alert-note" },
      left > 0
        ? `Here are ${number(alerts.length)}: all about categories and the model, and the users’ furthest over their threshold. ${number(left)} more stand in alerts.jsonl.`
        : `All ${number(alerts.length)}. Open one to see what tipped it.`,
    ),
    html(
      "form",
      { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
      field("q", "Search", "Category, item, user or alert id"),
      field("user", "User", "User id"),
      order,
      html("fieldset", { class: "kinds" }, html("legend", {}, "Kind"), present.map(kindToggle)),
    ),
    status,
    list,
    pager,
  ];
}
