// Maps: decoding, reading a value at a point of the picture, and drawing in colours.
// Linear between cell centres, constant outside them, as distill.attention.geometry.resample has it.

function float16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

/** The values of a map, decoded when they are first asked for. */
function valuesOf(map) {
  if (!map.values) {
    const view = new DataView(bytes(map.data).buffer);
    map.values = Float32Array.from({ length: view.byteLength / 2 },
      (_, i) => float16(view.getUint16(2 * i, true)) * map.factor);
    delete map.data;
  }
  return map.values;
}

/** For each picture coordinate along an axis: the cell before it, and how far on the way to the next one. */
function weights(points, cells, frame, lattice, axis) {
  const low = new Int32Array(points.length);
  const part = new Float32Array(points.length);
  points.forEach((point, i) => {
    const pixel = point * frame.scale[axis] + frame.shift[axis];
    const cell = clamp((pixel - lattice.offset[axis]) / lattice.stride[axis], 0, cells - 1);
    low[i] = Math.min(Math.floor(cell), Math.max(0, cells - 2));
    part[i] = cell - low[i];
  });
  return { low, part };
}

/** The map at these picture coordinates: Float32Array of ys.length rows and xs.length columns. */
function sample(map, lattice, frame, ys, xs) {
  const [height, width] = map.shape;
  const values = valuesOf(map);
  const rows = weights(ys, height, frame, lattice, 0);
  const columns = weights(xs, width, frame, lattice, 1);
  const next = { down: height > 1 ? width : 0, right: width > 1 ? 1 : 0 };
  const found = new Float32Array(ys.length * xs.length);
  for (let r = 0, k = 0; r < ys.length; r++) {
    for (let c = 0; c < xs.length; c++, k++) {
      const at = rows.low[r] * width + columns.low[c];
      const [down, right] = [rows.part[r], columns.part[c]];
      const above = values[at] * (1 - right) + values[at + next.right] * right;
      const below = values[at + next.down] * (1 - right) + values[at + next.down + next.right] * right;
      found[k] = above * (1 - down) + below * down;
    }
  }
  return found;
}

const valueAt = (map, lattice, frame, point) => sample(map, lattice, frame, [point.y], [point.x])[0];

/** The picture coordinates of the centres of `count` pixels along an axis of `extent`. */
const centres = (count, extent) => Array.from({ length: count }, (_, i) => ((i + 0.5) * extent) / count);

const tables = {};
const colourTable = (name) => (tables[name] ??= bytes(report.colours[name]));

/** A value's colour as an index into the table; -1 for what is no number. */
function colourIndex(value, scale) {
  const position = (value - scale.low) / (scale.high - scale.low);
  return Number.isNaN(position) ? -1 : Math.round(clamp(position, 0, 1) * 255);
}

/** The map in colours on a canvas of its own, `width` x `height` pixels that cover the picture. */
function painted(map, lattice, frame, unit, scale, width, height) {
  const values = sample(map, lattice, frame, centres(height, frame.picture[0]), centres(width, frame.picture[1]));
  const table = colourTable(scale.colours);
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let k = 0; k < values.length; k++) {
    const index = colourIndex(values[k] / unit, scale);
    if (index < 0) continue; // stays transparent
    image.data.set(table.subarray(3 * index, 3 * index + 3), 4 * k);
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The colour bar: one pixel per colour. */
function colourBar(name) {
  const canvas = el("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  const table = colourTable(name);
  for (let i = 0; i < 256; i++) image.data.set([...table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  context.putImageData(image, 0, 0);
  return canvas;
}
