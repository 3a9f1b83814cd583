// Draws the weights in the page and lets them be explored. Text from outside goes into textContent alone.

const data = JSON.parse(document.getElementById("data").textContent);
const { layers, heads, causal, tokens } = data;
const size = tokens.length;
const square = size * size;
const byId = (id) => document.getElementById(id);

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return Float32Array.from(new Uint16Array(await new Response(stream).arrayBuffer()), (steps) => steps / data.steps);
}
const all = await unpacked(data.weights); // (layers, heads, size, size)

// Weights of a head, (size, size). Behind the last head comes the mean of the layer's heads.
const means = [];
function weightsOf(layer, head) {
  const at = (h) => all.subarray((layer * heads + h) * square, (layer * heads + h + 1) * square);
  if (head < heads) return at(head);
  if (!means[layer]) {
    means[layer] = new Float32Array(square);
    for (let h = 0; h < heads; h++) at(h).forEach((weight, n) => { means[layer][n] += weight / heads; });
  }
  return means[layer];
}
const sees = (query, key) => !causal || key <= query;

// What is kept by a click or a key, and what the pointer is over for the moment.
const kept = { ...data.start };
const over = { layer: null, head: null, token: null, other: null };
const shown = () => ({
  layer: over.layer ?? kept.layer,
  head: over.head ?? kept.head,
  token: over.token ?? kept.token,
});

const inHash = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const limits = { layer: layers, head: heads + 1, token: size };
for (const [name, limit] of Object.entries(limits)) {
  const number = Number(inHash[name]);
  if (Number.isInteger(number) && number >= 1 && number <= limit) kept[name] = number - 1;
}

function keep(change) {
  Object.assign(kept, change);
  const parts = Object.keys(limits).map((name) => `${name}=${kept[name] + 1}`);
  history.replaceState(null, "", "#" + parts.join("&"));
  draw();
}

function point(change) {
  Object.assign(over, change);
  draw();
}

// Colours

const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null; // until the reader chooses, the system does
let ramp = [];

