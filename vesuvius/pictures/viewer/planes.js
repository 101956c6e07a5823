// The three planes: crosshair, zoom, mouse and keys.

const $ = (id) => document.getElementById(id);
const VIEWS = [];
let pointer = null; // cell under the mouse, or null
let waiting = false;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    VIEWS.forEach(drawView);
    showNumbers();
  });
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function moveTo(axis, cell) {
  state.at[axis] = clamp(Math.round(cell), 0, SHAPE[axis] - 1);
}

// Slices and keys may lead out of a zoomed view: bring the crosshair back into it.
function follow() {
  for (const view of VIEWS)
    for (const axis of [view.plane.rows, view.plane.cols]) {
      const pixel = toPixel(view, axis, state.at[axis] + 0.5);
      const most = axis === view.plane.cols ? view.canvas.width : view.canvas.height;
      if (state.zoom > 1 && (pixel < 0 || pixel > most)) state.centre[axis] = state.at[axis] + 0.5;
    }
  refresh();
}

function setZoom(zoom, view = null, pixel = null) {
  const old = view && [view.plane.cols, view.plane.rows].map((a, k) => toCell(view, a, pixel[k]));
  state.zoom = clamp(zoom, 1, 32);
  if (state.zoom === 1) state.centre = SHAPE.map((n) => n / 2);
  else if (view)
    [view.plane.cols, view.plane.rows].forEach((axis, k) => {
      state.centre[axis] += old[k] - toCell(view, axis, pixel[k]);
    });
  $("zoom").value = Math.log2(state.zoom);
  refresh();
}

function makeBig(view) {
  for (const other of VIEWS) other.section.classList.toggle("big", other === view);
  $("planes").prepend(view.section);
  view.canvas.focus(); // moving it took the focus away
  refresh();
}

function buildPlane(plane) {
  const letter = AXIS_NAMES[plane.axis];
  const canvas = make("canvas", { tabIndex: 0, id: `plane-${letter}` });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${plane.name} plane. Arrow keys move the crosshair, Page Up ` +
    "and Page Down change the slice, plus and minus zoom.");
  const voxels = make("canvas", { width: SHAPE[plane.cols], height: SHAPE[plane.rows] });
  const key = make("span", { className: "key" });
  key.style.background = AXIS_COLOURS[plane.axis];
  const first = voxelOf(plane.axis, 0);
  const range = { min: first, max: voxelOf(plane.axis, SHAPE[plane.axis] - 1), step: FACTS.factor };
  const slider = make("input", { type: "range", ...range });
  const number = make("input", { type: "number", id: `slice-${letter}`, ...range });
  slider.setAttribute("aria-label", `${plane.name} slice, ${letter}`);
  number.setAttribute("aria-label", `${letter} of the crosshair in voxels`);
  for (const input of [slider, number])
    input.addEventListener(input === slider ? "input" : "change", () => {
      moveTo(plane.axis, Math.floor((Number(input.value) - first) / FACTS.factor));
      follow();
    });
  const large = make("button", { type: "button", textContent: "large" });
  large.setAttribute("aria-label", `show the ${plane.name} plane large`);
  const heading = make("h2", {}, key, `${plane.name}  ${letter}`, number, slider, large);
  const section = make("section", { className: "plane" }, heading,
    make("div", { className: "frame" }, canvas));
  section.setAttribute("aria-label", `${plane.name} plane`);
  const pixels = new ImageData(SHAPE[plane.cols], SHAPE[plane.rows]);
  const view = { plane, canvas, base: make("canvas"), voxels, pixels, section, slider, number };
  large.addEventListener("click", () => makeBig(view));
  listen(view);
  VIEWS.push(view);
  $("planes").append(section);
}

function pixelOf(view, event) {
  const box = view.canvas.getBoundingClientRect();
  const ratio = view.canvas.width / box.width;
  return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
}

function cellOf(view, event) {
  const [x, y] = pixelOf(view, event);
  const cell = [...state.at];
  cell[view.plane.cols] = Math.floor(toCell(view, view.plane.cols, x));
  cell[view.plane.rows] = Math.floor(toCell(view, view.plane.rows, y));
  return cell;
}

function listen(view) {
  const { canvas, plane } = view;
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag = { pan: event.button !== 0, last: pixelOf(view, event) };
    if (!drag.pan) cellOf(view, event).forEach((cell, axis) => moveTo(axis, cell));
    refresh();
  });
  canvas.addEventListener("pointermove", (event) => {
    pointer = cellOf(view, event);
    if (pointer.some((cell, axis) => cell < 0 || cell >= SHAPE[axis])) pointer = null;
    if (drag && drag.pan && state.zoom > 1) {
      const now = pixelOf(view, event);
      [plane.cols, plane.rows].forEach((axis, k) => {
        const moved = (now[k] - drag.last[k]) / cellPixels(view, axis);
        state.centre[axis] = clamp(state.centre[axis] - moved, 0, SHAPE[axis]);
      });
      drag.last = now;
    } else if (drag) cellOf(view, event).forEach((cell, axis) => moveTo(axis, cell));
    refresh();
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { pointer = null; refresh(); });
  canvas.addEventListener("mousedown", (event) => {
    if (event.button === 1) event.preventDefault(); // no scrolling by the middle button
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => makeBig(view));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const step = Math.sign(event.deltaY || event.deltaX);
    if (event.ctrlKey) return setZoom(state.zoom * 1.2 ** -step, view, pixelOf(view, event));
    moveTo(plane.axis, state.at[plane.axis] + step * (event.shiftKey ? 10 : 1));
    pointer = cellOf(view, event);
    follow();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => onKey(view, event));
}

function onKey(view, event) {
  const { axis, rows, cols } = view.plane;
  const step = event.shiftKey ? 10 : 1;
  const moves = {
    ArrowLeft: [cols, -step], ArrowRight: [cols, step], ArrowUp: [rows, -step],
    ArrowDown: [rows, step], PageUp: [axis, -step], PageDown: [axis, step],
  };
  if (event.key in moves) {
    const [along, by] = moves[event.key];
    moveTo(along, state.at[along] + by);
    follow();
  } else if (event.key === "Enter") makeBig(view);
  else return;
  event.preventDefault();
}
