// Runs of the model: stages, gradient descent and gradient flow, and their measures.
// KERNELS, follow, NEVER, LEARNED, KNOWN, BEGIN and RODAS are printed by Python and stand before this file.
// It runs in the page, in worker threads and in tests, and knows nothing of the document.

function square(x) { return x * x; }

// ---- problems -------------------------------------------------------------------------------------------------------
// A problem: {model, loss, dims, parameters, weights, targets, y, acts, steps, lr}. `y` holds u, then v, of all vectors;
// `acts` are interventions {kind, vectors, term, overlap, residual, loss, parameters, at, until}, in units of time.

// A kernel from its text, for a loss that was typed.
function kernelFrom(text) { return eval(`(${text})`); }

function kernelOf(model, loss) {
  const kernel = KERNELS[`${model}: ${loss}`];
  if (!kernel) throw new Error(`the loss "${loss}" is not printed for ${model}`);
  return kernel;
}

function acting(act, time) { return act.at <= time && time < (act.until ?? Infinity); }

// The times at which something begins or ends, from 0 to `end`.
function cutsOf(acts, end) {
  const inside = acts.flatMap((act) => [act.at, act.until ?? Infinity]).filter((t) => t > 0 && t < end);
  return [...new Set([0, ...inside, end])].sort((a, b) => a - b);
}

// What holds from the time `begin` on, and the state there; changes y in place.
function stageAt(problem, begin, y) {
  const active = problem.acts.filter((act) => acting(act, begin));
  let loss = problem.loss;
  const parameters = { ...problem.parameters };
  for (const act of active) {
    if (act.kind !== "Change") continue;
    if (act.loss) loss = act.loss;
    Object.assign(parameters, act.parameters);
  }
  const kernel = kernelOf(problem.model, loss), n = kernel.vectors.length, fixed = new Set();
  for (const act of active) {
    if (act.kind !== "Clamp" && act.kind !== "Freeze") continue;
    for (const x of act.vectors) {
      const i = kernel.vectors.indexOf(x);
      fixed.add(i);
      if (act.kind === "Freeze") continue;
      y[i] = act.overlap ?? problem.targets[i];
      y[n + i] = (y[n + i] < 0 || Object.is(y[n + i], -0) ? -1 : 1) * (act.residual ?? 0);
    }
  }
  const gates = kernel.gates.map(([term, x]) => active.some((act) => act.kind === "Block" && act.term === term
    && (act.vectors || kernel.letters[term]).includes(x)) ? 0 : 1);
  const values = kernel.parameters.map((name) => parameters[name]), without = kernel.parameters[values.indexOf(undefined)];
  if (without) throw new Error(`the loss "${loss}" needs a value of ${without}: give it one in the intervention`);
  const constants = Float64Array.from([...problem.targets, ...problem.weights, ...values, ...gates]);
  const moving = [];
  for (let j = 0; j < 2 * n; j++) if (!fixed.has(j % n)) moving.push(j);
  return { kernel, constants, moving, slope: gates.includes(0) ? kernel.gated : kernel.plain };
}

// ---- what a run leaves behind ---------------------------------------------------------------------------------------

function recordOf(kernel) {
  const names = ["loss", ...kernel.terms.map((t) => (kernel.mechanisms.includes(t) ? `loss_${t}` : t))];
  for (const quantity of ["overlap", "residual"]) names.push(...kernel.vectors.map((x) => `${quantity}_${x}`));
  return { time: [], ...Object.fromEntries(names.map((name) => [name, []])) };
}

function recordAt(record, kernel, time, y, out) {
  const n = kernel.vectors.length, count = kernel.terms.length;
  record.time.push(time);
  record.loss.push(out[count]);
  kernel.terms.forEach((t, i) => record[kernel.mechanisms.includes(t) ? `loss_${t}` : t].push(out[i]));
  kernel.vectors.forEach((x, i) => {
    record[`overlap_${x}`].push(y[i]);
    record[`residual_${x}`].push(Math.abs(y[n + i]));
  });
}

