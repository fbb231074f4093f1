"use strict";
// The sections that look at groups of classes: AP, errors, the tail, calibration.

function drawAp() {
  const node = content("ap");
  const paired = RUNS.length > 1;
  node.append(lead(`Mean over classes, with ${100 * REPORT.bootstrap.level} % intervals: how far the number would move on other `
    + "validation images of the same kind. Another training seed moves it too, and no interval here knows by how much."));
  const row = paired ? 56 : 40, left = 200, right = 170, width = 1080, bottom = REPORT.groups.length * row + 6;
  const ends = RUNS.flatMap((run) => run.groups.flatMap((g) => [g.ap, ...(g.interval || [])])).filter(defined);
  const most = Math.min(1, Math.ceil(10 * Math.max(0.1, ...ends)) / 10);
  const x = (v) => left + (v / most) * (width - left - right);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${bottom + 24}`, width, role: "img" });
  for (let v = 0; v <= most + 1e-9; v += most > 0.5 ? 0.2 : 0.1) {
    svg.append(shape("line", { class: "grid", x1: x(v), x2: x(v), y1: 0, y2: bottom }));
    svg.append(shape("text", { class: "soft", x: x(v), y: bottom + 17, "text-anchor": "middle" }, Math.round(100 * v)));
  }
  REPORT.groups.forEach((group, number) => {
    const middle = number * row + row / 2;
    svg.append(shape("text", { class: "strong", x: 0, y: middle - 1 }, group.name));
    svg.append(shape("text", { class: "soft", x: 0, y: middle + 15 }, evaluatedOf(group)));
    RUNS.forEach((run, which) => {
      const g = run.groups[number], y = middle + (paired ? (which ? 13 : -11) : 0);
      if (!defined(g.ap)) return;
      const tip = `${run.name}\n${g.name}: AP ${percent(g.ap, 2)}\n${range(g.interval)}`;
      svg.append(shape("g", { tip, opacity: paired && !which ? 0.55 : 1 },
        g.interval ? shape("line", { x1: x(g.interval[0]), x2: x(g.interval[1]), y1: y, y2: y, stroke: colour(g.key),
          "stroke-width": 8, "stroke-linecap": "round", opacity: 0.3 }) : null,
        shape("circle", { cx: x(g.ap), cy: y, r: 6, fill: colour(g.key) })));
      svg.append(shape("text", { class: "strong", x: width - right + 16, y: y + 5 }, percent(g.ap)));
      svg.append(shape("text", { class: "soft", x: width - right + 58, y: y + 5 },
        g.interval ? range(g.interval) : "too few images"));
    });
  });
  node.append(svg);
  if (paired) {
    node.append(element("p", { class: "soft" }, `Upper, pale: first run, ${RUNS[0].name}. Lower: second run, ${RUNS[1].name}.`), differences());
  }
  const metrics = Object.keys(REPORT.metrics);
  node.append(element("table", { class: "metrics" }, element("thead", {}, element("tr", {}, element("th", {}, "metric"),
    metrics.map((name) => element("th", {}, name)))), element("tbody", {}, RUNS.map((run) => element("tr", {},
    element("td", { title: run.name }, paired ? run.name : "value"),
    metrics.map((name) => element("td", {}, run.metrics[name] < 0 ? "–" : percent(run.metrics[name]))))))));
}

function evaluatedOf(group) {
  const some = group.evaluated < group.classes ? `${whole(group.evaluated)} of ${whole(group.classes)}` : whole(group.classes);
  return `${some} classes on ${plural(group.images, "image")}`;
}

function verdict(text) {
  const kind = { "too few images": "few" }[text] || text;
  return text ? element("span", { class: `verdict ${kind}` }, text) : "";
}

function differences() {
  const d = REPORT.difference;
  const head = ["group", "difference", "95 % interval", "", "classes better", "worse"];
  return element("table", {}, element("thead", {}, element("tr", {}, head.map((h) => element("th", {}, h)))),
    element("tbody", {}, d.groups.map((g) => element("tr", {}, element("td", {}, g.name),
      element("td", {}, signed(g.ap, 2)), element("td", {}, range(g.interval, signed)), element("td", {}, verdict(g.verdict)),
      element("td", {}, g.better), element("td", {}, g.worse)))));
}

function drawErrors(run) {
  const node = content("errors");
  node.append(lead("Each bar is as long as what AP lacks to 100, split into the kinds of error that take it away. The parts sum "
    + "exactly. In the table, in grey: what mending this kind alone would bring (TIDE)."));
  const holder = element("div");
  const draw = (at) => holder.replaceChildren(errorBars(run, at), legend(REPORT.kinds.map((k) => [k, k])), errorTable(run, at));
  node.append(element("div", { class: "tools" }, choice([["", "AP, IoU 0.50 to 0.95"], ["50", "AP50"]], "", draw)), holder);
  draw("");
}

function errorBars(run, at) {
  const groups = run.groups.filter((g) => defined(g.ap));
  const row = 38, left = 110, right = 150, width = 1080, bottom = groups.length * row;
  const x = (v) => left + v * (width - left - right);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${bottom + 4}`, width, role: "img" });
  groups.forEach((group, number) => {
    const y = number * row + 6;
    svg.append(shape("text", { class: "strong", x: 0, y: y + 17 }, group.name));
    let from = 0;
    for (const kind of REPORT.kinds) {
      const part = Math.max(0, group[`share${at}`][kind]);
      const bar = shape("rect", { x: x(from), y, width: Math.max(0, x(part) - x(0)), height: 25, fill: colour(kind),
        tip: `${group.name}: ${kind}\n${percent(part, 2)} of what AP${at} lacks\nmended alone: ${signed(group[`alone${at}`][kind], 2)}` });
      svg.append(bar);
      if (part > 0.035) {
        svg.append(shape("text", { x: x(from + part / 2), y: y + 17, "text-anchor": "middle",
          style: `fill:${["missed", "both"].includes(kind) ? "#fff" : "#111"};pointer-events:none` }, percent(part, 0)));
      }
      from += part;
    }
    svg.append(shape("text", { class: "soft", x: x(from) + 10, y: y + 17 }, `AP${at} ${percent(at ? group.ap50 : group.ap)}`));
  });
  return svg;
}

