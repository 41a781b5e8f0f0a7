// The chart of the distances: each network with what its distance is to be held against.

/** How to read the chart; of controls that no network has it says nothing. */
function chartText(summary) {
  const known = (figure) => Object.values(summary)
    .some((networks) => others.some(({ key }) => networks[key]?.[figure]));
  const controls = [
    ...(known("shuffled_distance") ? ["the network's maps compared with the teacher's maps of other images"] : []),
    ...(known("flat_distance") ? ["a map that is everywhere alike"] : []),
    ...(known("untrained_distance") ? ["a student that was never trained"] : [])];
  return "Points are means over images, lines their 95 % intervals." + (controls.length
    ? ` Hollow marks are controls: ${controls.join(", and ")}. A pair tells something of a network only where that `
      + `network lies left of ${controls.length > 1 ? "all of them" : "its control"}.` : "");
}

/** One line per network and control, grouped by pair; the table below says the same. */
function drawChart(place, { summary, silent }, pairs) {
  const width = Math.max(280, Math.min(place.clientWidth || 900, 900));
  const [left, right, step] = [150, 52, 19];
  const groups = pairs.map((row) => ({ row, lines: chartLines(summary[row.name]) }));
  const highest = Math.max(0.1, ...groups.flatMap((g) => g.lines.map((l) => l.found[2] ?? l.found[0]))) * 1.04;
  const x = (value) => left + (clamp(value, 0, highest) / highest) * (width - left - right);
  const parts = [];
  let y = 12;
  for (const { row, lines } of groups) {
    const note = row.name in silent ? "tells nothing, see below" : "";
    parts.push(el("svg:text", { x: 0, y: y + 4, class: "pair" }, row.name),
      el("svg:text", { x: left, y: y + 4, class: "faint above" }, note));
    for (const line of lines) parts.push(...chartLine(line, (y += step), x, width));
    y += 26;
  }
  const bottom = y - 10;
  const every = [0.02, 0.05, 0.1, 0.2, 0.5].find((one) => highest / one <= (width < 500 ? 4 : 8)) ?? 1;
  const ticks = Array.from({ length: Math.floor(highest / every) + 1 }, (_, i) => i * every);
  const axis = ticks.flatMap((tick) => [
    el("svg:line", { class: "grid", x1: x(tick), x2: x(tick), y1: 20, y2: bottom }),
    el("svg:text", { class: "faint", x: x(tick), y: bottom + 16, "text-anchor": "middle" }, number(tick)),
  ]);
  const title = el("svg:text", { class: "faint", x: 0, y: bottom + 16 }, "Distance");
  fill(place, el("svg:svg", { viewBox: `0 0 ${width} ${bottom + 24}`, role: "img",
    "aria-label": "Distances by pair; the table below has the same figures" },
  ...axis, title, ...parts));
}

function chartLines(networks) {
  const lines = others.flatMap(({ key }, i) => {
    const { distance, shuffled_distance: shuffled } = networks[key] ?? {};
    return [{ name: roleOf(key), diamond: i > 0, found: distance },
      { name: "other images", inset: 12, diamond: true, found: shuffled, control: true }];
  });
  const { flat_distance: flat, untrained_distance: untrained } = networks[others[0].key] ?? {};
  return [...lines, { name: "Flat map", found: flat, control: true },
    { name: "Untrained student", found: untrained, control: true }]
    .filter(({ found }) => found && !missing(found[0]));
}

function chartLine({ name, inset = 0, diamond, control, found: [mean, low, high] }, y, x, width) {
  const look = control ? "mark hollow" : "mark network";
  const [at, r] = [x(mean), 5];
  const shape = diamond
    ? el("svg:path", { class: look, d: `M${at - r} ${y}L${at} ${y - r}L${at + r} ${y}L${at} ${y + r}Z` })
    : el("svg:circle", { class: look, cx: at, cy: y, r });
  const range = missing(low) || missing(high) ? []
    : [el("svg:line", { class: control ? "mark" : "mark network", x1: x(low), x2: x(high), y1: y, y2: y })];
  const text = control ? "faint" : null;
  return [el("svg:text", { x: 14 + inset, y: y + 4, class: text }, name), ...range, shape,
    el("svg:text", { x: width, y: y + 4, "text-anchor": "end", class: text }, fixed(mean))];
}
