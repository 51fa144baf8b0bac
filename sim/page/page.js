const plot = document.querySelector('.plot'), svg = plot.querySelector('svg');
const axis = plot.querySelector('.axis'), word = document.querySelector('.word');
const { total, focus, height } = plot.dataset;
let a = +plot.dataset.from, w = +plot.dataset.width;

function show(from, width) {
  w = Math.min(Math.max(width, 0.001), total * 1.02);
  a = Math.min(Math.max(from, -0.01 * total), total * 1.01 - w);
  svg.setAttribute('viewBox', `${a * 1000} 0 ${w * 1000} ${height}`);
  plot.style.setProperty('--a', a);
  plot.style.setProperty('--w', w);
  const step = [1, 2, 5, 10].map(x => x * 10 ** Math.floor(Math.log10(w / 8))).find(x => w / x <= 10);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  axis.replaceChildren(...Array.from({ length: 12 }, (_, i) => (Math.ceil(a / step) + i) * step)
    .filter(t => t < a + w && t >= 0)
    .map(t => Object.assign(document.createElement('span'),
      { className: 'tick', textContent: t.toFixed(digits) + ' s', style: `--t:${t}` })));
  for (const label of plot.querySelectorAll('span.fault'))
    label.hidden = +label.style.getPropertyValue('--e') < a;
  for (const label of plot.querySelectorAll('span.wrong'))
    label.classList.toggle('flip', (focus - a) / w > 0.5);
}

const at = event => a + w * (event.clientX - plot.getBoundingClientRect().left) / plot.clientWidth;
const zoom = (t, by) => show(t - (t - a) * by, w * by);

for (const button of document.querySelectorAll('[data-span]'))
  button.onclick = () => {
    const span = +button.dataset.span;
    span ? show(focus - span, span * 1.05) : show(0, +total);
  };
for (const button of document.querySelectorAll('[data-by]'))
  button.onclick = () => zoom(a + w / 2, +button.dataset.by);
for (const box of document.querySelectorAll('[data-hides]'))
  box.onchange = () => svg.classList.toggle('no-' + box.dataset.hides, !box.checked);

plot.addEventListener('wheel', event => {
  if (!event.ctrlKey && !event.shiftKey) return;
  event.preventDefault();
  zoom(at(event), (event.deltaY || event.deltaX) > 0 ? 1.25 : 0.8);
}, { passive: false });
plot.ondblclick = event => zoom(at(event), 0.5);
let held = null;
plot.onpointerdown = event => { held = at(event); };
window.addEventListener('pointerup', () => { held = null; });
plot.onpointermove = event => {
  if (held !== null) return show(a + held - at(event), w);
  const x = at(event) * 1000, y = event.clientY - svg.getBoundingClientRect().top;
  const px = plot.clientWidth / (w * 1000);
  let near = null, least = 9;
  for (const path of svg.querySelectorAll('.m, .view, .mark, .wrong')) {
    const [x1, y1, x2, y2] = path.ends ??= ends(path);
    const along = Math.min(1, Math.max(0, y2 === y1 ? 0 : (y - y1) / (y2 - y1)));
    const far = Math.hypot((x - x1 - along * (x2 - x1)) * px, y - y1 - along * (y2 - y1));
    if (far < least && getComputedStyle(path).display !== 'none') { least = far; near = path; }
  }
  const under = near ?? (event.target.closest('rect') || null);
  svg.querySelector('.near')?.classList.remove('near');
  near?.classList.add('near');
  word.textContent = under?.querySelector('title')?.textContent ?? '';
};

function ends(path) {
  const [x1, y1, x2, y2] = path.getAttribute('d').match(/-?[\d.]+/g).map(Number);
  return y2 === undefined ? [x1, y1, x1, x2] : [x1, y1, x2, y2];
}

show(a, w);
