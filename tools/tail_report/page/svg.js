"use strict";
// Elements, numbers and small SVG parts. Names from the data become text nodes, never markup.

const REPORT = JSON.parse(document.getElementById("data").textContent);
const RUNS = [REPORT, REPORT.compared].filter(Boolean);
const GROUP_NAMES = Object.fromEntries(REPORT.groups.map((g) => [g.key, g.name]));
const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "tip") addTip(node, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// Text that follows the pointer over a node.
function addTip(node, text) {
  const tip = document.getElementById("tip");
  node.addEventListener("pointermove", (event) => {
    tip.textContent = typeof text === "function" ? text(event) : text;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    const top = Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8);
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  });
  node.addEventListener("pointerleave", () => { tip.hidden = true; });
}

const colour = (name) => `var(--${name || "all"})`;
const defined = (value) => value !== null && value !== undefined;
const percent = (value, digits = 1) => (defined(value) ? (100 * value).toFixed(digits) : "–");
const signed = (value, digits = 1) =>
  defined(value) ? `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(digits)}` : "–";
const whole = (value) => (defined(value) ? value.toLocaleString("en") : "unknown");
const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;
const range = (ends, show = percent) => (ends ? `${show(ends[0])} to ${show(ends[1])}` : "–");

function choice(options, selected, change) {
  const buttons = options.map(([key, label]) =>
    element("button", { type: "button", "aria-pressed": key === selected, title: label, onclick: () => {
      for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.key === key);
      change(key);
    }, "data-key": key }, label));
  return element("span", { class: "choice", role: "group" }, buttons);
}

function legend(entries) {
  return element("div", { class: "legend" }, entries.map(([name, label]) =>
    element("span", {}, element("i", { style: `background:${colour(name)}` }), label)));
}

function lead(text) {
  return element("p", { class: "lead" }, text);
}

function content(id) {
  const node = document.querySelector(`#${id} .content`);
  node.replaceChildren();
  return node;
}

// A square from 0 to 1 in both directions, with a grid. -> {svg, x, y}
function unitSquare(size, xLabel, yLabel) {
  const left = 40, top = 8, side = size - left - 14, bottom = top + side;
  const x = (v) => left + v * side, y = (v) => bottom - v * side;
  const svg = shape("svg", { viewBox: `0 0 ${size} ${bottom + 38}`, width: size, role: "img" });
  for (const v of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(shape("line", { class: "grid", x1: x(v), x2: x(v), y1: top, y2: bottom }));
    svg.append(shape("line", { class: "grid", x1: left, x2: left + side, y1: y(v), y2: y(v) }));
    svg.append(shape("text", { class: "soft", x: x(v), y: bottom + 16, "text-anchor": "middle" }, 100 * v));
    svg.append(shape("text", { class: "soft", x: left - 6, y: y(v) + 4, "text-anchor": "end" }, 100 * v));
  }
  svg.append(shape("text", { class: "soft", x: x(0.5), y: bottom + 33, "text-anchor": "middle" }, xLabel));
  svg.append(shape("text", { class: "soft", "text-anchor": "middle",
    transform: `translate(11 ${y(0.5)}) rotate(-90)` }, yLabel));
  return { svg, x, y };
}
