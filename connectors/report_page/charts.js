/* Charts. Each gives a function of the width in pixels that returns an <svg>. */

const MARGIN = { left: 44, right: 16, top: 14, bottom: 26 };

function niceTicks(low, high, count) {
  const raw = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const first = Math.floor(low / step);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

/* Axes and a scale for values over windows: one column a window. */
function frame(width, height, starts, low, high, label, below = 0) {
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom - below;
  const ticks = niceTicks(low, high, 4);
  const [floor, ceiling] = [ticks[0], ticks.at(-1)];
  const step = (right - MARGIN.left) / Math.max(1, starts.length);
  const x = (index) => MARGIN.left + (index + 0.5) * step;
  const y = (value) => bottom - ((value - floor) / (ceiling - floor)) * (bottom - MARGIN.top);
  const canvas = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  for (const tick of ticks) {
    canvas.append(
      svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, label(tick)),
    );
  }
  timeTicks(canvas, starts, x, step, height - 6);
  return { canvas, x, y, step, bottom };
}

function timeTicks(canvas, starts, x, step, y) {
  const short = starts.length > 1 && starts[1] - starts[0] < DAY;
  let year = null;
  const every = Math.max(1, Math.ceil((short ? 110 : 94) / step));
  let taken = -Infinity;
  for (let i = 0; i < starts.length; i += every) {
    if (x(i) < taken) continue;
    const now = new Date(starts[i]).getUTCFullYear();
    const name = now === year ? dayOfYear(starts[i]) : day(starts[i]);
    year = now;
    const text = short ? `${dayOfYear(starts[i])}, ${clock(starts[i])}` : name;
    taken = x(i) + (i ? 0 : 1.5 * 94); // the first label starts at its mark, and names the year
    const anchor = i === 0 ? "start" : x(i) + 40 > canvas.getAttribute("width") ? "end" : "middle";
    canvas.append(svg("text", { class: "tick", x: i ? x(i) : x(0) - step / 2, y, "text-anchor": anchor }, text));
  }
}

