"use strict";
// What the page holds: facts as JSON, voxels as base64 of deflated slabs. Arrays are z, y, x.

const FACTS = JSON.parse(document.getElementById("facts").textContent);
const SHAPE = FACTS.shape_zyx;
const STRIDES = [SHAPE[1] * SHAPE[2], SHAPE[2], 1];
const SIZE_UM = FACTS.voxel_size_zyx_um; // of a cell of the page, or null
const SPACING = SIZE_UM ? SIZE_UM.map((n) => n / Math.min(...SIZE_UM)) : [1, 1, 1];
const LAYERS = {}; // id -> facts of the layer and its typed array `data`

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(base64) {
  const packed = new Blob([bytesOf(base64)]).stream();
  const stream = packed.pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Slabs whose slices are differences to the slice before are summed up again, modulo 2^bits.
function undoDifferences(slab) {
  const plane = STRIDES[0];
  for (let i = plane; i < slab.length; i++) slab[i] += slab[i - plane];
}

async function unpack(progress) {
  const parts = [...document.querySelectorAll("script.part")];
  for (const layer of FACTS.layers) {
    const Kind = layer.dtype === "uint16" ? Uint16Array : Uint8Array;
    LAYERS[layer.id] = { ...layer, data: new Kind(SHAPE[0] * STRIDES[0]), filled: 0 };
  }
  for (const [number, part] of parts.entries()) {
    const layer = LAYERS[part.dataset.layer];
    const buffer = await inflate(part.textContent);
    const slab = layer.dtype === "uint16" ? new Uint16Array(buffer) : new Uint8Array(buffer);
    if (part.dataset.differences) undoDifferences(slab);
    layer.data.set(slab, layer.filled);
    layer.filled += slab.length;
    part.remove(); // the text is as large as the voxels
    progress((number + 1) / parts.length);
  }
  for (const layer of Object.values(LAYERS))
    if (layer.filled !== layer.data.length) throw new Error(`layer ${layer.id} is incomplete`);
}

const indexOf = (at) => at[0] * STRIDES[0] + at[1] * STRIDES[1] + at[2];

// Voxel of the scan, not of the page: cells of a reduced page begin at this voxel.
const voxelOf = (axis, i) => FACTS.origin_zyx[axis] + i * FACTS.factor;
const micrometresOf = (axis, i) => (voxelOf(axis, i) * SIZE_UM[axis]) / FACTS.factor;

function greyText(value) {
  const [low, high] = FACTS.grey_range;
  if (FACTS.grey_exact) return String(value);
  const grey = low + (value / 255) * (high - low);
  return "\u2248 " + (high - low > 100 ? Math.round(grey) : grey.toPrecision(3));
}
