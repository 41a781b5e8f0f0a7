// The overview: what the figures say, which images to look at, which objects were missed.

const LEVELS = " Layers are named by level, 1 is the finest: E is the encoder's output, which is the skip connection; G the "
  + "gate on it; X what the gate lets through to the decoder; D the decoder's output.";

function drawHead() {
  byId("title").textContent = report.title || "Attention maps";
  const names = report.networks.map((one) => `${roleOf(one.key)}: ${one.title}`).join(" · ");
  const cases = new Set(report.images.map((one) => one.figured)).size;
  const shown = plural(report.images.length, cases < report.images.length ? "plane" : "image");
  byId("subject").textContent = `${names} · ${shown}${cases < report.images.length ? ` of ${plural(cases, "volume")}` : ""}`;
  const gates = report.rows.every((row) => row.kind === "gate");
  const some = report.rows.some((row) => row.kind === "gate");
  const map = gates ? "where a layer looks: for each position, the coefficient between 0 and 1 of its attention gate"
    : "where a layer responds: for each position, the sum over channels of |feature| to the power p"
      + (some ? "; that of a gate (G) has its coefficients, between 0 and 1" : "");
  const distance = gates ? "the norm of their difference: 0 where they are the same"
    : "the norm of their difference, each brought to norm 1 before: 0 where they are the same up to a factor, 1.41 "
      + "where they share nothing"
      + (some ? "; that of a gate's is of its coefficients as they are, and so grows with the grid" : "");
  byId("what").textContent = `A map shows ${map}. ` + (report.reference
    ? `The distance between two maps is ${distance}.`
    : "Without a teacher there is nothing to compare with, so there are no distances and no differences.")
    + (report.classes.length ? LEVELS : "");
  fill(byId("scales"), "Colours: ", ...report.modes.flatMap((mode, i) => {
    const [name, ...rest] = mode.title.split(":");
    return [i ? "; " : "", el("strong", {}, name), `:${rest.join(":").replaceAll(";", ",")}`];
  }), ". Gates are always drawn from 0 to 1.");
}

function drawOverview() {
  const found = report.figures[state.epoch];
  const pairs = report.rows.filter((row) => Object.keys(found.summary[row.name] ?? {}).length);
  byId("figures").hidden = !pairs.length;
  byId("distances").hidden = !report.reference;
  if (pairs.length && report.reference) drawDistances(pairs, found);
  if (pairs.length) drawTables(pairs, found);
  drawGates(found);
  drawGallery(found);
  drawMissed(found);
}

const OPENED = { none: "as it is", all: "all gates" };

/** What each gate is worth; nothing where there are none. */
function drawGates({ gates }) {
  byId("gates-section").hidden = !gates.length;
  if (!gates.length) return;
  byId("gates-lead").textContent = `Dice, the mean over classes and ${plural(gates[0].n, "image")}, as it is and with `
    + "the coefficients alpha of one gate set to 1 throughout, so that all of the skip passes. A drop says how much this "
    + "network relies on the gate; it does not say how a network would do that was trained without it. r is alpha's "
    + "correlation with the foreground: 0 for a gate that knows nothing of it.";
  const rows = gates.map((row) => ({ cells: [roleOf(row.network), OPENED[row.opened] ?? row.opened, missing(row.dice) ? "–" : row.dice.toFixed(4),
    row.change === null ? "" : interval4(row), fixed(row.alpha_mean), fixed(row.alpha_std), fixed(row.alpha_r)] }));
  fillTable(byId("gates"), ["Network", "Alpha set to 1 in", "Dice", "Change [95 % interval]", "Alpha, mean",
    "Its std over places", "Its r"], rows);
}

/** A change of the Dice with four decimals and its interval. */
function interval4({ change: mean, low, high }) {
  const text = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
  return missing(low) ? text(mean) : `${text(mean)} [${text(low)}, ${text(high)}]`;
}

function drawDistances(all, found) {
  const pairs = all.filter(({ name }) => others.some(({ key }) => found.summary[name][key]?.distance));
  byId("chart-lead").textContent = chartText(found.summary);
  drawChart(byId("chart"), found, pairs);
  const told = (reasons, of) => pairs.filter(({ name }) => name in reasons)
    .map(({ name }) => el("li", {}, el("strong", {}, name), ` tells nothing${of}: ${reasons[name]}.`));
  fill(byId("silent"), ...told(found.silent, ""), ...told(found.silentBaseline, " of the baseline"));
  drawTrend(byId("trend"), pairs);
}

const NEAR = { Distance: "distance", "Nearer than the baseline by": "nearer", "Distance, untrained": "untrained_distance", "Distance, flat map":
  "flat_distance", "Distance, other images": "shuffled_distance", Cosine: "cosine", "Cosine, other images": "shuffled_cosine", Spearman: "spearman" };
