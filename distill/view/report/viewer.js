// The view of one image: panels with their captions, the values under the pointer, the image's figures.

function drawImageView() {
  const block = opened(state.image);
  const { name, file } = report.images[state.image];
  const [height, width] = block.frame.picture;
  const { about } = rowOf(state.layer);
  byId("image-title").textContent = `${name}, ${state.layer}${about ? `: ${about}` : ""}`;
  const labelled = report.classes.length ? `truth ${block.truth ? "known" : "not known"}`
    : block.labels === null ? "no labels" : plural(block.labels.length, "labelled object");
  byId("image-lead").textContent =
    `Image ${state.image + 1} of ${report.images.length} · ${file} · ${width} × ${height} pixels · ${labelled}`;
  const panels = panelsOf(state.show);
  const kept = document.activeElement?.panel?.id;
  byId("panels").dataset.columns = Math.min(3, panels.length);
  fill(byId("panels"), ...panels.map((panel) => figureOf(panel, width / height)));
  if (kept) [...byId("panels").querySelectorAll(".stage canvas")].find((one) => one.panel.id === kept)?.focus();
  byId("keys").textContent = `${boxesText(block, panels)}Keys: ← and → change the image, [ and ] the layer; in a `
    + "focused picture the arrow keys move a cross-hair (with Shift, ten times as far) and Escape takes it away.";
  drawPanels();
  drawReadout();
  drawClasses(block);
  drawOwnFigures(block);
}

function figureOf(panel, aspect) {
  const shown = content(panel);
  const canvas = el("canvas", { tabindex: 0, role: "application", "aria-roledescription": "map",
    "aria-label": `${panelTitle(panel)}, ${state.layer}, over ${report.images[state.image].name}`,
    "aria-describedby": "keys", pointermove: onPointer, pointerdown: onPointer, keydown: onCrossKey,
    pointerleave: (event) => event.pointerType === "mouse" && setPoint(null) });
  Object.assign(canvas, { panel, shown });
  canvas.style.aspectRatio = String(aspect);
  const stage = el("div", { class: "stage" }, canvas);
  const under = el("div", {}, ...scaleOf(panel, shown), el("div", { class: "value", "aria-hidden": "true" }));
  for (const part of [stage, under]) part.style.maxWidth = `calc(80vh * ${aspect})`; // the bar ends with the picture
  return el("figure", { "data-panel": panel.id },
    el("figcaption", {}, el("b", {}, panelTitle(panel)), el("span", { class: "line muted" }, panelLead(panel))),
    stage, under);
}

function panelTitle(panel) {
  if (panel.difference) return differenceName(panel.key);
  return panel.key ? `${roleOf(panel.key)}: ${network(panel.key).title}` : "Picture";
}

function panelLead(panel) {
  if (!panel.key) return "without a map";
  const shown = content(panel);
  const side = rowOf(state.layer).sides[panel.key];
  const verdict = opened(state.image).epochs[state.epoch].verdicts[panel.key];
  if (!side) return panel.difference ? "" : verdict ?? "";
  const grid = (shown.map ? shown.map.shape : side.grid).join(" × ");
  if (panel.difference) return shown.map ? `${grid} cells, as the loss compares them` : "";
  const layer = `${side.layer} (${side.type}, ${plural(side.channels, "channel")}), ${grid} cells`;
  return verdict ? `${layer}. ${report.classes.length ? "" : "Says: "}${verdict}` : layer;
}

function scaleOf(panel, shown) {
  if (shown.note) return [el("p", { class: "muted" }, shown.note)];
  if (!shown.map) return [];
  const { low, high, label, colours } = shown.scale;
  return [el("div", { class: "scale" }, el("span", {}, number(low)), colourBar(colours), el("span", {}, number(high))),
    el("div", { class: "muted" },
      panel.difference ? `${label}; red: the ${panel.key} responds more, blue: less` : label)];
}

