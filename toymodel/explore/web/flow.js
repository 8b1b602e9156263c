// Gradient flow of one run by the Rosenbrock method RODAS, as in toymodel/simulation/rosenbrock.py, whose coefficients
// (RODAS) stand before this file.

const EASIER = 6, HARDER = 0.2; // how much longer or shorter the next step may be

// The flow until problem.steps x problem.lr, recorded at `times`; its measures are looked at there.
function flow(problem, times, rtol = 1e-9, atol = 1e-12, most = 100000) {
  const end = problem.steps * problem.lr, y = Float64Array.from(problem.y), first = kernelOf(problem.model, problem.loss);
  const cuts = cutsOf(problem.acts, end), record = recordOf(first);
  let watch = null, at = 0;
  for (let i = 0; i + 1 < cuts.length; i++) {
    const stage = stageAt(problem, cuts[i], y), out = new Float64Array(stage.kernel.terms.length + 1 + y.length);
    watch ??= watchOf(first, stageAt({ ...problem, acts: [] }, 0, y).constants);
    const final = i + 2 === cuts.length, seen = [];
    while (at < times.length && (final || times[at] < cuts[i + 1])) seen.push(times[at++]);
    carry(stage, y, cuts[i], cuts[i + 1], seen, { rtol, atol, most }, (time, place) => {
      stage.slope(place, stage.constants, 1, out);
      recordAt(record, stage.kernel, time, place, out);
      watch.at.forEach((term, m) => follow(time, out[term], watch.inside[m], watch.known, m * KNOWN.length));
    });
  }
  return ended(record, first, watch, times[times.length - 1], 1, y);
}

// Carries y from `begin` to `end`, in place, and calls keep(time, y) at each of the times.
function carry(stage, y, begin, end, times, { rtol, atol, most }, keep) {
  const count = y.length, { kernel, constants, moving } = stage, terms = kernel.terms.length + 1;
  const out = new Float64Array(terms + count), bent = new Float64Array(count * count), matrix = new Float64Array(count * count);
  const stages = Array.from({ length: 6 }, () => new Float64Array(count)), place = new Float64Array(count);
  const fixed = Array.from({ length: count }, (_, j) => !moving.includes(j));
  const velocity = (where, into) => {
    stage.slope(where, constants, 1, out);
    for (let j = 0; j < count; j++) into[j] = fixed[j] ? 0 : -out[terms + j];
  };
  const norm = (value, one, other) => {
    let sum = 0;
    for (let j = 0; j < count; j++) sum += square(value[j] / (atol + rtol * Math.max(Math.abs(one[j]), Math.abs(other[j]))));
    return Math.sqrt(sum / count);
  };
  const speed = new Float64Array(count), fresh = new Float64Array(count), bends = [new Float64Array(count), new Float64Array(count)];
  velocity(y, speed);
  const size = norm(speed, y, y);
  let t = begin, h = size > 0 ? (0.01 * norm(y, y, y)) / size : end - begin, tries = 0, at = 0;
  h = Math.min(Math.max(h, 1e-9 * (end - begin)), end - begin);
  kernel.jacobian(y, constants, bent);
  while (t < end) {
    if (tries++ > most) throw new Error(`the flow does not reach t = ${end} in ${most} steps`);
    const final = t + h >= end, step = Math.min(h, end - t);
    factor(matrix, bent, fixed, 1 / (RODAS.gamma * step), count);
    for (let i = 0; i < 6; i++) {
      place.set(y);
      for (let k = 0; k < i; k++) for (let j = 0; j < count; j++) place[j] += RODAS.A[i][k] * stages[k][j];
      velocity(place, stages[i]);
      for (let k = 0; k < i; k++) for (let j = 0; j < count; j++) stages[i][j] += (RODAS.C[i][k] * stages[k][j]) / step;
      solve(matrix, stages[i], count);
    }
    for (let j = 0; j < count; j++) {
      fresh[j] = y[j] + stages[5][j];
      for (let k = 0; k < 5; k++) fresh[j] += RODAS.A[5][k] * stages[k][j];
      for (let b = 0; b < 2; b++) {
        bends[b][j] = 0;
        for (let k = 0; k < 5; k++) bends[b][j] += RODAS.D[b][k] * stages[k][j];
      }
    }
    let error = norm(stages[5], y, fresh);
    if (!Number.isFinite(error)) error = Infinity;
    h *= Math.min(Math.max(0.9 * Math.max(error, 1e-12) ** -0.25, HARDER), EASIER);
    if (error > 1) continue;
    const next = final ? end : t + step;
    while (at < times.length && times[at] <= next) {
      const s = (times[at] - t) / (next - t);
      for (let j = 0; j < count; j++) place[j] = (1 - s) * y[j] + s * (fresh[j] + (1 - s) * (bends[0][j] + s * bends[1][j]));
      keep(times[at++], place);
    }
    t = next;
    y.set(fresh);
    kernel.jacobian(y, constants, bent);
  }
}

// L and U of `weight` I - J without pivoting, J = -bent outside of the rows that do not move; inverses of the pivots.
function factor(matrix, bent, fixed, weight, count) {
  for (let i = 0; i < count; i++) for (let j = 0; j < count; j++)
    matrix[i * count + j] = (i === j ? weight : 0) + (fixed[i] ? 0 : bent[i * count + j]);
  for (let k = 0; k < count; k++) {
    matrix[k * count + k] = 1 / matrix[k * count + k];
    for (let i = k + 1; i < count; i++) {
      const share = (matrix[i * count + k] *= matrix[k * count + k]);
      for (let j = k + 1; j < count; j++) matrix[i * count + j] -= share * matrix[k * count + j];
    }
  }
}

function solve(matrix, x, count) {
  for (let i = 0; i < count; i++) for (let j = 0; j < i; j++) x[i] -= matrix[i * count + j] * x[j];
  for (let i = count - 1; i >= 0; i--) {
    for (let j = i + 1; j < count; j++) x[i] -= matrix[i * count + j] * x[j];
    x[i] *= matrix[i * count + i];
  }
}