/* Lets the mouse and the arrow keys walk a chart's windows; `describe(i)` gives the tip's rows. */
function walk({ canvas, x, step, bottom }, starts, describe) {
  const line = svg("line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
  canvas.append(line);
  canvas.setAttribute("tabindex", "0");
  let at = -1;
  const go = (index, screenX, screenY) => {
    at = Math.max(0, Math.min(starts.length - 1, index));
    line.setAttribute("x1", x(at));
    line.setAttribute("x2", x(at));
    line.setAttribute("visibility", "visible");
    showTip(screenX ?? canvas.getBoundingClientRect().left + x(at),
      screenY ?? canvas.getBoundingClientRect().top + 80, windowName(starts, at), describe(at));
  };
  const leave = () => {
    line.setAttribute("visibility", "hidden");
    hideTip();
  };
  canvas.addEventListener("pointermove", (event) => {
    const inside = event.clientX - canvas.getBoundingClientRect().left - MARGIN.left;
    go(Math.floor(inside / step), event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      go(at + by);
    }
  });
}

function linePath(values, x, y) {
  let pen = "M";
  let path = "";
  values.forEach((value, i) => {
    if (value == null) pen = "M";
    else {
      path += `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    }
  });
  return path;
}

/* lines: [{name, label, values, faint}], the most important first; decisions: one a window. */
function lineChart({ title, starts, lines, decisions, reasons }) {
  const known = lines.flatMap((line) => line.values).filter((value) => value != null);
  const high = Math.max(...known);
  const low = Math.min(...known) < high / 2 ? 0 : Math.min(...known);
  return (width) => {
    const height = width < 560 ? 280 : 340;
    const view = frame(width, height, starts, low, high, (v) => v.toFixed(high < 0.1 ? 3 : 2), 24);
    const { canvas, x, y, step, bottom } = view;
    const mark = Math.min(3.5, step * 0.36);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title}. Use the arrow keys to walk the windows.`);
    for (const { name, values, faint } of [...lines].reverse()) {
      canvas.append(
        svg("path", {
          class: `line line-${name}${faint ? " faint" : ""}`,
          style: `stroke:${seriesColour(name)}`,
          d: linePath(values, x, y),
        }),
      );
    }
    decisions.forEach((decision, i) => {
      const at = { x: x(i), y: bottom + 16 };
      if (decision === "promoted") {
        canvas.append(svg("circle", { class: "promoted", cx: at.x, cy: at.y, r: mark }));
      } else if (decision === "rejected") {
        const d = `M${at.x - mark} ${at.y - mark}l${2 * mark} ${2 * mark}m0 ${-2 * mark}l${-2 * mark} ${2 * mark}`;
        canvas.append(svg("path", { class: "rejected", d }));
      }
    });
    walk(view, starts, (i) => [
      ...lines.map((line) => [line.label, score(line.values[i]), seriesColour(line.name)]),
      ...(decisions[i] && decisions[i] !== "none" ? [[`Challenger ${decisions[i]}`, "", null]] : []),
      ...(reasons[i] ? [[truncate(reasons[i], 60), "", null]] : []),
    ]);
    return canvas;
  };
}

/* cells: [[champion's window, window asked, Recall@20, its change]]; a row a window asked. */
function heatMap({ title, starts, cells }) {
  const rows = [...new Set(cells.map(([, asked]) => asked))].sort((a, b) => a - b);
  const values = cells.map(([, , value]) => value);
  const low = Math.min(...values);
  const range = Math.max(...values) - low || 1;
  const [left, tall] = [104, 18];
  return (width) => {
    const height = MARGIN.top + rows.length * tall + MARGIN.bottom;
    const step = (width - left - MARGIN.right) / starts.length;
    const y = (asked) => MARGIN.top + rows.indexOf(asked) * tall;
    const canvas = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
    for (const asked of rows) {
      canvas.append(svg("text", { class: "tick", x: left - 8, y: y(asked) + 13, "text-anchor": "end" }, day(starts[asked])));
    }
    for (const [at, asked, value, change] of cells) {
      const cell = svg("rect", {
        class: "heat",
        x: left + at * step,
        y: y(asked),
        width: Math.max(1, step - 1),
        height: tall - 1,
        opacity: (0.12 + (0.88 * (value - low)) / range).toFixed(2),
      });
      const told = [["Recall@20", score(value), null], ["since it was learnt", number(change, 3), null]];
      canvas.append(withTip(cell, `${day(starts[asked])}, asked after ${day(starts[at])}`, told));
    }
    timeTicks(canvas, starts, (i) => left + (i + 0.5) * step, step, height - 6);
    return canvas;
  };
}

/* counts: {kind: [a count a window]} */
function stackedBars({ title, starts, counts }) {
  const kinds = Object.keys(counts);
  const total = starts.map((_, i) => kinds.reduce((sum, kind) => sum + counts[kind][i], 0));
  return (width) => {
    const height = width < 560 ? 240 : 280;
    const view = frame(width, height, starts, 0, Math.max(...total, 4), (v) => number(v));
    const { canvas, x, y, step } = view;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title}. Use the arrow keys to walk the windows.`);
    const bar = Math.min(36, Math.max(1, step * 0.72));
    starts.forEach((_, i) => {
      let base = 0;
      for (const kind of kinds) {
        const count = counts[kind][i];
        if (!count) continue;
        const top = y(base + count);
        canvas.append(
          svg("rect", {
            class: "bar-part",
            x: (x(i) - bar / 2).toFixed(1),
            y: top.toFixed(1),
            width: bar.toFixed(1),
            height: Math.max(0.5, y(base) - top - 0.6).toFixed(1),
            style: `fill:${kindColour(kind)}`,
          }),
        );
        base += count;
      }
    });
    walk(view, starts, (i) => [
      ...[...kinds].reverse().map((kind) => [KINDS[kind].name, number(counts[kind][i]), kindColour(kind)]),
      ["All", number(total[i]), null],
    ]);
    return canvas;
  };
}

/* lines: [{label, values, colour}], counts a window. */
function countChart({ title, starts, lines }) {
  const high = Math.max(...lines.flatMap((line) => line.values), 4);
  return (width) => {
    const view = frame(width, width < 560 ? 260 : 320, starts, 0, high, (v) => number(v));
    const { canvas, x, y } = view;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title}. Use the arrow keys to walk the windows.`);
    for (const { values, colour } of [...lines].reverse()) {
      canvas.append(svg("path", { class: "size", style: `stroke:${colour}`, d: linePath(values, x, y) }));
    }
    walk(view, starts, (i) => lines.map((line) => [line.label, number(line.values[i]), line.colour]));
    return canvas;
  };
}

