// A lane: one run at one step. A large plate, its five views, and the numbers.

import { ask } from "./api.js";
import { $, h, number, s, tell } from "./dom.js";
import { paint, VIEWS } from "./paint.js";
import { changed, colours, cursor, laneRuns, on, spent, steps, store } from "./store.js";

const LETTERS = ["A", "B"];
const lanes = [];
const decoded = new Map(); // address -> promise of a blob's address

export const sign = (view) => {
  const [base, low] = VIEWS.find((each) => each.name === view).sign;
  return h("span", { className: "sign" }, base, low ? h("sub", {}, low) : null);
};

export function makeStage() {
  for (const [i, letter] of LETTERS.entries()) lanes.push(makeLane(i, letter));
  $("lanes").append(...lanes.map((lane) => lane.element));
  on("lanes", renderLanes);
  on("cursor steps view state", renderStep);
}

function makeLane(i, letter) {
  const plate = h("canvas", { className: "plate", width: 1, height: 1 });
  plate.setAttribute("role", "img");
  const picture = h("img", { className: "plate", alt: "", hidden: true });
  const views = VIEWS.map((view) => {
    const canvas = h("canvas", { width: 1, height: 1, ariaHidden: "true" });
    const button = h("button", { type: "button", title: view.what, onclick: () => look(view.name) }, canvas, sign(view.name));
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", `${view.name}: ${view.what}`);
    return { view, canvas, button };
  });
  const title = h("h2", {});
  const caption = h("p", { className: "caption" });
  const numbers = h("dl", { className: "numbers" });
  const group = h("div", { className: "views" }, ...views.map((each) => each.button));
  group.setAttribute("role", "radiogroup");
  group.setAttribute("aria-label", "What is shown of the step");
  const element = h("article", { className: `lane lane-${letter}`, hidden: true },
    h("header", {}, h("span", { className: "letter", ariaHidden: "true" }, letter), title),
    h("div", { className: "body" }, h("figure", {}, h("div", { className: "frame" }, plate, picture), caption),
      h("div", { className: "side" }, group, numbers)));
  element.setAttribute("aria-label", `Lane ${letter}`);
  return { i, element, plate, picture, views, title, caption, numbers };
}

export function look(view) {
  store.view = view;
  changed("view");
}

/** In the direction that it is written in; a long one is cut off, and there whole when pointed at. */
export const promptOf = (text) => h("span", { className: "prompt", dir: "auto", title: text }, text);

/** What distinguishes a run, in a line. */
export function brief(run) {
  const said = run.settings;
  if (!said) return `${run.model} · seed ${run.seed}`;
  const cfg = said.guidance ? said.guidance : `cfg ${number(said.cfg)}`;
  return `${said.scheduler} · ${said.spacing.length > 24 ? "own sigmas" : said.spacing} · ${cfg} · seed ${said.seed}`;
}

function renderLanes() {
  const runs = laneRuns();
  $("empty").hidden = runs[0] !== null;
  $("actions").hidden = $("timeline").hidden = runs[0] === null;
  $("lanes").className = runs[1] ? "two" : "one";
  for (const lane of lanes) {
    const run = runs[lane.i];
    lane.element.hidden = run === null;
    if (run) lane.title.replaceChildren(promptOf(run.settings?.prompt ?? run.prompt), h("small", {}, brief(run)));
  }
  renderStep();
}

function renderStep() {
  for (const lane of lanes) {
    const run = laneRuns()[lane.i];
    if (run) renderLane(lane, run);
  }
}

