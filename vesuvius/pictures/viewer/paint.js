// Voxels to pixels: one plane at a time, layers mixed over the grey values in order.

const state = {
  at: SHAPE.map((n) => n >> 1), // crosshair, in cells
  centre: SHAPE.map((n) => n / 2), // middle of every canvas
  zoom: 1,
  window: [...FACTS.window],
  shown: { crosshair: true, scalebar: true },
  hidden: false, // all layers at once
  settings: {}, // layer id -> { on, opacity, style, from, only }
};

const PLANES = [
  { name: "axial", axis: 0, rows: 1, cols: 2 },
  { name: "coronal", axis: 1, rows: 0, cols: 2 },
  { name: "sagittal", axis: 2, rows: 0, cols: 1 },
];
const AXIS_NAMES = ["z", "y", "x"];
const AXIS_COLOURS = ["#56b4e9", "#e69f00", "#2fc491"];

function greyTable() {
  const [low, high] = state.window;
  return Uint8ClampedArray.from({ length: 256 }, (_, v) => ((v - low) * 255) / Math.max(high - low, 1));
}

function paintGrey(out, plane, start) {
  const table = greyTable();
  const data = LAYERS.image.data;
  const [h, w] = [SHAPE[plane.rows], SHAPE[plane.cols]];
  for (let r = 0, p = 0; r < h; r++) {
    let i = start + r * STRIDES[plane.rows];
    for (let c = 0; c < w; c++, i += STRIDES[plane.cols], p += 4) {
      out[p] = out[p + 1] = out[p + 2] = table[data[i]];
      out[p + 3] = 255;
    }
  }
}

function mix(out, p, palette, colour, alpha) {
  for (let k = 0; k < 3; k++) out[p + k] += (palette[3 * colour + k] - out[p + k]) * alpha;
}

// Opaque from one half on, so that noise far below it does not veil the scan.
function paintProbability(out, plane, start, layer, set) {
  const lowest = Math.max(1, Math.ceil(set.from * 255));
  const alpha = Float32Array.from({ length: 256 }, (_, v) =>
    v < lowest ? 0 : set.opacity * Math.min(1, v / 128));
  const [h, w] = [SHAPE[plane.rows], SHAPE[plane.cols]];
  for (let r = 0, p = 0; r < h; r++) {
    let i = start + r * STRIDES[plane.rows];
    for (let c = 0; c < w; c++, i += STRIDES[plane.cols], p += 4) {
      const v = layer.data[i];
      if (alpha[v] > 0) mix(out, p, layer.palette, v, alpha[v]);
    }
  }
}

// Classes 1, 2, ... filled with their colours.
function paintClasses(out, plane, start, layer, set) {
  const { data, palette } = layer;
  const [h, w] = [SHAPE[plane.rows], SHAPE[plane.cols]];
  const only = set.only ? data[indexOf(state.at)] : 0;
  for (let r = 0, p = 0; r < h; r++) {
    let i = start + r * STRIDES[plane.rows];
    for (let c = 0; c < w; c++, i += STRIDES[plane.cols], p += 4) {
      const v = data[i];
      if (v !== 0 && (!only || v === only)) mix(out, p, palette, v, set.opacity);
    }
  }
}

// Lines along the borders of classes, just inside of them; `inset` keeps layers side by side.
// Lines end where the next one begins: short of a convex corner, beyond a concave one.
function strokeOutlines(ctx, view, layer, set, inset) {
  const { rows, cols, axis } = view.plane;
  const { data } = layer;
  const [h, w] = [SHAPE[rows], SHAPE[cols]];
  const [down, right] = [STRIDES[rows], STRIDES[cols]];
  const [sx, sy] = [cellPixels(view, cols), cellPixels(view, rows)];
  const [left, top] = [toPixel(view, cols, 0), toPixel(view, rows, 0)];
  const only = set.only ? data[indexOf(state.at)] : 0;
  const start = state.at[axis] * STRIDES[axis];
  const paths = new Map();
  const near = Math.min(inset, sx / 3, sy / 3);
  let v = 0;
  const same = (r, c) =>
    r >= 0 && r < h && c >= 0 && c < w && data[start + r * down + c * right] === v;
  const bend = (beside, across) => (beside ? (across ? -near : 0) : near);
  for (let r = 0; r < h; r++) {
    const y = top + r * sy;
    if (y < -sy || y > ctx.canvas.height) continue;
    for (let c = 0; c < w; c++) {
      v = data[start + r * down + c * right];
      const x = left + c * sx;
      if (v === 0 || (only && v !== only) || x < -sx || x > ctx.canvas.width) continue;
      if (!paths.has(v)) paths.set(v, new Path2D());
      const path = paths.get(v);
      for (const step of [-1, 1]) {
        if (r + step >= 0 && r + step < h && !same(r + step, c)) {
          const at = step < 0 ? y + near : y + sy - near;
          path.moveTo(x + bend(same(r, c - 1), same(r + step, c - 1)), at);
          path.lineTo(x + sx - bend(same(r, c + 1), same(r + step, c + 1)), at);
        }
        if (c + step >= 0 && c + step < w && !same(r, c + step)) {
          const at = step < 0 ? x + near : x + sx - near;
          path.moveTo(at, y + bend(same(r - 1, c), same(r - 1, c + step)));
          path.lineTo(at, y + sy - bend(same(r + 1, c), same(r + 1, c + step)));
        }
      }
    }
  }
  ctx.globalAlpha = set.opacity;
  for (const [value, path] of paths) {
    ctx.strokeStyle = `rgb(${layer.palette.slice(3 * value, 3 * value + 3).join()})`;
    ctx.stroke(path);
  }
  ctx.globalAlpha = 1;
}

