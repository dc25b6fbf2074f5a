// A picture to start from, and where to repaint it: drawn with the mouse, a finger or the keys.

import { dataOf } from "./api.js";
import { h, tell } from "./dom.js";
import { did } from "./store.js";

const KINDS = ["image/png", "image/jpeg", "image/webp"];
const MOST = 24e6; // bytes of a file

export class MaskPad {
  constructor() {
    this.data = null; // the file, as a data URL
    this.image = null;
    this.mask = document.createElement("canvas"); // white where it is repainted, elsewhere clear
    this.at = [0, 0];
    this.canvas = h("canvas", {
      id: "mask", tabIndex: 0, width: 8, height: 8, hidden: true,
      ariaLabel: "Where to repaint: draw with the mouse, or with arrows and space; brackets change the brush",
    });
    this.canvas.setAttribute("role", "application");
    this.size = h("input", { type: "range", min: 1, max: 100, value: 18, id: "brush", ariaLabel: "Brush, in hundredths of the width" });
    this.strength = h("input", { type: "number", min: 0.05, max: 1, step: 0.05, placeholder: "0.8", id: "f-strength" });
    this.blur = h("input", { type: "number", min: 0, step: 1, placeholder: "0", id: "f-blur" });
    this.paste = h("input", { type: "checkbox", id: "f-paste" });
    this.file = h("input", { type: "file", accept: KINDS.join(","), id: "f-image" });
    this.tools = h("div", { className: "fields wide", hidden: true },
      h("div", { className: "field" }, h("label", { htmlFor: "f-strength" }, "Strength"), this.strength),
      h("div", { className: "field" }, h("label", { htmlFor: "brush" }, "Brush"), this.size),
      h("div", { className: "field" }, h("label", { htmlFor: "f-blur" }, "Mask blur"), this.blur),
      h("div", { className: "field check" }, h("label", {}, this.paste, "keep its pixels")),
      h("div", { className: "field wide row" },
        h("button", { type: "button", onclick: () => this.wipe() }, "Clear the mask"),
        h("button", { type: "button", onclick: () => this.close() }, "No picture")));
    this.element = h("div", { className: "fields" },
      h("div", { className: "field wide" }, h("label", { htmlFor: "f-image" }, "Picture (or drop one on the page)"), this.file),
      h("div", { className: "field wide" }, this.canvas), this.tools);
    this.file.addEventListener("change", async () => {
      const [file] = this.file.files;
      const data = file ? await this.read(file) : null;
      if (data === null || !(await this.open(data, file.name))) this.file.value = ""; // what was there stays
    });
    this.listen();
  }

  /** A file as a data URL; null where it is none of the kinds. */
  async read(file) {
    if (!KINDS.includes(file.type) || file.size > MOST) {
      tell(`${file.name} is no PNG, JPEG or WebP of up to 24 MB`, "wrong");
      return null;
    }
    return dataOf(file).catch(() => null);
  }

