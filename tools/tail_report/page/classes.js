"use strict";
// The table of classes: worst first, sortable, filterable; a click opens a class.

const CLASSES = { sort: "ap", descending: false, filter: "", group: "all", open: null };

function classColumns() {
  const columns = [
    ["name", "class", (c) => c.name, (c) => [groupDot(c), c.name]],
    ["train_images", "training images", (c) => c.train_images, (c) => whole(c.train_images)],
    ["image_level_images", "image-level", (c) => c.image_level_images, (c) => whole(c.image_level_images)],
    ["boxes", "val boxes", (c) => c.boxes, (c) => whole(c.boxes)],
    ["ap", "AP", (c) => c.ap, (c) => percent(c.ap)],
    ["interval", "95 % interval", (c) => (c.interval ? c.interval[1] - c.interval[0] : null),
      (c) => (c.interval ? range(c.interval) : element("span", { class: "soft" }, defined(c.ap) ? "few images" : "–"))],
    ["ap50", "AP50", (c) => c.ap50, (c) => percent(c.ap50)],
    ["recall", "recall", (c) => c.recall, (c) => percent(c.recall)],
    ["errors", "lacks most by", (c) => (c.share ? Math.max(...Object.values(c.share)) : null), worstKind],
  ];
  const known = columns.filter(([key]) => !["train_images", "image_level_images"].includes(key)
    || REPORT.classes.some((c) => defined(c[key])));
  if (RUNS.length > 1) {
    const of = new Map(REPORT.difference.classes.map((d) => [d.name, d]));
    known.splice(known.length - 3, 3,
      ["difference", "difference", (c) => of.get(c.name).ap, (c) => signed(of.get(c.name).ap)],
      ["difference_interval", "its interval", (c) => { const i = of.get(c.name).interval; return i ? Math.max(i[0], -i[1]) : null; },
        (c) => range(of.get(c.name).interval, signed)],
      ["verdict", "verdict", (c) => ["", "too few images", "noise", "worse", "better"].indexOf(of.get(c.name).verdict),
        (c) => verdict(of.get(c.name).verdict)]);
  }
  return known;
}

function groupDot(c) {
  return c.group ? element("span", { class: "dot", style: `background:${colour(c.group)}`, title: GROUP_NAMES[c.group] }) : null;
}

function worstKind(c) {
  if (!c.share) return "–";
  const [kind, part] = Object.entries(c.share).reduce((a, b) => (b[1] > a[1] ? b : a));
  return part > 0 ? [element("span", { class: "dot", style: `background:${colour(kind)}` }), `${kind} ${percent(part, 0)}`] : "–";
}

function drawClasses(run) {
  const node = content("classes");
  const columns = classColumns();
  const body = element("tbody"), count = element("span", { class: "soft" });
  const heads = columns.map(([key, label]) => element("th", { "data-key": key, scope: "col" },
    element("button", { type: "button", onclick: () => {
      CLASSES.descending = CLASSES.sort === key ? !CLASSES.descending : false;
      CLASSES.sort = key;
      show();
    } }, label)));
  function show() {
    const [, , value] = columns.find(([key]) => key === CLASSES.sort) || columns[0];
    const words = CLASSES.filter.toLowerCase();
    const rows = run.classes.filter((c) => c.name.toLowerCase().includes(words) && (CLASSES.group === "all" || c.group === CLASSES.group));
    const sign = CLASSES.descending ? -1 : 1;
    rows.sort((a, b) => {
      const [p, q] = [value(a), value(b)];
      if (!defined(p) || !defined(q)) return defined(q) - defined(p);
      return sign * (typeof p === "string" ? p.localeCompare(q) : p - q) || b.boxes - a.boxes;
    });
    for (const head of heads) {
      const sorted = head.dataset.key === CLASSES.sort;
      head.setAttribute("aria-sort", sorted ? (CLASSES.descending ? "descending" : "ascending") : "none");
      const button = head.firstChild;
      button.textContent = button.textContent.replace(/ [▲▼]$/, "") + (sorted ? (CLASSES.descending ? " ▼" : " ▲") : "");
    }
    count.textContent = `${whole(rows.length)} of ${whole(run.classes.length)} classes`;
    body.replaceChildren(...rows.flatMap((c) => {
      const row = element("tr", { class: "row", tabindex: 0, "data-name": c.name, onclick: () => toggle(c.name),
        onkeydown: (event) => { if (event.key === "Enter") toggle(c.name); } },
      columns.map(([, , , cell]) => element("td", {}, cell(c))));
      if (CLASSES.open !== c.name) return [row];
      row.classList.add("open");
      return [row, element("tr", { class: "detail" }, element("td", { colspan: columns.length }, classDetail(c)))];
    }));
  }
  function toggle(name) {
    CLASSES.open = CLASSES.open === name ? null : name;
    show();
  }
  CLASSES.show = show;
  node.append(lead("Worst first; click a heading to sort, a class for its precision-recall curve, its errors and what it is taken for. "
    + `A class on fewer than ${REPORT.bootstrap.fewest_images} validation images has no interval.`
    + (RUNS.length > 1 ? " Verdicts hold the share of false alarms among all classes that are called better or worse at 5 %." : "")));
  const search = element("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter classes by name", value: CLASSES.filter,
    oninput: (event) => { CLASSES.filter = event.target.value; show(); } });
  node.append(element("div", { class: "tools" }, search,
    REPORT.groups.length > 1 ? choice(REPORT.groups.map((g) => [g.key, g.name]), CLASSES.group, (key) => { CLASSES.group = key; show(); }) : null, count));
  node.append(element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, heads)), body)));
  show();
}

function openClass(name) {
  Object.assign(CLASSES, { filter: "", group: "all", open: name });
  drawClasses(currentRun());
  document.querySelector(`#classes tr[data-name="${CSS.escape(name)}"]`).scrollIntoView({ block: "center" });
}
