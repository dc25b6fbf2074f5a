// Elements without markup in strings: a text is always a text.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !(node instanceof SVGElement) && name !== "list") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return node;
}

/** An element of HTML: h("button", {type: "button", onclick: f}, "Draw"). */
export const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);

/** An element of SVG. */
export const s = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

export const $ = (id) => document.getElementById(id);

/** A number with three digits that mean something. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  return Number(value.toPrecision(3)).toString();
}

/** A seed as it is sent: a text where a number would be rounded. */
export const seedOf = (text) => (text.trim() !== "" && Number.isSafeInteger(Number(text)) ? Number(text) : text);

/** A line that is told once and goes away again; told anew, it stands there once. */
export function tell(text, kind = "note") {
  for (const line of [...$("notes").children]) if (line.firstChild.data === text) line.remove();
  const line = h("p", { className: kind }, text);
  line.append(h("button", { type: "button", ariaLabel: "Close", onclick: () => line.remove() }, "×"));
  $("notes").append(line);
  if (kind === "note") setTimeout(() => line.remove(), 6000);
}

/** What was wrong is so no more. */
export const hush = () => $("notes").querySelectorAll(".wrong").forEach((line) => line.remove());

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