  /** A picture to start from, and a mask of its size or none; data URLs. Whether it is one. */
  async open(data, name, mask = null) {
    const image = new Image();
    image.src = data;
    try {
      await image.decode();
    } catch {
      tell(`${name} cannot be read`, "wrong");
      return false;
    }
    Object.assign(this, { data, image });
    for (const canvas of [this.canvas, this.mask]) Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
    this.at = [this.canvas.width / 2, this.canvas.height / 2];
    this.wipe(false);
    if (mask !== null) {
      const white = new Image();
      white.src = mask;
      await white.decode();
      this.mask.getContext("2d").drawImage(white, 0, 0, this.mask.width, this.mask.height);
      const pixels = this.pixels();
      for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i]; // black is clear
      for (let i = 0; i < pixels.data.length; i++) if (i % 4 !== 3) pixels.data[i] = 255;
      this.mask.getContext("2d").putImageData(pixels, 0, 0);
      this.empty = this.emptyBefore = false;
      this.show();
    }
    this.canvas.hidden = this.tools.hidden = false;
    return true;
  }

  /** All of it, for `putBack`. */
  whole() {
    const said = { strength: this.strength.value, mask_blur: this.blur.value, paste: this.paste.checked };
    return { data: this.data, image: this.image, mask: this.image && this.pixels(), empty: this.empty, said };
  }

  putBack({ data, image, mask, empty, said }) {
    this.fill(said);
    if (image === null) return this.close();
    Object.assign(this, { data, image });
    for (const canvas of [this.canvas, this.mask]) Object.assign(canvas, { width: mask.width, height: mask.height });
    this.canvas.hidden = this.tools.hidden = false;
    return this.restore(mask, empty);
  }

  close() {
    Object.assign(this, { data: null, image: null });
    this.canvas.hidden = this.tools.hidden = true;
    this.file.value = "";
  }

  wipe(undoable = true) {
    const before = this.pixels();
    this.mask.getContext("2d").clearRect(0, 0, this.mask.width, this.mask.height);
    this.empty = this.emptyBefore = true;
    this.show();
    if (undoable) did("mask", () => this.restore(before, false));
  }

  /** What is said of a picture that is not there yet. */
  fill(given) {
    this.strength.value = given.strength ?? "";
    this.blur.value = given.mask_blur ?? "";
    this.paste.checked = given.paste ?? false;
  }

  /** What a request says of it. */
  values() {
    if (this.image === null) return {};
    const asked = { image: this.data };
    if (this.strength.value !== "") asked.strength = Number(this.strength.value);
    if (this.empty) return asked;
    const onBlack = h("canvas", { width: this.mask.width, height: this.mask.height });
    const context = onBlack.getContext("2d");
    context.fillRect(0, 0, onBlack.width, onBlack.height);
    context.drawImage(this.mask, 0, 0);
    asked.mask = onBlack.toDataURL("image/png");
    if (this.blur.value !== "") asked.mask_blur = Number(this.blur.value);
    if (this.paste.checked) asked.paste = true;
    return asked;
  }

  // --- drawing ----------------------------------------------------------------------------------

  listen() {
    let before = null;
    const place = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * this.canvas.width, ((event.clientY - box.top) / box.height) * this.canvas.height];
    };
    const end = () => {
      if (before !== null) this.drawn(before);
      before = null;
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      before = this.pixels();
      this.at = place(event);
      this.stroke(this.at, this.at);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (before === null) return;
      const from = this.at;
      this.at = place(event);
      this.stroke(from, this.at);
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, end);
    this.canvas.addEventListener("keydown", (event) => {
      const far = (event.shiftKey ? 0.2 : 0.05) * this.canvas.width;
      const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
      if (event.key in moves) {
        const limits = [this.canvas.width, this.canvas.height];
        this.at = this.at.map((value, i) => Math.min(limits[i], Math.max(0, value + moves[event.key][i])));
      } else if (event.key === " " || event.key === "Enter") {
        const kept = this.pixels();
        this.stroke(this.at, this.at);
        this.drawn(kept);
      } else if (event.key === "[" || event.key === "]") {
        this.size.value = Number(this.size.value) + (event.key === "]" ? 4 : -4);
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
      this.show();
    });
    for (const name of ["focus", "blur"]) this.canvas.addEventListener(name, () => this.show());
  }

  /** A line of the brush's width, without grey edges: whole pixels are white or black. */
  stroke([x0, y0], [x1, y1]) {
    const context = this.mask.getContext("2d");
    const radius = Math.max(0.5, (Number(this.size.value) / 200) * this.mask.width);
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 3)));
    context.fillStyle = "#fff";
    for (let i = 0; i <= steps; i++) {
      const [x, y] = [x0 + ((x1 - x0) * i) / steps, y0 + ((y1 - y0) * i) / steps];
      for (let row = Math.ceil(y - radius); row <= y + radius; row++) {
        const half = Math.sqrt(Math.max(0, radius ** 2 - (row - y) ** 2));
        context.fillRect(Math.round(x - half), row, Math.max(1, Math.round(2 * half)), 1);
      }
    }
    this.empty = false;
    this.show();
  }

  drawn(before) {
    const empty = this.emptyBefore ?? true;
    this.emptyBefore = false;
    did("mask", () => this.restore(before, empty));
  }

  pixels() {
    return this.mask.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, this.mask.width, this.mask.height);
  }

  restore(pixels, empty) {
    this.mask.getContext("2d").putImageData(pixels, 0, 0);
    this.empty = empty;
    this.emptyBefore = empty;
    this.show();
  }

  /** The picture, and over it what is repainted. */
  show() {
    if (this.image === null) return;
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.globalCompositeOperation = "source-over";
    context.drawImage(this.image, 0, 0, width, height);
    const over = new OffscreenCanvas(width, height);
    const tint = over.getContext("2d");
    tint.drawImage(this.mask, 0, 0);
    tint.globalCompositeOperation = "source-in";
    tint.fillStyle = "rgb(226 96 60 / .6)";
    tint.fillRect(0, 0, width, height);
    context.drawImage(over, 0, 0);
    if (document.activeElement === this.canvas) {
      context.lineWidth = Math.max(1, width / 150);
      context.strokeStyle = "#fff";
      context.beginPath();
      context.arc(this.at[0], this.at[1], (Number(this.size.value) / 200) * width, 0, 7);
      context.stroke();
    }
  }
}