// What is known of the mechanisms, and the losses below which they are learned.
function watchOf(kernel, constants) {
  const count = kernel.mechanisms.length, inside = new Float64Array(count);
  kernel.unlearned(constants, inside);
  const known = new Float64Array(count * KNOWN.length);
  for (let m = 0; m < count; m++) known.set(BEGIN, m * KNOWN.length);
  const at = kernel.mechanisms.map((m) => kernel.terms.indexOf(m));
  return { known, inside: inside.map((loss) => LEARNED * loss), at };
}

// Measures by mechanism, the winner and the phase, as in toymodel.measures.
function measuresOf(kernel, watch, last, unit) {
  const found = {};
  kernel.mechanisms.forEach((name, m) => {
    const known = Object.fromEntries(KNOWN.map((quantity, i) => [quantity, watch.known[m * KNOWN.length + i]]));
    const time = (t) => (t < NEVER ? t * unit : NaN), happens = known.emergence < NEVER;
    const lasts = known.last < watch.inside[m], end = happens ? time(known.end) : NaN;
    found[name] = {
      emergence: time(known.emergence), end, lasts, minimum: known.lowest, minimum_time: time(known.lowest_at),
      lifetime: happens ? (lasts ? last * unit : end) - time(known.emergence) : NaN,
      bump: known.bump, bump_time: known.bump > 0 ? time(known.bump_at) : NaN, final: known.last,
    };
  });
  found.winner = kernel.mechanisms.filter((name) => found[name].lasts).join("+") || "none";
  if (found.icl && found.ciwl) found.phase = phaseOf(found.icl, found.ciwl);
  return found;
}

function phaseOf(icl, ciwl) {
  if (icl.lasts) return ciwl.lasts ? "both" : "persistent ICL";
  if (icl.emergence === icl.emergence) return "transient ICL";
  return ciwl.emergence === ciwl.emergence ? "CIWL only" : "plateau";
}

// ---- gradient descent -----------------------------------------------------------------------------------------------

// All steps of a run, with its measures; `marks` are the steps that are recorded, in order (none: no record).
function descend(problem, marks = []) {
  const { steps, lr } = problem, y = Float64Array.from(problem.y), first = kernelOf(problem.model, problem.loss);
  const record = marks.length ? recordOf(first) : null, cuts = cutsOf(problem.acts, steps * lr).map((t) => Math.round(t / lr));
  let watch = null, mark = 0, stage = null, out = null;
  for (let i = 0; i + 1 < cuts.length; i++) {
    stage = stageAt(problem, cuts[i] * lr, y);
    const { kernel, constants, moving, slope } = stage, terms = kernel.terms.length;
    out = new Float64Array(terms + 1 + y.length);
    watch ??= watchOf(first, stageAt({ ...problem, acts: [] }, 0, y).constants);
    const final = i + 2 === cuts.length;
    for (let n = cuts[i]; n < cuts[i + 1] + (final ? 1 : 0); n++) {
      slope(y, constants, lr, out);
      for (let m = 0; m < watch.at.length; m++) follow(n, out[watch.at[m]], watch.inside[m], watch.known, m * KNOWN.length);
      if (n === marks[mark]) { recordAt(record, kernel, n * lr, y, out); mark++; }
      if (n === steps) break;
      for (let j = 0; j < moving.length; j++) y[moving[j]] -= out[terms + 1 + moving[j]];
    }
  }
  return ended(record, first, watch, steps, lr, y);
}

function ended(record, kernel, watch, last, unit, y) {
  const finite = y.every(Number.isFinite), measures = measuresOf(kernel, watch, last, unit);
  if (!finite) { measures.winner = "diverged"; if (measures.phase) measures.phase = "diverged"; }
  const inside = Object.fromEntries(kernel.mechanisms.map((name, m) => [name, watch.inside[m]]));
  return { record, measures, inside, y: Array.from(y), finite };
}
