// The way down, step by step: a film strip and curves over one axis, the evaluations of the network.
// So two solvers lie beside each other at equal cost.

import { ask } from "./api.js";
import { $, h, number, s, tell } from "./dom.js";
import { paint } from "./paint.js";
import { sign } from "./stage.js";
import { changed, colours, cost, cursor, goTo, isOpen, known, laneRuns, on, spent, steps, store, watch } from "./store.js";

const GUTTER = 58; // pixels, left of the axis
const LETTERS = ["A", "B"];
let strips = [];
let plots = null;
let range = null;
let told = null;

export function makeTimeline() {
  range = h("input", { type: "range", min: 0, max: 0, value: 0, id: "scrub", ariaLabel: "Step" });
  range.addEventListener("input", () => goTo(Number(range.value)));
  strips = LETTERS.map((letter) => h("div", { className: `strip lane-${letter}`, ariaHidden: "true" }));
  plots = h("div", { id: "plots" });
  told = h("tbody", {});
  const table = h("details", { id: "table" }, h("summary", {}, "All numbers"), h("div", { className: "scroll" },
    h("table", {}, h("caption", {}, "Every step of lane A"), h("thead", {}, h("tr", {},
      ...["step", "σ", "σ next", "NFE", "x rms", "x̂0 rms", "ε rms", "Δε rms", "δx̂0 rms", "∠ε", "ms"].map((text) => h("th", { scope: "col" }, text)))), told)));
  $("timeline").append(
    h("div", { className: "rail" }, h("button", { type: "button", id: "play", onclick: () => dispatchEvent(new Event("play")) }, "Play"), range),
    h("div", { className: "track", onpointerdown: drag, onpointermove: drag }, ...strips, plots, h("div", { className: "cursor", id: "cursor" })),
    h("p", { className: "row" },
      h("button", { type: "button", id: "measure", onclick: measure, title: "Draw the same way down in steps so small that the solver hardly errs, and measure the distance of x to it" }, "Measure against a fine reference"),
      h("span", { className: "quiet", id: "legend" })),
    table);
  on("steps lanes view state", renderStrips);
  on("steps lanes state distance", renderPlots);
  on("cursor steps lanes", renderCursor);
  new ResizeObserver(() => changed("distance", "cursor")).observe($("timeline"));
}

/** Evaluations on the whole axis. */
const reach = () => Math.max(1, ...laneRuns().filter(Boolean).map(cost));

function drag(event) {
  if (event.type === "pointermove" && event.buttons !== 1) return;
  const box = event.currentTarget.getBoundingClientRect();
  const at = ((event.clientX - box.left - GUTTER) / Math.max(1, box.width - GUTTER)) * reach();
  const there = spent(laneRuns()[0]);
  const step = there.findIndex((nfe) => nfe > at);
  goTo(step === -1 ? there.length - 1 : step);
}

function renderStrips() {
  for (const [i, strip] of strips.entries()) {
    const run = laneRuns()[i];
    const all = steps(run);
    strip.hidden = !all.length;
    if (!all.length) continue;
    const key = `${run.id} ${store.view} ${reach()} ${colours(run) !== null}`;
    if (strip.dataset.key !== key || strip.childElementCount > all.length) strip.replaceChildren();
    strip.dataset.key = key;
    for (let at = strip.childElementCount; at < all.length; at++) {
      const canvas = h("canvas", { width: 1, height: 1 });
      canvas.style.setProperty("width", `${(100 * all[at].nfe) / reach()}%`);
      if (at < run.path.taken) canvas.className = "taken";
      paint(canvas, all, at, store.view, colours(run));
      strip.append(canvas);
    }
  }
}

function renderCursor() {
  const run = laneRuns()[0];
  const all = steps(run);
  if (!all.length) return;
  const at = cursor(run);
  range.max = all.length - 1;
  range.value = at;
  range.setAttribute("aria-valuetext", `step ${at + 1} of ${all.length}, sigma ${number(all[at].sigma)}`);
  const box = document.querySelector(".track").clientWidth - GUTTER;
  const middle = spent(run)[at] - all[at].nfe / 2;
  $("cursor").style.setProperty("transform", `translateX(${GUTTER + (middle / reach()) * box}px)`);
  const rows = [...told.children];
  rows.forEach((row, i) => row.classList.toggle("here", i === at));
}

// --- curves -------------------------------------------------------------------------------------

const CURVES = [
  { label: ["σ"], tall: 92, log: true, marks: true, of: (run) => levels(run), what: "noise level, log" },
  { label: [sign("x0")], tall: 54, of: (run) => series(run, (step) => step.rms.x0), what: "root mean square of x̂0" },
  { label: [sign("change")], tall: 54, log: true, of: (run) => series(run, (step) => step.rms.change), what: "change of x̂0 since the step before, log" },
  { label: ["∠ε"], tall: 54, of: (run) => series(run, (step) => step.angle), what: "angle between ε and that of the step before, degrees" },
  { label: [sign("difference")], tall: 54, of: (run) => series(run, (step) => step.rms.difference), what: "difference between the branches, root mean square" },
  { label: ["error"], tall: 72, log: true, of: (run) => run.distance?.map((p) => [p.nfe, p.rms]) ?? [], what: "distance of x to the fine reference, root mean square, log" },
];

