// The overview: what the figures say, which images to look at, which objects were missed.

const MARKS = { untrained: "Untrained student", shuffled: "Other images" };

function drawHead() {
  byId("title").textContent = report.title || "Attention maps";
  const names = report.networks.map((one) => `${roleOf(one.key)}: ${one.title}`).join(" · ");
  byId("subject").textContent = `${names} · ${plural(report.images.length, "image")}`;
  const gates = report.rows.every((row) => row.kind === "gate");
  const map = gates ? "where a layer looks: for each position, the coefficient between 0 and 1 of its attention gate"
    : "where a layer responds: for each position, the sum over channels of |feature| to the power p";
  const distance = gates ? "the norm of their difference: 0 where they are the same"
    : "the norm of their difference, each brought to norm 1 before: 0 where they are the same up to a factor, 1.41 "
      + "where they share nothing";
  byId("what").textContent = `A map shows ${map}. ` + (report.reference
    ? `The distance between two maps is ${distance}.`
    : "With a single network there is nothing to compare with, so there are no distances and no differences.");
  fill(byId("scales"), "Colours: ", ...report.modes.flatMap((mode, i) => {
    const [name, ...rest] = mode.title.split(":");
    return [i ? "; " : "", el("strong", {}, name), `:${rest.join(":").replaceAll(";", ",")}`];
  }), ". Gates are always drawn from 0 to 1.");
}

function drawOverview() {
  const found = report.figures[state.epoch];
  const pairs = report.rows.filter((row) => Object.keys(found.summary[row.name] ?? {}).length);
  byId("figures").hidden = !report.reference || !pairs.length;
  if (!byId("figures").hidden) {
    byId("chart-lead").textContent = "Points are means over images, lines their 95 % intervals. Hollow marks are "
      + `controls: a student that was never trained, and the ${others[0].key}'s maps compared with the teacher's `
      + "maps of other images. A pair tells something only where the network lies left of both.";
    drawChart(byId("chart"), found, pairs);
    fill(byId("silent"), ...pairs.filter((row) => row.name in found.silent)
      .map((row) => el("li", {}, el("strong", {}, row.name), ` tells nothing: ${found.silent[row.name]}.`)));
    drawTrend(byId("trend"), pairs);
    drawTables(pairs, found);
  }
  drawGallery(found);
  drawMissed(found);
}

const NEAR = { Distance: "distance", "Distance, untrained": "untrained_distance", "Distance, other images":
  "shuffled_distance", Cosine: "cosine", "Cosine, other images": "shuffled_cosine", Spearman: "spearman" };
const WHERE = { "Overlap of the top": "overlap", "Effective area": "area", "Effective area, teacher": "reference_area",
  "Box ratio": "box_ratio", "Box ratio, teacher": "teacher_box_ratio", Pointing: "pointing",
  "Pointing by chance": "pointing_chance" };

const both = (mine, theirs) => (mine === theirs ? mine : `${mine}, ${theirs}`);

function drawTables(pairs, { summary, silent }) {
  const lines = pairs.flatMap((row) => others.filter((one) => summary[row.name][one.key]).map((one) => {
    const [mine, theirs] = [row.sides[one.key], row.sides[report.reference]];
    const teacher = summary[row.name][report.reference] ?? {};
    return {
      head: [row.name in silent ? `${row.name} (tells nothing)` : row.name, roleOf(one.key)],
      layers: [both(mine.layer, theirs.layer), both(mine.grid.join("×"), theirs.grid.join("×"))],
      figures: { ...summary[row.name][one.key], teacher_box_ratio: teacher.box_ratio },
    };
  }));
  const cells = (figures, names) => Object.values(names).map((name) => interval(figures[name]));
  fillTable(byId("near"), ["Pair", "Network", "Layers, its own and the teacher's", "Grids", ...Object.keys(NEAR)],
    lines.map(({ head, layers, figures }) => ({ cells: [...head, ...layers, ...cells(figures, NEAR)] })));
  fillTable(byId("where"), ["Pair", "Network", ...Object.keys(WHERE)],
    lines.map(({ head, figures }) => ({ cells: [...head, ...cells(figures, WHERE)] })));
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
    "aria-label": "Distances by pair with the two controls; the table below has the same figures" },
  ...axis, title, ...parts));
}

