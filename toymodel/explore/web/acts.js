// Interventions as text, in the words of toymodel/simulation/interventions.py, and back.

const KINDS = { Clamp: ["vectors"], Freeze: ["vectors"], Block: ["term", "vectors"], Change: [] };

// 'Clamp("d", overlap=0, at=500); Freeze("bc")' as a list of interventions; an Error for what the page cannot do.
function actsOf(text) {
  return split(text, ";").filter((part) => part.trim()).map(actOf);
}

function actOf(text) {
  const found = /^\s*(\w+)\s*\((.*)\)\s*$/s.exec(text);
  if (!found || !KINDS[found[1]]) throw new Error(`an intervention must be one of ${Object.keys(KINDS).join(", ")}, got ${text.trim()}`);
  const act = { kind: found[1], vectors: "", at: 0, parameters: {} }, positional = [...KINDS[act.kind]];
  for (const part of split(found[2], ",").map((p) => p.trim()).filter(Boolean)) {
    const named = /^(\w+)\s*=\s*(.*)$/s.exec(part);
    const name = named ? named[1] : positional.shift(), value = valueIn(named ? named[2] : part, text);
    if (!name) throw new Error(`${act.kind} takes fewer arguments: ${text.trim()}`);
    if (["at", "until", "overlap", "residual", "vectors", "term", "loss"].includes(name)) act[name] = value;
    else if (act.kind === "Change") act.parameters[name] = value;
    else throw new Error(`the page has no ${act.kind}(${name}=...)`);
  }
  return act;
}

// An Error for an intervention that does not fit the model, as Python raises it.
function checkActs(acts, model, loss) {
  const { vectors, letters } = kernelOf(model, loss);
  for (const act of acts) {
    const allowed = act.kind === "Block" ? letters[act.term] : vectors.join("");
    if (allowed === undefined) throw new Error(`Block: unknown term ${act.term}; the model has ${Object.keys(letters).join(", ")}`);
    const wrong = [...act.vectors].find((x) => !allowed.includes(x));
    if (wrong || (!act.vectors && ["Clamp", "Freeze"].includes(act.kind))) throw new Error(`${act.kind}: the vectors are ${[...allowed].join(", ")}, got ${act.vectors || "none"}`);
    const known = act.kind === "Change" ? kernelOf(model, act.loss || loss).parameters : [];
    const unknown = Object.keys(act.parameters).find((name) => !known.includes(name));
    if (unknown) throw new Error(`Change: unknown parameter ${unknown}; the loss has ${known.join(", ") || "none"}`);
    if (!(act.at >= 0) || !(act.until === undefined || act.until > act.at)) throw new Error(`${act.kind}: until must be later than ${act.at}, got ${act.until}`);
  }
  return acts;
}

function valueIn(text, whole) {
  const quoted = /^(["'])(.*)\1$/s.exec(text.trim());
  if (quoted) return quoted[2];
  const number = Number(text);
  if (text.trim() === "" || !Number.isFinite(number)) throw new Error(`${text.trim()} is no number or text: ${whole.trim()}`);
  return number;
}

// Parts of a text between separators that stand in no quotes.
function split(text, separator) {
  const parts = [""];
  let quote = "";
  for (const c of text) {
    if (c === quote) quote = "";
    else if (!quote && (c === '"' || c === "'")) quote = c;
    if (c === separator && !quote) parts.push("");
    else parts[parts.length - 1] += c;
  }
  return parts;
}

function textOf(act) {
  const parts = [];
  if (act.kind === "Block") parts.push(JSON.stringify(act.term));
  if (act.vectors) parts.push(JSON.stringify(act.vectors));
  if (act.kind === "Clamp") for (const name of ["overlap", "residual"]) if (act[name] !== undefined) parts.push(`${name}=${act[name]}`);
  if (act.at) parts.push(`at=${act.at}`);
  if (act.until !== undefined) parts.push(`until=${act.until}`);
  if (act.kind === "Change") {
    if (act.loss) parts.push(`loss=${JSON.stringify(act.loss)}`);
    for (const [name, value] of Object.entries(act.parameters)) parts.push(`${name}=${value}`);
  }
  return `${act.kind}(${parts.join(", ")})`;
}

function actsText(acts) { return acts.map(textOf).join("; "); }
