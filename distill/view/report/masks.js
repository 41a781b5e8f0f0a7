// Masks: class numbers that travel as small grey pictures, their outlines, and what is said of them.

const decoded = new Map();

/** The class numbers of a mask, {width, height, labels, paths}; null while its picture decodes, and for none. */
function maskOf(uri) {
  if (!uri) return null;
  if (!decoded.has(uri)) {
    decoded.set(uri, null);
    const image = new Image();
    image.addEventListener("load", () => {
      decoded.set(uri, numbersOf(image));
      drawPanels();
      drawReadout();
    });
    image.src = uri;
  }
  return decoded.get(uri);
}

function numbersOf(image) {
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const step = Math.floor(255 / Math.max(1, report.classes.length - 1)); // as distill.view.report.encode has it
  return { width, height, labels: Uint8Array.from({ length: width * height }, (_, i) => Math.round(data[4 * i] / step)),
    paths: {} };
}

/** The outline of a class along its pixels' edges, in pixels of the mask. */
function outlineOf(mask, number) {
  const { width, height, labels } = mask;
  if (mask.paths[number]) return mask.paths[number];
  const inside = (row, column) => row >= 0 && column >= 0 && row < height && column < width
    && labels[row * width + column] === number;
  const next = new Map(); // corner -> corners that an edge leads to, clockwise around the class
  const add = (...edge) => {
    const [from, to] = edge.map(([row, column]) => row * (width + 1) + column);
    next.set(from, [...(next.get(from) ?? []), to]);
  };
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      if (!inside(r, c)) continue;
      if (!inside(r - 1, c)) add([r, c], [r, c + 1]);
      if (!inside(r, c + 1)) add([r, c + 1], [r + 1, c + 1]);
      if (!inside(r + 1, c)) add([r + 1, c + 1], [r + 1, c]);
      if (!inside(r, c - 1)) add([r + 1, c], [r, c]);
    }
  }
  const path = new Path2D();
  for (const start of next.keys()) {
    while (next.get(start)?.length) {
      path.moveTo(start % (width + 1), Math.floor(start / (width + 1)));
      for (let at = next.get(start).pop(); at !== start; at = next.get(at).pop()) {
        path.lineTo(at % (width + 1), Math.floor(at / (width + 1)));
      }
      path.closePath();
    }
  }
  return (mask.paths[number] = path);
}

const ownMask = (block, key) => maskOf(block.epochs[state.epoch].masks[key]);

/** The truth in dashes, white over maps; a network's own prediction in the colours of the classes. */
function drawMasks(pen, block, panel) {
  const truth = state.labels ? maskOf(block.truth) : null;
  const own = state.predictions && panel.key && !panel.difference ? ownMask(block, panel.key) : null;
  report.classes.forEach(({ colour }, number) => {
    if (number && own) drawOutline(pen, own, number, colour, false);
    if (number && truth) drawOutline(pen, truth, number, panel.key ? "#ffffff" : colour, true);
  });
}

function drawOutline({ context, ratio, width, height }, mask, number, ink, dashed) {
  const unit = mask.width / width; // of the mask, per pixel of the canvas
  context.save();
  context.scale(width / mask.width, height / mask.height);
  context.setLineDash(dashed ? [5 * ratio * unit, 4 * ratio * unit] : []);
  stroke2(context, outlineOf(mask, number), "rgba(0,0,0,.65)", (dashed ? 2.5 : 3.5) * ratio * unit);
  stroke2(context, outlineOf(mask, number), ink, (dashed ? 1.2 : 1.8) * ratio * unit);
  context.restore();
}

function stroke2(context, path, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke(path);
}

/** The class at a point of the picture; empty where there is no mask. */
function classAt(block, mask, { x, y }) {
  if (!mask) return "";
  const [height, width] = block.frame.picture;
  const [row, column] = [Math.floor((y / height) * mask.height), Math.floor((x / width) * mask.width)];
  return report.classes[mask.labels[clamp(row, 0, mask.height - 1) * mask.width + clamp(column, 0, mask.width - 1)]]?.name;
}

function masksText(point) {
  const block = opened(state.image);
  const told = [["truth", maskOf(block.truth)], ...report.networks.map(({ key }) => [key, ownMask(block, key)])]
    .flatMap(([name, mask]) => (mask ? [`${name} ${classAt(block, mask, point)}`] : []));
  return told.length ? `Here: ${told.join(", ")}.` : "";
}

/** The colours of the classes, and what the lines mean. */
function drawClasses(block) {
  byId("classes").hidden = !report.classes.length;
  if (!report.classes.length) return;
  const dice = report.networks.map(({ key }) => [key, block.epochs[state.epoch].dice[key]]).filter(([, found]) => found);
  fill(byId("classes"), ...report.classes.slice(1).map(({ name, colour }) => el("span", { class: "class" },
    el("span", { class: "swatch", style: `border-color: ${colour}` }), name,
    el("span", { class: "muted" }, dice.filter(([, found]) => name in found).map(([key, found]) => ` ${key} ${found[name].toFixed(3)}`).join(",")))),
  el("span", { class: "line muted" }, `${dice.length ? "The numbers are Dice. " : ""}Coloured lines are a network's own `
    + "prediction; dashed ones the truth, white over maps."));
}