function errorTable(run, at) {
  const groups = run.groups.filter((g) => defined(g.ap));
  return element("table", {}, element("thead", {}, element("tr", {}, element("th", {}, "kind"), groups.map((g) => element("th", {}, g.name)))),
    element("tbody", {}, REPORT.kinds.map((kind) => element("tr", {},
      element("td", {}, element("span", { class: "dot", style: `background:${colour(kind)}` }), kind),
      groups.map((g) => element("td", {}, `${percent(g[`share${at}`][kind])} `,
        element("span", { class: "soft" }, signed(g[`alone${at}`][kind]))))))));
}

function drawTail(run) {
  const node = content("tail");
  const known = [["train_images", "box-annotated training images"], ["image_level_images", "image-level images"]]
    .filter(([key]) => run.classes.some((c) => defined(c[key])));
  if (!known.length) {
    node.append(lead("The training images of the classes are not known: neither the checkpoint nor the data says."));
    return;
  }
  node.append(lead("A point is a class; click it to see it below. The line is the mean of classes with about as many images."));
  const holder = element("div");
  const draw = (key) => holder.replaceChildren(scatter(run, key, known.find(([k]) => k === key)[1]),
    legend(run.groups.slice(1).map((g) => [g.key, g.name])));
  node.append(element("div", { class: "tools" }, choice(known, known[0][0], draw)), holder);
  draw(known[0][0]);
}

