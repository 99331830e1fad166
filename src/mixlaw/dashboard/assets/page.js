/* What the page does by itself: readouts, look, address and picture. */
(() => {
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const mode = () => (dark.matches ? 'dark' : 'light');
  let templates;
  const look = () => (templates ||= JSON.parse(document.getElementById('look').textContent));

  const count = value => {
    for (const [size, suffix] of [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e3, 'K']])
      if (value >= size * 0.9995) return Number((value / size).toPrecision(3)) + suffix;
    return String(Number(value.toPrecision(3)));
  };
  const percent = value => Math.round(value * 1000) / 10 + ' %';
  const forms = {
    count: (value, most, usual) => count(usual * 10 ** value),
    share: ([low, high]) => (low === high ? percent(low) : percent(low) + ' to ' + percent(high)),
    guard: (value, most) => (value >= most ? 'no guard' : Math.round(value * 100) / 100 + ''),
    weight: value => Math.round(value * 100) / 100 + '',
    part: percent,
  };

  /* Sliders have no names of their own: give each handle its label and its value in words. */
  const each = (box, ends) => box.querySelectorAll('[role=slider]').forEach((handle, i, all) => {
    const which = all.length > 1 ? [', least', ', greatest'][i] : '';
    handle.setAttribute('aria-label', box.dataset.label + which);
    if (ends) handle.setAttribute('aria-valuetext', all.length > 1 ? percent(ends[i]) : ends);
  });
  const narrow = window.matchMedia('(max-width: 820px)');
  const name = () => {
    document.querySelectorAll('.group:not([data-seen])').forEach((group, i) => {
      group.dataset.seen = '1';
      if (narrow.matches && i) group.open = false;
    });
    document.querySelectorAll('.field').forEach(box => {
      if (box.querySelector('[role=slider]:not([aria-valuetext])')) {
        const text = box.querySelector('output').textContent;
        const now = [...box.querySelectorAll('[role=slider]')].map(h => Number(h.getAttribute('aria-valuenow')));
        each(box, now.length > 1 ? now : text || ' ');
      }
    });
    document.querySelectorAll('.choices button.dash-dropdown').forEach((b, i) => {
      if (b.tabIndex !== 0) b.tabIndex = 0;
      if (!b.hasAttribute('aria-label')) b.setAttribute('aria-label', ['task', 'phases of the axes'][i]);
    });
  };
  const ours = change => change.target.closest && change.target.closest('#aside, #choices');
  new MutationObserver(changes => changes.some(c => ours(c) || c.target.id === '_dash-app-content') && name())
    .observe(document, {childList: true, subtree: true});
  dark.addEventListener('change', () => {
    draw(drawn, true);
    document.querySelectorAll('.plot[data-drawn]').forEach(p => window.Plotly.relayout(p, {template: look()[mode()]}));
  });

  /* Figures are drawn here and not by dcc.Graph, and answers as they arrive, before Dash takes note of them: it looks
     through the whole page for each of the many stores and inputs. What is drawn already stays. */
  const drawn = {}, texts = {};
  function draw(figures, anew) {
    for (const [name, figure] of Object.entries(figures || {})) {
      const text = JSON.stringify(figure);  // plotly adds to the figure itself, for instance what is selected
      if (!anew && texts[name] === text) continue;
      const box = document.getElementById('figure-' + name);
      if (!box) continue;
      drawn[name] = figure;
      texts[name] = text;
      box.style.display = figure ? '' : 'none';
      if (!figure) continue;
      box.style.height = figure.layout.height + 'px';
      window.Plotly.react(box, figure.data, {...figure.layout, template: look()[mode()]},
        {displaylogo: false, displayModeBar: false, responsive: true});
      if (name === 'runs' && !box.dataset.brushed) {  // dots that are brushed choose the rows of the table
        box.dataset.brushed = '1';
        const brush = data => window.dash_clientside.set_props('brush', {data});
        box.on('plotly_selected', e => e && (e.range || e.lassoPoints) && brush(e.points.filter(p => p.curveNumber === 0).map(p => p.pointNumber)));
        box.on('plotly_deselect', () => brush(null));
      }
    }
  }
  /* Plots of the report come as boxes with their figure in a script behind them; folded ones are drawn when opened. */
  function drawParts(root) {
    root.querySelectorAll('.plot + script').forEach(script => {
      const box = script.previousElementSibling;
      if (box.dataset.drawn || box.closest('details:not([open])')) return;
      const figure = JSON.parse(script.textContent);
      box.dataset.drawn = '1';
      window.Plotly.newPlot(box, figure.data, {...figure.layout, template: look()[mode()]},
        {displaylogo: false, displayModeBar: false, responsive: true});
    });
  }
  document.addEventListener('toggle', event => event.target.open && drawParts(event.target), true);
  function show(shown) {
    for (const [name, html] of Object.entries(shown.parts)) {
      const box = document.getElementById(name);
      box.innerHTML = html;
      drawParts(box);
      if (box.className === 'sorted') sortable(box);
    }
    for (const [name, words] of Object.entries(shown.classes)) document.getElementById(name).className = words;
    draw(shown.figures);
  }
  /* Heads of a table are buttons that sort it: by number where cells begin with one, the other way round when pressed again. */
  const number = text => Number.parseFloat(text) * ({K: 1e3, M: 1e6, B: 1e9, T: 1e12}[text.match(/^[\d.]+([KMBT])$/)?.[1]] || 1);
  function sortable(box) {
    box.querySelectorAll('thead th').forEach((head, column) => {
      const button = document.createElement('button');
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.onclick = () => {
        const body = box.querySelector('tbody'), text = row => row.cells[column].textContent;
        const up = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
        box.querySelectorAll('th').forEach(h => h.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', up > 0 ? 'ascending' : 'descending');
        body.append(...[...body.rows].sort((a, b) =>
          up * (number(text(a)) - number(text(b)) || text(a).localeCompare(text(b)))));
      };
    });
  }
  let newest, plane, moves = 0, timer;
  /* How far a search has come, from its beginning until its answer or the next move. */
  function follow(session) {
    clearInterval(timer);
    if (session) timer = setInterval(async () => {
      const share = await (await fetch('progress/' + session)).text(), state = document.getElementById('state');
      if (timer && state.textContent.startsWith('looking')) state.textContent = 'looking for the best recipe … ' + share;
    }, 300);
    else timer = 0;
  }
  const moved = payload => payload.output.includes('search.data');

  async function picture() {
    const study = document.querySelector('h1').textContent, date = new Date().toISOString().slice(0, 10);
    const sentence = study + ', ' + date + ': ' + document.getElementById('sentence').textContent;
    const title = plot => (plot.closest('#pinned-box') || plot.closest('section')).querySelector('h2').textContent;
    const plots = [...document.querySelectorAll('.plot.js-plotly-plot')].filter(p => p.offsetParent && p.data.length);
    const style = getComputedStyle(document.body);
    const column = 620, gap = 44, head = 80, scale = 2, ends = [head + gap, head + gap];
    const places = plots.map(p => {  // two columns; the next plot goes where there is most room
      const i = ends[0] <= ends[1] ? 0 : 1, y = ends[i];
      ends[i] += p.clientHeight + gap;
      return [gap + i * (column + gap), y];
    });
    const columns = plots.length > 1 ? 2 : 1, width = columns * (column + gap) - gap;
    const canvas = document.createElement('canvas');
    canvas.width = scale * (width + 2 * gap);
    canvas.height = scale * Math.max(...ends);
    const pen = canvas.getContext('2d');
    pen.scale(scale, scale);
    pen.fillStyle = style.backgroundColor;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = style.color;
    pen.font = '600 14px ' + style.fontFamily;
    let line = '', y = 28;
    for (const word of (sentence || '').split(' ')) {
      if (pen.measureText(line + word).width > width) { pen.fillText(line, gap, y); line = ''; y += 19; }
      line += word + ' ';
    }
    pen.fillText(line, gap, y);
    for (const [i, plot] of plots.entries()) {
      const image = new Image(), [x, top] = places[i];
      image.src = await window.Plotly.toImage(plot, {format: 'png', width: column, height: plot.clientHeight, scale});
      await image.decode();
      pen.font = '600 15px ' + style.fontFamily;
      pen.fillText(title(plot), x, top - 12);
      pen.drawImage(image, x, top, column, plot.clientHeight);
    }
    const link = document.createElement('a');
    link.download = study + ' ' + date + '.png';
    link.href = canvas.toDataURL('image/png');
    link.click();
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {mixlaw: {
    say(values, drags, ids, mosts) {  // all sliders in one call: with one for each, 256 took Dash more than a minute
      const triggered = window.dash_clientside.callback_context.triggered.map(t => t.prop_id);
      const dragged = new Set(triggered.filter(t => t.endsWith('.drag_value')).map(t => JSON.parse(t.slice(0, -11)).name));
      const boxes = new Map([...document.querySelectorAll('.field')].map(box => [box.dataset.name, box]));
      ids.forEach((id, i) => {
        const box = boxes.get(id.name), drag = drags[i], value = values[i];
        const now = dragged.has(id.name) && drag !== undefined && drag !== null ? drag : value;
        if (!box || now === undefined || now === null) return;
        const text = forms[box.dataset.kind](now, mosts[i], Number(box.dataset.usual));
        each(box, Array.isArray(now) ? now : text);
        box.querySelector('output').textContent = text;
      });
      if (triggered.some(t => t.endsWith('.value'))) document.getElementById('state').textContent = 'redrawing …';
    },
    asked(payload) {  // moves are numbered here: requests may overtake each other on the way to the server
      if (payload.output === 'landscape.data') plane = payload;
      if (!moved(payload)) return;
      newest = payload;
      follow();
      payload.state.flat().find(state => state.id === 'move').value = ++moves;
    },
    answered(payload, {shown, query, search, first, explored, landscape}) {
      if (explored) show(explored.data);
      if (landscape && payload === plane) show(landscape.data);
      if (!shown || (moved(payload) && payload !== newest)) return;  // sliders have moved on
      show(shown.data);
      const session = (payload.state || []).flat().find(state => state.id === 'session');
      if (moved(payload) && search) follow(session.value);
      else if (payload.output.includes('best.data') && !first?.data) follow();
      if (query) window.history.replaceState(window.history.state, '', window.location.pathname + query.data);
    },
    balance(values, ids, hand) {  // one share of a phase was moved: the others keep their proportions
      const no = window.dash_clientside.no_update, names = ids.map(id => id.name), grid = x => Math.round(x * 1000) / 1000;
      const at = hand ? names.findIndex((name, i) => Math.abs(values[i] - hand[name]) > 6e-4) : -1;
      if (at < 0) return [values.map(() => no), no];
      const place = names[at].split(':')[0], others = names.filter((n, i) => i !== at && n.split(':')[0] === place);
      const rest = others.reduce((sum, n) => sum + hand[n], 0), most = place === 'recipe' ? 0.99 : 1;
      const share = place === 'recipe' ? Math.min(Math.max(values[at], 0.01), most) : values[at];
      const now = {...hand, [names[at]]: share};
      for (const n of others) now[n] = (1 - share) * (rest > 1e-9 ? hand[n] / rest : 1 / others.length);
      return [names.map((n, i) => (values[i] === grid(now[n]) ? no : grid(now[n]))), now];
    },
    pinned(pins) {
      const names = Object.keys(pins || {});
      return [names, names];
    },
    mode: value => value,
    tab(value) {  // plots do not follow the width of the page while they are hidden
      setTimeout(() => document.querySelectorAll('.plot.js-plotly-plot').forEach(
        plot => plot.offsetParent && window.Plotly.Plots.resize(plot)));
      return value;
    },
    picture(clicks) {
      if (clicks) picture();
      return String(clicks);
    },
  }});
})();
