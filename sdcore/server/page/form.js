// What is drawn: the words of `sdcore sample`, as a form.

import { ask, picturesOf } from "./api.js";
import { $, h, hush, number, s, seedOf, tell } from "./dom.js";
import { MaskPad } from "./mask.js";
import { cancellable, changed, did, isOpen, known, modelOf, on, show, store } from "./store.js";

const fields = {};
const pad = new MaskPad();
let lists = null;
let also = {}; // settings that have no field, by name: they are sent along
let planTimer = null;
let usualSize = [null, null];

const ENLARGED = [["", "its latents, bilinear"], ["nearest", "its latents, nearest"], ["nearest-exact", "its latents, nearest-exact"],
  ["bilinear-antialiased", "its latents, bilinear, antialiased"], ["bicubic", "its latents, bicubic"],
  ["bicubic-antialiased", "its latents, bicubic, antialiased"], ["lanczos", "its pixels, lanczos"]];

const numeric = (name, label, attributes) =>
  labelled(name, label, h("input", { type: "number", inputMode: "decimal", ...attributes }));

function labelled(name, label, input, wide = false) {
  input.id = `f-${name}`;
  input.name = name;
  fields[name] = input;
  return h("div", { className: wide ? "field wide" : "field" }, h("label", { htmlFor: input.id }, label), input);
}

const options = (entries) => entries.map(([value, text]) => h("option", { value }, text));

/** Grouped: those without noise first, as the table lists them. */
export function schedulerOptions() {
  const group = (label, of) => h("optgroup", { label }, ...options(of.map((e) => [e.name, e.name])));
  return [
    group("without noise", lists.schedulers.filter((each) => !each.stochastic)),
    group("draw noise", lists.schedulers.filter((each) => each.stochastic)),
  ];
}

export function spacingOptions() {
  const own = lists.spacings.filter((each) => !each.name.includes(":"));
  const tools = lists.spacings.filter((each) => each.name.includes(":"));
  const group = (label, of) => h("optgroup", { label }, ...of.map((e) => h("option", { value: e.name, title: e.what }, e.name)));
  return [h("option", { value: "" }, "the scheduler's own"), group("sdcore", own), group("as another tool lays it", tools)];
}

