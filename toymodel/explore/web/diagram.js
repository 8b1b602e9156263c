// The phase diagram: cells are computed in worker threads, coarse to fine, or by the server; a click shows the run.

const DIAGRAM = { id: 0, cells: new Map(), workers: [], cross: null, key: "", began: 0, took: NaN, timer: 0, picture: null };
const COARSE = [8, 4, 2, 1]; // every so many columns and rows

function axisValues(view, axis) {
  const low = view[`${axis}low`], high = view[`${axis}high`], n = view.size;
  return Array.from({ length: n }, (_, i) => Number((low * (high / low) ** (i / (n - 1))).toPrecision(12)));
}

// Rows of work from coarse to fine: each cell once, {index, columns, level}.
function rowsOf(size) {
  const seen = new Set(), found = [];
  COARSE.forEach((every, level) => {
    for (let index = 0; index < size; index += every) {
      const columns = [];
      for (let i = 0; i < size; i += every) if (!seen.has(index * size + i)) { seen.add(index * size + i); columns.push(i); }
      if (columns.length) found.push({ index, columns, level });
    }
  });
  return found;
}

// Starts over where anything that the cells depend on has changed.
function refreshDiagram(wait = 250) {
  const { x, y, xlow, xhigh, ylow, yhigh, size } = STATE.view, { view, values, ...rest } = STATE;
  const others = Object.fromEntries(Object.entries(values).filter(([name]) => name !== x && name !== y));
  const key = JSON.stringify([x, y, xlow, xhigh, ylow, yhigh, size, others, rest, Object.keys(DRAWN).length]);
  if (key !== DIAGRAM.key) {
    DIAGRAM.key = key;
    DIAGRAM.cells.clear();
    DIAGRAM.cross = null;
    stopWorkers();
    clearTimeout(DIAGRAM.timer);
    DIAGRAM.timer = setTimeout(SERVED ? askServer : startWorkers, wait);
  }
  drawDiagram();
}

function stopWorkers() {
  for (const worker of DIAGRAM.workers) worker.terminate();
  DIAGRAM.workers = [];
  DIAGRAM.id++;
}

function startWorkers() {
  const { view } = STATE, rows = rowsOf(view.size), id = DIAGRAM.id, preset = PRESETS[STATE.preset];
  const axis = (name) => ({ name: view[name], values: axisValues(view, name) });
  const job = { id, x: axis("x"), y: axis("y"), state: STATE, presets: { [STATE.preset]: preset }, drawn: DRAWN, kernels: KERNELS_TYPED };
  const source = URL.createObjectURL(new Blob([document.getElementById("engine").textContent], { type: "text/javascript" }));
  DIAGRAM.began = performance.now();
  DIAGRAM.took = NaN;
  let left = rows.length;
  for (let k = 0; k < Math.min(navigator.hardwareConcurrency || 2, 8); k++) {
    const worker = new Worker(source);
    const next = () => { if (rows.length) worker.postMessage({ row: rows.shift() }); };
    worker.onmessage = ({ data }) => {
      if (data.id !== DIAGRAM.id) return;
      data.columns.forEach((i, j) => DIAGRAM.cells.set(data.index * view.size + i, data.cells[j]));
      next();
      if (--left === 0) { DIAGRAM.took = performance.now() - DIAGRAM.began; stopWorkers(); }
      soonDraw();
    };
    worker.onerror = (event) => complain(`a worker thread stopped: ${event.message}`);
    worker.postMessage({ job });
    next();
    DIAGRAM.workers.push(worker);
  }
  URL.revokeObjectURL(source);
}

// The compiled kernel of the package: a coarse diagram first, then all of it.
async function askServer() {
  const id = DIAGRAM.id, size = STATE.view.size;
  DIAGRAM.began = performance.now();
  DIAGRAM.took = NaN;
  for (const every of [4, 1]) {
    const found = await ask("diagram", { sweep: sweepOf(STATE, problemFor(STATE)), x: axisValues(STATE.view, "x"), y: axisValues(STATE.view, "y"), every });
    if (id !== DIAGRAM.id || !found) return;
    found.cells.forEach(([row, column, cell]) => DIAGRAM.cells.set(row * size + column, cell));
    drawDiagram();
  }
  DIAGRAM.took = performance.now() - DIAGRAM.began;
  drawDiagram();
}

let drawing = false;
function soonDraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawDiagram(); });
}

