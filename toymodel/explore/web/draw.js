// Axes and lines as text of SVG.

const SPACE = { left: 58, right: 28, top: 12, bottom: 42 };

// A scale: numbers to pixels and back. `low` and `high` are ends of the axis, `from` and `to` their pixels.
function scaleOf(low, high, from, to, log = false) {
  const inner = log ? Math.log10 : (x) => x, a = inner(low), b = inner(high) - a || 1;
  return {
    low, high, from, to, log,
    at: (x) => from + ((inner(x) - a) / b) * (to - from),
    back: (pixel) => { const z = a + ((pixel - from) / (to - from)) * b; return log ? 10 ** z : z; },
  };
}

// Round numbers on an axis, about `count` of them.
function ticksOf({ low, high, log }, count = 6) {
  if (log) {
    const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
    if (last - first >= 1) {
      const every = Math.ceil((last - first + 1) / count);
      return Array.from({ length: Math.floor((last - first) / every) + 1 }, (_, i) => 10 ** (first + i * every));
    }
  }
  const rough = (high - low) / count, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= rough * 0.999) ?? 10 * unit;
  const found = [];
  for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-6; x += step) found.push(Math.abs(x) < step * 1e-9 ? 0 : x);
  return found;
}

function numberText(x) {
  if (x === 0) return "0";
  if (x !== x) return "–";
  const size = Math.abs(x);
  if (size >= 1e6 || size < 1e-3) return x.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return size >= 1000 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(4)));
}

function escaped(text) { return String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]); }

// Axes with ticks and labels around `inside`, what is drawn in the coordinates of x and y.
function frame(width, height, x, y, { xlabel, ylabel, inside, outside = "", clip }) {
  const ticks = (scale) => ticksOf(scale, Math.max(3, Math.round(Math.abs(scale.to - scale.from) / 70)));
  const marks = [
    ...ticks(x).map((t) => `<line class="grid" x1="${x.at(t)}" x2="${x.at(t)}" y1="${y.to}" y2="${y.from}"/><text x="${x.at(t)}" y="${y.from + 15}" text-anchor="middle">${numberText(t)}</text>`),
    ...ticks(y).map((t) => `<line class="grid" x1="${x.from}" x2="${x.to}" y1="${y.at(t)}" y2="${y.at(t)}"/><text x="${x.from - 6}" y="${y.at(t) + 4}" text-anchor="end">${numberText(t)}</text>`),
  ];
  const middle = (y.from + y.to) / 2;
  return `<defs><clipPath id="${clip}"><rect x="${x.from}" y="${y.to}" width="${x.to - x.from}" height="${y.from - y.to}"/></clipPath></defs>
${marks.join("")}<g clip-path="url(#${clip})">${inside}</g>
<path class="axis" d="M${x.from} ${y.to}V${y.from}H${x.to}"/>
<text class="label" x="${(x.from + x.to) / 2}" y="${height - 6}" text-anchor="middle">${escaped(xlabel)}</text>
<text class="label" transform="translate(13 ${middle}) rotate(-90)" text-anchor="middle">${escaped(ylabel)}</text>${outside}`;
}

function line(xs, ys, x, y, colour, style = "") {
  let d = "", pen = "M", last = null;
  for (let i = 0; i < xs.length; i++) {
    const px = x.at(xs[i]), py = y.at(ys[i]);
    if (!Number.isFinite(px) || !Number.isFinite(py)) { pen = "M"; last = null; continue; }
    const point = `${px.toFixed(1)} ${Math.min(Math.max(py, -1e4), 1e4).toFixed(1)}`;
    if (point === last) continue;
    d += pen + point;
    pen = "L";
    last = point;
  }
  return `<path class="line" d="${d}" stroke="${colour}" ${style}/>`;
}

function upright(time, x, y, colour, label, style = "", row = 0) {
  if (!(time >= x.low && time <= x.high)) return "";
  const left = x.at(time) > (x.from + x.to) / 2;
  return `<line x1="${x.at(time)}" x2="${x.at(time)}" y1="${y.to}" y2="${y.from}" stroke="${colour}" stroke-width="1.2" ${style}/>
<text x="${x.at(time) + (left ? -4 : 4)}" y="${y.to + 12 + 13 * row}" fill="${colour}" text-anchor="${left ? "end" : "start"}">${escaped(label)}</text>`;
}

// The lines on which the values of a grid (row after row) are zero, as one path.
function zeroLines(xs, ys, values, x, y) {
  let d = "";
  const at = (i, j) => values[j * xs.length + i], part = (a, b) => a / (a - b);
  for (let j = 0; j + 1 < ys.length; j++) for (let i = 0; i + 1 < xs.length; i++) {
    const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]], points = [];
    for (let k = 0; k < 4; k++) {
      const [a, b] = [corners[k], corners[(k + 1) % 4]], [fa, fb] = [at(...a), at(...b)];
      if (!(fa < 0 !== fb < 0) || !Number.isFinite(fa + fb)) continue;
      const s = part(fa, fb);
      points.push([x.at(xs[a[0]] + s * (xs[b[0]] - xs[a[0]])), y.at(ys[a[1]] + s * (ys[b[1]] - ys[a[1]]))]);
    }
    for (let k = 0; k + 1 < points.length; k += 2) d += `M${points[k].map((p) => p.toFixed(1)).join(" ")}L${points[k + 1].map((p) => p.toFixed(1)).join(" ")}`;
  }
  return d;
}