function onPointer(event) {
  const bounds = event.currentTarget.getBoundingClientRect();
  const [height, width] = opened(state.image).frame.picture;
  setPoint({ x: clamp((event.clientX - bounds.left) / bounds.width, 0, 1) * width,
    y: clamp((event.clientY - bounds.top) / bounds.height, 0, 1) * height });
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onCrossKey(event) {
  if (event.key === "Escape") return setPoint(null);
  if (!(event.key in STEPS) || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  event.preventDefault();
  const [height, width] = opened(state.image).frame.picture;
  const { x, y } = state.point ?? { x: width / 2, y: height / 2 };
  const step = (Math.max(height, width) / 200) * (event.shiftKey ? 10 : 1);
  const [right, down] = STEPS[event.key];
  return setPoint({ x: clamp(x + right * step, 0, width), y: clamp(y + down * step, 0, height) });
}

function setPoint(point) {
  state.point = point;
  drawPanels();
  drawReadout();
}

/** The values of all networks at the cross-hair, under each panel and in one line that is read out. */
function drawReadout() {
  const { point } = state;
  for (const canvas of byId("panels").querySelectorAll(".stage canvas")) {
    const line = canvas.closest("figure").querySelector(".value");
    if (!point || !canvas.shown.map) line.textContent = "";
    else {
      const { raw, value } = valueHere(canvas.shown, point);
      line.textContent = `Here: ${number(value)}${raw === value ? "" : ` (raw energy ${number(raw)})`}`;
    }
  }
  byId("readout").textContent = point
    ? [valuesText(point), insideText(point), predictedText(point), masksText(point)].filter(Boolean).join(" ")
    : "Point at a picture to read the values of all networks there.";
}

function valuesText(point) {
  const values = panelsOf("all").filter((panel) => panel.key).map((panel) => {
    const shown = content(panel);
    const name = panel.difference ? differenceName(panel.key) : roleOf(panel.key);
    return shown.map ? [`${name} ${number(valueHere(shown, point).value)}`] : [];
  });
  return `At x ${point.x.toFixed(1)}, y ${point.y.toFixed(1)}: ${values.flat().join(", ")}.`;
}

const within = ({ box }, x, y) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3];

function insideText({ x, y }) {
  const block = opened(state.image);
  const { status, ratio } = block.epochs[state.epoch].objects;
  const texts = thingsOf(block).flatMap((item, i) => {
    if (!within(item, x, y)) return [];
    const here = ratio[state.layer] ?? {};
    const ratios = report.networks.filter(({ key }) => !missing(here[key]?.[i]))
      .map(({ key }) => `${key} ${number(here[key][i], 2)}`);
    const missedBy = report.networks.filter(({ key }) => status[key]?.[i] === "miss").map(({ key }) => key);
    return [[item.name, ...(missedBy.length ? [`missed by ${missedBy.join(" and ")}`] : []),
      ...(ratios.length ? [`box ratio ${ratios.join(", ")}`] : [])].join(", ")];
  });
  return texts.length ? `Inside: ${texts.join("; ")}.` : "";
}

function predictedText({ x, y }) {
  const { predictions } = opened(state.image).epochs[state.epoch];
  const texts = report.networks.flatMap(({ key }) => {
    const found = (predictions[key] ?? []).filter((item) => within(item, x, y)).map(scored);
    return found.length ? [`${key} ${found.join(", ")}`] : [];
  });
  return texts.length ? `Predicted: ${texts.join("; ")}.` : "";
}

const OWN = { distance: "Distance", untrained_distance: "Distance, untrained", shuffled_distance:
  "Distance, other images", cosine: "Cosine", spearman: "Spearman", overlap: "Overlap of the top", area:
  "Effective area", reference_area: "Effective area, teacher", foreground_energy: "Energy in foreground",
  foreground_share: "Its share of area", foreground_ratio: "Their ratio", alpha_mean: "Alpha", alpha_std: "Its std",
  alpha_r: "Its r with foreground" };

function drawOwnFigures(block) {
  const rows = block.epochs[state.epoch].figures;
  const shown = Object.keys(OWN).filter((name) => rows.some((row) => !missing(row[name])));
  byId("own").hidden = !rows.length || !shown.length;
  fillTable(byId("own-figures"), ["Pair", "Network", ...shown.map((name) => OWN[name])], rows.map((row) => ({
    current: row.pair === state.layer,
    cells: [row.pair, roleOf(row.network), ...shown.map((name) => fixed(row[name]))],
  })));
}
