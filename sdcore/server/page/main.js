// The page: put together, its keys, and what happens when the server comes and goes.

import { ask, look, onLink } from "./api.js";
import { branchDialog, compareDialog, helpDialog } from "./dialogs.js";
import { $, calm, h, tell } from "./dom.js";
import { cancel, draw, dropped, makeForm, plan, reuse } from "./form.js";
import { VIEWS } from "./paint.js";
import { look as view, makeStage, save } from "./stage.js";
import { changed, cursor, goTo, laneRuns, last, modelOf, on, recall, show, steps, store, undo } from "./store.js";
import { makeTimeline } from "./timeline.js";
import { makeTree } from "./tree.js";

// --- what is done with a step -------------------------------------------------------------------

async function copy(text, what) {
  if (!text) return tell("There is nothing to copy: the run has not begun, or is a reference.", "wrong");
  try {
    await navigator.clipboard.writeText(text);
    tell(`${what} is copied: it draws this picture, equal to the bit.`);
  } catch {
    const box = h("dialog", {}, h("form", { method: "dialog" }, h("h2", {}, what), h("pre", {}, text), h("button", { type: "submit" }, "Close")));
    document.body.append(box);
    box.showModal();
  }
  return null;
}

function makeActions() {
  const button = (id, text, does, title) => h("button", { type: "button", id, title, onclick: does }, text);
  $("actions").append(
    button("branch", "Branch here", branchDialog, "b: go on from this step with other settings"),
    button("compare", "Compare", compareDialog, "c: another scheduler in lane B"),
    button("decode", "Decode", decode, "d: show every step through the VAE"),
    h("span", { className: "gap" }),
    button("copy-command", "Copy command", () => copy(laneRuns()[0]?.text.command, "The command")),
    button("copy-python", "Copy Python", () => copy(laneRuns()[0]?.text.python, "The program")),
    button("save", "Save PNG", () => saved("picture.png")),
    button("save-state", "Save state", savedState, "for sdcore resume"),
    button("reuse", "Reuse", () => reuse(laneRuns()[0]), "its settings into the form"));
  on("lanes state", () => {
    const [a, b] = laneRuns();
    const done = a?.state === "done" && !a.gone;
    for (const id of ["save", "copy-command", "copy-python"]) $(id).disabled = !done && !(a?.text.command && id !== "save");
    $("branch").disabled = !a || a.gone;
    $("compare").textContent = b ? "One lane" : "Compare";
    $("compare").setAttribute("aria-pressed", String(Boolean(b)));
  });
}

function decode() {
  store.decode = !store.decode;
  $("decode").setAttribute("aria-pressed", String(store.decode));
  changed("view");
}

const slug = (run) => `${run.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40)}-${run.seed}`;

function saved(name) {
  const run = laneRuns()[0];
  save(`/runs/${run.id}/${name}`, `${slug(run)}.png`);
  for (const which of run.pictures ?? []) save(`/runs/${run.id}/${which}.png`, `${which}.png`);
}

function savedState() {
  const run = laneRuns()[0];
  if (!steps(run).length) return tell("No step of it is kept.", "wrong");
  const own = cursor(run) - run.path.taken;
  if (own < 0) return tell("This step was taken over: choose the run that it came from.", "wrong");
  return save(`/runs/${run.id}/steps/${own}/state.safetensors`, `${slug(run)}-after-${cursor(run) + 1}-steps.safetensors`);
}

// --- playing ------------------------------------------------------------------------------------

let playing = null;

function play() {
  const run = laneRuns()[0];
  if (!run) return;
  if (playing !== null) return stop();
  const all = steps(run).length;
  const at = cursor(run);
  if (calm()) return goTo(at >= all - 1 ? 0 : at + 1); // nothing moves by itself where that is not wanted
  goTo(at >= all - 1 ? 0 : at);
  $("play").textContent = "Stop";
  playing = setInterval(() => {
    goTo(cursor(laneRuns()[0]) + 1);
    if (cursor(laneRuns()[0]) >= steps(laneRuns()[0]).length - 1) stop();
  }, Math.max(40, Math.min(160, 3000 / Math.max(1, all))));
}

