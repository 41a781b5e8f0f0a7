// Panels: what is drawn on each canvas. A panel is one network's map, a difference, or the picture alone.

const blocks = new Map();

/** An image's block, parsed when the image is first opened; its picture decodes in the background. */
function opened(index) {
  if (!blocks.has(index)) {
    const block = read(`image-${index}`);
    block.ready = new Image();
    block.ready.src = block.picture;
    block.ready.addEventListener("load", () => drawPanels());
    blocks.set(index, block);
  }
  return blocks.get(index);
}

/** The panels that the state asks for, in reading order. */
function panelsOf(show) {
  const pictures = [{ id: "picture" }];
  const maps = report.networks.map(({ key }) => ({ id: key, key }));
  const differences = report.reference
    ? others.map(({ key }) => ({ id: `difference-${key}`, key, difference: true })) : [];
  const all = [...maps, ...differences, ...pictures];
  if (show !== "all") return all.filter((panel) => panel.id === show);
  if (differences.length === 1) return [...maps, ...differences];
  return [...(differences.length ? maps : pictures), ...(differences.length ? pictures : maps), ...differences];
}

/** What a panel shows: map, lattice, unit to divide by and scale; only a `note` where there is nothing to show. */
function content(panel) {
  const block = opened(state.image);
  const row = rowOf(state.layer);
  const mode = row.modes[state.mode];
  if (panel.difference) {
    const found = block.epochs[state.epoch].differences[row.name]?.[panel.key];
    if (!found) return { note: "No difference: one of the two has no such layer." };
    if (!mode.difference) return { note: "No difference on this scale: its maps are not comparable." };
    const map = found[state.mode] ?? found.shared;
    return { map, lattice: map.lattice, unit: 1, scale: mode.difference };
  }
  if (!panel.key) return {};
  const map = (block.epochs[state.epoch].maps[row.name] ?? {})[panel.key] ?? block.epochs[0].maps[row.name][panel.key];
  if (!map) return { note: row.kind === "gate" ? "This network has no gate here." : "This network has no such layer." };
  const unit = state.mode === "shared" && row.kind === "energy" ? map.unit : 1;
  const scale = mode.maps ?? map.own;
  if ([unit, scale.low, scale.high].some(missing)) return { note: "This map has values that are not finite." };
  return { map, unit, scale, lattice: map.lattice ?? block.lattices[row.name]?.[panel.key] ?? row.sides[panel.key].lattice };
}

/** A value in the units of its scale, and the value as it is. */
function valueHere(shown, point) {
  const raw = valueAt(shown.map, shown.lattice, opened(state.image).frame, point);
  return { raw, value: raw / shown.unit };
}

function drawPanels() {
  for (const canvas of byId("panels").querySelectorAll(".stage canvas")) drawPanel(canvas);
}

function drawPanel(canvas) {
  const block = opened(state.image);
  const { panel, shown } = canvas;
  const [height, width] = block.frame.picture;
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const columns = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const rows = Math.max(1, Math.round((columns * height) / width));
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, columns, rows);
  if (block.ready.complete && block.ready.naturalWidth) {
    context.drawImage(panel.key ? backdrop(block.ready) : block.ready, 0, 0, columns, rows);
  }
  if (shown.map) {
    context.globalAlpha = state.opacity / 100;
    context.drawImage(overlay(panel.id, shown, block.frame, columns, rows), 0, 0);
    context.globalAlpha = 1;
  }
  const pen = { context, scale: columns / width, ratio, width: columns, height: rows };
  drawBoxes(pen, block, panel);
  drawMasks(pen, block, panel);
  if (state.point) drawCross(pen, state.point);
}

let grey = {}; // of the picture last drawn

/** The grey, dimmed copy of a picture on which maps are laid, so that colours mean values alone; as on the sheets. */
function backdrop(picture) {
  if (grey.picture === picture) return grey.canvas;
  const [width, height] = [picture.naturalWidth, picture.naturalHeight];
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const image = context.getImageData(0, 0, width, height);
  for (let k = 0; k < image.data.length; k += 4) {
    const luma = 0.299 * image.data[k] + 0.587 * image.data[k + 1] + 0.114 * image.data[k + 2];
    image.data.fill(luma * report.dim, k, k + 3);
  }
  context.putImageData(image, 0, 0);
  grey = { picture, canvas };
  return canvas;
}

const overlays = {}; // by panel, the last one painted: it stays while the opacity or the cross-hair changes

function overlay(id, shown, frame, width, height) {
  const last = overlays[id];
  const same = last && last.map === shown.map && last.scale === shown.scale && last.canvas.width === width
    && last.canvas.height === height;
  if (!same) {
    const canvas = painted(shown.map, shown.lattice, frame, shown.unit, shown.scale, width, height);
    overlays[id] = { map: shown.map, scale: shown.scale, canvas };
  }
  return overlays[id].canvas;
}

function drawCross({ context, scale, ratio, width, height }, point) {
  const [x, y] = [point.x * scale, point.y * scale];
  context.beginPath();
  const gap = 6 * ratio; // around the point, so that it stays in sight
  const lines = [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]];
  for (const [fromX, fromY, toX, toY] of lines) {
    context.moveTo(fromX, fromY);
    context.lineTo(toX, toY);
  }
  stroke(context, "rgba(0,0,0,.7)", 3 * ratio);
  stroke(context, "#ffffff", ratio);
}