const levels = (run) => {
  const all = steps(run);
  const there = [0, ...spent(run)];
  const points = all.map((step, i) => [there[i], step.sigma]);
  if (all.length) points.push([there[all.length], all[all.length - 1].sigma_next]);
  return points;
};

const series = (run, of) => steps(run).map((step, i) => [spent(run)[i] - step.nfe / 2, of(step)]).filter(([, y]) => Number.isFinite(y));

function renderPlots() {
  const runs = laneRuns();
  const wide = Math.max(220, $("timeline").clientWidth);
  const most = reach();
  plots.replaceChildren(...CURVES.map((curve) => {
    const lines = runs.map((run) => (run ? curve.of(run).filter(([, y]) => !curve.log || y > 0) : []));
    return lines.flat().length > 1 ? plotted(curve, lines, wide, most) : null;
  }).filter(Boolean), axis(wide, most));
  const distance = runs.map((run, i) => run?.distance?.length ? `${LETTERS[i]} ends ${number(run.distance[run.distance.length - 1].rms)} from its reference` : null).filter(Boolean);
  $("legend").textContent = distance.join(" · ");
  $("measure").disabled = !runs[0] || runs[0].state !== "done" || runs[0].gone;
  told.replaceChildren(...steps(runs[0]).map((step, i) => h("tr", {}, ...[i + 1, step.sigma, step.sigma_next, spent(runs[0])[i],
    step.rms.x, step.rms.x0, step.rms.eps, step.rms.difference, step.rms.change, step.angle, step.seconds * 1000]
    .map((value) => h("td", {}, number(value))))));
}

function plotted({ label, tall, log, marks, what }, lines, wide, most) {
  const values = lines.flat().map(([, y]) => (log ? Math.log10(y) : y));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (!log) low = Math.min(0, low);
  if (high - low < 1e-9) high = low + 1;
  const x = (nfe) => GUTTER + (nfe / most) * (wide - GUTTER - 6);
  const y = (value) => 8 + (tall - 16) * (1 - ((log ? Math.log10(value) : value) - low) / (high - low));
  const svg = s("svg", { width: wide, height: tall, class: "plot", role: "img" });
  svg.setAttribute("aria-label", `${what}: ${lines.map((points, i) => points.length ? `lane ${LETTERS[i]} from ${number(points[0][1])} to ${number(points[points.length - 1][1])}` : "").filter(Boolean).join("; ")}`);
  for (const value of log ? decades(low, high) : [low, high]) {
    const at = y(log ? 10 ** value : value);
    svg.append(s("line", { x1: GUTTER, x2: wide, y1: at, y2: at, class: "grid" }),
      s("text", { x: GUTTER - 6, y: at + 3.5, class: "tick" }, number(log ? 10 ** value : value)));
  }
  lines.forEach((points, i) => {
    if (!points.length) return;
    svg.append(s("polyline", { points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" "), class: `curve lane-${LETTERS[i]}` }));
    if (marks || points.length < 40) {
      for (const [a, b] of points) svg.append(s("circle", { cx: x(a).toFixed(1), cy: y(b).toFixed(1), r: marks ? 2.4 : 1.6, class: `mark lane-${LETTERS[i]}` }));
    }
  });
  return h("div", { className: "curve-row", title: what }, h("span", { className: "name", ariaHidden: "true" }, ...label.map((each) => (each.cloneNode ? each.cloneNode(true) : each))), svg);
}

function decades(low, high) {
  const whole = [];
  for (let k = Math.ceil(low - 1e-9); k <= high + 1e-9; k++) whole.push(k);
  return whole.length ? whole.slice(0, 6) : [low];
}

function axis(wide, most) {
  const svg = s("svg", { width: wide, height: 22, class: "plot axis", "aria-hidden": "true" });
  const unit = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((each) => most / each <= 10) ?? most;
  for (let nfe = 0; nfe <= most; nfe += unit) {
    svg.append(s("text", { x: GUTTER + (nfe / most) * (wide - GUTTER - 6), y: 14, class: nfe === 0 ? "tick first" : "tick middle" }, nfe));
  }
  svg.append(s("text", { x: 0, y: 14, class: "tick first" }, "NFE"));
  return svg;
}

// --- a reference --------------------------------------------------------------------------------

async function measure() {
  $("measure").disabled = true;
  for (const run of laneRuns().filter((each) => each && each.state === "done" && !each.gone)) {
    try {
      const reference = known(await ask(`/runs/${run.id}/reference`, undefined, "POST"));
      reference.hidden = true;
      watch(reference);
      await ended(reference);
      if (reference.state !== "done") throw new Error(reference.error ?? `the reference was ${reference.state}`);
      run.distance = await ask(`/runs/${run.id}/distance?to=${reference.id}`);
      const before = run.path.taken ? spent(run)[run.path.taken - 1] : 0;
      for (const point of run.distance) point.nfe += before;
    } catch (error) {
      tell(error.message, "wrong");
    }
    changed("distance");
  }
  changed("state");
}

const ended = (run) => new Promise((resolve) => {
  const look = () => (isOpen(run) ? setTimeout(look, 80) : resolve());
  look();
});
