// The panel beside the planes, and the start. Text of the data enters by textContent alone.

// Keys that work wherever the focus is, except in a field that takes text.
function onPageKey(event) {
  if (event.target.matches("input[type=number], select") || event.ctrlKey || event.metaKey) return;
  const layers = FACTS.layers.filter((layer) => layer.id in state.settings);
  const layer = layers[Number(event.key) - 1];
  if (event.key === "+" || event.key === "=") setZoom(state.zoom * 1.3);
  else if (event.key === "-") setZoom(state.zoom / 1.3);
  else if (event.key === "0") setZoom(1);
  else if (event.key === " " && !event.target.matches("input, button, summary")) {
    state.hidden = !state.hidden;
    event.preventDefault();
  } else if (layer) $(`show-${layer.id}`).click();
  else return;
  refresh();
}

function rowOf(text, id, input, shown) {
  const output = make("output", { textContent: shown(input.value) });
  input.id = id;
  input.addEventListener("input", () => { output.textContent = shown(input.value); refresh(); });
  return make("div", { className: "row" }, make("label", { htmlFor: id, textContent: text }), input, output);
}

function percentRow(text, id, set, name) {
  const input = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: set[name] });
  input.addEventListener("input", () => { set[name] = Number(input.value); });
  return rowOf(text, id, input, (value) => `${Math.round(value * 100)} %`);
}

function buildLayer(layer, number) {
  if (layer.kind === "grey") return;
  const set = { on: layer.on, opacity: layer.opacity, style: layer.style, from: 0.1, only: false };
  state.settings[layer.id] = set;
  LAYERS[layer.id].palette = Uint8Array.from(layer.palette);
  const box = make("input", { type: "checkbox", checked: set.on, id: `show-${layer.id}` });
  box.addEventListener("change", () => { set.on = box.checked; refresh(); });
  const block = make("div", { className: "layer" },
    make("label", {}, box, layer.name, make("kbd", { textContent: String(number) })));
  if (layer.kind === "probability") block.append(...buildRamp(layer),
    percentRow("shown from", `from-${layer.id}`, set, "from"));
  else block.append(...buildClasses(layer, set));
  block.append(percentRow("opacity", `opacity-${layer.id}`, set, "opacity"));
  $("layers").append(block);
}

function buildRamp(layer) {
  const ramp = make("canvas", { className: "ramp", width: 256, height: 1 });
  const pixels = new ImageData(256, 1);
  for (let v = 0; v < 256; v++) pixels.data.set([...layer.palette.slice(3 * v, 3 * v + 3), 255], 4 * v);
  ramp.getContext("2d").putImageData(pixels, 0, 0);
  ramp.setAttribute("role", "img");
  ramp.setAttribute("aria-label", "colours of 0 to 1");
  return [ramp, make("div", { className: "ends" }, make("span", { textContent: "0" }), make("span", { textContent: "1" }))];
}

function swatch(layer, value) {
  const key = make("i", { className: "swatch" });
  key.style.background = `rgb(${layer.palette.slice(3 * value, 3 * value + 3)})`;
  return key;
}

function buildClasses(layer, set) {
  const select = make("select", { id: `style-${layer.id}` },
    ...["fill", "outline"].map((name) => make("option", { value: name, textContent: name })));
  select.value = set.style;
  select.addEventListener("change", () => { set.style = select.value; refresh(); });
  const label = make("label", { htmlFor: select.id, textContent: "drawn as" });
  const nodes = [make("div", { className: "row" }, label, select)];
  const legend = make("div", { className: "legend" });
  if (layer.kind === "sheets") {
    legend.append(`${layer.values.length - 1} numbers, ${layer.values[1] ?? "-"} to ${layer.values.at(-1)}`);
    const only = make("input", { type: "checkbox", id: `only-${layer.id}` });
    only.addEventListener("change", () => { set.only = only.checked; refresh(); });
    nodes.push(make("label", { className: "only" }, only, "only the one at the crosshair"));
  } else
    layer.values.forEach((name, value) => {
      if (value) legend.append(make("span", {}, swatch(layer, value), name));
    });
  nodes.unshift(legend);
  return nodes;
}