const WHERE = { "Overlap of the top": "overlap", "Effective area": "area", "Effective area, teacher": "reference_area",
  "Box ratio": "box_ratio", "Box ratio, teacher": "teacher_box_ratio", Pointing: "pointing",
  "Pointing by chance": "pointing_chance", "Foreground ratio": "foreground_ratio",
  "Foreground ratio, teacher": "teacher_foreground_ratio", "Alpha, mean": "alpha_mean", "Alpha, std": "alpha_std",
  "Alpha, r": "alpha_r" };
const MEANING = {
  area: "Effective area: the share of the grid over which the attention spreads; 1 is everywhere alike.",
  box_ratio: "Box ratio: the share of the attention inside the objects' boxes over the boxes' share of the picture; "
    + "1 is no more than anywhere else.",
  foreground_ratio: "Foreground ratio: the share of the attention on the labelled foreground over the foreground's "
    + "share of the image; 1 is no more than anywhere else.",
  alpha_r: "Alpha, r: a gate's correlation with the foreground; 0 is none.",
  pointing: "Pointing: how often the strongest place around an object is on it." };

const both = (mine, theirs) => (theirs === undefined || mine === theirs ? mine : `${mine}, ${theirs}`);

function drawTables(pairs, { summary, silent }) {
  const lines = pairs.flatMap((row) => others.filter((one) => row.sides[one.key] && summary[row.name][one.key]).map((one) => {
    const [mine, theirs] = [row.sides[one.key], row.sides[report.reference]];
    const teacher = summary[row.name][report.reference] ?? {};
    return {
      head: [row.name in silent ? `${row.name} (tells nothing)` : row.name, roleOf(one.key)],
      layers: [both(mine.layer, theirs?.layer), both(mine.grid.join("×"), theirs?.grid.join("×"))],
      figures: { ...summary[row.name][one.key], teacher_box_ratio: teacher.box_ratio,
        teacher_foreground_ratio: teacher.foreground_ratio },
    };
  }));
  const layers = report.reference ? ["Layers, its own and the teacher's", "Grids"] : ["Name", "Grid"];
  drawMeans("near", NEAR, report.reference ? lines : [], layers);
  const shown = drawMeans("where", WHERE, lines, report.reference ? [] : layers);
  byId("where-lead").textContent = shown.flatMap((figure) => MEANING[figure] ?? []).join(" ");
}

/** A table of the figures that exist, and which those are; `layers` are the heads of what it says of the layers. */
function drawMeans(id, names, lines, layers) {
  const shown = Object.entries(names).filter(([, figure]) => lines.some(({ figures }) => figures[figure]));
  byId(id).parentElement.hidden = !shown.length;
  const heads = [report.reference ? "Pair" : "Layer", "Network", ...layers, ...shown.map(([head]) => head)];
  const told = lines.filter(({ figures }) => shown.some(([, figure]) => figures[figure]));
  fillTable(byId(id), heads, told.map(({ head, layers: cells, figures }) => (
    { cells: [...head, ...(layers.length ? cells : []), ...shown.map(([, figure]) => interval(figures[figure]))] })));
  return shown.map(([, figure]) => figure);
}

function drawGallery({ order }) {
  const ranked = order.some((entry) => entry.distance !== null);
  byId("gallery-title").textContent = ranked
    ? `Images, those where the ${others[0].key} looks elsewhere first` : "Images";
  byId("gallery-lead").textContent = ranked ? "By the mean distance over the pairs that tell something." : "";
  fill(byId("gallery"), ...order.map(({ image, distance }) => {
    const { name, thumbnail } = report.images[image];
    const line = distance === null ? [] : [el("span", { class: "line muted" }, `distance ${fixed(distance)}`)];
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
    + `that tell something, the one where the ${report.reference ? "teacher" : who} attends to the object most is named.`
    + `${cut}${bare}`;
  fill(byId("missed"), ...missed.map((entry) => {
    const found = entry.found === null ? "" : entry.found ? "The teacher found it." : "The teacher missed it too.";
    const against = report.reference ? `, teacher ${number(entry.reference_ratio, 2)}` : "";
    return el("li", {}, el("button", { type: "button", click: () => open({ image: entry.image, layer: entry.pair,
      highlight: entry.object, labels: true }) },
    el("img", { src: entry.crop, alt: "" }),
    el("span", {}, el("b", {}, entry.class), el("span", { class: "line" }, report.images[entry.image].name),
      el("span", { class: "line" }, `Box ratio at ${entry.pair}: ${who} ${number(entry.ratio, 2)}${against}`),
      el("span", { class: "line muted" }, entry.instead ? `Found there: ${scored(entry.instead)}.` : "", " ", found))));
  }));
}