/* links: [[from, to, weight, count]]; null is all others; `told` gives a tip's rows for a weight. */
function flowChart(links, told) {
  const total = links.reduce((sum, link) => sum + link[2], 0);
  const named = (name) => (name === null ? "All others" : category(name));
  const sides = [0, 1].map((side) => {
    const weights = new Map();
    for (const link of links) weights.set(link[side], (weights.get(link[side]) ?? 0) + link[2]);
    return [...weights].sort((a, b) => (a[0] === null) - (b[0] === null) || b[1] - a[1]);
  });
  return (width) => {
    const rows = Math.max(...sides.map((side) => side.length));
    const [gap, bar] = [12, 8];
    const height = Math.max(160, rows * 48);
    const label = Math.min(220, width * 0.29);
    const scale = Math.min(...sides.map((side) => (height - gap * (side.length - 1)) / total));
    const canvas = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "flow" });
    const places = sides.map((side, index) => {
      const used = total * scale + gap * (side.length - 1);
      let top = (height - used) / 2;
      const left = index ? width - label - bar : label;
      return new Map(side.map(([name, weight], rank) => {
        const place = { name, weight, rank, left, top, next: top, size: weight * scale };
        top += place.size + gap;
        return [name, place];
      }));
    });
    const bands = orderLinks(links, places).map(([before, after, weight, count]) => {
      const [a, b] = [places[0].get(before), places[1].get(after)];
      const size = weight * scale;
      const [x0, x1] = [a.left + bar, b.left];
      const [y0, y1, mid] = [a.next + size / 2, b.next + size / 2, (x0 + x1) / 2];
      a.next += size;
      b.next += size;
      const title = `${named(before)} → ${named(after)}`;
      const band = svg("path", {
        class: "band",
        d: `M${x0} ${y0.toFixed(1)}C${mid} ${y0.toFixed(1)} ${mid} ${y1.toFixed(1)} ${x1} ${y1.toFixed(1)}`,
        "stroke-width": Math.max(0.75, size).toFixed(2),
        style: `stroke:${before === null ? "var(--flow-other)" : `var(--flow-${a.rank % 9})`}`,
        tabindex: 0,
        role: "img",
        "aria-label": `${title}: ${told(weight, count).map(([what, value]) => `${value} ${what}`).join(", ")}`,
      });
      withTip(band, title, told(weight, count));
      return { band, before, after };
    });
    canvas.append(...bands.sort((a, b) => (b.before === null) - (a.before === null)).map((b) => b.band));
    places.forEach((side, index) => {
      for (const place of side.values()) canvas.append(flowNode(place, index, bands, named));
    });
    const room = Math.floor((label - 14) / 7.9); // capitals are wide
    for (const text of canvas.querySelectorAll("text")) text.textContent = shorten(text.textContent, room);
    return canvas;
  };

  function flowNode(place, index, bands, named) {
    const own = bands.filter((band) => (index ? band.after : band.before) === place.name);
    const light = (on) => () => {
      for (const { band } of own) band.classList.toggle("on", on);
      own[0].band.ownerSVGElement.classList.toggle("active", on);
    };
    const colour = index || place.name === null ? "var(--flow-other)" : `var(--flow-${place.rank % 9})`;
    const group = svg(
      "g",
      { class: "flow-node", onpointerenter: light(true), onpointerleave: light(false) },
      svg("rect", { x: place.left, y: place.top, width: 8, height: Math.max(1, place.size), rx: 2, style: `fill:${colour}` }),
      svg(
        "text",
        {
          x: index ? place.left + 16 : place.left - 8,
          y: place.top + place.size / 2 + 4,
          "text-anchor": index ? "start" : "end",
        },
        named(place.name),
      ),
    );
    return withTip(group, `${index ? "To" : "From"} ${named(place.name)}`, told(place.weight));
  }
}