function setTheme() {
  const theme = chosen ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  const style = getComputedStyle(document.documentElement);
  const stops = [0, 1, 2].map((n) => {
    const value = parseInt(style.getPropertyValue(`--heat-${n}`).trim().slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  });
  ramp = Array.from({ length: 256 }, (_, n) => {
    const place = (n / 255) * 2;
    const first = Math.min(Math.floor(place), 1);
    return stops[first].map((low, c) => Math.round(low + (stops[first + 1][c] - low) * (place - first)));
  });
  drawScale();
  drawThumbnails();
  draw();
}

const strength = (weight) => Math.sqrt(Math.min(weight, 1));
const colour = (weight) => ramp[Math.round(strength(weight) * 255)];

// An image with a pixel for each cell, or the largest of some cells if there are more than `limit`; unseen ones stay clear.
function image(weights, limit) {
  const pixels = Math.min(size, limit);
  const largest = new Float32Array(pixels * pixels).fill(-1);
  const cell = Array.from({ length: size }, (_, n) => Math.floor((n * pixels) / size));
  for (let query = 0; query < size; query++) {
    for (let key = 0; key < (causal ? query + 1 : size); key++) {
      const n = cell[query] * pixels + cell[key];
      largest[n] = Math.max(largest[n], weights[query * size + key]);
    }
  }
  const result = new ImageData(pixels, pixels);
  largest.forEach((weight, n) => {
    if (weight >= 0) result.data.set([...colour(weight), 255], n * 4);
  });
  return result;
}

function drawScale() {
  const canvas = byId("scale");
  const result = new ImageData(canvas.width, 1);
  for (let x = 0; x < canvas.width; x++) {
    result.data.set([...ramp[Math.round((x / (canvas.width - 1)) * 255)], 255], x * 4);
  }
  canvas.getContext("2d").putImageData(result, 0, 0);
}

// Layers and heads

const THUMBNAIL = 64; // pixels at most, across
const headName = (head) => (head < heads ? `head ${head + 1}` : "mean of its heads");
const buttons = [];

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "role") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function buildHeads() {
  const grid = byId("heads");
  grid.style.setProperty("--thumb", `${Math.max(16, Math.min(32, Math.floor(350 / (heads + 1))))}px`);
  grid.style.gridTemplateColumns = `1.6em repeat(${heads + 1}, auto)`;
  const titles = Array.from({ length: heads + 1 }, (_, head) =>
    element("span", { role: "columnheader", textContent: head < heads ? head + 1 : "mean" }));
  grid.append(element("div", { role: "row" }, element("span", { role: "columnheader" }), ...titles));
  for (let layer = 0; layer < layers; layer++) {
    const row = element("div", { role: "row" }, element("span", { role: "rowheader", textContent: layer + 1 }));
    buttons.push([]);
    for (let head = 0; head <= heads; head++) {
      const name = `Layer ${layer + 1}, ${headName(head)}`;
      const button = element("button", { type: "button", role: "gridcell", title: name, ariaLabel: name });
      button.append(element("canvas", { ariaHidden: "true" }));
      button.addEventListener("pointerenter", () => point({ layer, head }));
      button.addEventListener("pointerleave", () => point({ layer: null, head: null }));
      button.addEventListener("click", () => keep({ layer, head }));
      row.append(button);
      buttons[layer].push(button);
    }
    grid.append(row);
  }
  grid.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const ends = { Home: 0, End: heads };
    let { layer, head } = kept;
    if (event.key in steps) {
      layer = clamp(layer + steps[event.key][0], layers);
      head = clamp(head + steps[event.key][1], heads + 1);
    } else if (event.key in ends) head = ends[event.key];
    else return;
    event.preventDefault();
    keep({ layer, head });
    buttons[layer][head].focus();
  });
}

const clamp = (number, limit) => Math.max(0, Math.min(number, limit - 1));

function drawThumbnails() {
  buttons.forEach((row, layer) => row.forEach((button, head) => {
    const canvas = button.firstChild;
    const pixels = image(weightsOf(layer, head), THUMBNAIL);
    canvas.width = canvas.height = pixels.width;
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }));
}

// The text

const chips = [];

