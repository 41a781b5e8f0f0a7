// The controls of the page, and what each of them changes.

const NARROW = window.matchMedia("(max-width: 699px)"); // as in page.css

/** One of `entries` [value, text], as buttons in a row, or on a narrow screen as a menu. */
function choice(name, entries, changed) {
  const [buttons, menu] = [byId(`${name}s`), byId(name)];
  buttons.append(...entries.map(([value, text]) => el("label", { class: "choice" },
    el("input", { type: "radio", name, value, change: () => changed(value) }), el("span", {}, text))));
  fill(menu, ...entries.map(([value, text]) => el("option", { value }, text)));
  menu.addEventListener("change", () => changed(menu.value));
  buttons.hidden = menu.parentElement.hidden = entries.length < 2;
}

function showChoice(name, value) {
  for (const input of byId(`${name}s`).querySelectorAll("input")) input.checked = input.value === value;
  byId(name).value = value;
}

/** What is seldom changed is folded away on a narrow screen, where the picture would begin too far down. */
function foldMore() {
  byId("more").open = !NARROW.matches;
}

function showTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  fill(byId("theme"), dark ? "Light" : "Dark", el("span", { class: "hidden" }, " colours"));
}

/** Masks have outlines where boxes have sides. */
function nameOutlines() {
  byId("more").querySelector("summary").textContent = "Opacity and outlines";
  byId("boxes").querySelector("legend").textContent = "Outlines";
  byId("labels").nextSibling.textContent = " Truth";
}

function addControls() {
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  choice("layer", report.rows.map(({ name }) => [name, name]), (layer) => change({ layer }));
  const titles = SHOWS.map((panel) => [panel.id, panel.difference ? differenceName(panel.key) : roleOf(panel.key)]);
  choice("show", SHOW_KEYS.length > 1 ? [["all", "Side by side"], ...titles] : [], (show) => change({ show }));
  fill(byId("pick"), ...report.images.map(({ name }, i) => el("option", { value: i }, name)));
  fill(byId("mode"), ...report.modes.map(({ key, title }) => el("option", { value: key, title }, capital(key))));
  byId("epochs").hidden = !report.epochs.length;
  byId("labels").parentElement.hidden = !report.images.some((one) => one.labelled);
  byId("predictions").parentElement.hidden = !report.predicted;
  byId("boxes").hidden = [...byId("boxes").querySelectorAll("label")].every((one) => one.hidden);
  if (report.classes.length) nameOutlines();
  byId("epoch").max = Math.max(0, report.epochs.length - 1);
  on("pick", "change", (event) => change({ image: Number(event.target.value), highlight: null }));
  on("mode", "change", (event) => change({ mode: event.target.value }));
  on("epoch", "input", (event) => change({ epoch: Number(event.target.value) }));
  on("opacity", "input", (event) => change({ opacity: Number(event.target.value) }));
  on("labels", "change", (event) => change({ labels: event.target.checked }));
  on("predictions", "change", (event) => change({ predictions: event.target.checked }));
  on("previous", "click", () => stepImage(-1));
  on("next", "click", () => stepImage(1));
  on("to-overview", "click", () => change({ view: "overview" }));
  on("to-image", "click", () => change({ view: "image" }));
  foldMore();
  NARROW.addEventListener("change", foldMore);
  on("theme", "click", () => showTheme(document.documentElement.dataset.theme !== "dark"));
}
