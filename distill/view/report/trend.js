// The course of the distances over a training: a line for each pair and network, on one scale.

function drawTrend(place, pairs) {
  byId("trend-part").hidden = report.figures.length < 2;
  if (report.figures.length < 2) return;
  const lines = pairs.flatMap((row) => others.map(({ key }) => ({ name: `${row.name}, ${roleOf(key)}`,
    values: report.figures.map(({ summary }) => summary[row.name]?.[key]?.distance?.[0] ?? null) })));
  const known = lines.filter(({ values }) => values.some((value) => value !== null));
  const highest = Math.max(...known.flatMap(({ values }) => values), 0.1);
  fill(place, ...known.map((line) => el("li", {}, el("span", {}, line.name), trendLine(line.values, highest),
    el("span", {}, trendText(line.values)))));
}

function trendText(values) {
  const there = values.filter((value) => value !== null);
  return `${fixed(there[0])} to ${fixed(there.at(-1))}`;
}

/** Epochs lie as far apart as their numbers; the drawing is 100 units wide and as high as the scale. */
function trendLine(values, highest) {
  const [first, last] = [report.epochs[0], report.epochs.at(-1)];
  const x = (i) => (last === first ? 50 : ((report.epochs[i] - first) / (last - first)) * 100);
  const y = (value) => 40 - (value / highest) * 38;
  const points = values.flatMap((value, i) => (value === null ? [] : [`${x(i)},${y(value)}`]));
  const at = { x: x(state.epoch), y: y(values[state.epoch]) }; // a line of no length with round ends is a round dot
  const now = values[state.epoch] === null ? []
    : [el("svg:line", { class: "now", x1: at.x, x2: at.x, y1: at.y, y2: at.y })];
  return el("svg:svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true" },
    el("svg:line", { x1: 0, x2: 100, y1: 40, y2: 40 }), el("svg:polyline", { points: points.join(" ") }), ...now);
}