function buildText() {
  const text = byId("text");
  text.style.setProperty("--letter", `${Math.max(15, 26 - size / 10)}px`);
  tokens.forEach((token, n) => {
    const chip = element("div", { role: "option", className: token.gap ? "gap" : "" }, element("bdi", { textContent: token.label }));
    chip.addEventListener("pointerenter", () => point({ token: n }));
    chip.addEventListener("pointerleave", () => point({ token: null }));
    chip.addEventListener("click", () => keep({ token: n }));
    chips.push(chip);
    text.append(chip);
    if (token.ends) text.append(element("div", { className: "break", ariaHidden: "true" }));
  });
  text.addEventListener("keydown", (event) => {
    const next = { ArrowLeft: kept.token - 1, ArrowRight: kept.token + 1, Home: 0, End: size - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    keep({ token: clamp(next, size) });
    chips[kept.token].focus();
  });
}

function drawText(weights, current) {
  chips.forEach((chip, n) => {
    const to = weights[current * size + n];
    const from = weights[n * size + current];
    chip.style.setProperty("--to", strength(to).toFixed(3));
    chip.style.setProperty("--from", strength(from).toFixed(3));
    chip.classList.toggle("shown", n === current);
    chip.classList.toggle("pointed", n === over.other && n !== current);
    chip.ariaSelected = String(n === kept.token);
    chip.ariaLabel = `${tokens[n].label}: ${percent(to)} looked at, looks back ${percent(from)}`;
    chip.tabIndex = n === kept.token ? 0 : -1;
  });
}

const percent = (weight) => `${(weight * 100).toFixed(1)} %`;

// Both directions as lists

const LONGEST = 8;

function drawList(list, weightOf, candidates) {
  const largest = candidates
    .map((token) => [weightOf(token), token])
    .sort((a, b) => b[0] - a[0] || a[1] - b[1])
    .slice(0, LONGEST);
  list.replaceChildren(...largest.map(([weight, token]) => {
    const bar = element("i", { ariaHidden: "true" });
    bar.style.setProperty("--part", weight.toFixed(4));
    const label = element("bdi", { textContent: tokens[token].label, title: `token ${token + 1}` });
    const row = element("li", {}, label, bar, element("span", { textContent: weight.toFixed(3) }));
    row.addEventListener("pointerenter", () => point({ other: token }));
    row.addEventListener("pointerleave", () => point({ other: null }));
    row.addEventListener("click", () => { over.other = null; keep({ token }); });
    return row;
  }));
}

// The matrix

const LABEL = 96; // pixels at most
const READABLE = 11; // the smallest cell that has a label
const matrix = byId("matrix");
const cells = document.createElement("canvas");
const place = { left: 0, top: 0, cell: 1 };

function shortened(pen, text) {
  if (pen.measureText(text).width <= LABEL) return text;
  const chars = [...text];
  while (chars.length && pen.measureText(chars.join("") + "…").width > LABEL) chars.pop();
  return chars.join("") + "…";
}

function layOut(pen) {
  const width = byId("matrix-frame").clientWidth;
  const labels = tokens.map((token) => shortened(pen, token.label));
  const longest = Math.ceil(Math.max(...labels.map((text) => pen.measureText(text).width))) + 10;
  const cellFor = (margin) => Math.max(2, Math.min(36, Math.floor((width - margin - 2) / size)));
  const labelled = cellFor(longest) >= READABLE;
  place.left = place.top = labelled ? longest : 2;
  place.cell = cellFor(place.left);
  return labelled ? labels : null;
}

function drawMatrix(weights, current) {
  const pen = matrix.getContext("2d");
  const style = getComputedStyle(document.body);
  const variable = (name) => style.getPropertyValue(name).trim();
  const font = (cell) => `${Math.max(9, Math.min(13, cell - 1))}px ${style.fontFamily}`;
  pen.font = font(13);
  const labels = layOut(pen);
  const { left, top, cell } = place;
  const side = size * cell;
  const scale = devicePixelRatio;
  matrix.width = (left + side + 2) * scale;
  matrix.height = (top + side + 2) * scale;
  matrix.style.width = `${left + side + 2}px`;
  matrix.style.height = `${top + side + 2}px`;
  pen.scale(scale, scale);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(cells, left, top, side, side);

  if (cell >= 9) { // thin gaps between the cells
    pen.fillStyle = variable("--card");
    for (let n = 1; n < size; n++) {
      pen.fillRect(left + n * cell - 0.5, top, 1, side);
      pen.fillRect(left, top + n * cell - 0.5, side, 1);
    }
  }
  pen.textBaseline = "middle";
  if (labels) {
    labels.forEach((text, n) => {
      const weight = n === current || n === over.other ? "bold " : "";
      pen.font = weight + font(cell);
      pen.fillStyle = n === current ? variable("--look") : variable(n === over.other ? "--ink" : "--soft");
      pen.textAlign = "right";
      pen.fillText(text, left - 6, top + (n + 0.5) * cell);
      pen.save();
      pen.translate(left + (n + 0.5) * cell, top - 6);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      if (n === current) pen.fillStyle = variable("--seen");
      pen.fillText(text, 0, 0);
      pen.restore();
    });
  }
  if (cell >= 26) {
    pen.textAlign = "center";
    pen.font = `10px ${style.fontFamily}`;
    for (let query = 0; query < size; query++) {
      for (let key = 0; key < size; key++) {
        const weight = weights[query * size + key];
        if (weight < 0.05 || !sees(query, key)) continue;
        const [red, green, blue] = colour(weight);
        pen.fillStyle = red * 0.3 + green * 0.59 + blue * 0.11 > 140 ? "#1c2026" : "#ffffff";
        pen.fillText(weight > 0.995 ? "1" : weight.toFixed(2).slice(1), left + (key + 0.5) * cell, top + (query + 0.5) * cell);
      }
    }
  }
  pen.lineWidth = 2;
  pen.strokeStyle = variable("--seen");
  const first = causal ? current : 0;
  pen.strokeRect(left + current * cell, top + first * cell, cell, (size - first) * cell);
  pen.strokeStyle = variable("--look");
  pen.strokeRect(left, top + current * cell, (causal ? current + 1 : size) * cell, cell);
  if (over.other !== null) {
    pen.strokeStyle = variable("--ink");
    pen.strokeRect(left + over.other * cell, top + current * cell, cell, cell);
  }
}

function cellAt(event) {
  const box = matrix.getBoundingClientRect();
  const key = Math.floor((event.clientX - box.left - place.left) / place.cell);
  const query = Math.floor((event.clientY - box.top - place.top) / place.cell);
  const inside = key >= 0 && query >= 0 && key < size && query < size && sees(query, key);
  return inside ? { token: query, other: key } : { token: null, other: null };
}
matrix.addEventListener("pointermove", (event) => point(cellAt(event)));
matrix.addEventListener("pointerleave", () => point({ token: null, other: null }));
matrix.addEventListener("click", (event) => {
  const { token } = cellAt(event);
  if (token !== null) keep({ token });
});

// All of it. What depends on the head alone, and what on the token too, is drawn when that changes.

let drawn = {};

function draw() {
  const now = { ...shown(), theme: document.documentElement.dataset.theme, width: byId("matrix-frame").clientWidth };
  const { layer, head, token } = now;
  const weights = weightsOf(layer, head);
  const changed = (...names) => names.some((name) => now[name] !== drawn[name]);
  if (changed("layer", "head", "theme")) {
    const pixels = image(weights, size);
    cells.width = cells.height = size;
    cells.getContext("2d").putImageData(pixels, 0, 0);
    byId("head-name").textContent = `Layer ${layer + 1}, ${headName(head)}`;
  }
  if (changed("layer", "head", "token")) {
    const everyone = tokens.map((_, n) => n);
    drawList(byId("looks"), (key) => weights[token * size + key], everyone.filter((key) => sees(token, key)));
    drawList(byId("looked"), (query) => weights[query * size + token], everyone.filter((query) => sees(query, token)));
    document.querySelectorAll(".current").forEach((name) => { name.textContent = `“${tokens[token].label}”`; });
  }
  buttons.forEach((row, l) => row.forEach((button, h) => {
    const selected = l === kept.layer && h === kept.head;
    button.ariaSelected = String(selected);
    button.tabIndex = selected ? 0 : -1;
  }));
  drawText(weights, token);
  drawMatrix(weights, token);
  byId("readout").textContent = over.other === null
    ? "Rows look at columns."
    : `“${tokens[token].label}” looks at “${tokens[over.other].label}”: ${weights[token * size + over.other].toFixed(3)}`;
  drawn = now;
}

function describe() {
  const kind = causal ? "each token sees itself and those before it" : "every token sees every token";
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  byId("model").textContent = [
    data.model, count(layers, "layer"), `${count(heads, "head")} each`, count(size, "token"), kind,
  ].filter(Boolean).join(" · ");
}

byId("theme").addEventListener("click", () => {
  chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "t" && !event.ctrlKey && !event.metaKey && !event.altKey) byId("theme").click();
});
system.addEventListener("change", setTheme);
new ResizeObserver(draw).observe(byId("matrix-frame"));

describe();
buildHeads();
buildText();
setTheme();
