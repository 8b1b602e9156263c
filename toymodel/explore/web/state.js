// The state of the page: what it is by default, in its address, as Python and as TOML.

// {preset, loss, start, seed, integrator, steps, acts, values, view}: `values` holds what differs from the preset.
function usualState(name) {
  const { start, seed, values } = PRESETS[name].usual;
  return {
    preset: name, loss: "", start, seed, integrator: "descent", steps: 16000, acts: [], values: { ...values },
    view: { time: "linear", loss: "linear", x: "alpha", xlow: 0.001, xhigh: 1, y: "mu_icl", ylow: 0.001, yhigh: 1, size: 32, colour: "phase", ...viewOf(name) },
  };
}

// Names that can be varied in a diagram of this preset, with their usual range.
function viewOf(name) {
  if (PRESETS[name].parameters.alpha !== undefined) return {};
  return { x: "scale", xlow: 0.05, xhigh: 1, y: "lr", ylow: 0.1, yhigh: 1 };
}

// What can be varied in a diagram: parameters, scales, norms of targets, the step size.
function axesOf(state) {
  const { vectors } = PRESETS[state.preset];
  return [...Object.keys(parametersOf(state)), "scale", "lr", ...vectors.flatMap((x) => [`scale_${x}`, `target_norm_${x}`])];
}

// Chooses other axes where the loss does not have the parameter of one.
function fit(state) {
  const known = axesOf(state), { view } = state;
  for (const [axis, other] of [["x", "y"], ["y", "x"]]) {
    if (known.includes(view[axis]) && (axis === "x" || view.x !== view.y)) continue;
    Object.assign(view, { [axis]: known.includes("scale") && view[other] !== "scale" ? "scale" : "lr", [`${axis}low`]: 0.1, [`${axis}high`]: 1 });
  }
  return state;
}

function hashOf(state) {
  const usual = usualState(state.preset), found = new URLSearchParams();
  if (state.preset !== "coopetition") found.set("preset", state.preset);
  for (const name of ["loss", "start", "seed", "integrator", "steps"]) if (state[name] !== usual[name]) found.set(name, state[name]);
  if (state.acts.length) found.set("interventions", actsText(state.acts));
  for (const [name, value] of Object.entries(state.values)) if (value !== usual.values[name]) found.set(name, value);
  for (const name of Object.keys(usual.values)) if (state.values[name] === undefined) found.set(name, "preset");
  for (const [name, value] of Object.entries(state.view)) if (value !== usual.view[name]) found.set(`view.${name}`, value);
  return found.toString();
}

// The state that an address stands for; an Error where it says what the page cannot do.
function stateOf(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, "")), name = given.get("preset") ?? "coopetition";
  if (!PRESETS[name]) throw new Error(`there is no preset ${name}; there are ${Object.keys(PRESETS).join(", ")}`);
  const state = usualState(name);
  for (const [key, text] of given) {
    if (key === "preset") continue;
    if (key === "interventions") state.acts = actsOf(text);
    else if (key.startsWith("view.")) state.view[key.slice(5)] = typeof state.view[key.slice(5)] === "number" ? numberIn(key, text) : text;
    else if (["loss", "start", "integrator"].includes(key)) state[key] = text;
    else if (["seed", "steps"].includes(key)) state[key] = numberIn(key, text);
    else if (text === "preset") delete state.values[key];
    else state.values[key] = numberIn(key, text);
  }
  if (!["paper", "random", "aligned"].includes(state.start)) throw new Error(`start must be paper, random or aligned, got ${state.start}`);
  if (!["descent", "flow"].includes(state.integrator)) throw new Error(`integrator must be descent or flow, got ${state.integrator}`);
  for (const [name, least] of [["steps", 1], ["seed", 0]]) if (!(Number.isInteger(state[name]) && state[name] >= least)) throw new Error(`${name} must be a whole number >= ${least}, got ${state[name]}`);
  return fit(state);
}

function numberIn(name, text) {
  const number = Number(text);
  if (text.trim() === "" || !Number.isFinite(number)) throw new Error(`${name} must be a number, got ${text}`);
  return number;
}

// ---- as Python and TOML ---------------------------------------------------------------------------------------------

const OF_MODEL = (state, name) => name in parametersOf(state) || name.startsWith("dim_");

function parametersOf(state) { return parametersAt(state, PRESETS[state.preset]); }

function table(names, values) { return `{${names.map((name, i) => `"${name}": ${values[i]}`).join(", ")}}`; }