export async function makeForm() {
  const [models, schedulers, spacings, guidances] = await Promise.all(
    ["/models", "/schedulers", "/spacings", "/guidances"].map((path) => ask(path)));
  lists = { ...models, schedulers, spacings, guidances };
  const form = $("form");
  const choice = (...children) => h("select", {}, ...children);
  form.replaceChildren(
    labelled("prompt", "Prompt", h("textarea", { rows: 3, dir: "auto", spellcheck: false, value: "a red house at sunset" }), true),
    h("div", { className: "go" },
      h("button", { type: "submit", className: "primary", id: "draw" }, "Draw"),
      h("button", { type: "button", id: "cancel", disabled: true, onclick: cancel }, "Cancel"),
      h("output", { id: "plan", htmlFor: "f-scheduler f-spacing f-steps f-cfg" })),
    h("div", { id: "also", hidden: true }),
    h("fieldset", {},
      h("legend", {}, "The way down"),
      s("svg", { id: "sketch", role: "img", viewBox: "0 0 260 54", preserveAspectRatio: "none" }),
      labelled("scheduler", "Scheduler", choice(h("option", { value: "" }, "the model's"), ...schedulerOptions()), true),
      labelled("spacing", "Spacing", choice(...spacingOptions()), true),
      numeric("steps", "Steps", { min: 1, max: 150, step: 1, placeholder: "20" }),
      numeric("cfg", "CFG", { step: "any", placeholder: "its own" }),
      h("div", { className: "field" },
        h("label", { htmlFor: "f-seed" }, "Seed"),
        h("div", { className: "joined" },
          (fields.seed = h("input", { type: "number", id: "f-seed", name: "seed", step: 1, placeholder: "random", value: "0" })),
          h("button", { type: "button", ariaLabel: "Another seed", title: "Another seed", onclick: dice }, "⚄"))),
      numeric("eta", "Eta", { step: "any", min: 0, max: 1, placeholder: "its own" }),
      labelled("guidance", "Guidance", h("input", { type: "text", placeholder: "plain CFG", spellcheck: false }), true)),
    h("details", {}, h("summary", {}, "Words and size"), h("div", { className: "fields" },
      labelled("negative", "Negative", h("textarea", { rows: 2, dir: "auto", spellcheck: false }), true),
      labelled("grammar", "Brackets", choice(...options([["", "are words"], ["a1111", "are weights (a1111)"]])), true),
      numeric("width", "Width", { min: 8, step: 8 }), numeric("height", "Height", { min: 8, step: 8 }))),
    h("details", {}, h("summary", {}, "Model and adapters"), h("div", { className: "fields" },
      labelled("model", "Model", choice(...options(lists.models.map((name) => [name, name]))), true),
      ...lists.loras.map((name, i) => h("div", { className: "field wide lora" },
        h("label", {}, h("input", { type: "checkbox", value: name, className: "on" }), name),
        h("input", { type: "number", step: 0.1, value: 1, className: "strength", ariaLabel: `Strength of ${name}`, id: `lora-${i}` }))))),
    h("details", { id: "more" }, h("summary", {}, "Second pass, refiner, speed"), h("div", { className: "fields" },
      numeric("hires", "Larger by", { min: 1, max: 8, step: "any", placeholder: "one pass" }),
      numeric("hires_strength", "Its strength", { min: 0, max: 1, step: "any", placeholder: "0.7" }),
      numeric("hires_steps", "Its steps", { min: 1, max: 150, step: 1, placeholder: "as the first" }),
      numeric("hires_cfg", "Its CFG", { step: "any", placeholder: "as the first" }),
      labelled("hires_scheduler", "Its scheduler", choice(h("option", { value: "" }, "as the first"), ...schedulerOptions()), true),
      labelled("hires_upscaler", "Enlarged", choice(...options(ENLARGED)), true),
      labelled("refiner", "Refiner", choice(h("option", { value: "" }, "none"), ...options(lists.models.map((name) => [name, name])))),
      numeric("handover", "From sigma", { min: 0, step: "any", placeholder: "its own" }),
      labelled("lossy", "Faster, not exact", h("input", { type: "text", placeholder: "exact, or deepcache, tome", title: "deepcache:every=3, tome, tgate, bf16, joined by +", spellcheck: false }), true))),
    h("details", { id: "start" }, h("summary", {}, "Start from a picture"), pad.element),
    h("datalist", { id: "guidances" }, ...lists.guidances.map((e) => h("option", { value: e.written, label: e.what }))));
  fields.guidance.setAttribute("list", "guidances");
  fields.model.value = lists.default;
  form.addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  form.addEventListener("input", (event) => { if (!UNPLANNED.includes(event.target.name)) plan(); });
  form.addEventListener("change", (event) => { if (event.target === fields.model) ofModel(); plan(); });
  fields.prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) draw();
  });
  on("state tree lanes", () => { $("cancel").disabled = cancellable() === null; });
  await ofModel();
  plan();
}

async function ofModel() {
  const model = await modelOf(fields.model.value);
  if (!model) return;
  usualSize = [model.width, model.height];
  Object.assign(fields.width, { placeholder: model.width, step: model.multiple });
  Object.assign(fields.height, { placeholder: model.height, step: model.multiple });
  fields.steps.placeholder = model.steps;
  fields.cfg.placeholder = model.cfg;
}

function dice() {
  fields.seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
}

// --- values -------------------------------------------------------------------------------------

const UNPLANNED = ["prompt", "negative", "seed"]; // what the steps do not depend on
const NUMBERS = ["steps", "cfg", "eta", "width", "height", "hires", "hires_strength", "hires_steps", "hires_cfg", "handover"];

/** A request, in the words of `sdcore sample`; what is left open is left out. Throws an Error for what
 *  is no number: it reads as an empty field. */
