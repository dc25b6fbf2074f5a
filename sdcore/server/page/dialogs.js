// Branching, comparing, and the words and keys of the page.

import { ask, picturesOf } from "./api.js";
import { $, h, number, seedOf, tell } from "./dom.js";
import { schedulerOptions, spacingOptions, taken } from "./form.js";
import { cost, cursor, laneRuns, show, steps, store } from "./store.js";
import { brief } from "./stage.js";

function dialog(title, ...children) {
  const box = h("dialog", {}, h("form", { method: "dialog" }, h("h2", {}, title), ...children));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  box.scrollTop = 0; // what has the focus may be at its end
  return box;
}

const field = (label, input, wide = true) => {
  input.id = `d-${input.name}`;
  return h("div", { className: wide ? "field wide" : "field" }, h("label", { htmlFor: input.id }, label), input);
};

const buttons = (text) => h("div", { className: "row end" },
  h("button", { type: "button", onclick: (event) => event.target.closest("dialog").close() }, "Leave it"),
  h("button", { type: "submit", className: "primary", value: "do", autofocus: true }, text));

// --- branch -------------------------------------------------------------------------------------

export function branchDialog() {
  const run = laneRuns()[0];
  if (!run || document.querySelector("dialog")) return;
  const all = steps(run);
  const at = cursor(run);
  if (!all.length || run.gone) return tell("There is no run to branch from.", "wrong");
  if (at === all.length - 1 && all[at].index + 1 >= all[at].count && !run.settings?.hires) return tell("Nothing is left below the last step: go to an earlier one, then branch.", "wrong");
  let [of, count] = [run, at + 1]; // a step that was taken over is the parent's
  while (of.path.taken >= count && of.parent) {
    of = store.runs.get(of.parent);
    steps(of);
  }
  count -= of.path.taken;
  if (of.gone || !of.settings) return tell("The server does not know this run any more.", "wrong");
  const said = of.settings;
  const input = (name, attributes) => h("input", { name, value: said[name] ?? "", ...attributes });
  const inputs = [
    field("Scheduler", h("select", { name: "scheduler" }, ...schedulerOptions())),
    field("Spacing", h("select", { name: "spacing" }, h("option", { value: "same" }, `as it is, or the new scheduler's own`), ...spacingOptions().slice(1))),
    field("Steps", input("steps", { type: "number", min: 1, max: 150 }), false),
    field("CFG", input("cfg", { type: "number", step: "any" }), false),
    field("Seed of what is still drawn", input("seed", { type: "number" }), false),
    field("Guidance", input("guidance", { type: "text", placeholder: "plain CFG", autocomplete: "off" }), false),
    field("Prompt", h("textarea", { name: "prompt", rows: 2, dir: "auto", value: said.prompt })),
    field("Negative", h("textarea", { name: "negative", rows: 2, dir: "auto", value: said.negative ?? "" })),
  ];
  const step = all[at];
  const box = dialog("Branch here",
    h("p", {}, `After step ${at + 1}, at σ ${number(step.sigma_next)}. What is above stays; the steps below it are those of what you choose. With nothing changed the picture is the same to the bit.`),
    h("div", { className: "fields" }, ...inputs), buttons("Branch"));
  const form = box.querySelector("form");
  const scheduler = form.elements.scheduler;
  if (![...scheduler.options].some((each) => each.value === said.scheduler)) scheduler.append(h("option", { value: said.scheduler }, said.scheduler));
  scheduler.value = said.scheduler;
  form.elements.guidance.setAttribute("list", "guidances");
  form.addEventListener("submit", async () => {
    const changes = {};
    for (const name of ["scheduler", "spacing", "steps", "cfg", "seed", "guidance", "prompt", "negative"]) {
      const text = form.elements[name].value;
      const before = name === "spacing" ? "same" : String(said[name] ?? "");
      if (text === before || (text.trim() === "" && !["prompt", "negative"].includes(name))) continue;
      changes[name] = name === "seed" ? seedOf(text) : ["steps", "cfg"].includes(name) ? Number(text) : text;
    }
    try {
      taken(await ask(`/runs/${of.id}/branch`, { steps: count, changes }), "branch");
    } catch (error) {
      tell(error.message, "wrong");
    }
  });
}

