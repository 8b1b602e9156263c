// The plots of one run: losses, overlaps, the slow manifold.

const NEAR = { icl: "ICL", ciwl: "CIWL" };

const WIDTHS = new Map(); // asking for a width between two changes makes the browser lay the page out each time

function widthOf(id) {
  if (!WIDTHS.has(id)) WIDTHS.set(id, Math.max(280, Math.round(document.getElementById(id).getBoundingClientRect().width) || 600));
  return WIDTHS.get(id);
}

function put(id, width, height, content) {
  const svg = document.getElementById(id);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.innerHTML = content;
}

function legend(id, entries) {
  document.getElementById(id).innerHTML = entries.map(([colour, text, style = "solid"]) => style === "box"
    ? `<span><i class="box" style="background:${colour}"></i>${escaped(text)}</span>`
    : `<span><i style="border-color:${colour};border-top-style:${style}"></i>${escaped(text)}</span>`).join("");
}

function timeScale(state, run, width) {
  const end = run.problem.steps * run.problem.lr, from = SPACE.left, to = width - SPACE.right;
  return state.view.time === "log" ? scaleOf(Math.min(run.problem.lr, end / 10), end, from, to, true) : scaleOf(0, end, from, to);
}

function nameOf(term) { return NAMES[term] ?? term; }
function colourOf(term, i) { return COLOURS[term] ?? [COLOURS.shared, COLOURS.other, COLOURS.light][i % 3]; }

function linesOfLosses(preset) {
  return [
    { name: "loss", label: NAMES.loss, colour: COLOURS.loss, style: 'stroke-width="1.2"' },
    ...Object.keys(preset.terms).map((t, i) => preset.mechanisms.includes(t)
      ? { name: `loss_${t}`, label: nameOf(t), colour: colourOf(t, i), style: "" }
      : { name: t, label: nameOf(t), colour: colourOf(t, i), style: 'stroke-dasharray="5 4"' }),
  ];
}

function drawLosses(state, run, theory) {
  const width = widthOf("losses"), height = 300, { record } = run, preset = PRESETS[state.preset], lines = linesOfLosses(preset);
  const x = timeScale(state, run, width);
  // What lies above the axis is the decay from the start, as in the figures of the package.
  const late = record.time.findIndex((t) => t >= Math.min(RELAXED, run.problem.steps * run.problem.lr / 10));
  const all = lines.flatMap(({ name }) => record[name].slice(late)).filter(Number.isFinite), most = Math.max(...all, 1e-300);
  const positive = all.filter((value) => value > 0);
  const least = Math.max(Math.min(...positive, most), most * 1e-8);
  const y = state.view.loss === "log" ? scaleOf(least, most * 1.5, height - SPACE.bottom, SPACE.top, true) : scaleOf(0, most * 1.08, height - SPACE.bottom, SPACE.top);
  let inside = bands(run, preset, x, y);
  for (const { name, colour, style } of lines) inside += line(record.time, record[name], x, y, colour, style);
  const marks = theoryMarks(theory).map(({ time, colour, label }, row) => upright(time, x, y, colour, label, 'stroke-dasharray="2 3"', row));
  put("losses", width, height, frame(width, height, x, y, { xlabel: "time (steps x step size)", ylabel: "loss", inside: inside + marks.join(""), clip: "in-losses" }));
  legend("legend-losses", lines.map(({ colour, label, style }) => [colour, label, style.includes("dash") ? "dashed" : "solid"]).concat(marks.some(Boolean) ? [[COLOURS.cost, "theory", "dotted"]] : []));
  return x;
}

// A pale band from the emergence of ICL to its end.
function bands(run, preset, x, y) {
  const found = run.measures.icl;
  if (!found || !(found.emergence === found.emergence)) return "";
  const from = x.at(Math.max(found.emergence, x.low)), to = x.at(Math.min(found.emergence + found.lifetime, x.high));
  return `<rect x="${from}" y="${y.to}" width="${Math.max(to - from, 0)}" height="${y.from - y.to}" fill="${COLOURS.icl}" opacity="0.1"/>`;
}

function theoryMarks(theory) {
  const found = [];
  for (const [name, time] of Object.entries(theory?.emergence ?? {})) if (Number.isFinite(time)) found.push({ time, colour: INK[name] ?? INK.cost, label: `${nameOf(name)} emerges` });
  if (Number.isFinite(theory?.end)) found.push({ time: theory.end, colour: INK.icl, label: "ICL ends" });
  return found;
}