const READINGS = [
  ["voxel z, y, x", (at) => at.map((i, axis) => voxelOf(axis, i)).join(", ")],
  ...(SIZE_UM ? AXIS_NAMES.map((name, axis) => [`${name} \u00b5m`, (at) => micrometresOf(axis, at[axis]).toFixed(1)]) : []),
];

function reading(layer, at) {
  const value = layer.data[indexOf(at)];
  if (layer.kind === "grey") return greyText(value);
  if (layer.kind === "probability") return (value / 255).toFixed(3);
  return String(layer.values[value]);
}

function buildReadout() {
  const body = $("readout").tBodies[0];
  const names = [...READINGS.map(([name]) => [name, name]), ...FACTS.layers.map((l) => [l.id, l.name])];
  for (const [id, name] of names) {
    const row = body.insertRow();
    row.dataset.reading = id;
    row.append(make("th", { scope: "row", textContent: name }), make("td"), make("td"));
  }
}

function showNumbers() {
  const rows = [...$("readout").tBodies[0].rows];
  [state.at, pointer].forEach((at, column) => {
    READINGS.forEach(([, text], k) => { rows[k].cells[1 + column].textContent = at ? text(at) : ""; });
    FACTS.layers.forEach((layer, k) => {
      const cell = rows[READINGS.length + k].cells[1 + column];
      cell.textContent = at ? reading(LAYERS[layer.id], at) : "";
      const value = at && LAYERS[layer.id].data[indexOf(at)];
      if (value && "values" in layer) cell.prepend(swatch(layer, value));
    });
  });
  for (const { plane, slider, number } of VIEWS) {
    slider.value = number.value = voxelOf(plane.axis, state.at[plane.axis]);
  }
  $("black").value = state.window[0];
  $("white").value = state.window[1];
  $("black-value").textContent = greyText(state.window[0]);
  $("white-value").textContent = greyText(state.window[1]);
  $("zoom-value").textContent = `${state.zoom.toFixed(1)} x`;
  const place = `#zyx=${state.at.map((i, axis) => voxelOf(axis, i)).join(",")}`;
  clearTimeout(showNumbers.timer); // a link to this place and what is there, when the hand rests
  showNumbers.timer = setTimeout(() => {
    history.replaceState(null, "", place);
    $("spoken").textContent = rows.map((row) => `${row.cells[0].textContent} ${row.cells[1].textContent}`).join("; ");
  }, 400);
}

function goToHash() {
  const found = /zyx=(\d+),(\d+),(\d+)/.exec(location.hash);
  if (found) for (const axis of [0, 1, 2])
    moveTo(axis, Math.floor((Number(found[axis + 1]) - voxelOf(axis, 0)) / FACTS.factor));
}

function listenToPanel() {
  $("black").addEventListener("input", () => {
    state.window[0] = Math.min(Number($("black").value), state.window[1] - 1); refresh(); });
  $("white").addEventListener("input", () => {
    state.window[1] = Math.max(Number($("white").value), state.window[0] + 1); refresh(); });
  $("auto").addEventListener("click", () => { state.window = [...FACTS.window]; refresh(); });
  $("full").addEventListener("click", () => { state.window = [0, 255]; refresh(); });
  $("zoom").addEventListener("input", () => setZoom(2 ** Number($("zoom").value)));
  $("reset").addEventListener("click", () => setZoom(1));
  for (const name of ["crosshair", "scalebar"])
    $(name).addEventListener("change", () => { state.shown[name] = $(name).checked; refresh(); });
  document.addEventListener("keydown", onPageKey);
  window.addEventListener("hashchange", () => { goToHash(); follow(); });
  new ResizeObserver(refresh).observe($("planes"));
}

async function start() {
  await unpack((share) => { $("progress").value = share; });
  $("facts-line").textContent = FACTS.line;
  $("note").textContent = FACTS.notes.join("  \u00b7  ");
  $("note").hidden = FACTS.notes.length === 0;
  buildReadout();
  let number = 0;
  for (const layer of FACTS.layers) buildLayer(layer, number++);
  PLANES.forEach(buildPlane);
  goToHash();
  listenToPanel();
  $("loading").remove();
  document.querySelector("main").hidden = false;
  makeBig(VIEWS[0]);
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  $("loading").textContent = `This page cannot be shown: ${error.message}. It needs a browser of ` +
    "2023 or later (DecompressionStream).";
  throw error;
});