/* A path that does not fit is told by its last part, which says most. */
function shorten(path, length) {
  return path.length > length ? truncate(path.split("/").at(-1), length) : path;
}

/* Bands leave and arrive in the order of the other side's nodes, so that they cross least. */
function orderLinks(links, places) {
  const rank = (side, link) => places[side].get(link[side]).rank;
  return [...links].sort((a, b) => rank(0, a) - rank(0, b) || rank(1, a) - rank(1, b));
}

/* The area between low and high where both are known: [[low, high] or null]. */
function areaPath(band, x, y) {
  const runs = [];
  band.forEach((interval, i) => {
    if (!interval) return;
    if (i && band[i - 1]) runs.at(-1).push([i, ...interval]);
    else runs.push([[i, ...interval]]);
  });
  const at = (i, value) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
  return runs
    .map((run) => `M${[...run.map(([i, , high]) => at(i, high)), ...run.reverse().map(([i, low]) => at(i, low))].join("L")}Z`)
    .join("");
}

/* shares: one a window; marks: [[window, kind, score]]; band: what was forecast for each window;
   ahead: [[expected, low, high]] of the windows to come. */
function sparkline({ title, starts, shares, marks, band, ahead }) {
  const known = shares.filter((share) => share != null);
  const intervals = [...band, ...ahead.map(([, low, top]) => [low, top])];
  const seen = Math.max(...known, 1e-9);
  const high = Math.max(seen, Math.min(1.5 * seen, Math.max(...intervals.map((interval) => interval?.[1] ?? 0))));
  const all = shares.length + ahead.length;
  const named = (i) => (i < starts.length ? windowName(starts, i) : `Forecast, ${plural(i - starts.length + 1, "window", "windows")} ahead`);
  return (width) => {
    const [height, pad] = [72, 8];
    const step = (width - 2 * pad) / Math.max(1, all - 1);
    const x = (i) => pad + i * step;
    const y = (share) => height - pad - (Math.min(share, high) / high) * (height - 2 * pad);
    const coming = [shares.at(-1), ...ahead.map(([expected]) => expected)];
    const canvas = svg(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title },
      svg("line", { class: "grid", x1: 0, x2: width, y1: y(0), y2: y(0) }),
      svg("path", { class: "spark-band", d: areaPath(intervals, x, y) }),
      ahead.length ? svg("path", { class: "spark-ahead", d: linePath(coming, (i) => x(shares.length - 1 + i), y) }) : null,
      svg("path", { class: "spark", d: linePath(shares, x, y) }),
    );
    for (const [window, kind] of marks) {
      if (shares[window] == null) continue;
      const [cx, cy] = [x(window), y(shares[window])];
      canvas.append(svg("circle", { class: "spark-mark", cx, cy, r: 3.5, style: `fill:${kindColour(kind)}` }));
    }
    canvas.addEventListener("pointermove", (event) => {
      const inside = event.clientX - canvas.getBoundingClientRect().left - pad;
      const i = Math.max(0, Math.min(all - 1, Math.round(inside / step)));
      const interval = intervals[i];
      showTip(event.clientX, event.clientY, named(i), [
        i < shares.length
          ? ["share of events", percent(shares[i]), "var(--ink)"]
          : ["expected", percent(ahead[i - shares.length][0]), "var(--ink)"],
        ...(interval ? [["forecast interval", `${percent(interval[0])} to ${percent(interval[1])}`, "var(--spark-band)"]] : []),
        ...marks
          .filter(([window]) => window === i)
          .map(([, kind, z]) => [KINDS[kind].name, `z ${number(z, 1)}`, kindColour(kind)]),
      ]);
    });
    canvas.addEventListener("pointerleave", hideTip);
    return canvas;
  };
}
