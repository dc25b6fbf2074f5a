// What the page knows: runs by id, which one is looked at, at which step, and how to undo.

import { ask, follow } from "./api.js";
import { unpacked } from "./paint.js";

export const store = {
  runs: new Map(), // id -> run
  order: [], // ids, the oldest first
  lanes: [null, null], // ids of A and B
  nfe: 0, // where the cursor is: evaluations spent when the step in view has been taken
  follows: true, // whether the cursor goes with what is drawn
  view: "x0",
  decode: false,
  models: {}, // name -> what the server says of it
  busy: null, // the id of the run that this page waits for
};

const bus = new EventTarget();
export const on = (names, does) => {
  for (const name of names.split(" ")) bus.addEventListener(name, does);
};
let frame = new Set();
/** Let the parts of the page know; several times in one frame count once. */
export function changed(...names) {
  if (frame.size === 0) {
    requestAnimationFrame(() => {
      const now = frame;
      frame = new Set();
      for (const name of now) bus.dispatchEvent(new Event(name));
    });
  }
  for (const name of names) frame.add(name);
}

// --- runs ---------------------------------------------------------------------------------------

/** A run as the page keeps it: what the server says, and its own steps. */
export function known(said) {
  let run = store.runs.get(said.id);
  if (!run) {
    run = { own: [], stop: null, hidden: false, gone: false, distance: null, text: {} };
    store.runs.set(said.id, run);
    store.order.push(said.id);
  }
  Object.assign(run, said, { error: said.error });
  return run;
}

/** Whether there is more to come of it. */
export const isOpen = (run) => ["queued", "running"].includes(run.state);

/** What Cancel is about: what is looked at, or else what this page waits for. */
export const cancellable = () => {
  const run = laneRuns()[0];
  return run && isOpen(run) && !run.gone ? run.id : store.busy;
};

export const laneRuns = () => store.lanes.map((id) => (id === null ? null : store.runs.get(id) ?? null));

/** Every step of the way to a picture: those taken over, and its own. */
export function steps(run) {
  if (!run) return [];
  if (run.path && run.path.own === run.own.length && run.path.above === above(run)) return run.path.steps;
  const parent = run.parent ? store.runs.get(run.parent) : null;
  const before = parent ? steps(parent).slice(0, steps(parent).length - parent.own.length + run.taken) : [];
  const all = [...before, ...run.own];
  const spent = [];
  let nfe = 0;
  for (const step of all) spent.push((nfe += step.nfe));
  run.path = { own: run.own.length, above: above(run), steps: all, taken: before.length, spent };
  return all;
}

const above = (run) => {
  const parent = run.parent ? store.runs.get(run.parent) : null;
  return parent ? parent.own.length + above(parent) : 0;
};

/** Evaluations spent when each step has been taken. */
export const spent = (run) => {
  steps(run);
  return run?.path?.spent ?? [];
};

/** All evaluations of a run; of one that is drawn, with as many as are still to come. */
export function cost(run) {
  const there = spent(run);
  if (!there.length) return 0;
  const last = steps(run)[there.length - 1];
  const left = run.state === "running" ? last.count - last.index - 1 : 0;
  return there[there.length - 1] + left * last.nfe;
}

/** The step of a run that the cursor is at: the last one that takes no more evaluations. */
export function cursor(run) {
  const there = spent(run);
  let at = there.findIndex((nfe) => nfe >= store.nfe);
  if (at === -1) at = there.length - 1;
  return Math.max(0, at);
}

/** Put the cursor at a step of lane A. */
export function goTo(at, byHand = true) {
  const there = spent(laneRuns()[0]);
  if (!there.length) return;
  const clamped = Math.min(there.length - 1, Math.max(0, at));
  store.nfe = there[clamped];
  if (byHand) store.follows = clamped === there.length - 1 && laneRuns()[0].state === "running";
  changed("cursor");
}

/** Look at a run, in lane 0 (A) or 1 (B). */
export function show(id, lane = 0) {
  store.lanes[lane] = id;
  const run = store.runs.get(id);
  if (run) {
    for (let each = run; each; each = each.parent ? store.runs.get(each.parent) : null) watch(each);
    if (lane === 0) {
      store.follows = true;
      toEnd(run);
      modelOf(run.model);
    }
  }
  changed("lanes", "cursor", "tree");
}

function toEnd(run) {
  const there = spent(run);
  if (there.length) store.nfe = there[there.length - 1];
}

/** Get its steps, from the first, and those that come. */
export function watch(run) {
  if (run.stop || run.gone) return;
  run.own = [];
  run.stop = follow(run.id, {
    running: () => { run.state = "running"; changed("tree", "state"); },
    again: () => { run.own = []; changed("steps", "cursor"); },
    note: ({ line }) => { (run.notes ??= []).push(line); changed("state"); },
    step: (data) => {
      if (data.number === 0) refresh(run).then(() => changed("tree", "state", "lanes")); // it has settings now
      const views = {};
      for (const name of ["x", "x0", "eps", "difference"]) views[name] = data[name] ? unpacked(data[name]) : null;
      run.own[data.number] = { ...data, views, x: null, x0: null, eps: null, difference: null };
      if (run.id === store.lanes[0] && store.follows) toEnd(run);
      changed("steps", "cursor");
    },
    ended: async (state, data) => {
      run.state = state;
      run.error = data.error ?? null;
      if (store.busy === run.id) store.busy = null;
      await refresh(run);
      changed("tree", "state", "lanes", "cursor");
    },
    gone: () => {
      run.gone = true;
      run.stop = null;
      if (store.busy === run.id) store.busy = null;
      if (isOpen(run)) run.state = "lost";
      changed("tree", "state", "lanes");
    },
  });
  const waits = setInterval(async () => { // how many are before it
    if (run.state !== "queued" || run.gone) return clearInterval(waits);
    await refresh(run);
    return changed("state");
  }, 2000);
}

/** What the server says of it now: settings, command, Python. */
export async function refresh(run) {
  try {
    const said = await ask(`/runs/${run.id}`);
    run.text = { command: said.command, python: said.python };
    known(isOpen(run) ? said : { ...said, state: run.state }); // its end may have come meanwhile
  } catch (error) {
    run.gone ||= error.status === 404;
  }
}

/** What a model draws by itself, and the colours of its latents. */
export async function modelOf(name) {
  if (store.models[name]) return store.models[name];
  try {
    store.models[name] = await ask(`/models/${encodeURIComponent(name)}`);
    changed("cursor", "steps", "model");
  } catch {
    return null;
  }
  return store.models[name];
}

export const colours = (run) => store.models[run?.model]?.colours ?? null;

/** After the server was away: which runs it still knows. */
export async function recall() {
  const there = await ask("/runs");
  const ids = new Set(there.map((each) => each.id));
  for (const said of there) known(said);
  for (const run of store.runs.values()) {
    if (ids.has(run.id)) continue;
    run.stop?.();
    run.gone = true;
    if (isOpen(run)) run.state = "lost";
    if (store.busy === run.id) store.busy = null;
  }
  changed("tree", "state", "lanes");
  return there;
}

// --- undo ---------------------------------------------------------------------------------------

const past = [];

/** Something was done: `back` takes it back. */
export function did(what, back) {
  past.push({ what, back });
  if (past.length > 100) past.shift();
  changed("history");
}

export const last = () => past[past.length - 1]?.what ?? null;

export function undo() {
  past.pop()?.back();
  changed("history", "tree", "lanes", "cursor");
}