function drawOverlaps(state, run) {
  const width = widthOf("overlaps"), height = 300, { record } = run, { vectors } = PRESETS[state.preset];
  const x = timeScale(state, run, width), all = vectors.flatMap((v) => record[`overlap_${v}`]).filter(Number.isFinite);
  const low = Math.min(0, ...all), high = Math.max(...all, 1e-300), y = scaleOf(low - 0.03 * (high - low), high + 0.06 * (high - low), height - SPACE.bottom, SPACE.top);
  let inside = `<line x1="${x.from}" x2="${x.to}" y1="${y.at(0)}" y2="${y.at(0)}" stroke="#8b919b"/>`;
  for (const v of vectors) inside += line(record.time, record[`residual_${v}`], x, y, VECTORS[v], 'stroke-dasharray="2 3" stroke-width="1.2"');
  for (const v of vectors) inside += line(record.time, record[`overlap_${v}`], x, y, VECTORS[v]);
  put("overlaps", width, height, frame(width, height, x, y, { xlabel: "time (steps x step size)", ylabel: "overlap; residual dotted", inside, clip: "in-overlaps" }));
  legend("legend-overlaps", vectors.map((v) => [VECTORS[v], v]));
}

// ---- the slow manifold ----------------------------------------------------------------------------------------------

// The least p at which the fold leaves room for coexistence: that of toymodel.theory.transience.least_fold.
const leastFold = remembered((targets, weights) => {
  const [a, b, c, d] = targets;
  if (a >= d) return 0;
  const size = (square(b * c) * (square(a) + square(d))) ** (1 / 3), out = new Float64Array(3);
  let least = Infinity;
  for (let i = 0; i <= 4000; i++) {
    const p = 0.01 * 1e4 ** (i / 4000) * size;
    THEORY.crowding([p], Float64Array.from([...targets, ...weights, 1, 0, 0]), out);
    if (out[0] > 0 && out[1] > 0) least = Math.min(least, p / Math.max(out[2], 1e-300) ** 0.25);
  }
  return least;
});

function remembered(compute) {
  let key = null, value = null;
  return (...given) => {
    const now = JSON.stringify(given);
    if (now !== key) [key, value] = [now, compute(...given)];
    return value;
  };
}

// Why there is no picture of the slow manifold; empty where there is one.
function planeMissing(state, problem) {
  if (state.preset !== "coopetition" || problem.loss !== PRESETS.coopetition.loss) return "The slow flow is derived for the loss of the preset coopetition.";
  return problem.parameters.mu_ciwl === 0 ? "" : "The slow flow is derived for mu_ciwl = 0.";
}

