"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

/* Elements. Text only ever enters as text nodes, so nothing in the data can become markup. */

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/* Words and numbers */

const KINDS = {
  user_migration: { name: "Migration", many: "migrations", sign: "⇢" },
  user_jump: { name: "Jump", many: "jumps", sign: "↷" },
  category_rising: { name: "Rising", many: "rising", sign: "▲" },
  category_falling: { name: "Falling", many: "falling", sign: "▼" },
  category_emerging: { name: "Emerging", many: "emerging", sign: "✦" },
  population_shift: { name: "Population", many: "population shifts", sign: "⁂" },
  input_drift: { name: "Input", many: "input drifts", sign: "⚠" },
  model_stale: { name: "Stale model", many: "stale models", sign: "◌" },
};

const MODELS = {
  model: "Model",
  blend: "Model + kNN",
  knn: "Session kNN",
  markov: "Last-item Markov",
  popularity: "Popularity",
  personal: "Own history",
  cold_inclusive: "Model, cold-inclusive",
  repeat_free: "Model, repeat-free",
};

const METRICS = { "recall@20": "Recall@20", "mrr@20": "MRR@20", "ndcg@10": "NDCG@10" };

const modelName = (name) => MODELS[name] ?? name;
const kindColour = (kind) => `var(--${kind.replace("_", "-")})`;
const seriesColour = (name) => `var(--series-${name in MODELS ? name.replace("_", "-") : "other"})`;

const NONE = "–";
const number = (value, digits = 0) =>
  value == null
    ? NONE
    : value
        .toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })
        .replace("-", "−");
/* A number on a scale that is not known beforehand. */
const loose = (value) => number(value, Math.abs(value) < 1 ? 3 : Math.abs(value) < 100 ? 1 : 0);
const score = (value) => (value == null ? NONE : value.toFixed(3));
const percent = (share) => {
  if (share == null) return NONE;
  const digits = Math.abs(share) < 0.0995 && share !== 0 ? 1 : 0;
  return `${number(share * 100, digits)} %`;
};
const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;

const format = (options) => {
  const formatter = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
  return (time) => formatter.format(time);
};
const day = format({ day: "numeric", month: "short", year: "numeric" });
const dayOfYear = format({ day: "numeric", month: "short" });
const clock = format({ hour: "2-digit", minute: "2-digit" });
const moment = (time) => `${day(time)}, ${clock(time)}`;
const DAY = 86_400_000;
const windowName = (starts, index) =>
  starts.length > 1 && starts[1] - starts[0] < DAY ? moment(starts[index]) : day(starts[index]);

const truncate = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
const category = (name) => (name === "" ? "(no category)" : name);

/* The tooltip: one for the page, filled by whatever is hovered or focused. */

const tip = document.getElementById("tip");

function showTip(x, y, title, rows) {
  const dots = rows.some(([, , colour]) => colour);
  tip.replaceChildren(
    html("strong", {}, title),
    ...rows.map(([label, value, colour]) =>
      html(
        "span",
        { class: "tip-row" },
        dots ? html("i", { class: "dot", style: `background:${colour ?? "none"}` }) : null,
        html("span", {}, label),
        html("b", {}, value),
      ),
    ),
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = x + 16 + width < innerWidth - 8;
  tip.style.left = `${Math.max(8, right ? x + 16 : x - 16 - width)}px`;
  tip.style.top = `${Math.max(8, Math.min(y - height / 2, innerHeight - height - 8))}px`;
}

const hideTip = () => {
  tip.hidden = true;
};

/* Gives an element a tooltip for the mouse and for the keyboard. */
function withTip(element, title, rows) {
  const near = () => {
    const box = element.getBoundingClientRect();
    showTip(box.left + box.width / 2, box.top + box.height / 2, title, rows);
  };
  element.addEventListener("pointermove", (e) => showTip(e.clientX, e.clientY, title, rows));
  element.addEventListener("pointerleave", hideTip);
  element.addEventListener("focus", near);
  element.addEventListener("blur", hideTip);
  return element;
}

addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
addEventListener("scroll", hideTip, { passive: true });

/* Blocks that sections are made of */

/* Draws what stands on the page by now, so that a jump to a section meets the final layout. */
const drawings = [];
const drawAll = () => drawings.splice(0).forEach((follow) => follow());

/* A box whose drawing follows its width, a frame later: drawing may change the layout again. */
function drawing(draw, className = "chart") {
  const box = html("div", { class: className });
  let drawn = 0;
  const follow = () => {
    if (box.clientWidth && box.clientWidth !== drawn) {
      drawn = box.clientWidth;
      box.replaceChildren(draw(drawn));
    }
  };
  drawings.push(follow);
  new ResizeObserver(() => requestAnimationFrame(follow)).observe(box);
  return box;
}

const figure = (caption, ...children) =>
  html("figure", { class: "card" }, html("figcaption", {}, caption), ...children);

const empty = (title, text) =>
  html("div", { class: "card empty" }, html("strong", {}, title), html("p", {}, text));

const legend = (entries) =>
  html(
    "ul",
    { class: "legend" },
    entries.map(([label, colour]) =>
      html("li", {}, html("i", { class: "dot", style: `background:${colour}` }), label),
    ),
  );

/* columns: [title, numeric?]; rows: arrays of text or elements. */
function table(caption, columns, rows, className = "") {
  const cell = (tag, content, index, more = {}) =>
    html(tag, { class: columns[index][1] ? "number" : null, ...more }, content);
  return html(
    "div",
    { class: `scroll ${className}`, tabindex: 0, role: "region", "aria-label": caption },
    html(
      "table",
      {},
      html("caption", { class: "unseen" }, caption),
      html(
        "thead",
        {},
        html("tr", {}, columns.map(([title], i) => cell("th", title, i, { scope: "col" }))),
      ),
      html(
        "tbody",
        {},
        rows.map((row) =>
          html(
            "tr",
            {},
            row.map((value, i) => (i ? cell("td", value, i) : cell("th", value, i, { scope: "row" }))),
          ),
        ),
      ),
    ),
  );
}

/* The same figures as numbers, folded away, built when first opened. */
function asTable(caption, columns, rows) {
  const details = html("details", { class: "numbers" }, html("summary", {}, "Show the numbers"));
  details.addEventListener("toggle", () => details.append(table(caption, columns, rows())), {
    once: true,
  });
  return details;
}

/* A row of radio buttons; calls `change` with the value chosen. */
function choice(name, label, values, change) {
  return html(
    "fieldset",
    { class: "choice" },
    html("legend", { class: "unseen" }, label),
    Object.entries(values).map(([value, text], index) =>
      html(
        "label",
        {},
        html("input", { type: "radio", name, value, checked: index === 0, onchange: () => change(value) }),
        html("span", {}, text),
      ),
    ),
  );
}
