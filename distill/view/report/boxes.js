// Boxes of labels, of predictions and of the object that was chosen, with their names.

const INK = { label: "#ffffff", prediction: "#66f0ff", highlight: "#8dff5a" };
const CROWD = 14; // boxes beyond which their names would hide the picture

/** What the table of objects counts: the labels, or where there are none what the reference found. */
function thingsOf(block) {
  return block.labels ?? block.epochs[state.epoch].predictions[report.reference ?? report.networks[0].key] ?? [];
}

const scored = ({ name, score }) => (missing(score) ? name : `${name} ${fixed(score)}`);

/** The boxes that a panel shows: labels, its network's own predictions, and the chosen object. */
function boxesOf(block, panel) {
  const epoch = block.epochs[state.epoch];
  const status = epoch.objects.status[panel.key] ?? {};
  const named = ({ name }, i) => (status[i] === "miss" ? `${name} (missed)` : name);
  const own = state.predictions && panel.key && !panel.difference ? epoch.predictions[panel.key] ?? [] : [];
  const chosen = thingsOf(block)[state.highlight];
  return {
    labels: (state.labels ? block.labels ?? [] : []).map((item, i) => ({ item, ink: INK.label, name: named(item, i) })),
    predictions: own.map((item) => ({ item, ink: INK.prediction, dashed: true, name: scored(item) })),
    highlight: chosen
      ? [{ item: chosen, ink: INK.highlight, bold: true, name: named(chosen, state.highlight) }] : [],
  };
}

function drawBoxes(pen, block, panel) {
  const { labels, predictions, highlight } = boxesOf(block, panel);
  const boxes = [...labels, ...predictions, ...highlight];
  boxes.forEach((box) => drawBox(pen, box));
  const rest = labels.filter(({ item }) => item !== highlight[0]?.item);
  const [chosen] = highlight;
  const named = boxes.length <= CROWD ? [...highlight, ...rest, ...predictions]
    : [...highlight, ...(chosen ? [...predictions, ...rest].filter(({ item }) => touches(item, chosen.item)) : [])];
  const taken = [];
  named.forEach((box) => drawName(pen, box, taken));
}

const touches = ({ box: a }, { box: b }) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

/** What the boxes of these panels look like, in one sentence; of kinds that are not drawn it says nothing. */
function boxesText(block, panels) {
  const drawn = panels.map((panel) => boxesOf(block, panel));
  const texts = [["labels", "solid white boxes are labels"],
    ["predictions", "dashed cyan boxes are the network's own predictions with their scores"],
    ["highlight", "the thick green box is the chosen object"]]
    .filter(([kind]) => drawn.some((boxes) => boxes[kind].length)).map(([, text]) => text);
  return texts.length ? `${capital(texts.join(", "))}. ` : "";
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