function drawPlane(state, run) {
  const note = document.getElementById("plane-note"), { problem, record } = run, missing = planeMissing(state, problem);
  if (missing) {
    put("plane", 600, 60, "");
    legend("legend-plane", []);
    note.textContent = missing;
    return;
  }
  const kernel = kernelOf(problem.model, problem.loss), width = widthOf("plane"), height = 300, [a, b, c, d] = problem.targets;
  const constants = Float64Array.from([...problem.targets, ...problem.weights, ...kernel.parameters.map((name) => problem.parameters[name])]);
  // Two signs can change together without changing the loss, so that p may be taken as positive.
  const product = record.overlap_b.map((value, i) => value * record.overlap_c[i]), made = product.map(Math.abs), ds = record.overlap_d.map((value, i) => value * Math.sign(product[i]));
  const share = record.overlap_a.map((value, i) => (value * product[i]) / (a * b * c));
  const high = Math.max(...ds.filter(Number.isFinite), 0.3 * d), wide = Math.max(...made.filter(Number.isFinite), 0.5 * (a * b * c) ** (2 / 3));
  const x = scaleOf(0.08 * wide, 1.1 * wide, SPACE.left, width - SPACE.right), y = scaleOf(0, 1.1 * high, height - SPACE.bottom, SPACE.top);
  const count = 48, xs = Array.from({ length: count }, (_, i) => x.low + ((x.high - x.low) * i) / (count - 1)), ys = Array.from({ length: count }, (_, i) => y.low + ((y.high - y.low) * (i + 0.02)) / count);
  const along = new Float64Array(count * count), across = new Float64Array(count * count), out = new Float64Array(2);
  ys.forEach((q, j) => xs.forEach((p, i) => {
    THEORY.velocity([p, q], constants, out);
    along[j * count + i] = out[0];
    across[j * count + i] = out[1];
  }));
  let inside = arrows(xs, ys, along, across, x, y, count);
  inside += `<path class="line" d="${zeroLines(xs, ys, across, x, y)}" stroke="${COLOURS.ciwl}" stroke-dasharray="6 4"/>`;
  inside += line(xs, xs.map((p) => (d * b * c) / p), x, y, COLOURS.cost, 'stroke-width="1.2"');
  const learned = run.inside.icl, on = record.loss_icl.map((loss) => loss < learned);
  inside += line(made, ds, x, y, "#8b919b", 'stroke-width="1.3"');
  inside += line(made.map((p, i) => (on[i] ? p : NaN)), ds, x, y, COLOURS.icl, 'stroke-width="3"');
  const last = made.length - 1;
  inside += `<circle cx="${x.at(made[last])}" cy="${y.at(ds[last])}" r="4.5" fill="${COLOURS.loss}"/>`;
  const fold = foldOf(problem);
  if (Number.isFinite(fold)) inside += upright(fold, x, y, INK.shared, "fold", 'stroke-dasharray="2 3"');
  put("plane", width, height, frame(width, height, x, y, { xlabel: "p = bc", ylabel: "d", inside, clip: "in-plane" }));
  legend("legend-plane", [[COLOURS.ciwl, "dd/dt = 0", "dashed"], [COLOURS.cost, "CIWL learned"], ["#8b919b", "run"], [COLOURS.icl, "run, ICL learned"]]);
  const most = Math.max(...share.filter(Number.isFinite));
  const acts = problem.acts.length ? " It leaves out interventions." : "";
  note.textContent = `Arrows: the slow flow on abc = S_icl without residuals, b = c, where it holds.${acts} This run comes to ${Math.round(100 * most)} % of S_icl.${Number.isFinite(fold) ? "" : " No fold here."}`;
}

// The p at which coexistence ends, NaN where there is none.
function foldOf(problem) {
  if (planeMissing({ preset: problem.model }, problem) || !(problem.parameters.mu_icl > 0) || !(problem.parameters.alpha > 0)) return NaN;
  const kernel = kernelOf(problem.model, problem.loss), out = new Float64Array(1);
  THEORY.fold(Float64Array.from([...problem.targets, ...problem.weights, ...kernel.parameters.map((name) => problem.parameters[name])]), out);
  return out[0] > leastFold(problem.targets, problem.weights) ? out[0] : NaN;
}

function arrows(xs, ys, along, across, x, y, count) {
  let d = "";
  for (let j = 2; j < count; j += 4) for (let i = 2; i < count; i += 4) {
    const dx = (along[j * count + i] / (x.high - x.low)) * (x.to - x.from), dy = -(across[j * count + i] / (y.high - y.low)) * (y.from - y.to);
    const size = Math.hypot(dx, dy);
    if (!(size > 0)) continue;
    const [ux, uy] = [dx / size, dy / size], px = x.at(xs[i]), py = y.at(ys[j]), tip = [px + 8 * ux, py + 8 * uy];
    d += `M${(px - 8 * ux).toFixed(1)} ${(py - 8 * uy).toFixed(1)}L${tip.map((p) => p.toFixed(1)).join(" ")}`;
    for (const side of [1, -1]) d += `M${tip.map((p) => p.toFixed(1)).join(" ")}L${(tip[0] - 4 * ux + side * 3 * uy).toFixed(1)} ${(tip[1] - 4 * uy - side * 3 * ux).toFixed(1)}`;
  }
  return `<path d="${d}" stroke="#a7acb4" fill="none"/>`;
}

// What happened, in one line.
function summaryOf(run) {
  const parts = Object.entries(run.measures).filter(([, m]) => typeof m === "object").map(([name, m]) => {
    if (!(m.emergence === m.emergence)) return `${nameOf(name)} does not emerge`;
    return `${nameOf(name)} emerges at ${numberText(m.emergence)} and ${m.lasts ? "is learned at the end" : `ends at ${numberText(m.end)}`}`;
  });
  return `${parts.join("; ")}. ${run.measures.phase ? `Phase: ${run.measures.phase}.` : `Learned at the end: ${run.measures.winner}.`}`;
}