// --- compare ------------------------------------------------------------------------------------

export function compareDialog() {
  const [a, b] = laneRuns();
  if (b) return show(null, 1);
  if (!a || document.querySelector("dialog")) return null;
  if (!a.settings) return tell("The run has not begun yet.", "wrong");
  const others = store.order.map((id) => store.runs.get(id)).filter((run) => run !== a && !run.hidden && !run.reference_of && !run.gone);
  const nfe = cost(a);
  const existing = h("select", { name: "run" }, h("option", { value: "" }, "a new one, drawn now"),
    ...others.map((run) => h("option", { value: run.id }, `${run.prompt.slice(0, 30)} · ${brief(run)}`)));
  const box = dialog("Compare",
    h("p", {}, "Lane B beside this run: the same prompt, seed, guidance and size by another scheduler, or another run."),
    h("div", { className: "fields" }, field("Lane B", existing),
      field("Scheduler", h("select", { name: "scheduler" }, ...schedulerOptions())),
      field("Spacing", h("select", { name: "spacing" }, ...spacingOptions())),
      h("div", { className: "field wide check" }, h("label", {}, h("input", { type: "checkbox", name: "equal", checked: true }), `at equal cost: as many steps as take no more than ${nfe} NFE`)),
      field("Steps, otherwise", h("input", { type: "number", name: "steps", min: 1, max: 150, value: a.settings.steps }))),
    buttons("Compare"));
  const form = box.querySelector("form");
  form.elements.scheduler.value = a.settings.scheduler === "heun" ? "euler" : "heun";
  form.elements.spacing.value = "karras";
  form.addEventListener("submit", async () => {
    if (form.elements.run.value) return show(form.elements.run.value, 1);
    try {
      await beside(a, form.elements.scheduler.value, form.elements.spacing.value, form.elements.equal.checked ? nfe : null, Number(form.elements.steps.value));
    } catch (error) {
      tell(error.message, "wrong");
    }
    return null;
  });
  return null;
}

async function beside(a, scheduler, spacing, nfe, count) {
  const { eta, noise, tail, steps, spacing: its, ...said } = (await ask("/settings", { run: a.id })).values;
  const asked = { ...said, scheduler };
  if (spacing) asked.spacing = spacing;
  Object.assign(asked, await picturesOf(a));
  if (nfe !== null) {
    const { prompt, seed, ...plan } = asked;
    asked.steps = (await ask("/plan", { ...plan, nfe })).asked_steps;
  } else {
    asked.steps = count;
  }
  taken(await ask("/runs", asked), "compare", 1);
}

// --- help ---------------------------------------------------------------------------------------

const KEYS = [
  ["← →", "a step back, a step on"], ["Home, End", "to the first, to the last"], ["space", "play, stop"],
  ["b", "branch here"], ["c", "compare; once more: one lane"], ["1 … 5", "what is shown of a step"],
  ["d", "decode what is shown by the VAE"], ["u", "undo"], ["/", "to the prompt"],
  ["Ctrl Enter", "draw"], ["Esc", "cancel what is drawn"], ["?", "this"],
];
const WORDS = [
  ["x", "what the loop carries down: x = x₀ + σ ε"], ["σ", "the noise level; it falls to 0"],
  ["x̂₀", "the picture that the network believes in at this step"], ["ε", "the noise that it finds"],
  ["Δε", "ε with the prompt less ε without it: where guidance pulls"],
  ["NFE", "evaluations of the network, every branch counted: the cost"],
  ["error", "how far x is from the same way down in steps so small that the solver hardly errs"],
];

export function helpDialog() {
  if (document.querySelector("dialog")) return;
  const rows = (pairs, tag) => h("dl", { className: "keys" }, ...pairs.flatMap(([key, what]) => [h("dt", {}, h(tag, {}, key)), h("dd", {}, what)]));
  dialog("Keys", rows(KEYS, "kbd"), h("h2", {}, "Words"), rows(WORDS, "i"),
    h("div", { className: "row end" }, h("button", { type: "submit", className: "primary" }, "Close")));
}
