// What was drawn, and below it what was branched from it.

import { ask } from "./api.js";
import { $, h, number, tell } from "./dom.js";
import { brief, promptOf } from "./stage.js";
import { changed, did, on, show, store } from "./store.js";

// A picture that is not there yet: without any, browsers draw a frame.
const BLANK = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>";
const seen = new Map(); // id -> promise of a blob's address

export function makeTree() {
  on("tree", render);
}

function render() {
  const focus = document.activeElement?.dataset?.run;
  const there = store.order.map((id) => store.runs.get(id)).filter((run) => !run.hidden && !run.reference_of);
  const shown = new Set(there.map((run) => run.id));
  const below = new Map();
  for (const run of there) {
    const parent = shown.has(run.parent) ? run.parent : null;
    below.set(parent, [...(below.get(parent) ?? []), run]);
  }
  const list = (id) => (below.get(id) ?? []).map((run) => h("li", {}, item(run, id !== null), branches(run.id)));
  const branches = (id) => (below.has(id) ? h("ul", {}, ...list(id)) : null);
  $("tree").replaceChildren(...list(null).reverse());
  $("none").hidden = there.length > 0;
  if (focus) $("tree").querySelector(`[data-run="${CSS.escape(focus)}"]`)?.focus();
}

/** What a branch changes, in a line. */
function changes(run) {
  const said = Object.entries(run.changes ?? {}).map(([name, value]) => `${name} ${value}`);
  return `after step ${run.taken}: ${said.join(", ") || "nothing changed"}`;
}

function item(run, isBranch) {
  const letter = ["A", "B"][store.lanes.indexOf(run.id)] ?? "";
  const image = h("img", { alt: "", width: 46, height: 46, src: BLANK });
  const words = isBranch ? changes(run) : run.prompt;
  const state = run.state === "done" ? brief(run) : run.gone && run.state === "lost" ? "lost: the server began anew" : run.state;
  const button = h("button", { type: "button", className: "run", onclick: () => show(run.id, 0) },
    image, h("span", { className: "words" }, promptOf(words), h("small", {}, state)),
    letter && h("span", { className: `letter lane-${letter}` }, letter));
  button.dataset.run = run.id;
  button.dataset.state = run.state;
  if (letter === "A") button.setAttribute("aria-current", "true");
  thumbnail(run, image);
  return h("div", { className: "item" }, button,
    h("button", { type: "button", className: "small", title: "Show it in lane B", ariaLabel: `Show in lane B: ${words}`, onclick: () => show(run.id, 1) }, "B"),
    h("button", { type: "button", className: "small", title: "Take it from the list", ariaLabel: `Take from the list: ${words}`, onclick: () => hide(run) }, "×"));
}

function thumbnail(run, image) {
  if (run.state !== "done") return;
  if (!seen.has(run.id)) {
    if (run.gone) return;
    seen.set(run.id, fetch(`/runs/${run.id}/picture.png`).then(async (answer) => {
      if (!answer.ok) throw new Error(`${answer.status}`);
      return URL.createObjectURL(await answer.blob());
    }));
    seen.get(run.id).catch(() => seen.delete(run.id));
  }
  seen.get(run.id).then((address) => { image.src = address; }).catch(() => {});
}

function hide(run) {
  const before = [...store.lanes];
  run.hidden = true;
  store.lanes = store.lanes.map((id) => (id === run.id ? null : id));
  if (store.lanes[0] === null) {
    const last = store.order.filter((id) => !store.runs.get(id).hidden && !store.runs.get(id).reference_of).pop();
    store.lanes = [last ?? null, null];
    if (last) show(last);
  }
  did("taking from the list", () => {
    run.hidden = false;
    store.lanes = before;
  });
  changed("tree", "lanes", "cursor");
}
