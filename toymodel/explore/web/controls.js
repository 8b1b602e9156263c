// Sliders and number fields. They are built once for a preset and loss, and follow the state afterwards.

const POSITIONS = 1000; // of a slider
const shown = []; // {update}: what is refreshed whenever the state has changed

// Position of a slider for a value, and back. On a logarithmic slider that may be 0, its left end is 0.
function sliderOf({ low, high, log, zero, whole }) {
  const scale = scaleOf(low, high, zero ? 1 : 0, POSITIONS, log);
  return {
    at: (value) => (zero && value < low ? 0 : Math.round(scale.at(Math.min(Math.max(value, low), high)))),
    back: (position) => {
      if (zero && position < 1) return 0;
      const value = scale.back(position);
      return whole ? Math.round(value) : Number(value.toPrecision(4));
    },
  };
}

// One value: its name, a slider and a number field. get: state -> number; set: (state, number or null) -> nothing.
function valueRow(spec, get, set) {
  const id = `v-${spec.name}`, row = document.createElement("div"), slider = sliderOf(spec);
  row.className = "row value";
  row.innerHTML = `<label for="${id}">${escaped(spec.label)}</label>
<input type="range" id="${id}-slider" min="0" max="${POSITIONS}" aria-label="${escaped(spec.label)}, slider">
<input type="number" id="${id}" step="any" min="${spec.least ?? 0}" ${spec.most ? `max="${spec.most}"` : ""} inputmode="decimal">`;
  wireValue(row.querySelector("[type=range]"), row.querySelector("[type=number]"), spec, slider, get, set);
  return row;
}

function wireValue(range, field, spec, slider, get, set) {
  range.addEventListener("input", () => {
    const position = Number(range.value), now = get(STATE), way = Math.sign(position - slider.at(now));
    let value = slider.back(position);
    if (spec.whole && value === now) value = Math.min(Math.max(now + way, spec.low), spec.high); // a key moves by one at least
    change((state) => set(state, value), `slider ${spec.name}`);
  });
  field.addEventListener("change", () => {
    const value = field.value === "" ? null : Number(field.value), wrong = value !== null && (!Number.isFinite(value) || value < (spec.least ?? 0) || value > (spec.most ?? Infinity) || (spec.whole && !Number.isInteger(value)) || (spec.positive && value === 0));
    if (wrong) {
      complain(`${spec.label} must be ${spec.whole ? "a whole number " : ""}${spec.positive ? "> 0" : `>= ${spec.least ?? 0}`}${spec.most ? ` and at most ${spec.most}` : ""}, got ${field.value}`);
      return;
    }
    change((state) => set(state, value));
  });
  shown.push(() => {
    const value = get(STATE);
    range.value = slider.at(value);
    range.setAttribute("aria-valuetext", numberText(value));
    if (document.activeElement !== field) field.value = Number(value.toPrecision(5));
  });
}

// A value of `state.values` with what it is otherwise.
function named(spec, otherwise) {
  const set = (state, value) => {
    if (value === null || (value === otherwise(state) && !(spec.name in PRESETS[state.preset].usual.values))) delete state.values[spec.name];
    else state.values[spec.name] = value;
  };
  return [spec, (state) => state.values[spec.name] ?? otherwise(state), set];
}

function buildControls() {
  shown.length = 0;
  const preset = PRESETS[STATE.preset], fill = (id, ...rows) => document.getElementById(id).replaceChildren(...rows);
  buildLosses(preset);
  const parameters = parametersOf(STATE);
  fill("parameters", ...Object.keys(parameters).map((name) => valueRow(...named(
    { name, label: name, low: 1e-4, high: 10, log: true, zero: true }, () => parameters[name]))));
  fill("of-start",
    valueRow({ name: "seed", label: "Seed", low: 0, high: 11, whole: true }, (s) => s.seed, (s, value) => { s.seed = value ?? 7; }),
    valueRow(...named({ name: "scale", label: "Scale", low: 0.01, high: 10, log: true }, () => 1)));
  fill("of-run",
    valueRow({ name: "steps", label: "Steps", low: 100, high: 1e5, log: true, whole: true, positive: true, most: 1e7 }, (s) => s.steps, (s, value) => { s.steps = value ?? 16000; }),
    valueRow(...named({ name: "lr", label: "Step size", low: 0.01, high: 4, log: true, positive: true, most: 100 }, () => 1)));
  fill("of-vectors", vectorTable(preset));
  buildActs();
}

