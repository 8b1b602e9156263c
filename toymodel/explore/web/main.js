// The page: one state, what it shows, and how it changes.

const DRAWN = {}, KERNELS_TYPED = {}, HISTORY = [];
let STATE = null, RUN = null, TIME = null, PREDICTED = null, LAST = { group: "", at: 0 }, BUILT = "";

const problemFor = (state) => problemOf(state, PRESETS, DRAWN);

function complain(message) {
  const place = document.getElementById("problem");
  place.textContent = message;
  place.hidden = !message;
}

// Changes the state by a function of it. Changes of one group (a slider that is dragged) are undone together.
function change(make, group = "") {
  const before = structuredClone(STATE), now = performance.now();
  make(STATE);
  fit(STATE);
  if (!group || group !== LAST.group || now - LAST.at > 1500) HISTORY.push(before);
  if (HISTORY.length > 200) HISTORY.shift();
  LAST = { group, at: now };
  complain("");
  render();
}

function show(state) {
  STATE = state;
  render();
}

let queued = false;
function render() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; renderNow(); });
}

function renderNow() {
  const key = JSON.stringify([STATE.preset, STATE.loss, STATE.acts.map(({ kind, term, loss }) => [kind, term, loss]), Object.keys(PRESETS[STATE.preset].typed)]);
  if (key !== BUILT) { BUILT = key; buildControls(); buildDiagramTools(); }
  for (const [id, value] of [["preset", STATE.preset], ["loss", STATE.loss], ["start", STATE.start], ["integrator", STATE.integrator]]) document.getElementById(id).value = value;
  for (const field of document.querySelectorAll("[data-view]")) if (document.activeElement !== field) field.value = STATE.view[field.dataset.view];
  for (const update of shown) update();
  try {
    RUN = runOf(STATE, PRESETS, DRAWN);
  } catch (error) {
    complain(error.message);
    return;
  }
  document.getElementById("own").hidden = !RUN.problem.own;
  document.getElementById("summary").textContent = RUN.finite ? summaryOf(RUN) : "The run diverges: a smaller step size helps.";
  drawRun();
  document.getElementById("python").textContent = pythonOf(STATE, RUN.problem);
  document.getElementById("toml").textContent = tomlOf(STATE, RUN.problem);
  keepAddress();
  refreshDiagram();
  if (SERVED) askLater();
}

function drawRun() {
  const told = PREDICTED?.key === hashOf(STATE) ? PREDICTED : {}, emergence = emergenceOf(RUN.problem);
  RUN.theory = { emergence, end: emergence.icl + told.lifetime, winner: told.winner };
  document.getElementById("theory").textContent = theoryText(RUN.theory);
  TIME = drawLosses(STATE, RUN, RUN.theory);
  drawTimeline(STATE, TIME);
  drawOverlaps(STATE, RUN);
  drawPlane(STATE, RUN);
}

let addressTimer = 0;
function keepAddress() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", `#${hashOf(STATE)}`), 150);
}

// ---- the server, where there is one ---------------------------------------------------------------------------------

async function ask(what, question) {
  try {
    const answer = await fetch(what, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) });
    const found = await answer.json();
    if (found.error) { complain(found.error); return null; }
    return found;
  } catch (error) {
    complain(`no answer from toymodel explore: ${error.message}`);
    return null;
  }
}

let askTimer = 0;
function askLater() {
  clearTimeout(askTimer);
  const key = hashOf(STATE);
  askTimer = setTimeout(async () => {
    const state = structuredClone(STATE), dims = dimsOf(state, PRESETS[state.preset]);
    if (RUN.problem.own && state.start !== "aligned") {
      const found = await ask("start", { preset: state.preset, start: state.start, seed: state.seed, dims });
      if (found) { DRAWN[drawKey(state, dims)] = found.rows; render(); return; }
    }
    if (PREDICTED?.key === key) return;
    const found = await ask("theory", { sweep: sweepOf(state, RUN.problem) });
    if (!found || key !== hashOf(STATE)) return;
    PREDICTED = { key, lifetime: found.lifetime ?? NaN, winner: found.winner };
    drawRun();
  }, 300);
}