// ---- drawing --------------------------------------------------------------------------------------------------------

function diagramScales(width, height) {
  const { view } = STATE, half = (low, high) => (high / low) ** (0.5 / (view.size - 1));
  const wide = half(view.xlow, view.xhigh), tall = half(view.ylow, view.yhigh);
  return [
    scaleOf(view.xlow / wide, view.xhigh * wide, SPACE.left, width - SPACE.right, true),
    scaleOf(view.ylow / tall, view.yhigh * tall, height - SPACE.bottom, SPACE.top, true),
  ];
}

function drawDiagram() {
  const width = Math.min(widthOf("diagram"), 900), height = Math.min(Math.max(300, Math.round(width * 0.5)), 440), [x, y] = diagramScales(width, height), { view } = STATE;
  const values = colourRange(), here = [valueAt(view.x), valueAt(view.y)];
  let inside = `<image x="${x.from}" y="${y.to}" width="${x.to - x.from}" height="${y.from - y.to}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${pixels(values)}"/>`;
  if (here[0] > 0 && here[1] > 0) inside += `<circle cx="${x.at(here[0])}" cy="${y.at(here[1])}" r="6" fill="none" stroke="#fff" stroke-width="4"/><circle cx="${x.at(here[0])}" cy="${y.at(here[1])}" r="6" fill="none" stroke="#000" stroke-width="2"/>`;
  if (DIAGRAM.cross) {
    const [i, j] = DIAGRAM.cross, cx = x.at(axisValues(view, "x")[i]), cy = y.at(axisValues(view, "y")[j]);
    inside += `<path d="M${cx} ${y.to}V${y.from}M${x.from} ${cy}H${x.to}" stroke="#000" stroke-dasharray="3 3"/>`;
  }
  put("diagram", width, height, frame(width, height, x, y, { xlabel: axisName(view.x), ylabel: axisName(view.y), inside, clip: "in-diagram" }));
  document.getElementById("diagram").style.maxWidth = `${width}px`;
  const total = view.size ** 2, share = DIAGRAM.cells.size / total;
  document.getElementById("diagram-note").textContent = `${share < 1 ? `${Math.round(100 * share)} % of ${total} runs. ` : `${total} runs${Number.isFinite(DIAGRAM.took) ? ` in ${(DIAGRAM.took / 1000).toFixed(1)} s` : ""}. `}A click shows the run of that place. With the keyboard: arrow keys move the cross, Enter shows the run.`;
  if (view.colour === "phase") legend("legend-diagram", Object.entries(PHASES).filter(([name]) => [...DIAGRAM.cells.values()].some((c) => c.phase === name)).map(([name, colour]) => [colour, name, "box"]));
  else legend("legend-diagram", values ? [[shade(0), `${view.colour} of ICL: ${numberText(values[0])}`, "box"], [shade(0.5), numberText(Math.sqrt(values[0] * values[1])), "box"], [shade(1), numberText(values[1]), "box"], ["#d9d9d9", "ICL does not emerge", "box"], ...(view.colour === "lifetime" ? [[COLOURS.other, "ICL is learned at the end", "box"]] : [])] : []);
}

function axisName(name) { return AXES[name] ?? name.replace(/^(scale|target_norm)_(.)$/, (_, kind, x) => `${kind === "scale" ? "scale of" : "norm of the target of"} ${x}`); }

function valueAt(name) {
  const state = STATE, norm = /^target_norm_(.)$/.exec(name);
  if (norm) return problemFor(state).targets[PRESETS[state.preset].vectors.indexOf(norm[1])];
  return state.values[name] ?? parametersOf(state)[name] ?? 1;
}

function colourRange() {
  const { colour } = STATE.view, found = [...DIAGRAM.cells.values()].filter((c) => c[colour] > 0 && !(colour === "lifetime" && c.lasts)).map((c) => c[colour]);
  return found.length ? [Math.min(...found), Math.max(...found)] : null;
}

function shade(share) { return SHADES[Math.min(Math.max(Math.round(share * (SHADES.length - 1)), 0), SHADES.length - 1)]; }

function colourOfCell(cell, range) {
  const { colour } = STATE.view;
  if (colour === "phase") return PHASES[cell.phase] ?? COLOURS[cell.winner] ?? "#d9d9d9";
  if (colour === "lifetime" && cell.lasts) return COLOURS.other;
  if (!(cell[colour] > 0)) return "#d9d9d9";
  return shade(Math.log(cell[colour] / range[0]) / (Math.log(range[1] / range[0]) || 1));
}

