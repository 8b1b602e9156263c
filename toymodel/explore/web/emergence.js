// When a mechanism emerges, predicted from the start alone, as toymodel/theory/weighted_sum.py does it. The field and
// the numbers of that module (WEIGHTED) are printed by Python.

// The predicted time of each mechanism of a run without interventions; NaN where the prediction does not hold.
function emergenceOf(problem) {
  const kernel = kernelOf(problem.model, problem.loss);
  if (!kernel.change || problem.acts.length) return {};
  const values = kernel.parameters.map((name) => problem.parameters[name]);
  const constants = Float64Array.from([...problem.targets, ...problem.weights, ...values]), horizon = problem.steps * problem.lr;
  return Object.fromEntries(kernel.mechanisms.map((name, m) => [name, predicted(kernel, m, Float64Array.from(problem.y), constants, horizon)]));
}

function predicted(kernel, m, y, constants, horizon) {
  const n = y.length, { RTOL, ATOL, TOO_FAR, MOST_STEPS } = WEIGHTED, margins = new Float64Array(kernel.mechanisms.length);
  const margin = (place, moved) => {
    kernel.margins(moved ? place.slice(0, n).map((x, j) => x + place[n + j]) : place, constants, margins);
    return margins[m];
  };
  const size = (values) => Math.sqrt(values.slice(0, n).reduce((sum, x) => sum + x * x, 0));
  let z = new Float64Array(2 * n), t = 0;
  z.set(y);
  let velocity = new Float64Array(2 * n);
  kernel.change(z, constants, velocity);
  let h = (1e-3 * size(y)) / (size(velocity) + 1e-300);
  if (margin(y) < 0) return NaN;
  for (let steps = 0; steps <= MOST_STEPS && t <= 2 * horizon; steps++) {
    const next = weightedStep(kernel, z, velocity, h, constants), scale = ATOL * size(z);
    let error = 0;
    for (let j = 0; j < n; j++) error = Math.max(error, Math.abs(next.missed[j]) / (scale + RTOL * Math.max(Math.abs(z[j]), Math.abs(next.z[j])) + 1e-300));
    if (!Number.isFinite(error)) error = 1e10;
    if (error <= 1) {
      if (margin(next.z, true) < 0) return crossing(kernel, m, z, velocity, h, t, constants, margin, horizon);
      if (margin(next.z.slice(0, n)) < TOO_FAR) return NaN;
      [t, z, velocity] = [t + h, next.z, next.velocity];
    }
    h *= Math.min(Math.max(0.9 * Math.max(error, 1e-10) ** -0.2, 0.2), 5);
  }
  return NaN;
}

// A step of Dormand and Prince's pair.
function weightedStep(kernel, z, velocity, h, constants) {
  const slopes = [velocity], sum = (row, j) => slopes.reduce((total, slope, i) => total + row[i] * slope[j], 0);
  let there = z;
  for (const row of WEIGHTED.STAGES) {
    there = z.map((x, j) => x + h * sum(row, j));
    const slope = new Float64Array(z.length);
    kernel.change(there, constants, slope);
    slopes.push(slope);
  }
  return { z: there, velocity: slopes[6], missed: z.map((_, j) => h * sum(WEIGHTED.MISSED, j)) };
}

// The time at which the next step crosses the margin: halved eight times, then on a line.
function crossing(kernel, m, z, velocity, step, t, constants, margin, horizon) {
  const value = (h) => margin(weightedStep(kernel, z, velocity, h, constants).z, true);
  let [low, high] = [0, step];
  for (let i = 0; i < 8; i++) {
    const middle = (low + high) / 2;
    if (value(middle) < 0) high = middle;
    else low = middle;
  }
  const above = value(low), below = value(high), h = low + ((high - low) * above) / (above - below);
  const end = weightedStep(kernel, z, velocity, h, constants), found = new Float64Array(4);
  kernel.endings[m](end.z, end.velocity, constants, found);
  const [ahead, added, bend, drive] = found, time = t + h, shift = -added / ahead / time, pace = 1 + bend / ahead;
  const { LARGEST_SHIFT, LEAST_DRIVE, PACE } = WEIGHTED;
  return Math.abs(shift) < LARGEST_SHIFT && drive > LEAST_DRIVE && pace > PACE[0] && pace < PACE[1] && time <= horizon ? time : NaN;
}
