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
    const found = block.epochs[state.epoch].differences[row.name][panel.key];
    if (!mode.difference) return { note: "No difference on this scale: its maps are not comparable." };
    const map = found[state.mode] ?? found.shared;
    return { map, lattice: map.lattice, unit: 1, scale: mode.difference };
  }
  if (!panel.key) return {};
  const map = (block.epochs[state.epoch].maps[row.name] ?? {})[panel.key] ?? block.epochs[0].maps[row.name][panel.key];
  if (!map) return { note: "This network has no map here." };
  const unit = state.mode === "shared" && row.kind === "energy" ? map.unit : 1;
  const scale = mode.maps ?? map.own;
  if ([unit, scale.low, scale.high].some(missing)) return { note: "This map has values that are not finite." };
  return { map, unit, scale, lattice: row.sides[panel.key].lattice };
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
  if (block.ready.complete && block.ready.naturalWidth) context.drawImage(block.ready, 0, 0, columns, rows);
  if (shown.map) {
    context.globalAlpha = state.opacity / 100;
    context.drawImage(overlay(panel.id, shown, block.frame, columns, rows), 0, 0);
    context.globalAlpha = 1;
  }
  const pen = { context, scale: columns / width, ratio, width: columns, height: rows };
  drawBoxes(pen, block, panel);
  if (state.point) drawCross(pen, state.point);
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

const INK = { label: "#ffffff", prediction: "#66f0ff", highlight: "#8dff5a" };
const CROWD = 14; // boxes beyond which their names would hide the picture

/** What the table of objects counts: the labels, or where there are none what the reference found. */
function thingsOf(block) {
  return block.labels ?? block.epochs[state.epoch].predictions[report.reference ?? report.networks[0].key] ?? [];
}

function drawBoxes(pen, block, panel) {
  const epoch = block.epochs[state.epoch];
  const status = epoch.objects.status[panel.difference ? others[0].key : panel.key] ?? {};
  const own = panel.key && !panel.difference;
  const labels = (state.labels ? block.labels ?? [] : []).map((item, i) => (
    { item, ink: INK.label, name: status[i] === "miss" ? `${item.name} (missed)` : item.name }));
  const scored = ({ name, score }) => (missing(score) ? name : `${name} ${score.toFixed(2)}`);
  const predictions = (state.predictions && own ? epoch.predictions[panel.key] ?? [] : []).map((item) => (
    { item, ink: INK.prediction, dashed: true, name: scored(item) }));
  const chosen = thingsOf(block)[state.highlight];
  const highlight = chosen ? [{ item: chosen, ink: INK.highlight, bold: true,
    name: status[state.highlight] === "miss" ? `${chosen.name} (missed)` : chosen.name }] : [];
  const boxes = [...labels, ...predictions, ...highlight];
  boxes.forEach((box) => drawBox(pen, box));
  const named = boxes.length > CROWD ? highlight : [...highlight, ...labels.filter(({ item }) => item !== chosen),
    ...predictions];
  const taken = [];
  named.forEach((box) => drawName(pen, box, taken));
}

function drawBox({ context, scale, ratio }, { item, ink, dashed, bold }) {
  const [x1, y1, x2, y2] = item.box;
  const corners = item.corners ?? [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
  context.beginPath();
  corners.forEach(([x, y], i) => (i ? context.lineTo(x * scale, y * scale) : context.moveTo(x * scale, y * scale)));
  context.closePath();
  context.setLineDash(dashed ? [6 * ratio, 6 * ratio] : []);
  stroke(context, "rgba(0,0,0,.75)", (bold ? 7 : 4) * ratio);
  stroke(context, ink, (bold ? 4 : 2) * ratio);
  context.setLineDash([]);
}

/** The name beside its box where no other name is in the way; without room it is left to the line under the pointer. */
function drawName({ context, scale, ratio, width, height }, { item, ink, name }, taken) {
  context.font = `${12 * ratio}px system-ui, "DejaVu Sans", sans-serif`;
  const [x1, y1, x2, y2] = item.box.map((side) => side * scale);
  const [wide, high, gap] = [context.measureText(name).width + 8 * ratio, 17 * ratio, 3 * ratio];
  const [tops, lefts] = [[y1 - high - gap, y2 + gap, y1 + gap, y2 - high - gap], [x1, x2 - wide]];
  const places = tops.flatMap((top) => lefts.map((left) => (
    { left: clamp(left, 0, Math.max(0, width - wide)), top: clamp(top, 0, Math.max(0, height - high)) })));
  const free = places.find(({ left, top }) => taken.every((other) => left >= other.left + other.wide
    || left + wide <= other.left || top >= other.top + high || top + high <= other.top));
  if (!free) return;
  taken.push({ ...free, wide });
  context.fillStyle = "rgba(0,0,0,.8)";
  context.fillRect(free.left, free.top, wide, high);
  context.fillStyle = ink;
  context.textBaseline = "middle";
  context.fillText(name, free.left + 4 * ratio, free.top + high / 2);
}

function stroke(context, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
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