function buildLosses(preset) {
  const choices = [...preset.losses, ...Object.keys(preset.typed)], select = document.getElementById("loss");
  select.innerHTML = choices.map((text) => `<option value="${escaped(text === preset.loss ? "" : text)}">${escaped(text)}</option>`).join("");
  const chosen = STATE.loss || preset.loss;
  document.getElementById("terms").innerHTML = `<b>L</b> = ${escaped(chosen)}<br>${Object.entries(preset.terms).map(([t, letters]) => preset.mechanisms.includes(t)
    ? `<b class="${t}">${escaped(t)}</b> = ½ mean (${[...letters].map((x) => `${x}*`).join("⊗")} − ${[...letters].join("⊗")})²`
    : `<b>${escaped(t)}</b> = ½ mean (${[...letters].join("⊗")})²`).join("<br>")}`;
}

function vectorTable(preset) {
  const table = document.createElement("table"), of = (state, key, i) => problemFor(state)[key][i];
  table.className = "table";
  table.innerHTML = `<thead><tr><th scope="col">Vector</th><th scope="col">entries</th><th scope="col">target norm</th><th scope="col">scale of start</th></tr></thead><tbody></tbody>`;
  preset.vectors.forEach((x, i) => {
    const row = document.createElement("tr");
    row.innerHTML = `<th scope="row">${x}</th>`;
    for (const [spec, get, set] of [
      named({ name: `dim_${x}`, label: `entries of ${x}`, low: 1, high: 640, log: true, whole: true, positive: true, most: 100000 }, () => preset.dims[i]),
      [{ name: `target_norm_${x}`, label: `target norm of ${x}`, low: 0.3, high: 60, log: true, positive: true }, (s) => of(s, "targets", i), (s, value) => { if (value === null) delete s.values[`target_norm_${x}`]; else s.values[`target_norm_${x}`] = value; }],
      named({ name: `scale_${x}`, label: `scale of ${x}`, low: 0.001, high: 10, log: true }, () => 1),
    ]) {
      const cell = document.createElement("td"), slider = sliderOf(spec);
      cell.innerHTML = `<input type="number" id="v-${spec.name}" step="any" min="0" aria-label="${spec.label}"><input type="range" id="v-${spec.name}-slider" min="0" max="${POSITIONS}" aria-label="${spec.label}, slider">`;
      wireValue(cell.querySelector("[type=range]"), cell.querySelector("[type=number]"), spec, slider, get, set);
      row.append(cell);
    }
    table.querySelector("tbody").append(row);
  });
  return table;
}

// ---- interventions --------------------------------------------------------------------------------------------------

function buildActs() {
  const preset = PRESETS[STATE.preset], found = STATE.acts.map((act, k) => actBox(preset, act, k));
  document.getElementById("acts").replaceChildren(...found);
}