function stop() {
  clearInterval(playing);
  playing = null;
  $("play").textContent = "Play";
}

// --- keys ---------------------------------------------------------------------------------------

const DOES = {
  ArrowLeft: () => goTo(cursor(laneRuns()[0]) - 1),
  ArrowRight: () => goTo(cursor(laneRuns()[0]) + 1),
  Home: () => goTo(0),
  End: () => goTo(Infinity),
  " ": play,
  b: branchDialog,
  c: compareDialog,
  d: decode,
  u: undo,
  "?": helpDialog,
  "/": () => $("f-prompt").focus(),
  Escape: cancel,
};

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const at = event.target;
  const types = at.closest("textarea, select, input:not([type=range]):not([type=checkbox]), [role=application]");
  if (types && event.key !== "Escape") return;
  if (event.key === " " && at.closest("button, summary, input, a")) return;
  if (at.closest("[role=radiogroup]") && event.key.startsWith("Arrow")) {
    const names = VIEWS.map((each) => each.name);
    const step = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    view(names[(names.indexOf(store.view) + step + names.length) % names.length]);
    requestAnimationFrame(() => requestAnimationFrame(() => at.closest("[role=radiogroup]").querySelector("[aria-checked=true]")?.focus()));
    event.preventDefault();
    return;
  }
  const one = Number(event.key);
  const does = one >= 1 && one <= VIEWS.length ? () => view(VIEWS[one - 1].name) : DOES[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

// --- light and dark -----------------------------------------------------------------------------

function theme(next) {
  if (next) document.documentElement.dataset.theme = next;
  try {
    if (next) localStorage.setItem("theme", next);
  } catch { /* it is not kept, then */ }
}

function otherTheme() {
  const dark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  theme(dark ? "light" : "dark");
}

// --- dropped files ------------------------------------------------------------------------------

function makeDrop() {
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    $("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => { if (event.relatedTarget === null) $("drop").hidden = true; });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    $("drop").hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) dropped(file);
  });
}

// --- begin --------------------------------------------------------------------------------------

const SAID = { here: "connected", away: "the server is away; trying again", wait: "connecting" };

async function begin() {
  try {
    theme(localStorage.getItem("theme"));
  } catch { /* the system's */ }
  makeStage();
  makeActions();
  makeTimeline();
  makeTree();
  makeDrop();
  addEventListener("keydown", keyed);
  addEventListener("play", play);
  $("undo").addEventListener("click", undo);
  $("theme").addEventListener("click", otherTheme);
  $("help").addEventListener("click", helpDialog);
  for (const button of document.querySelectorAll("[data-prompt]")) {
    button.addEventListener("click", () => {
      $("f-prompt").value = button.dataset.prompt;
      draw();
    });
  }
  on("history", () => {
    $("undo").disabled = last() === null;
    $("undo").title = last() === null ? "" : `u: take back: ${last()}`;
  });
  let made = false;
  document.addEventListener("visibilitychange", () => { // another page may have drawn meanwhile
    if (!document.hidden && made) recall().catch(() => {});
  });
  onLink(async (state, before) => {
    $("link").textContent = SAID[state];
    $("link").dataset.state = state;
    if (state !== "here") return;
    try {
      if (!made) {
        made = true;
        await makeForm();
        $("form").dataset.ready = "yes";
      }
      const runs = await recall();
      const shown = runs.filter((run) => !run.reference_of);
      if (before === "wait" && shown.length) show(shown[shown.length - 1].id);
      if (before === "away") {
        tell("The server is back.");
        plan();
      }
    } catch (error) {
      made = Boolean($("form").dataset.ready);
      tell(error.message, "wrong");
    }
  });
  await look();
}

begin();