export function values() {
  const wrong = [...$("form").elements].find((each) => each.validity.badInput);
  if (wrong) throw new Error(`${wrong.ariaLabel ?? wrong.labels[0].textContent}: a number is wanted`);
  const asked = { ...also };
  for (const [name, input] of Object.entries(fields)) {
    const text = input.value.trim();
    if (text === "" && name !== "prompt") continue;
    asked[name] = name === "seed" ? seedOf(text) : NUMBERS.includes(name) ? Number(text) : name === "prompt" ? input.value : text;
  }
  const loras = [...document.querySelectorAll(".lora")].filter((row) => row.querySelector(".on").checked)
    .map((row) => `${row.querySelector(".on").value}:${row.querySelector(".strength").value || 1}`);
  if (loras.length) asked.loras = [...loras, ...(also.loras ?? [])];
  return Object.assign(asked, pad.values());
}

/** Show what is sent along beside the fields; each can be taken out. */
function sendAlso(values) {
  also = values;
  const names = Object.keys(also);
  const without = (name) => {
    const before = also;
    sendAlso(Object.fromEntries(Object.entries(also).filter(([each]) => each !== name)));
    plan();
    did(`without ${name}`, () => { sendAlso(before); plan(); });
  };
  $("also").hidden = names.length === 0;
  $("also").replaceChildren(h("span", {}, "also:"), ...names.map((name) => h("span", { className: "setting" },
    `${name} ${[also[name]].flat().join(", ")}`,
    h("button", { type: "button", ariaLabel: `Without ${name}`, onclick: () => without(name) }, "×"))));
}

/** "name:unet=1,text=0.5" or "name:0.8": the name, and both strengths. */
function strengthsOf(spec) {
  const [, name, one, unet, text] = spec.match(/^(.*?)(?::(?:([-+\d.e]+)|unet=([-+\d.e]+),text=([-+\d.e]+)))?$/);
  return { spec, name, unet: Number(unet ?? one ?? 1), text: Number(text ?? one ?? 1) };
}

const whole = () => ({
  also,
  pad: pad.whole(),
  fields: Object.fromEntries(Object.entries(fields).map(([name, input]) => [name, input.value])),
  loras: [...document.querySelectorAll(".lora")].map((row) => [row.querySelector(".on").checked, row.querySelector(".strength").value]),
});

function putBack(kept) {
  sendAlso(kept.also);
  pad.putBack(kept.pad);
  for (const [name, value] of Object.entries(kept.fields)) fields[name].value = value;
  [...document.querySelectorAll(".lora")].forEach((row, i) => {
    [row.querySelector(".on").checked, row.querySelector(".strength").value] = kept.loras[i];
  });
  plan();
}

const OF_PAD = ["image", "mask", "strength", "mask_blur", "paste"];
const USUAL = { hires_upscaler: "bilinear", grammar: "plain", fit: "crop", posterior: "sample" }; // the same as nothing said

/** Fill the form; what is not said is left open, and what has no field is sent along.
 *  before: how the form was, for undo. */
export function fill(said, what, before = whole()) {
  const given = Object.fromEntries(Object.entries(said).filter(([name, value]) => USUAL[name] !== value));
  for (const [name, input] of Object.entries(fields)) {
    const value = given[name] ?? "";
    if (input.tagName === "SELECT" && value !== "" && ![...input.options].some((each) => each.value === value)) {
      input.append(h("option", { value }, value));
    }
    if (name === "model" && value === "") continue;
    input.value = value;
  }
  pad.fill(given);
  const rest = Object.fromEntries(Object.entries(given).filter(([name]) => !(name in fields) && name !== "loras" && !OF_PAD.includes(name)));
  const adapters = (given.loras ?? []).map(strengthsOf);
  const fits = ({ name, unet, text }) => unet === text && lists.loras.includes(name) && adapters.filter((each) => each.name === name).length === 1;
  const loras = new Map(adapters.filter(fits).map(({ name, unet }) => [name, unet]));
  const others = adapters.filter((each) => !fits(each)).map(({ spec }) => spec);
  sendAlso(others.length ? { ...rest, loras: others } : rest);
  for (const row of document.querySelectorAll(".lora")) {
    const name = row.querySelector(".on").value;
    row.querySelector(".on").checked = loras.has(name);
    if (loras.has(name)) row.querySelector(".strength").value = loras.get(name);
  }
  if ([...$("more").querySelectorAll("input, select")].some((each) => each.value !== "")) $("more").open = true;
  ofModel();
  plan();
  did(what, () => putBack(before));
}

