// Interventions as bars below the axis of time. A bar, or one of its ends, is dragged, or moved by the arrow keys.

const ROW = 26;

function drawTimeline(state, x) {
  const width = widthOf("timeline"), height = Math.max(1, state.acts.length) * ROW + 4, end = endOf(state);
  const place = (time) => Math.min(Math.max(x.at(Math.max(time, x.log ? x.low : 0)), x.from), x.to);
  const bars = state.acts.map((act, k) => {
    const from = place(act.at), to = Math.max(place(Math.min(act.until ?? end, end)), from + 4), top = 3 + k * ROW;
    const text = textOf(act), short = text.replace(/, (at|until)=[^,)]*/g, "").replace(/\((at|until)=[^,)]*,? ?/, "(");
    const fits = to - from > 7 * short.length + 24, late = !fits && from - x.from > x.to - to; // beside a short bar, where there is room
    const says = `${text}, from ${act.at} until ${act.until ?? "the end"}`;
    const grip = (part, px) => `<rect class="end" data-act="${k}" data-part="${part}" tabindex="0" role="slider" aria-label="${escaped(act.kind)}: ${part === "at" ? "from" : "until"}" aria-valuemin="0" aria-valuemax="${end}" aria-valuenow="${part === "at" ? act.at : act.until ?? end}" x="${px - 5}" y="${top}" width="10" height="${ROW - 6}" rx="3" fill="${INK.cost}"/>`;
    return `<rect data-act="${k}" data-part="both" tabindex="0" role="slider" aria-label="${escaped(says)}" aria-valuemin="0" aria-valuemax="${end}" aria-valuenow="${act.at}" x="${from}" y="${top}" width="${to - from}" height="${ROW - 6}" rx="4" fill="${KIND[act.kind]}"/>
<text x="${late ? from - 10 : fits ? from + 9 : to + 10}" y="${top + 14}" text-anchor="${late ? "end" : "start"}" pointer-events="none">${escaped(short)}</text>${grip("at", from)}${grip("until", to)}`;
  });
  const focused = document.activeElement?.dataset, kept = focused?.act !== undefined ? `[data-act="${focused.act}"][data-part="${focused.part}"]` : "";
  const none = `<text x="${x.from}" y="18" fill="#565c66">no intervention; add one under Interventions</text>`;
  put("timeline", width, height, bars.length ? bars.join("") : none);
  if (kept) document.querySelector(`#timeline ${kept}`)?.focus();
}

// Moves an end or the whole of an intervention to a time; keeps it within the run and at least one step long.
function moved(act, part, time, span, end, lr) {
  const near = (t) => Number((Math.round(t / lr) * lr).toPrecision(12)), least = lr;
  const found = { ...act };
  if (part === "at") found.at = near(Math.min(Math.max(time, 0), (act.until ?? end) - least));
  else if (part === "until") found.until = time >= end ? undefined : near(Math.max(time, act.at + least));
  else {
    found.at = near(Math.min(Math.max(time, 0), end - Math.min(span, end)));
    if (act.until !== undefined) found.until = near(found.at + span);
  }
  return found;
}

function wireTimeline() {
  const svg = document.getElementById("timeline");
  let drag = null;
  const timeAt = (event) => {
    const box = svg.getBoundingClientRect();
    return TIME.back(((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
  };
  const lrOf = () => STATE.values.lr ?? 1;
  svg.addEventListener("pointerdown", (event) => {
    const { act, part } = event.target.dataset;
    if (act === undefined) return;
    const given = STATE.acts[act], time = timeAt(event);
    drag = { act: Number(act), part, offset: part === "both" ? time - given.at : 0, span: (given.until ?? endOf(STATE)) - given.at };
    svg.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  svg.addEventListener("pointermove", (event) => {
    if (drag) change((state) => { state.acts[drag.act] = moved(state.acts[drag.act], drag.part, timeAt(event) - drag.offset, drag.span, endOf(state), lrOf()); }, `drag ${drag.act}`);
  });
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { drag = null; });
  svg.addEventListener("keydown", (event) => {
    const { act, part } = event.target.dataset, way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (act === undefined) return;
    if (event.key === "Delete") { change((state) => state.acts.splice(Number(act), 1)); return; }
    if (!way) return;
    event.preventDefault();
    change((state) => {
      const given = state.acts[act], end = endOf(state), step = Math.max(lrOf(), end / (event.shiftKey ? 20 : 200));
      const from = part === "until" ? given.until ?? end : given.at;
      state.acts[act] = moved(given, part, from + way * step, (given.until ?? end) - given.at, end, lrOf());
    }, `keys ${act}`);
  });
}