function actBox(preset, act, k) {
  const box = document.createElement("div"), terms = Object.keys(preset.terms), id = (name) => `act-${k}-${name}`;
  const field = (name, label, value, hint = "") => `<label for="${id(name)}">${label}<input id="${id(name)}" type="${["vectors"].includes(name) ? "text" : "number"}" step="any" value="${value ?? ""}" placeholder="${hint}"></label>`;
  const choice = (name, label, values, value) => `<label for="${id(name)}">${label}<select id="${id(name)}">${values.map(([v, text]) => `<option value="${escaped(v)}" ${v === (value ?? "") ? "selected" : ""}>${escaped(text)}</option>`).join("")}</select></label>`;
  const parts = [];
  if (act.kind === "Block") parts.push(choice("term", "term", terms.map((t) => [t, t]), act.term));
  if (act.kind !== "Change") parts.push(field("vectors", "vectors", act.vectors, act.kind === "Block" ? "all of its own" : preset.vectors.join("")));
  if (act.kind === "Clamp") parts.push(field("overlap", "overlap", act.overlap, "target"), field("residual", "residual", act.residual, "0"));
  if (act.kind === "Change") {
    parts.push(choice("loss", "loss", [["", "as it is"], ...[...preset.losses, ...Object.keys(preset.typed)].map((t) => [t, t])], act.loss));
    for (const name of kernelOf(STATE.preset, act.loss || STATE.loss || preset.loss).parameters) parts.push(field(`p-${name}`, name, act.parameters[name], "as it is"));
  }
  parts.push(field("at", "from", act.at), field("until", "until", act.until, "end"));
  box.className = "act";
  box.innerHTML = `<div class="head"><span>${act.kind}</span><button type="button" aria-label="Remove ${act.kind}">Remove</button></div><div class="fields">${parts.join("")}</div>`;
  box.querySelector("button").addEventListener("click", () => change((state) => state.acts.splice(k, 1)));
  for (const input of box.querySelectorAll("input, select")) input.addEventListener("change", () => setAct(preset, k, input.id.slice(id("").length), input.value, input));
  shown.push(() => {
    for (const name of ["at", "until"]) {
      const input = box.querySelector(`#${id(name)}`);
      if (document.activeElement !== input) input.value = STATE.acts[k]?.[name] ?? "";
    }
  });
  return box;
}

function setAct(preset, k, name, text, input) {
  const wrong = actProblem(preset, STATE.acts[k], name, text);
  if (wrong) { complain(wrong); input.setAttribute("aria-invalid", "true"); return; }
  change((state) => {
    const act = state.acts[k], number = text === "" ? undefined : Number(text);
    if (name.startsWith("p-")) { if (number === undefined) delete act.parameters[name.slice(2)]; else act.parameters[name.slice(2)] = number; }
    else if (["vectors", "term"].includes(name)) act[name] = text;
    else if (name === "loss") [act.loss, act.parameters] = [text || undefined, {}];
    else act[name] = name === "at" ? number ?? 0 : number;
  });
}

function actProblem(preset, act, name, text) {
  if (name === "vectors") {
    const allowed = act.kind === "Block" ? preset.terms[act.term] : preset.vectors.join("");
    return (text || act.kind === "Block") && [...text].every((x) => allowed.includes(x)) ? "" : `${act.kind}: the vectors are ${[...allowed].join(", ")}, got ${text || "none"}`;
  }
  if (["term", "loss"].includes(name) || text === "") return "";
  if (!Number.isFinite(Number(text)) || (name !== "overlap" && Number(text) < 0)) return `${act.kind}: ${name.replace("p-", "")} must be >= 0, got ${text}`;
  if (name === "until" && !(Number(text) > act.at)) return `${act.kind}: until must be later than ${act.at}, got ${text}`;
  return name === "at" && act.until !== undefined && !(Number(text) < act.until) ? `${act.kind}: from must be before ${act.until}, got ${text}` : "";
}

function newAct(kind, state) {
  const preset = PRESETS[state.preset], end = endOf(state), at = Math.round(end / 8), last = preset.mechanisms.at(-1);
  const own = [...preset.terms[last]].find((x) => !preset.mechanisms.slice(0, -1).some((m) => preset.terms[m].includes(x))) ?? preset.vectors[0];
  if (kind === "Clamp") return { kind, vectors: own, overlap: 0, residual: 0, at: 0, parameters: {} };
  if (kind === "Freeze") return { kind, vectors: own, at, parameters: {} };
  if (kind === "Block") return { kind, term: last, vectors: "", at: 0, until: Math.round(end / 2), parameters: {} };
  return { kind, vectors: "", at: 0, until: at, loss: last, parameters: {} };
}