function chartLines(networks) {
  const lines = others.filter((one) => networks[one.key]?.distance)
    .map((one) => ({ name: roleOf(one.key), kind: one.key, found: networks[one.key].distance }));
  const controls = networks[others[0].key] ?? {};
  for (const [kind, name] of Object.entries(MARKS)) {
    const found = controls[`${kind}_distance`];
    if (found) lines.push({ name, kind, found });
  }
  return lines.filter((line) => !missing(line.found[0]));
}

function chartLine({ name, kind, found: [mean, low, high] }, y, x, width) {
  const trained = !(kind in MARKS);
  const look = trained ? "mark network" : "mark hollow";
  const [at, r] = [x(mean), 5];
  const shape = kind === "untrained" || kind === others[0].key
    ? el("svg:circle", { class: look, cx: at, cy: y, r })
    : el("svg:path", { class: look, d: `M${at - r} ${y}L${at} ${y - r}L${at + r} ${y}L${at} ${y + r}Z` });
  const range = missing(low) || missing(high) ? []
    : [el("svg:line", { class: trained ? "mark network" : "mark", x1: x(low), x2: x(high), y1: y, y2: y })];
  return [el("svg:text", { x: 14, y: y + 4, class: trained ? null : "faint" }, name), ...range, shape,
    el("svg:text", { x: width, y: y + 4, "text-anchor": "end", class: trained ? null : "faint" }, mean.toFixed(2))];
}

function drawGallery({ order }) {
  const ranked = order.some((entry) => entry.distance !== null);
  byId("gallery-title").textContent = ranked
    ? `Images, those where the ${others[0].key} looks elsewhere first` : "Images";
  byId("gallery-lead").textContent = ranked ? "By the mean distance over the pairs that tell something." : "";
  fill(byId("gallery"), ...order.map(({ image, distance }) => {
    const { name, thumbnail } = report.images[image];
    const line = distance === null ? [] : [el("span", { class: "line muted" }, `distance ${distance.toFixed(2)}`)];
    return el("li", {}, el("button", { type: "button", click: () => open({ image, highlight: null }) },
      el("img", { src: thumbnail, alt: "" }), el("span", { class: "line" }, name), ...line));
  }));
}

function drawMissed({ missed }) {
  byId("missed-section").hidden = !missed.length;
  if (!missed.length) return;
  const who = others[0].key;
  byId("missed-title").textContent = `Objects that the ${who} missed`;
  const bare = report.images.some((one) => !one.labelled) && report.reference
    ? " In images without labels, what the teacher found stands for the objects." : "";
  const cut = missed[0].total > missed.length ? ` The first ${missed.length} of ${missed[0].total}.` : "";
  byId("missed-lead").textContent = "Those that it looked at least come first. The box ratio is the share of the "
    + "attention inside the box over the box's share of the picture: 1 is no more than anywhere else. Of the pairs "
    + `that tell something, the one with the lowest ratio is named.${cut}${bare}`;
  fill(byId("missed"), ...missed.map((entry) => {
    const found = entry.found === null ? "" : entry.found ? "The teacher found it." : "The teacher missed it too.";
    const against = report.reference ? `, teacher ${number(entry.reference_ratio, 2)}` : "";
    return el("li", {}, el("button", { type: "button", click: () => open({ image: entry.image, layer: entry.pair,
      highlight: entry.object, labels: true }) },
    el("img", { src: entry.crop, alt: "" }),
    el("span", {}, el("b", {}, entry.class), el("span", { class: "line" }, report.images[entry.image].name),
      el("span", { class: "line" }, `Box ratio at ${entry.pair}: ${who} ${number(entry.ratio, 2)}${against}`),
      el("span", { class: "line muted" }, found))));
  }));
}