function renderLane(lane, run) {
  const all = steps(run);
  const at = cursor(run);
  const step = all[at];
  const map = colours(run);
  for (const { view, canvas, button } of lane.views) {
    paint(canvas, all, at, view.name, map);
    button.setAttribute("aria-checked", String(view.name === store.view));
    button.tabIndex = view.name === store.view ? 0 : -1;
  }
  paint(lane.plate, all, at, store.view, map);
  if (step && map && store.waiting) painted();
  const isLast = run.state === "done" && at === all.length - 1 && store.view === "x0";
  const address = isLast && !store.decode ? `/runs/${run.id}/picture.png`
    : store.decode && step && store.view !== "change" ? decodedAt(run, at) : null;
  showPicture(lane, run, address);
  const words = step ? `${store.view} of step ${at + 1} of ${total(run)}, sigma ${number(step.sigma)}` : stateOf(run);
  lane.plate.setAttribute("aria-label", step ? `${words}: latents ${step.shape[2]} by ${step.shape[1]}, root mean square ${number(step.rms[store.view])}` : words);
  lane.picture.alt = words;
  lane.caption.replaceChildren(...captionOf(run, at, step, address));
  lane.numbers.replaceChildren(...numbersOf(run, at, step, all));
}

/** Where a view of a step is decoded; a step that was taken over is its parent's. */
function decodedAt(run, at) {
  let [of, number] = [run, at];
  while (of && number < of.path.taken) {
    of = store.runs.get(of.parent);
    if (of) steps(of);
  }
  if (!of || of.gone) return null;
  const step = number - of.path.taken;
  return of.own[step]?.shape ? `/runs/${of.id}/steps/${step}/picture.png?view=${store.view}` : null;
}

function showPicture(lane, run, address) {
  if (address === null) {
    lane.picture.hidden = true;
    lane.address = null;
    return;
  }
  if (lane.address === address) return;
  lane.address = address;
  if (!decoded.has(address)) {
    decoded.set(address, fetch(address).then(async (answer) => {
      if (!answer.ok) throw new Error(`${answer.status}`);
      return URL.createObjectURL(await answer.blob());
    }));
    decoded.get(address).catch(() => decoded.delete(address));
  }
  decoded.get(address).then((source) => {
    if (lane.address !== address) return;
    lane.picture.src = source;
    lane.picture.hidden = false;
  }).catch(() => { lane.picture.hidden = true; });
}

const total = (run) => steps(run).length && steps(run)[steps(run).length - 1].number + 1 + run.path.taken;

const stateOf = (run) => ({
  queued: run.position ? `waits behind ${run.position}` : "waits",
  running: "begins", done: "done", failed: run.error ?? "failed", cancelled: "cancelled", lost: "lost: the server began anew",
}[run.state] ?? run.state);

function captionOf(run, at, step, address) {
  if (!step) return [stateOf(run)];
  const shown = address === null ? "latents, by a linear map" : "decoded";
  const count = run.state === "running" ? step.count : steps(run).length;
  const end = run.state === "done" || run.state === "running" ? [] : [run.state === "queued" ? `, ${stateOf(run)}` : h("strong", {}, ` ${stateOf(run)}`)];
  return [sign(store.view), ` step ${at + 1} of ${count}, ${shown}`, ...end];
}

function numbersOf(run, at, step, all) {
  const row = (name, value, title) => [h("dt", { title }, ...[name].flat()), h("dd", {}, value)];
  if (!step) return [];
  const root = (view) => ["|", sign(view), "|"];
  return [
    ...row("σ", `${number(step.sigma)} → ${number(step.sigma_next)}`, "noise level, and the next one"),
    ...row("NFE", `${spent(run)[at]} of ${spent(run)[all.length - 1]}`, "evaluations of the network, every branch counted"),
    ...row(root("x0"), number(step.rms.x0), "root mean square of a value"),
    ...row(root("eps"), number(step.rms.eps), "root mean square of a value; 1 is noise"),
    ...row(root("difference"), number(step.rms.difference), "how hard the prompt pulls"),
    ...row(root("change"), number(step.rms.change), "how far x̂0 has moved since the step before"),
    ...row("∠ε", step.angle === null ? "–" : `${number(step.angle)}°`, "between ε here and in the step before: how the path bends"),
    ...row("time", `${number(step.seconds * 1000)} ms`, "of this step"),
  ];
}

function painted() {
  store.waiting = false;
  requestAnimationFrame(() => requestAnimationFrame(() => performance.measure("click to painted", "draw")));
}

/** The picture as a file of the browser's. */
export async function save(path, name) {
  try {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error("it is not there any more");
    const link = h("a", { href: URL.createObjectURL(await answer.blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    tell(error.message, "wrong");
  }
}
