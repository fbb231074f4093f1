"use strict";
// Puts the page together.

let shownRun = RUNS.length - 1;
const currentRun = () => RUNS[shownRun];

function drawRun() {
  const run = currentRun();
  drawErrors(run);
  drawTail(run);
  drawClasses(run);
  drawConfusions(run);
  drawCalibration(run);
  drawImages(run);
}

function drawNotes() {
  const federated = REPORT.annotations.federated;
  const notes = [
    ["Protocol", `${REPORT.protocols.join("; ")}. The metrics are the evaluator's own.`],
    ["Groups", `From ${REPORT.annotations.groups}.`],
    ["Intervals", `${whole(REPORT.bootstrap.replicates)} replicates of the Bayesian bootstrap over images, centred on the measured value and widened for classes on few images. Classes on a single image take their spread from one another.`],
    ["classification", "A false positive on a box of another class: the IoU would be enough."],
    ["localisation", "Near a box of its class (IoU 0.1 or more), but not near enough."],
    ["both", "Near a box of another class, not near enough either."],
    ["duplicate", "On a box that a better detection has matched."],
    ["background", "Near no box."],
    ["missed", "A box that nothing matched, and that no classification or localisation error is on."],
    ["Shares", "Each kind's mean gain over all orders in which the six can be mended (Shapley value), averaged over the IoU thresholds; per class, then over classes. They sum to 100 − AP."],
  ];
  if (federated) notes.splice(2, 0, ["Judged", "LVIS annotates each image for some classes only. A detection of a class that is neither annotated nor verified absent on its image is neither right nor wrong, and is no error here."]);
  if (RUNS.length > 1) notes.push(["Differences", `${REPORT.difference.of} minus ${REPORT.difference.from}. Both runs see the same weights of the images in each replicate.`]);
  content("notes").append(element("dl", {}, notes.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)])));
}

function start() {
  const data = REPORT.annotations;
  document.getElementById("runs").textContent = RUNS.map((run) => run.name).join(" → ");
  document.getElementById("facts").textContent = `${data.file.split("/").pop()}: ${whole(data.images)} images, ${whole(data.boxes)} boxes, `
    + `${whole(data.classes)} classes. ${REPORT.created}`;
  if (RUNS.length > 1) {
    document.getElementById("switch").append(choice(RUNS.map((run, i) => [String(i), run.name]), String(shownRun), (key) => {
      shownRun = Number(key);
      drawRun();
    }));
  }
  drawAp();
  drawRun();
  drawNotes();
}

start();