function theoryText(found) {
  const parts = Object.entries(found.emergence).filter(([, time]) => Number.isFinite(time)).map(([name, time]) => `${nameOf(name)} emerges at ${numberText(time)}`);
  if (Number.isFinite(found.end)) parts.push(`ICL ends at ${numberText(found.end)}`);
  if (found.winner) parts.push(`learned as t grows: ${found.winner.split("+").map(nameOf).join(" and ")}`);
  return parts.length ? `Theory: ${parts.join(", ")}.` : "Theory: no prediction here.";
}

async function useLoss(text) {
  const found = await ask("loss", { preset: STATE.preset, loss: text });
  if (!found) return;
  learnLoss(STATE.preset, found);
  change((state) => { state.loss = found.loss; });
}

function learnLoss(name, found) {
  const key = `${name}: ${found.loss}`;
  KERNELS_TYPED[key] = found.kernel;
  KERNELS[key] = kernelFrom(found.kernel);
  PRESETS[name].typed[found.loss] = { parameters: found.parameters };
}

// Losses that an address names and the page does not have.
async function learnLosses(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, "")), name = given.get("preset") ?? "coopetition";
  const acts = actsOf(given.get("interventions") ?? ""), texts = [given.get("loss"), ...acts.map((act) => act.loss)].filter(Boolean);
  for (const text of texts) {
    if (!PRESETS[name] || KERNELS[`${name}: ${text}`]) continue;
    if (!SERVED) throw new Error(`the loss "${text}" needs the page of "toymodel explore": a page on disk has no Python`);
    const found = await ask("loss", { preset: name, loss: text });
    if (found) learnLoss(name, { ...found, loss: text });
  }
}

// ---- begin ----------------------------------------------------------------------------------------------------------

function wireViews(root) {
  for (const field of root.querySelectorAll("[data-view]")) field.addEventListener("change", () => {
    const name = field.dataset.view, value = typeof STATE.view[name] === "number" ? Number(field.value) : field.value;
    const after = { ...STATE.view, [name]: value };
    if (/low|high/.test(name) && !(after.xlow > 0 && after.ylow > 0 && after.xhigh > after.xlow && after.yhigh > after.ylow)) { complain("the ends of an axis must be > 0, the first below the second"); return; }
    change((state) => { state.view = after; });
  });
}

function wire() {
  const on = (id, event, act) => document.getElementById(id).addEventListener(event, act);
  document.getElementById("preset").innerHTML = Object.keys(PRESETS).map((name) => `<option value="${name}">${name.replace("_", " ")}</option>`).join("");
  on("preset", "change", ({ target }) => change((state) => Object.assign(state, usualState(target.value))));
  on("loss", "change", ({ target }) => change((state) => { state.loss = target.value; }));
  for (const name of ["start", "integrator"]) on(name, "change", ({ target }) => change((state) => { state[name] = target.value; }));
  on("add-act", "change", ({ target }) => { const kind = target.value; target.value = ""; if (kind) change((state) => state.acts.push(newAct(kind, state))); });
  on("undo", "click", () => { if (HISTORY.length) { LAST = { group: "", at: 0 }; show(HISTORY.pop()); } });
  on("reset", "click", () => change((state) => Object.assign(state, usualState(state.preset))));
  on("use-loss", "click", () => useLoss(document.getElementById("loss-text").value));
  on("loss-text", "keydown", (event) => { if (event.key === "Enter") useLoss(event.target.value); });
  document.getElementById("typed").hidden = !SERVED;
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  wireViews(document.getElementById("views"));
  wireSave(document.getElementById("views"));
  wireTimeline();
  wireDiagram();
  window.addEventListener("hashchange", () => begin());
  let sizing = 0;
  new ResizeObserver(() => {
    WIDTHS.clear();
    clearTimeout(sizing);
    sizing = setTimeout(() => { if (RUN) { drawRun(); drawDiagram(); } }, 60);
  }).observe(document.querySelector("main"));
}

async function begin() {
  if (STATE && location.hash.slice(1) === hashOf(STATE)) return;
  try {
    await learnLosses(location.hash);
    show(stateOf(location.hash));
  } catch (error) {
    if (!STATE) show(usualState("coopetition"));
    requestAnimationFrame(() => complain(error.message));
  }
}

document.getElementById("version").textContent = VERSION;
wire();
begin();