// All cells as a small picture; one that is not there yet takes the colour of its coarse neighbour.
function pixels(range) {
  const { size, colour } = STATE.view, key = [DIAGRAM.id, DIAGRAM.cells.size, size, colour].join();
  if (DIAGRAM.picture?.key === key) return DIAGRAM.picture.data;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d");
  for (let j = 0; j < size; j++) for (let i = 0; i < size; i++) {
    let cell;
    for (const every of [1, 2, 4, 8]) { cell = DIAGRAM.cells.get((j - (j % every)) * size + i - (i % every)); if (cell) break; }
    pen.fillStyle = cell ? colourOfCell(cell, range) : "#f1f2f4";
    pen.fillRect(i, size - 1 - j, 1, 1);
  }
  DIAGRAM.picture = { key, data: canvas.toDataURL() };
  return DIAGRAM.picture.data;
}

// ---- use ------------------------------------------------------------------------------------------------------------

function buildDiagramTools() {
  const { view } = STATE, options = (names, chosen) => names.map((n) => `<option value="${n}" ${n === chosen ? "selected" : ""}>${escaped(axisName(n))}</option>`).join("");
  const ends = (axis) => `<input type="number" step="any" data-view="${axis}low" aria-label="lowest ${axis === "x" ? "horizontal" : "vertical"} value" value="${view[`${axis}low`]}"> to <input type="number" step="any" data-view="${axis}high" aria-label="highest ${axis === "x" ? "horizontal" : "vertical"} value" value="${view[`${axis}high`]}">`;
  document.getElementById("diagram-tools").innerHTML = `<span class="range"><label>Across <select data-view="x">${options(axesOf(STATE), view.x)}</select></label>${ends("x")}</span>
<span class="range"><label>Up <select data-view="y">${options(axesOf(STATE), view.y)}</select></label>${ends("y")}</span>
<label>Cells <select data-view="size">${[16, 32, 64, 128].map((n) => `<option ${n === view.size ? "selected" : ""}>${n}</option>`).join("")}</select></label>
<label>Colour <select data-view="colour">${["phase", "emergence", "lifetime"].map((n) => `<option value="${n}" ${n === view.colour ? "selected" : ""}>${n === "phase" ? "phase" : `${n} of ICL`}</option>`).join("")}</select></label><span class="save" data-of="diagram"></span>`;
  wireViews(document.getElementById("diagram-tools"));
  wireSave(document.getElementById("diagram-tools"));
}

function wireDiagram() {
  const svg = document.getElementById("diagram");
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect(), { width, height } = svg.viewBox.baseVal, [x, y] = diagramScales(width, height);
    const px = ((event.clientX - box.left) / box.width) * width, py = ((event.clientY - box.top) / box.height) * height;
    if (px < x.from || px > x.to || py < y.to || py > y.from) return;
    const last = STATE.view.size - 1, near = (share) => Math.min(Math.max(Math.floor(share * (last + 1)), 0), last);
    showCell(near((px - x.from) / (x.to - x.from)), near((y.from - py) / (y.from - y.to)));
  });
  svg.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key], last = STATE.view.size - 1;
    if (way) {
      const [i, j] = DIAGRAM.cross ?? [Math.floor(last / 2), Math.floor(last / 2)];
      DIAGRAM.cross = [i + way[0], j + way[1]].map((k) => Math.min(Math.max(k, 0), last));
      const cell = DIAGRAM.cells.get(DIAGRAM.cross[1] * (last + 1) + DIAGRAM.cross[0]);
      document.getElementById("diagram-said").textContent = `${STATE.view.x} ${numberText(axisValues(STATE.view, "x")[DIAGRAM.cross[0]])}, ${STATE.view.y} ${numberText(axisValues(STATE.view, "y")[DIAGRAM.cross[1]])}: ${cell?.phase ?? "not computed yet"}`;
      drawDiagram();
    } else if (event.key === "Enter" && DIAGRAM.cross) showCell(...DIAGRAM.cross);
    else return;
    event.preventDefault();
  });
}

function showCell(i, j) {
  const { view } = STATE;
  change((state) => { state.values[view.x] = axisValues(view, "x")[i]; state.values[view.y] = axisValues(view, "y")[j]; });
}