// The run as Python that computes the same numbers.
function pythonOf(state, problem) {
  const preset = PRESETS[state.preset], { vectors } = preset, n = vectors.length, dims = dimsOf(state, preset);
  const resized = dims.some((d, i) => d !== preset.dims[i]), parameters = Object.entries(problem.parameters);
  const lines = ["import toymodel as tm", ""];
  if (state.loss) {
    const terms = Object.entries(preset.terms), part = (all) => `{${all.map(([t, letters]) => `"${t}": "${letters}"`).join(", ")}}`;
    const mechanisms = terms.filter(([t]) => preset.mechanisms.includes(t)), costs = terms.filter(([t]) => !preset.mechanisms.includes(t));
    lines.push("model = tm.Model.from_expression(", `    ${JSON.stringify(state.loss)},`, `    ${part(mechanisms)},`, `    ${table(vectors, dims)},`);
    if (costs.length) lines.push(`    costs=${part(costs)},`);
    if (parameters.length) lines.push(`    parameters={${parameters.map(([name, value]) => `"${name}": ${value}`).join(", ")}},`);
    lines.push(")");
  } else {
    const given = parameters.map(([name, value]) => `${name}=${value}`);
    if (resized) given.push(`dims=[${dims.join(", ")}]`);
    lines.push(`model = tm.${state.preset}(${given.join(", ")})`);
  }
  const moved = Object.keys(state.values).filter((name) => !OF_MODEL(state, name) && name !== "lr" && !name.startsWith("weight_"));
  const scaled = moved.filter((name) => /^(target_)?scale(_|$)/.test(name)), drawn = state.start !== "aligned" && !problem.own;
  if (drawn && !moved.length) lines.push(`start = tm.${state.start}_start(model, ${state.seed})`);
  else if (drawn && state.start === "random" && scaled.length === moved.length) {
    const factors = (kind) => vectors.map((x) => (state.values[kind] ?? 1) * (state.values[`${kind}_${x}`] ?? 1));
    const given = ["scale", "target_scale"].filter((kind) => factors(kind).some((f) => f !== 1)).map((kind) => `    ${kind}=${table(vectors, factors(kind))},`);
    lines.push("start = tm.random_start(", `    model,`, `    ${state.seed},`, ...given, ")");
  } else {
    const part = (name, values) => `    ${name}=${table(vectors, values)},`;
    lines.push("start = tm.aligned_start(", "    model,", part("overlap", problem.y.slice(0, n)), part("residual", problem.y.slice(n)), part("target_norm", problem.targets), ")");
  }
  const weights = Object.keys(preset.terms).filter((t) => state.values[`weight_${t}`] !== undefined);
  const others = [];
  if (weights.length) others.push(`weights=${table(weights, weights.map((t) => state.values[`weight_${t}`]))}`);
  if (problem.acts.length) others.push(`interventions=${JSON.stringify(actsText(problem.acts))}`);
  const run = state.integrator === "flow" ? [`tm.flow(model, start, ${problem.steps * problem.lr}`] : [`tm.descend(model, start, ${problem.steps}`, ...(problem.lr === 1 ? [] : [`lr=${problem.lr}`])];
  lines.push(`runs = ${[...run, ...others].join(", ")})`, "print(tm.measure(runs).to_dataframe())", "");
  return lines.join("\n");
}

// The diagram around the run as an entry of toymodel.sweep: the names of its file, and of what the server is asked.
function sweepOf(state, problem, size = state.view.size) {
  const preset = PRESETS[state.preset], axes = [state.view.x, state.view.y], dims = dimsOf(state, preset);
  const range = (axis) => `log(${state.view[`${axis}low`]}, ${state.view[`${axis}high`]}, ${size})`;
  const fixed = Object.fromEntries(Object.entries(state.values).filter(([name]) => !axes.includes(name) && !(name in parametersOf(state)) && name !== "lr"));
  const model = state.loss ? modelTable(state, dims, problem) : { preset: state.preset, ...problem.parameters };
  let { start } = state;
  if (problem.own) {
    start = "aligned";
    for (const [i, x] of preset.vectors.entries()) {
      Object.assign(fixed, { [`overlap_${x}`]: problem.y[i], [`residual_${x}`]: problem.y[preset.vectors.length + i], [`target_norm_${x}`]: problem.targets[i] });
      for (const name of [`scale_${x}`, `target_scale_${x}`, `norm_${x}`, "scale", "target_scale"]) delete fixed[name];
    }
    for (const name of axes) delete fixed[name];
  }
  return {
    start, seeds: state.seed, steps: problem.steps, lr: problem.lr, integrator: state.integrator,
    interventions: problem.acts.map(textOf), model, over: { [state.view.x]: range("x"), [state.view.y]: range("y") }, fixed,
  };
}

function modelTable(state, dims, problem) {
  const { terms, mechanisms, vectors } = PRESETS[state.preset], entries = Object.entries(terms);
  return {
    loss: state.loss, mechanisms: Object.fromEntries(entries.filter(([t]) => mechanisms.includes(t))),
    costs: Object.fromEntries(entries.filter(([t]) => !mechanisms.includes(t))),
    dims: Object.fromEntries(vectors.map((x, i) => [x, dims[i]])), parameters: problem.parameters,
  };
}

function tomlOf(state, problem) {
  const lines = ["# toymodel sweep explorer.toml --store explorer.zarr"], tables = [];
  const write = (prefix, part) => {
    if (prefix) lines.push("", `[${prefix}]`);
    for (const [name, value] of Object.entries(part)) {
      if (value !== null && typeof value === "object" && !Array.isArray(value)) tables.push([prefix ? `${prefix}.${name}` : name, value]);
      else lines.push(`${name} = ${tomlValue(value)}`);
    }
  };
  write("", sweepOf(state, problem));
  while (tables.length) write(...tables.shift());
  return `${lines.join("\n")}\n`;
}

function tomlValue(value) {
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(", ")}]`;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