/** What a run was drawn with, into the form. */
export async function reuse(run) {
  try {
    const [{ values: given, left }, began] = await Promise.all([ask("/settings", { run: run.id }), picturesOf(run)]);
    const before = whole();
    if (began.image) {
      $("start").open = true;
      await pad.open(began.image, "what it began with", began.mask ?? null);
    } else {
      pad.close();
    }
    fill(given, "settings of a run", before);
    for (const line of left.filter((each) => !/^(image|mask):/.test(each))) tell(line, "wrong");
  } catch (error) {
    tell(error.message, "wrong");
  }
}

// --- before anything is drawn -------------------------------------------------------------------

export function plan() {
  clearTimeout(planTimer);
  planTimer = setTimeout(async () => {
    try {
      const { seed, prompt, ...asked } = values();
      const made = await ask("/plan", asked);
      $("plan").textContent = `${made.steps} steps · ${made.nfe} NFE`;
      fields.spacing.title = `in effect: ${made.spacing}`;
      sketch(made.rows);
      $("plan").className = "";
    } catch (error) {
      $("plan").textContent = error.message;
      $("plan").className = "wrong";
    }
  }, 150);
}

/** The sigmas as a curve, log above the steps. */
function sketch(rows) {
  const levels = rows.map((row) => row.sigma);
  const logs = levels.filter((sigma) => sigma > 0).map(Math.log);
  const low = Math.min(...logs), high = Math.max(...logs, low + 1e-6);
  const at = (sigma, i) => [6 + (248 * i) / Math.max(1, levels.length - 1),
    sigma > 0 ? 6 + 38 * (1 - (Math.log(sigma) - low) / (high - low)) : 50];
  const points = levels.map(at);
  const svg = $("sketch");
  svg.replaceChildren(
    s("polyline", { points: points.map((p) => p.join(",")).join(" "), class: "curve" }),
    ...points.map(([x, y]) => s("circle", { cx: x, cy: y, r: levels.length > 60 ? 0.9 : 1.8, class: "mark" })));
  svg.setAttribute("aria-label", `Sigma on a log scale, from ${number(levels[0])} to ${number(levels[levels.length - 1])} in ${levels.length - 1} steps`);
}

// --- drawing ------------------------------------------------------------------------------------

export async function draw() {
  performance.clearMarks("draw");
  performance.mark("draw");
  store.waiting = true;
  try {
    taken(await ask("/runs", values()), "draw");
  } catch (error) {
    tell(error.message, "wrong");
  }
}

/** A run that this page asked for: it is looked at, and can be undone. */
export function taken(said, what, lane = 0) {
  const before = [...store.lanes];
  const run = known(said);
  hush();
  store.busy = run.id;
  show(run.id, lane);
  changed("tree", "state");
  did(what, () => {
    run.hidden = true;
    if (isOpen(run)) ask(`/runs/${run.id}/cancel`, undefined, "POST").catch(() => {});
    store.lanes = before;
  });
  return run;
}

export async function cancel() {
  const id = cancellable();
  if (id === null) return;
  try {
    await ask(`/runs/${id}/cancel`, undefined, "POST");
  } catch (error) {
    tell(error.message, "wrong");
  }
}

/** The settings of a picture that was dropped, or the picture to start from. */
export async function dropped(file) {
  const picture = await pad.read(file);
  if (picture === null) return;
  try {
    const { values: given, left } = await ask("/settings", { picture });
    fill(given, "settings of a picture");
    tell(`The settings of ${file.name} are in the form.`);
    for (const line of left) tell(line, "wrong");
  } catch (error) {
    tell(`${file.name}: ${error.message}. It is the picture to start from now.`);
    $("start").open = true;
    await pad.open(picture, file.name);
    plan();
  }
}
