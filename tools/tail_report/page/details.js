"use strict";
// What is shown of one class, of pairs of classes and of single images.

function classDetail(chosen) {
  const both = RUNS.map((run) => run.classes.find((c) => c.name === chosen.name));
  if (!defined(chosen.ap)) {
    return element("p", { class: "soft" }, `${chosen.name} has no box in the validation annotations, so it has no AP.`);
  }
  return element("div", { class: "detail-grid" },
    element("div", {}, element("h3", {}, `${chosen.name}: precision and recall`), precisionRecall(both),
      RUNS.length > 1 ? element("p", { class: "soft" }, "Dark: first run. Blue: second run.") : null),
    element("div", {}, element("h3", {}, `What AP lacks: ${percent(1 - chosen.ap)}`), classErrors(chosen)),
    element("div", {}, element("h3", {}, `What its ${whole(chosen.boxes)} boxes are taken for`), takenFor(chosen)));
}

// IoU 0.5 solid, 0.75 dashed.
function precisionRecall(entries) {
  const { svg, x, y } = unitSquare(330, "recall", "precision");
  const line = (values) => values.map((p, level) => `${x(level / 100)},${y(p)}`).join(" ");
  entries.forEach((c, which) => {
    const stroke = entries.length > 1 && which ? "var(--accent)" : "var(--all)";
    svg.append(shape("polyline", { class: "curve", points: line(c.precision50), fill: "none", stroke, "stroke-width": 2.2 }));
    svg.append(shape("polyline", { points: line(c.precision75), fill: "none", stroke, "stroke-width": 1.4, "stroke-dasharray": "5 4" }));
  });
  const c = entries[entries.length - 1];
  const marker = shape("circle", { r: 4, fill: "var(--accent)", visibility: "hidden" });
  const levelAt = (event) => {
    const bounds = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / bounds.width;
    const level = Math.round((100 * ((event.clientX - bounds.left) * scale - x(0))) / (x(1) - x(0)));
    return Math.max(0, Math.min(level, c.precision50.length - 1));
  };
  const surface = shape("rect", { x: x(0), y: y(1), width: x(1) - x(0), height: y(0) - y(1), fill: "transparent" });
  if (c.precision50.length) {
    addTip(surface, (event) => {
      const level = levelAt(event);
      fill(marker, { cx: x(level / 100), cy: y(c.precision50[level]), visibility: "visible" }, []);
      return `recall ${level} %\nprecision ${percent(c.precision50[level])} %\nscore ${c.score50[level].toFixed(3)} or more`;
    });
    surface.addEventListener("pointerleave", () => marker.setAttribute("visibility", "hidden"));
  }
  svg.append(marker, surface);
  return element("div", {}, svg, element("div", { class: "soft" }, "Solid: IoU 0.5. Dashed: 0.75."));
}

function classErrors(c) {
  return element("table", {}, element("thead", {}, element("tr", {}, ["kind", "share", "alone", "count"].map((h) => element("th", {}, h)))),
    element("tbody", {}, REPORT.kinds.map((kind) => element("tr", {},
      element("td", {}, element("span", { class: "dot", style: `background:${colour(kind)}` }), kind),
      element("td", {}, percent(c.share[kind])), element("td", { class: "soft" }, signed(c.alone[kind])),
      element("td", { class: "soft" }, whole(c.counts[kind]))))));
}

function takenFor(c) {
  const total = c.right + c.nothing + c.confused_with.reduce((sum, other) => sum + other.boxes, 0);
  const rest = c.boxes - total;
  const rows = [[`${c.name} (right)`, c.right], ...c.confused_with.map((o) => [o.name, o.boxes]),
    ["other classes", Math.max(0, rest)], ["nothing", c.nothing]].filter(([, n], i) => n || !i);
  return element("table", {}, element("tbody", {}, rows.map(([name, n]) => element("tr", {}, element("td", { style: "white-space:normal" }, name),
    element("td", {}, whole(n)), element("td", { class: "soft" }, `${percent(n / c.boxes, 0)} %`)))));
}

function drawConfusions(run) {
  const node = content("confusions");
  node.append(lead("For each annotated box, the class of the detection with the highest score at IoU 0.5 or more, where it is another one."
    + (REPORT.annotations.federated ? " Judged: on how many of these images the detected class is annotated or verified absent, so that AP counts it as an error." : "")));
  if (!run.confusions.length) {
    node.append(lead("None: wherever a box is detected, its class is right."));
    return;
  }
  const boxes = new Map(run.classes.map((c) => [c.name, c]));
  const head = ["annotated", "detected as", "boxes", "of the class", ...(REPORT.annotations.federated ? ["judged"] : [])];
  const body = element("tbody", {}, run.confusions.map((pair) => element("tr", {},
    element("td", { class: "name" }, groupDot(boxes.get(pair.true)), pair.true),
    element("td", { class: "name" }, groupDot(boxes.get(pair.detected)), pair.detected),
    element("td", {}, whole(pair.boxes)), element("td", {}, `${percent(pair.boxes / boxes.get(pair.true).boxes, 0)} %`),
    REPORT.annotations.federated ? element("td", {}, whole(pair.judged)) : null)));
  node.append(element("div", { class: "scroll", style: "max-height:420px" }, element("table", {}, element("thead", {},
    element("tr", {}, head.map((h, i) => element("th", { class: i < 2 ? "name" : "" }, h)))), body)));
}

function drawImages(run) {
  const node = content("images");
  const worst = run.worst_images;
  if (!worst.images.length) {
    node.append(lead("No image has an error at the operating point, or none was asked for."));
    return;
  }
  node.append(lead(`Lowest F1 at the score with the highest F1 overall: ${worst.score.toFixed(2)} (precision ${percent(worst.precision, 0)} %, `
    + `recall ${percent(worst.recall, 0)} %). Dashed boxes are annotated, solid ones detected; point at one for its class.`));
  const section = document.getElementById("images");
  section.classList.remove("only-annotated", "only-detected");
  node.append(element("div", { class: "tools" }, choice([["", "both"], ["only-annotated", "annotated"], ["only-detected", "detected"]], "", (key) => {
    section.classList.remove("only-annotated", "only-detected");
    if (key) section.classList.add(key);
  })));
  node.append(legend([["right", "right, or found"], ...REPORT.kinds.map((k) => [k, k]), ["unjudged", "not judged"]]));
  node.append(element("div", { class: "cards" }, worst.images.map(imageCard)));
}

function imageCard(image) {
  const { width, height } = image;
  const svg = shape("svg", { viewBox: `0 0 ${width || 640} ${height || 480}`, role: "img" });
  if (image.pixels) svg.append(shape("image", { href: image.pixels, width, height }));
  const box = ([x, y, w, h], name, kind, tip) => shape("rect", { class: `box ${name}`, x, y, width: Math.max(0, w), height: Math.max(0, h),
    stroke: colour(kind), tip });
  for (const d of [...image.detections].reverse()) {
    svg.append(box(d.box, "detected", d.kind === "ignored" ? "unjudged" : d.kind, `detected: ${d.name} ${d.score.toFixed(2)}\n${d.kind === "unjudged" ? "class not judged on this image" : d.kind}`));
  }
  for (const b of image.boxes) {
    svg.append(box(b.box, "annotated", b.found ? "right" : "missed", `annotated: ${b.name}\n${b.found ? "found" : "not found"}`));
  }
  return element("figure", {}, svg, element("figcaption", {}, `${image.file}: ${image.missed} of ${image.boxes.length} annotated not found, ${plural(image.false, "false detection")}`));
}
