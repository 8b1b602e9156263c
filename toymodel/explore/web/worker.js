// The part of a diagram that one worker thread computes: row after row, in the order in which it is asked.

function diagramRow(job, row) {
  return row.columns.map((column) => {
    const values = { [job.x.name]: job.x.values[column], [job.y.name]: job.y.values[row.index] };
    const measures = measuredAt(job.state, values, job.presets, job.drawn);
    const icl = measures.icl ?? {}, seen = (m) => (m?.emergence === m?.emergence ? m.emergence : NaN);
    return { phase: measures.phase ?? measures.winner, winner: measures.winner, emergence: seen(icl), lifetime: icl.lifetime ?? NaN, lasts: icl.lasts ?? false };
  });
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  let job = null;
  self.onmessage = ({ data }) => {
    if (data.job) {
      job = data.job;
      for (const [key, text] of Object.entries(job.kernels)) KERNELS[key] = kernelFrom(text);
      return;
    }
    self.postMessage({ id: job.id, index: data.row.index, columns: data.row.columns, cells: diagramRow(job, data.row) });
  };
}