function scatter(run, key, label) {
  const width = 1080, height = 360, left = 48, bottom = height - 44, top = 10;
  const classes = run.classes.filter((c) => defined(c.ap) && defined(c[key]));
  // One more than the count, so that classes without an image have a place on the logarithmic axis.
  const most = Math.log10(1 + Math.max(10, ...classes.map((c) => c[key])));
  const x = (n) => left + 10 + (Math.log10(1 + n) / most) * (width - left - 30), y = (v) => bottom - v * (bottom - top);
  const svg = shape("svg", { class: "scatter", viewBox: `0 0 ${width} ${height}`, width, role: "img" });
  for (const v of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(shape("line", { class: "grid", x1: left, x2: width - 10, y1: y(v), y2: y(v) }));
    svg.append(shape("text", { class: "soft", x: left - 8, y: y(v) + 4, "text-anchor": "end" }, 100 * v));
  }
  for (const n of [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000].filter((n) => Math.log10(1 + n) <= most)) {
    svg.append(shape("line", { class: "grid", x1: x(n), x2: x(n), y1: top, y2: bottom }));
    svg.append(shape("text", { class: "soft", x: x(n), y: bottom + 18, "text-anchor": "middle" }, whole(n)));
  }
  svg.append(shape("text", { class: "soft", x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, label));
  svg.append(shape("text", { class: "soft", transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "AP"));
  for (const c of classes) {
    svg.append(shape("circle", { cx: x(c[key]), cy: y(c.ap), r: classes.length > 300 ? 3.5 : 5, fill: colour(c.group), "fill-opacity": 0.6,
      tip: `${c.name}\nAP ${percent(c.ap)}, ${whole(c[key])} ${label}`, onclick: () => openClass(c.name) }));
  }
  const sorted = [...classes].sort((a, b) => a[key] - b[key]), bins = Math.min(12, Math.floor(sorted.length / 4));
  const points = [];
  for (let b = 0; b < bins; b++) {
    const part = sorted.slice(Math.floor((b * sorted.length) / bins), Math.floor(((b + 1) * sorted.length) / bins));
    const mean = (f) => part.reduce((sum, c) => sum + f(c), 0) / part.length;
    points.push(`${x(10 ** mean((c) => Math.log10(1 + c[key])) - 1)},${y(mean((c) => c.ap))}`);
  }
  svg.append(shape("polyline", { points: points.join(" "), fill: "none", stroke: "var(--all)", "stroke-width": 2, opacity: 0.75,
    "pointer-events": "none" }));
  return svg;
}

function drawCalibration(run) {
  const node = content("calibration");
  node.append(lead(`Is a score of 0.7 right seven times in ten? Detections with a score of ${run.calibration_min_score} or more, IoU 0.5. `
    + "On the diagonal a score is the share that is right; below it the model is too sure. The error is the mean distance from it."));
  node.append(element("div", { class: "many" }, run.groups.map((group) => {
    const found = group.calibration, { svg, x, y } = unitSquare(245, "score", "right");
    const total = found.count.reduce((a, b) => a + b, 0);
    svg.append(shape("line", { class: "axis", x1: x(0), y1: y(0), x2: x(1), y2: y(1), "stroke-dasharray": "4 3" }));
    found.count.forEach((count, bin) => {
      if (!count) return;
      const n = found.count.length, low = bin / n;
      svg.append(shape("rect", { x: x(low) + 1, width: x(1 / n) - x(0) - 2, y: y(found.precision[bin]), height: y(0) - y(found.precision[bin]),
        fill: colour(group.key), opacity: 0.35 + 0.55 * Math.sqrt(count / total),
        tip: `score ${low.toFixed(1)} to ${(low + 1 / n).toFixed(1)}: ${whole(count)} detections\nmean score ${percent(found.score[bin])} %\nright ${percent(found.precision[bin])} %` }));
    });
    return element("div", {}, element("h3", {}, group.name),
      element("p", {}, `error ${percent(found.error)}, ${whole(total)} detections`), svg);
  })));
}