function drawOutlines(ctx, view, ratio) {
  ctx.lineWidth = 1.5 * ratio;
  let number = 0;
  for (const layer of shownLayers())
    if (state.settings[layer.id].style === "outline")
      strokeOutlines(ctx, view, layer, state.settings[layer.id], (number++ + 0.5) * ctx.lineWidth);
}

const shownLayers = () =>
  Object.values(LAYERS).filter(({ id }) => state.settings[id] && state.settings[id].on && !state.hidden);

function paintVoxels(view) {
  const { plane, pixels } = view;
  const start = state.at[plane.axis] * STRIDES[plane.axis];
  paintGrey(pixels.data, plane, start);
  for (const layer of shownLayers()) {
    const set = state.settings[layer.id];
    if (set.style === "outline") continue;
    const paint = layer.kind === "probability" ? paintProbability : paintClasses;
    paint(pixels.data, plane, start, layer, set);
  }
  view.voxels.getContext("2d").putImageData(pixels, 0, 0);
}

// Device pixels of one cell along an axis of a view.
function cellPixels(view, axis) {
  const { rows, cols } = view.plane;
  const fit = Math.min(
    view.canvas.width / (SHAPE[cols] * SPACING[cols]),
    view.canvas.height / (SHAPE[rows] * SPACING[rows]));
  return fit * state.zoom * SPACING[axis];
}

const toPixel = (view, axis, cell) =>
  (axis === view.plane.cols ? view.canvas.width : view.canvas.height) / 2 +
  (cell - state.centre[axis]) * cellPixels(view, axis);

const toCell = (view, axis, pixel) =>
  state.centre[axis] +
  (pixel - (axis === view.plane.cols ? view.canvas.width : view.canvas.height) / 2) / cellPixels(view, axis);

// All that the picture below the crosshair depends on.
function baseKey(view) {
  const { at, window: grey, hidden, settings, zoom, centre } = state;
  const followed = Object.values(settings).some((set) => set.only) ? at : 0;
  const { width, height } = view.canvas;
  return JSON.stringify([at[view.plane.axis], followed, grey, hidden, settings, zoom, centre, width, height]);
}

function drawView(view) {
  const { canvas, base } = view;
  const ratio = window.devicePixelRatio || 1;
  const box = canvas.parentElement.getBoundingClientRect();
  const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const key = baseKey(view);
  if (view.key !== key) {
    Object.assign(base, { width, height });
    drawBase(view, ratio);
    view.key = key;
  }
  const ctx = canvas.getContext("2d");
  ctx.drawImage(base, 0, 0);
  if (state.shown.crosshair) drawCrosshair(ctx, view, ratio);
  if (state.shown.scalebar) drawScaleBar(ctx, view, ratio);
}

function drawBase(view, ratio) {
  const { plane } = view;
  paintVoxels(view);
  const ctx = view.base.getContext("2d", { alpha: false });
  const [sx, sy] = [cellPixels(view, plane.cols), cellPixels(view, plane.rows)];
  ctx.imageSmoothingEnabled = Math.min(sx, sy) < 1; // never invents values between voxels
  const [left, top] = [toPixel(view, plane.cols, 0), toPixel(view, plane.rows, 0)];
  ctx.drawImage(view.voxels, left, top, SHAPE[plane.cols] * sx, SHAPE[plane.rows] * sy);
  drawOutlines(ctx, view, ratio);
}

function drawCrosshair(ctx, view, ratio) {
  const { rows, cols } = view.plane;
  const x = toPixel(view, cols, state.at[cols] + 0.5);
  const y = toPixel(view, rows, state.at[rows] + 0.5);
  const gap = Math.max(7 * ratio, cellPixels(view, cols) * 0.8);
  const [w, h] = [ctx.canvas.width, ctx.canvas.height];
  ctx.lineWidth = ratio;
  const line = (colour, a, b, c, d) => {
    ctx.strokeStyle = colour;
    ctx.beginPath(); ctx.moveTo(a, b); ctx.lineTo(c, d); ctx.stroke();
  };
  ctx.globalAlpha = 0.75;
  line(AXIS_COLOURS[cols], x, 0, x, y - gap);
  line(AXIS_COLOURS[cols], x, y + gap, x, h);
  line(AXIS_COLOURS[rows], 0, y, x - gap, y);
  line(AXIS_COLOURS[rows], x + gap, y, w, y);
  ctx.globalAlpha = 1;
}

// The longest of 1, 2, 5 times a power of ten that fits into a third of the canvas.
function niceLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map((n) => n * power).find((n) => n <= most);
}

function drawScaleBar(ctx, view, ratio) {
  const axis = view.plane.cols;
  const unit = SIZE_UM ? SIZE_UM[axis] : FACTS.factor;
  const pixels = cellPixels(view, axis) / unit; // of a micrometre, or of a voxel
  const length = niceLength(ctx.canvas.width / 3 / pixels);
  let text = `${length} voxels`;
  if (SIZE_UM) text = length >= 1000 ? `${length / 1000} mm` : `${length} \u00b5m`;
  const [x, y] = [12 * ratio, ctx.canvas.height - 12 * ratio];
  ctx.font = `${12 * ratio}px system-ui, sans-serif`;
  ctx.fillStyle = "rgba(0, 0, 0, 0.6)";
  const wide = Math.max(length * pixels, ctx.measureText(text).width) + 12 * ratio;
  ctx.fillRect(x - 6 * ratio, y - 22 * ratio, wide, 30 * ratio);
  ctx.fillStyle = "#fff";
  ctx.fillRect(x, y, length * pixels, 2.5 * ratio);
  ctx.fillText(text, x, y - 6 * ratio);
}
