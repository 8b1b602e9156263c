// Downloads: a plot as SVG or PNG, its numbers as CSV.

function wireSave(root) {
  for (const place of root.querySelectorAll(".save")) {
    place.innerHTML = ["SVG", "PNG", "CSV"].map((kind) => `<button type="button" data-kind="${kind}" aria-label="Save ${place.dataset.of} as ${kind}">${kind}</button>`).join("");
    for (const button of place.querySelectorAll("button")) button.addEventListener("click", () => save(place.dataset.of, button.dataset.kind));
  }
}

function download(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function save(id, kind) {
  if (kind === "CSV") download(`${id}.csv`, id === "diagram" ? csvOfDiagram() : csvOfRun(RUN), "text/csv");
  else if (kind === "SVG") download(`${id}.svg`, svgText(id), "image/svg+xml");
  else savePng(id);
}

// The plot as a file of its own, with the rules of style that it needs and the state that it shows.
function svgText(id) {
  const copy = document.getElementById(id).cloneNode(true), { width, height } = document.getElementById(id).viewBox.baseVal;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  for (const [name, value] of [["width", width], ["height", height]]) copy.setAttribute(name, value);
  const style = "text{font:12px sans-serif;fill:#1b1e23}.grid{stroke:#e7e9ed}.axis{stroke:#1b1e23;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round}";
  copy.insertAdjacentHTML("afterbegin", `<title>${escaped(hashOf(STATE) || STATE.preset)}</title><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>`);
  return new XMLSerializer().serializeToString(copy);
}

function savePng(id, scale = 2) {
  const picture = new Image(), { width, height } = document.getElementById(id).viewBox.baseVal;
  picture.onload = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width * scale, height * scale];
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => download(`${id}.png`, blob, "image/png"));
  };
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(id))}`;
}

function csvOfRun(run) {
  const names = Object.keys(run.record), rows = run.record.time.map((_, i) => names.map((name) => run.record[name][i]).join(","));
  return `${[names.join(","), ...rows].join("\n")}\n`;
}

function csvOfDiagram() {
  const { view } = STATE, xs = axisValues(view, "x"), ys = axisValues(view, "y"), rows = [`${view.x},${view.y},phase,emergence_icl,lifetime_icl,icl_at_the_end`];
  ys.forEach((y, j) => xs.forEach((x, i) => {
    const cell = DIAGRAM.cells.get(j * view.size + i);
    if (cell) rows.push([x, y, cell.phase, cell.emergence, cell.lifetime, cell.lasts].join(","));
  }));
  return `${rows.join("\n")}\n`;
}
