// Latents as colours: one linear map from a latent pixel to a colour, fitted to the model's VAE.

export const VIEWS = [
  { name: "x", sign: ["x"], what: "what the network sees: x / √(1 + σ²)" },
  { name: "x0", sign: ["x̂", "0"], what: "the picture that the network believes in" },
  { name: "eps", sign: ["ε"], what: "the noise that it finds" },
  { name: "difference", sign: ["Δε"], what: "where the prompt pulls: ε with it less ε without, its size" },
  { name: "change", sign: ["δx̂", "0"], what: "what has changed in x̂0 since the step before, its size" },
];

// Dark to light; of sizes, which have no sign.
const RAMP = [[10, 11, 30], [66, 24, 110], [150, 44, 98], [222, 90, 62], [250, 170, 90], [253, 243, 200]];

/** Base64 of float16, little-endian, as numbers. */
export function unpacked(text) {
  const raw = atob(text);
  const values = new Float32Array(raw.length / 2);
  for (let i = 0; i < values.length; i++) {
    const bits = raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8);
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24
      : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
    values[i] = bits & 0x8000 ? -size : size;
  }
  return values;
}

/** The latents of a view of a step [C * h * w]; null where there is none. */
export function latents(steps, at, view) {
  const step = steps[at];
  if (!step) return null;
  if (view !== "change") return step.views[view];
  if (at === 0 || String(steps[at - 1].shape) !== String(step.shape)) return null;
  const before = steps[at - 1].views.x0;
  return step.views.x0.map((value, i) => value - before[i]);
}

/** Paint a view of a step, a pixel for each latent pixel. It depends on nothing but the step. */
export function paint(canvas, steps, at, view, colours) {
  const step = steps[at];
  const values = latents(steps, at, view);
  const [channels, height, width] = step ? step.shape : [4, 1, 1];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (!values || !colours) {
    context.clearRect(0, 0, width, height);
    return;
  }
  const image = context.createImageData(width, height);
  const fill = view === "difference" || view === "change" ? sizes : hues;
  fill(image.data, values, channels, width * height, colours, view);
  context.putImageData(image, 0, 0);
}

function hues(pixels, values, channels, count, { weights, bias }, view) {
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) {
      let value = view === "eps" ? 0.5 : bias[c];
      for (let k = 0; k < channels; k++) value += weights[c][k] * values[k * count + i];
      pixels[4 * i + c] = 255 * Math.min(1, Math.max(0, value));
    }
    pixels[4 * i + 3] = 255;
  }
}

function sizes(pixels, values, channels, count) {
  const lengths = new Float32Array(count);
  let most = 1e-9;
  for (let i = 0; i < count; i++) {
    let square = 0;
    for (let k = 0; k < channels; k++) square += values[k * count + i] ** 2;
    lengths[i] = Math.sqrt(square);
    most = Math.max(most, lengths[i]);
  }
  for (let i = 0; i < count; i++) {
    const place = (lengths[i] / most) * (RAMP.length - 1);
    const low = Math.min(RAMP.length - 2, Math.floor(place));
    for (let c = 0; c < 3; c++) {
      pixels[4 * i + c] = RAMP[low][c] + (place - low) * (RAMP[low + 1][c] - RAMP[low][c]);
    }
    pixels[4 * i + 3] = 255;
  }
}
