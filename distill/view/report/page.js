// The state of the page, kept in the address, and the keys that change it.

const state = { view: "overview", image: 0, layer: report.rows[0]?.name, show: "all", mode: report.modes[0].key,
  opacity: 60, labels: true, predictions: true, epoch: report.figures.length - 1, highlight: null, point: null };
const SHOWS = panelsOf("all").filter((panel) => panel.key);
const SHOW_KEYS = SHOWS.length > 1 ? ["all", ...SHOWS.map((panel) => panel.id)] : ["all"];

/** Change the state and draw; a new view or image is a step in the browser's history, everything else is not. */
function change(changes) {
  const step = ["view", "image"].some((key) => key in changes && changes[key] !== state[key]);
  Object.assign(state, { point: null }, changes);
  const hash = `#${hashOf(state)}`;
  if (hash !== location.hash) remember(hash, step);
  draw();
}

function remember(hash, step) {
  try {
    if (step) history.pushState(null, "", hash);
    else history.replaceState(null, "", hash);
  } catch {
    // inside a frame of a notebook the page has no address of its own
  }
}

function open(changes) {
  change({ view: "image", ...changes });
  byId("image-title").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function hashOf({ view, image, layer, show, mode, opacity, labels, predictions, epoch, highlight }) {
  const found = new URLSearchParams({ view });
  if (report.epochs.length) found.set("epoch", report.epochs[epoch]);
  if (view === "image") {
    const boxes = [labels && "labels", predictions && "predictions"].filter(Boolean).join("+") || "none";
    const shown = { image: report.images[image]?.name, layer, show, mode, opacity, boxes };
    Object.entries(shown).forEach(([name, value]) => found.set(name, value));
    if (highlight !== null) found.set("object", highlight);
  }
  return found.toString();
}

/** What the address asks for; what it does not know is left as it is. */
function readHash() {
  const found = new URLSearchParams(location.hash.slice(1));
  const pick = (name, allowed) => (allowed.includes(found.get(name)) ? found.get(name) : state[name]);
  const image = report.images.findIndex((one) => one.name === found.get("image"));
  const epoch = report.epochs.findIndex((one) => String(one) === found.get("epoch"));
  const opacity = Number(found.get("opacity") ?? NaN);
  const boxes = found.get("boxes")?.split("+");
  Object.assign(state, {
    view: report.images.length && found.get("view") === "image" ? "image" : "overview",
    layer: pick("layer", report.rows.map((row) => row.name)),
    show: pick("show", SHOW_KEYS),
    mode: pick("mode", report.modes.map((mode) => mode.key)),
    image: image < 0 ? state.image : image,
    epoch: epoch < 0 ? state.epoch : epoch,
    opacity: opacity >= 0 && opacity <= 100 ? opacity : state.opacity,
    labels: boxes ? boxes.includes("labels") : state.labels,
    predictions: boxes ? boxes.includes("predictions") : state.predictions,
    highlight: found.has("object") ? Number(found.get("object")) : null,
    point: null,
  });
}

function draw() {
  for (const view of ["overview", "image"]) {
    byId(view).hidden = state.view !== view;
    if (state.view === view) byId(`to-${view}`).setAttribute("aria-current", "page");
    else byId(`to-${view}`).removeAttribute("aria-current");
  }
  byId("epoch").value = state.epoch;
  byId("epoch").setAttribute("aria-valuetext", `epoch ${report.epochs[state.epoch]}`);
  byId("epoch-name").textContent = report.epochs[state.epoch] ?? "";
  if (state.view === "overview") return drawOverview();
  showChoice("layer", state.layer);
  showChoice("show", state.show);
  byId("pick").value = state.image;
  byId("mode").value = state.mode;
  byId("opacity").value = state.opacity;
  byId("opacity-name").textContent = `${state.opacity} %`;
  byId("labels").checked = state.labels;
  byId("predictions").checked = state.predictions;
  byId("previous").disabled = state.image === 0;
  byId("next").disabled = state.image === report.images.length - 1;
  return drawImageView();
}

const stepImage = (by) => change({ image: clamp(state.image + by, 0, report.images.length - 1), highlight: null });

function stepLayer(by) {
  const at = report.rows.findIndex((row) => row.name === state.layer);
  change({ layer: report.rows[clamp(at + by, 0, report.rows.length - 1)].name });
}

function onKey(event) {
  const busy = event.target.closest?.("input, select, textarea, .scroll");
  if (state.view !== "image" || busy || event.ctrlKey || event.metaKey || event.altKey) return;
  const inPicture = event.target.closest?.("canvas");
  const action = { "[": () => stepLayer(-1), "]": () => stepLayer(1),
    ...(inPicture ? {} : { ArrowLeft: () => stepImage(-1), ArrowRight: () => stepImage(1) }) }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
showTheme(prefersDark.matches);
prefersDark.addEventListener("change", (event) => showTheme(event.matches));
drawHead();
addControls();
byId("to-image").disabled = !report.images.length;
readHash();
draw();
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", () => {
  readHash();
  draw();
});
let seen = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === seen) return; // a phone's address bar comes and goes
  seen = window.innerWidth;
  if (state.view === "image") drawPanels();
  else drawOverview();
});
