// From what is chosen in the page to a problem that can be run. The names of values are those of toymodel.Sweep:
// parameters of the loss, lr, scale, scale_x, norm_x, target_scale, target_scale_x, target_norm_x, dim_x, overlap_x,
// residual_x, weight_t. PRESETS and DRAWN (starts that the server has drawn) come from the page.

// A state: {preset, loss, start, seed, integrator, steps, acts, values}; all times are steps x lr.
function problemOf(state, presets, drawn = {}) {
  const preset = presets[state.preset], get = (name, otherwise) => state.values[name] ?? otherwise;
  const dims = dimsOf(state, preset), start = startOf(state, preset, dims, drawn);
  const targets = [], u = [], v = [];
  preset.vectors.forEach((x, i) => {
    const size = state.values[`norm_${x}`];
    const scale = size === undefined ? get("scale", 1) * get(`scale_${x}`, 1) : size / Math.hypot(start.u[i], start.v[i]);
    targets.push(get(`target_norm_${x}`, start.norms[i] * get("target_scale", 1) * get(`target_scale_${x}`, 1)));
    u.push(get(`overlap_${x}`, start.u[i] * scale));
    v.push(get(`residual_${x}`, start.v[i] * scale));
  });
  const entries = (letters) => [...letters].reduce((product, x) => product * dims[preset.vectors.indexOf(x)], 1);
  const weights = Object.entries(preset.terms).map(([t, letters]) => get(`weight_${t}`, 1 / entries(letters)));
  const parameters = { ...parametersAt(state, preset) };
  for (const name of Object.keys(parameters)) parameters[name] = get(name, parameters[name]);
  const lr = get("lr", 1), { steps } = state;
  const loss = state.loss || preset.loss, acts = checkActs(state.acts, state.preset, loss).map((act) => onSteps(act, lr, steps * lr));
  return { model: state.preset, loss, parameters, weights, targets, y: [...u, ...v], acts, steps, lr, own: start.own };
}

// The parameters of the loss that was chosen, and their usual values.
function parametersAt(state, preset) {
  if (preset.typed[state.loss]) return preset.typed[state.loss].parameters;
  const used = kernelOf(state.preset, state.loss || preset.loss).parameters;
  return Object.fromEntries(Object.entries(preset.parameters).filter(([name]) => used.includes(name)));
}

function endOf(state) { return state.steps * (state.values.lr ?? 1); }

function dimsOf(state, preset) { return preset.vectors.map((x, i) => state.values[`dim_${x}`] ?? preset.dims[i]); }

// Times of interventions as multiples of the step; what begins after the end has no effect.
function onSteps(act, lr, end) {
  const near = (t) => Math.round(t / lr) * lr, at = Math.min(near(act.at), end);
  return { ...act, at, until: act.until === undefined ? undefined : Math.max(near(act.until), at + lr) };
}

// Norms of targets, overlaps and residuals; `own` where the page had to draw them itself.
function startOf(state, preset, dims, drawn) {
  if (state.start === "aligned") {
    const norms = dims.map(Math.sqrt);
    return { norms, u: dims.map(() => 0.1), v: dims.map(() => 0), own: false };
  }
  const usual = dims.every((n, i) => n === preset.dims[i]);
  const found = (usual && preset.starts[state.start][state.seed]) || drawn[drawKey(state, dims)];
  if (found) return { norms: found[0], u: found[1], v: found[2], own: false };
  return { ...drawOf(state.seed, dims), own: true };
}

function drawKey(state, dims) { return `${state.preset}:${state.start}:${state.seed}:${dims}`; }

// Normal entries of targets and values, from the page's own generator.
function drawOf(seed, dims) {
  const normal = normals(seed), norms = [], u = [], v = [];
  for (const n of dims) {
    const target = Array.from({ length: n }, normal), value = Array.from({ length: n }, normal);
    const norm = Math.sqrt(target.reduce((sum, t) => sum + t * t, 0));
    const along = target.reduce((sum, t, i) => sum + t * value[i], 0) / norm;
    norms.push(norm);
    u.push(along);
    v.push(Math.sqrt(value.reduce((sum, x, i) => sum + square(x - (along * target[i]) / norm), 0)));
  }
  return { norms, u, v };
}

// Box and Muller's normal numbers from the generator sfc32.
function normals(seed) {
  let a = seed >>> 0, b = 0x9e3779b9, c = 0x243f6a88, d = 1;
  const uniform = () => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + t) | 0;
    return ((t >>> 0) + 0.5) / 4294967296;
  };
  for (let i = 0; i < 16; i++) uniform();
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

// The steps at which descent records: each of the first, then ever wider.
function marksOf(steps, linear = 600, geometric = 500) {
  const found = new Set([0, steps]);
  for (let i = 1; i < linear; i++) found.add(Math.round((steps * i) / linear));
  for (let i = 0; i < geometric; i++) found.add(Math.round(steps ** (i / geometric)));
  return [...found].sort((a, b) => a - b);
}

// 0 and times equally spaced in the logarithm, as toymodel.flow records, and as many equally spaced.
function timesOf(end, count = 512) {
  const found = new Set([0, end]);
  for (let i = 0; i < count - 1; i++) found.add(end * 1e-6 * 1e6 ** (i / (count - 1)));
  for (let i = 1; i < count; i++) found.add((end * i) / count);
  return [...found].sort((a, b) => a - b);
}

// The run of a state, with its record.
function runOf(state, presets, drawn) {
  const problem = problemOf(state, presets, drawn);
  const run = state.integrator === "flow" ? flow(problem, timesOf(problem.steps * problem.lr)) : descend(problem, marksOf(problem.steps));
  return { ...run, problem };
}

// Measures of the run at one place of a diagram, without a record of a descent.
function measuredAt(state, values, presets, drawn) {
  const problem = problemOf({ ...state, values: { ...state.values, ...values } }, presets, drawn);
  const end = problem.steps * problem.lr;
  return (state.integrator === "flow" ? flow(problem, timesOf(end, 256), 1e-6, 1e-9) : descend(problem)).measures;
}
