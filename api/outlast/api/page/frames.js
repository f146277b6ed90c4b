// One update of the page for all that has come since the last one, at most once a frame; less often when updates are
// slow, so that most of the time stays free for the reader's scrolling and typing.

const SHARE = 3; // an update that took 10 ms is followed by 30 ms without one

const waiting = new Set();
let scheduled = false;
let notBefore = 0;

export function update(render) {
  waiting.add(render);
  if (scheduled) return;
  scheduled = true;
  const delay = notBefore - performance.now();
  if (delay > 8) setTimeout(() => requestAnimationFrame(run), delay);
  else requestAnimationFrame(run);
}

function run() {
  scheduled = false;
  const began = performance.now();
  const renders = [...waiting];
  waiting.clear();
  for (const render of renders) render();
  notBefore = performance.now() + SHARE * (performance.now() - began);
}
