// What is asked of the server, and what it says of itself.

/** JSON of a route. Throws an Error with the server's one line, and its status. */
export async function ask(path, body, method = body === undefined ? "GET" : "POST") {
  const how = { method, headers: {} };
  if (body !== undefined) {
    how.headers["content-type"] = "application/json";
    how.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, how);
  } catch {
    lost();
    throw new Error("the server does not answer");
  }
  const said = await answer.text().then(parsed).catch(() => ({}));
  if (!answer.ok) {
    const detail = Array.isArray(said.detail) ? said.detail.map((each) => each.msg).join("; ") : said.detail;
    throw Object.assign(new Error(detail ?? `the server answers ${answer.status}`), { status: answer.status });
  }
  return said;
}

/** JSON whose seeds stay whole: beyond 2^53 as texts, which the server reads like numbers. */
const parsed = (text) => JSON.parse(text.replace(/"seed":(-?\d{16,})/g, '"seed":"$1"'));

/** A file's bytes as a data URL. */
export const dataOf = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(new Error("the file cannot be read"));
  reader.readAsDataURL(blob);
});

/** What a run began with: {image, mask}, as far as there is any, as data URLs. */
export async function picturesOf(run) {
  const given = {};
  for (const name of run.pictures ?? []) {
    const answer = await fetch(`/runs/${encodeURIComponent(run.id)}/${name}.png`);
    if (!answer.ok) throw new Error("the picture that it began with is not kept any more");
    given[name] = await dataOf(await answer.blob());
  }
  return given;
}

/** Follow a run's events to its end; the browser itself goes on where a connection broke.
 *  on: {step(data), note(data), running(), again(), ended(state, data), gone()} */
export function follow(id, on) {
  const source = new EventSource(`/runs/${encodeURIComponent(id)}/events`);
  const read = (name, does) => source.addEventListener(name, (event) => does(JSON.parse(event.data)));
  for (const name of ["step", "note", "running", "again"]) read(name, on[name]);
  for (const name of ["done", "failed", "cancelled"]) {
    read(name, (data) => {
      source.close();
      on.ended(name, data);
    });
  }
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) on.gone();
    lost();
  };
  return () => source.close();
}

// --- whether it is there -----------------------------------------------------------------------

const listeners = new Set();
let state = "wait";
let timer = null;

export const onLink = (listener) => listeners.add(listener);

function say(next) {
  if (next === state) return;
  const before = state;
  state = next;
  for (const listener of listeners) listener(next, before);
}

/** Called where something did not answer: looks until it does. */
export function lost() {
  clearTimeout(timer);
  timer = setTimeout(look, 50);
}

export async function look() {
  clearTimeout(timer);
  try {
    const answer = await fetch("/health", { cache: "no-store" });
    say(answer.ok ? "here" : "away");
  } catch {
    say("away");
  }
  timer = setTimeout(look, state === "here" ? 5000 : 1000);
}
